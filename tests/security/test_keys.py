"""The signing key appears once, whole and private."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelyard._kit.errors import UserError
from modelyard.security.keys import public_key, signing_key, trusted_keys


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first = public_key(tmp_path)
    finally:
        os.umask(old)
    keys = tmp_path / ".modelyard" / "keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert (keys / "signing.key").stat().st_mode & 0o777 == 0o600
    assert public_key(tmp_path) == first == signing_key(tmp_path).public_key().public_bytes_raw()
    assert sorted(p.name for p in keys.iterdir()) == ["signing.key", "signing.pub"]


def test_eight_processes_at_once_end_with_one_key(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from modelyard.security.keys import public_key; sys.stdin.read(1);"
        "print(public_key(pathlib.Path(sys.argv[1])).hex())"
    )
    procs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    for proc in procs:
        assert proc.stdin is not None
        proc.stdin.write(b"x")
        proc.stdin.close()
    seen = set()
    for proc in procs:
        assert proc.stdout is not None
        seen.add(proc.stdout.read())
        proc.stdout.close()
        assert proc.wait(60) == 0
    assert len(seen) == 1
    assert not list((tmp_path / ".modelyard" / "keys").glob(".*"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    signing_key(tmp_path)
    path = tmp_path / ".modelyard" / "keys" / "signing.key"
    path.chmod(mode)
    with pytest.raises(UserError) as caught:
        signing_key(tmp_path)
    assert caught.value.code == "key-permissions"
    assert f"chmod 600 {path}" in caught.value.problem.hint


def test_folder_that_others_may_change_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path)
    (tmp_path / ".modelyard" / "keys").chmod(0o777)
    with pytest.raises(UserError, match="key-permissions"):
        signing_key(tmp_path)


def test_broken_key_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path)
    (tmp_path / ".modelyard" / "keys" / "signing.key").write_text("not a key")
    with pytest.raises(UserError, match="key-unreadable"):
        signing_key(tmp_path)


def test_trusted_keys_are_ones_own_and_the_folder(tmp_path: Path) -> None:
    assert trusted_keys(tmp_path) == []
    assert not (tmp_path / ".modelyard").exists()
    mine, other = public_key(tmp_path), public_key(tmp_path / "other")
    assert trusted_keys(tmp_path) == [mine]
    folder = tmp_path / ".modelyard" / "keys" / "trusted"
    folder.mkdir()
    pub = folder / "other.pub"
    pub.write_bytes((tmp_path / "other" / ".modelyard" / "keys" / "signing.pub").read_bytes())
    pub.chmod(0o644)
    assert trusted_keys(tmp_path) == [mine, other]
    pub.chmod(0o666)
    with pytest.raises(UserError, match="key-permissions"):
        trusted_keys(tmp_path)


def test_own_key_is_trusted_without_its_public_file(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    (tmp_path / ".modelyard" / "keys" / "signing.pub").unlink()
    assert trusted_keys(tmp_path) == [key.public_key().public_bytes_raw()]
    assert isinstance(key, Ed25519PrivateKey)
