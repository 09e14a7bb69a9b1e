"""A sealed folder opens whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import Tampered
from modelyard.security.seal import open_sealed, read_sealed, seal

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
FILES = {"model.onnx": b"\x08\x07" * 50, "card/card.json": b"{}", "signature.json": b"[]"}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return lay(tmp_path / "bundle", seal(FILES, KEY))


def upper(signed: str) -> str:
    """Return a signature in other letters, which are the same number."""
    return re.sub(r"[0-9a-f]{64,}", lambda found: found[0].upper(), signed)


def refused(folder: Path, trusted: list[bytes] | None = None) -> Tampered:
    with pytest.raises(Tampered) as caught:
        open_sealed(folder, [PUBLIC] if trusted is None else trusted)
    return caught.value


def test_opens_what_was_sealed(sealed: Path) -> None:
    manifest = open_sealed(sealed, [PUBLIC])
    assert dict(manifest.files) == {name: digest_bytes(FILES[name]) for name in sorted(FILES)}
    assert list(manifest.files) == sorted(FILES)
    assert manifest.digest == digest_bytes((sealed / "manifest.json").read_bytes())
    assert manifest.signer == PUBLIC.hex()
    assert read_sealed(sealed, "model.onnx", manifest) == FILES["model.onnx"]


def test_equal_files_and_key_give_equal_bytes() -> None:
    assert seal(FILES, KEY) == seal(dict(reversed(list(FILES.items()))), KEY)


@given(st.data())
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = seal(FILES, KEY)
    name = data.draw(st.sampled_from(sorted(whole)))
    at = data.draw(st.integers(0, len(whole[name]) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(whole[name])
    changed[at] ^= flip
    folder = lay(tmp_path_factory.mktemp("b"), {**whole, name: bytes(changed)})
    error = refused(folder)
    if name in FILES:
        assert (error.code, error.problem.where) == ("bundle-tampered", name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda b: (b / "model.onnx").unlink(), "model.onnx"),
        (lambda b: (b / "extra.pkl").write_bytes(b"x"), "extra.pkl"),
        (lambda b: (b / "card" / "extra.pkl").write_bytes(b"x"), "card/extra.pkl"),
        (lambda b: (b / "empty").mkdir(), "empty"),
        (lambda b: (b / "manifest.json").unlink(), "manifest.json"),
        (lambda b: (b / "manifest.sig").write_bytes(b"not json"), "manifest.sig"),
        (lambda b: (b / "manifest.sig").write_text(upper((b / "manifest.sig").read_text())), "manifest.sig"),
        (lambda b: (b / "manifest.json").write_bytes((b / "manifest.json").read_bytes() + b" "), "manifest.json"),
    ],
)
def test_refused_and_named(sealed: Path, change: Callable[[Path], object], named: str) -> None:
    change(sealed)
    error = refused(sealed)
    assert (error.code, error.problem.where) == ("bundle-tampered", named)


@pytest.mark.parametrize("name", ["model.onnx", "card", "manifest.json", "manifest.sig", "extra"])
def test_link_is_refused_even_to_equal_bytes(sealed: Path, tmp_path: Path, name: str) -> None:
    if (sealed / name).exists():
        (sealed / name).rename(tmp_path / "moved")
    else:
        (tmp_path / "moved").write_bytes(b"x")
    (sealed / name).symlink_to(tmp_path / "moved")
    assert refused(sealed).code == "bundle-tampered"


def test_unsigned_and_untrusted(sealed: Path) -> None:
    assert refused(sealed, []).code == "bundle-untrusted-signer"
    assert refused(sealed, [OTHER.public_key().public_bytes_raw()]).code == "bundle-untrusted-signer"
    (sealed / "manifest.sig").unlink()
    assert refused(sealed).code == "bundle-unsigned"


def test_signers_name_without_their_signature_is_tampering(sealed: Path) -> None:
    forged = json.loads(seal(FILES, OTHER)["manifest.sig"])
    forged["signer"] = PUBLIC.hex()
    (sealed / "manifest.sig").write_text(json.dumps(forged))
    assert refused(sealed).code == "bundle-tampered"


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "", "a//b", "./a", "a\\b", "a\0b", "c:x"])
def test_path_cannot_leave_the_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="not a path inside a bundle"):
        seal({name: b""}, KEY)
    # A signer who is trusted and lies is refused as well.
    with monkeypatch.context() as patched:
        patched.setattr("modelyard.security.seal._inside", lambda _: True)
        whole = seal({name: b""}, KEY)
    folder = lay(tmp_path / "b", {k: v for k, v in whole.items() if k.startswith("manifest")})
    assert refused(folder).code == "bundle-tampered"


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
def test_own_names_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match="manifest"):
        seal({name: b""}, KEY)


def test_change_between_opening_and_reading_is_found(sealed: Path) -> None:
    manifest = open_sealed(sealed, [PUBLIC])
    (sealed / "model.onnx").write_bytes(b"other")
    with pytest.raises(Tampered, match=r"model\.onnx"):
        read_sealed(sealed, "model.onnx", manifest)
    with pytest.raises(Tampered, match="not part"):
        read_sealed(sealed, "../outside", manifest)
