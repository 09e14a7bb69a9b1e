"""Sealed folders: every byte is listed in a manifest, and the manifest is signed.

`manifest.json` maps each file to its SHA-256; `manifest.sig` names the signer's public key and holds the
Ed25519 signature over the manifest's bytes. Whoever opens the folder says whom to trust.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from modelyard._kit.digest import canonical, digest_bytes
from modelyard._kit.errors import Tampered

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["FORMAT", "MANIFEST", "SIGNATURE", "Manifest", "open_sealed", "read_sealed", "seal"]

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"

# A signature made for a manifest is worth nothing for any other text that the key may ever sign.
_PURPOSE = b"modelyard manifest\n"
_CHUNK = 1 << 20
_HEX = frozenset("0123456789abcdef")


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    files: dict[str, str]


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signer: str
    signature: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a sealed folder holds, once signature and every byte were found right.

    Attributes:
        files: Relative path -> SHA-256, sorted.
        digest: SHA-256 of the manifest itself: the address of the folder.
        signer: Public key of the signer, 64 hex digits.
        format: Format of the manifest.
    """

    files: Mapping[str, str]
    digest: str
    signer: str
    format: int = FORMAT


def seal(files: Mapping[str, bytes], key: Ed25519PrivateKey) -> dict[str, bytes]:
    """Return the files with `manifest.json` and `manifest.sig` added; equal files and key give equal bytes.

    Args:
        files: Relative path with `/` -> content.
        key: Key that signs.

    Raises:
        ValueError: A path is absolute, climbs out of the folder, or is a name of the seal's own.
    """
    for name in files:
        if not _inside(name):
            raise ValueError(f"not a path inside a bundle: {name!r}")
    listed = canonical({"format": FORMAT, "files": {name: digest_bytes(files[name]) for name in sorted(files)}})
    signed = {
        "signer": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(_PURPOSE + listed).hex(),
    }
    return {**files, MANIFEST: listed, SIGNATURE: canonical(signed)}


def open_sealed(folder: Path, trusted: Collection[bytes]) -> Manifest:
    """Check a sealed folder to the last byte and return its manifest.

    Args:
        folder: The folder.
        trusted: Public keys (32 bytes each) of the signers that are believed.

    Raises:
        Tampered: It is not signed (`bundle-unsigned`), not by a trusted key (`bundle-untrusted-signer`), or a
            file differs, is missing, is extra or is a link (`bundle-tampered`, naming the file).
    """
    listed, signer = _signed_bytes(folder, trusted)
    manifest = _parse(listed, signer)
    found = set(_walk(folder, manifest.files))
    for name, digest in manifest.files.items():
        if name not in found:
            raise _tampered(name, "is missing")
        if _digest(folder, name) != digest:
            raise _tampered(name, "was changed after the bundle was signed")
    return manifest


def read_sealed(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Return one file's bytes, checked as they are read: what was checked is what is used.

    Raises:
        Tampered: The file is not in the manifest, is missing, or differs (`bundle-tampered`).
    """
    if name not in manifest.files:
        raise _tampered(name, "is not part of the bundle")
    with _open(folder, name) as f:
        data = f.read()
    if digest_bytes(data) != manifest.files[name]:
        raise _tampered(name, "was changed after the bundle was signed")
    return data


def _signed_bytes(folder: Path, trusted: Collection[bytes]) -> tuple[bytes, str]:
    """Return the manifest's bytes and their signer, believed only after the signature holds."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not os.path.lexists(folder / SIGNATURE):
        raise Tampered(
            "bundle-unsigned",
            f"the bundle has no `{SIGNATURE}`",
            where=SIGNATURE,
            hint="ask for a bundle made by `modelyard run`, which signs what it makes",
        )
    with _open(folder, SIGNATURE) as f:
        raw = f.read(_CHUNK)
    try:
        signed = msgspec.json.decode(raw, type=_Signed)
        signer, signature = bytes.fromhex(signed.signer), bytes.fromhex(signed.signature)
        # The same number in other letters is another file than the one that was sealed.
        if (signer.hex(), signature.hex()) != (signed.signer, signed.signature):
            raise ValueError("not as we write it")
    except (ValueError, msgspec.DecodeError):
        raise _tampered(SIGNATURE, "is not a signature") from None
    with _open(folder, MANIFEST) as f:
        listed = f.read()
    if signer not in trusted:
        raise Tampered(
            "bundle-untrusted-signer",
            f"the bundle is signed by `{signer.hex()[:16]}`, whom this project does not trust",
            where=SIGNATURE,
            hint="if you know the signer, put their `signing.pub` into .modelyard/keys/trusted/ as NAME.pub",
        )
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, _PURPOSE + listed)
    except (InvalidSignature, ValueError):
        raise _tampered(MANIFEST, "does not match its signature") from None
    return listed, signer.hex()


def _parse(listed: bytes, signer: str) -> Manifest:
    try:
        content = msgspec.json.decode(listed, type=_Listed)
    except msgspec.DecodeError:
        raise _tampered(MANIFEST, "is not a manifest") from None
    if content.format != FORMAT:
        raise _tampered(MANIFEST, f"has format {content.format}; this version of Modelyard reads {FORMAT}")
    for name, digest in content.files.items():
        if not _inside(name):
            raise _tampered(name, "lies outside the bundle")
        if len(digest) != 64 or not _HEX.issuperset(digest):
            raise _tampered(name, "has no SHA-256 in the manifest")
    return Manifest(files=content.files, digest=digest_bytes(listed), signer=signer, format=content.format)


def _inside(name: str) -> bool:
    """Whether a path is relative, plain and cannot leave the folder."""
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and ":" not in name
    return plain and name not in (MANIFEST, SIGNATURE) and all(part not in ("", ".", "..") for part in parts)


def _walk(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Yield the listed files that are there; refuse whatever is not listed, and every link."""
    folders = {"/".join(parts[:n]) for parts in (name.split("/") for name in files) for n in range(1, len(parts))}
    left = [""]
    while left:
        here = left.pop()
        with os.scandir(folder / here) as entries:
            for entry in entries:
                name = f"{here}/{entry.name}" if here else entry.name
                if entry.is_symlink():
                    raise _tampered(name, "is a link; a bundle holds plain files only")
                if entry.is_dir(follow_symlinks=False) and name in folders:
                    left.append(name)
                elif entry.is_file(follow_symlinks=False) and name in files:
                    yield name
                elif name not in (MANIFEST, SIGNATURE):
                    raise _tampered(name, "is not part of the bundle")


def _open(folder: Path, name: str) -> BinaryIO:
    """Open a plain file of the folder for reading; a link or a device is refused."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise _tampered(name, "is missing") from None
    except OSError:
        raise _tampered(name, "cannot be read as a plain file") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _tampered(name, "is not a plain file")
    return os.fdopen(handle, "rb")


def _digest(folder: Path, name: str) -> str:
    h = hashlib.sha256()
    with _open(folder, name) as f:
        while chunk := f.read(_CHUNK):
            h.update(chunk)
    return h.hexdigest()


def _tampered(name: str, what: str) -> Tampered:
    return Tampered(
        "bundle-tampered",
        f"`{name}` {what}",
        where=name,
        hint="do not use this bundle; take a fresh copy from where it was made",
    )
