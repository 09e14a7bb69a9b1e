"""The signing key of a project and the keys it trusts.

.modelyard/keys/            0700
    signing.key             0600, Ed25519, PKCS 8 PEM, made at first use
    signing.pub             its public half, PEM; hand this file to whoever should trust the project
    trusted/*.pub           public keys of others whose bundles this project opens
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import UserError
from modelyard._kit.files import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["keys_folder", "own_folder", "public_key", "read_private", "signing_key", "trusted_keys"]

_MOST = 1 << 20  # no key file is larger


def keys_folder(root: Path) -> Path:
    """Return the folder of keys; `root` is the folder of the project."""
    return root / ".modelyard" / "keys"


def signing_key(root: Path) -> Ed25519PrivateKey:
    """Return the project's signing key; make it if this is the first use.

    Two processes that make it at once end with the same key: the file appears whole, and only once.

    Raises:
        UserError: Others may read the key (`key-permissions`), or the file is no Ed25519 key (`key-unreadable`).
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    folder = own_folder(root)
    path = folder / "signing.key"
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _create_once(path, pem)
    key = _parse_private(path)
    pub = folder / "signing.pub"
    if not pub.exists():
        write_atomic(pub, _public_pem(key.public_key()))
    return key


def public_key(root: Path) -> bytes:
    """Return the 32 bytes of the project's public key; make the key if this is the first use."""
    return _raw(signing_key(root).public_key())


def trusted_keys(root: Path) -> list[bytes]:
    """Return the public keys whose bundles the project opens: its own first, then `keys/trusted/*.pub`.

    Makes nothing, and does not read the private key where its public half lies beside it.

    Raises:
        UserError: Others may write a file that says whom to trust, or it is no Ed25519 public key.
    """
    folder = keys_folder(root)
    found: list[bytes] = []
    if (folder / "signing.pub").exists():
        found.append(_parse_public(folder / "signing.pub"))
    elif (folder / "signing.key").exists():
        found.append(_raw(_parse_private(folder / "signing.key").public_key()))
    others = folder / "trusted"
    if others.is_dir():
        _narrow(others, others.stat(), 0o022, "chmod 700")
        found.extend(_parse_public(path) for path in sorted(others.glob("*.pub")))
    return list(dict.fromkeys(found))


def own_folder(root: Path) -> Path:
    """Return the folder of keys, made with mode 0700 if missing.

    Raises:
        UserError: Others may write in it (`key-permissions`).
    """
    folder = keys_folder(root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # whatever the umask is
    except FileExistsError:
        _narrow(folder, folder.stat(), 0o022, "chmod 700")
    return folder


def read_private(path: Path) -> bytes:
    """Return a secret file's bytes; the permissions checked are those of the very file that is read.

    Raises:
        UserError: Anybody but the owner may read or write it (`key-permissions`).
        FileNotFoundError: There is no such file.
    """
    with path.open("rb") as f:
        _narrow(path, os.fstat(f.fileno()), 0o077, "chmod 600")
        return f.read(_MOST)


def _narrow(path: Path, found: os.stat_result, forbidden: int, cure: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        verb = "read" if forbidden & 0o044 else "change"
        message = f"others may {verb} `{path}` (mode {mode:04o})"
        raise UserError("key-permissions", message, where=str(path), hint=f"{cure} {path}")


def _create_once(path: Path, data: bytes) -> None:
    """Write a file whole with mode 0600 unless it exists by now; a link fails where a rename would replace."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        write_atomic(part, data, mode=0o600)
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        part.unlink(missing_ok=True)


def _parse_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = read_private(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise _unreadable(path, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unreadable(path, "private")
    return key


def _parse_public(path: Path) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    with path.open("rb") as f:
        _narrow(path, os.fstat(f.fileno()), 0o022, "chmod 644")
        pem = f.read(_MOST)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError):
        raise _unreadable(path, "public") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _unreadable(path, "public")
    return _raw(key)


def _unreadable(path: Path, half: str) -> UserError:
    return UserError(
        "key-unreadable",
        f"`{path}` is not an Ed25519 {half} key in PEM",
        where=str(path),
        hint="restore the file from a backup, or move it away",
    )


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes_raw()


def _public_pem(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
