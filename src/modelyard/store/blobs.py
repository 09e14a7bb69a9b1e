"""Bytes and folders under the digest of their content, as plain files."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from modelyard._kit.digest import digest_bytes, short
from modelyard._kit.errors import NotFound, Tampered, UserError
from modelyard._kit.files import sync, write_atomic
from modelyard.store.disk import explained

__all__ = ["FolderBlobs"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_READ_ONLY = 0o444


class FolderBlobs:
    """Blobs as files `ab/cdef...`, folders as `folders/ab/cdef...`, all files read-only.

    The folders themselves stay writable, so that a person can still delete `.modelyard` as any other folder;
    what guards the content is its digest.

    Args:
        root: Folder that holds them; made at first use.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest; storing them again is free."""
        digest = digest_bytes(data)
        path = self._path(digest)
        with explained(path):
            # A file of another size is not what was stored: it is put right.
            if not path.is_file() or path.stat().st_size != len(data):
                write_atomic(path, data, mode=_READ_ONLY)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: There is no such blob.
            Tampered: The stored bytes have another digest.
        """
        path = self._path(digest)
        try:
            with explained(path):
                data = path.read_bytes()
        except FileNotFoundError:
            raise _not_found("blob", digest) from None
        if digest_bytes(data) != digest:
            raise Tampered(
                "blob-changed",
                f"the bytes of blob `{short(digest)}` were changed after they were stored",
                where=str(path),
                hint="delete the file and run again: what made it makes it again",
            )
        return data

    def put_folder(self, address: str, files: Mapping[str, bytes]) -> Path:
        """Store files as one folder; it appears whole or not at all, and one that is there and whole is kept.

        Args:
            address: Digest that the folder is found under.
            files: Relative path with `/` -> bytes.

        Raises:
            UserError: A path leaves the folder.
        """
        target = self._folder(address)
        names = {name: _inside(name) for name in files}
        if target.is_dir():
            if all(_holds(target / name, files[key]) for key, name in names.items()):
                return target
            # Somebody changed it: what made it has made it again.
            shutil.rmtree(target)
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        with explained(target):
            try:
                part.mkdir(parents=True)
                for name, data in files.items():
                    write_atomic(part / names[name], data, mode=_READ_ONLY)
                part.rename(target)
                sync(target.parent)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                # Another process stored the same folder first.
                if not target.is_dir():
                    raise
        return target

    def folder(self, address: str) -> Path:
        """Return the folder stored under `address`.

        Raises:
            NotFound: There is no such folder.
        """
        path = self._folder(address)
        if not path.is_dir():
            raise _not_found("folder", address)
        return path

    def _path(self, digest: str, noun: str = "blob") -> Path:
        # Also keeps `../` out of paths: an address may come from outside.
        if not _DIGEST.fullmatch(digest):
            raise _not_found(noun, digest)
        return self._root / digest[:2] / digest[2:]

    def _folder(self, address: str) -> Path:
        path = self._path(address, "folder")
        return self._root / "folders" / path.parent.name / path.name


def _not_found(noun: str, digest: str) -> NotFound:
    return NotFound(
        f"{noun}-not-found", f"no {noun} `{short(digest)}` in this store", hint="run again: what made it makes it again"
    )


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError("blob-bad-path", f"`{name}` is not a path inside the folder", hint="give a relative path")
    return path
