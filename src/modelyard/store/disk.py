"""Say what a full disk, a read-only folder or a broken ledger file means for the user, and what to do."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard._kit.errors import Busy, ModelyardError, Tampered, UserError

__all__ = ["check_writable", "explain", "explained", "no_space", "refused"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_FREE = "free some space, then run the same command again"
_MEND = "mend what the system says, then run the same command again"
_OTHER = "give this user the right to write there, or name another file"
_COPY = "give this user the right to write there, or copy the project to a folder that can be written"
# What SQLite says where it finds no room for the memory that processes share, or the system none for what it wrote:
# of these alone nobody can tell a full disk from a broken one.
_PERHAPS_FULL = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_WRITE,
}
# Twice what SQLite wants of that memory at once.
_LITTLE = 65_536
# What is written beside a file until it is whole.
_UNFINISHED = re.compile(r"\.(.+?)(?:\.[0-9a-f]{8})?\.(?:part|scoring)")


def explain(error: BaseException, path: Path) -> ModelyardError | None:
    """Return the error to show for what the system, SQLite, Polars or Delta raised; none if it is not of the disk.

    Args:
        error: What was raised.
        path: What was being read or written.
    """
    if full := no_space(error, path):
        return full
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error, path)
    if isinstance(error, OSError) and error.errno is not None:
        named = _meant(error.filename) if isinstance(error.filename, str) else None
        if error.errno in _NOT_WRITABLE and _of(named, path):
            return _not_writable(named or path, error.strerror)
    # Polars and Delta keep the number of the system's error only in their text.
    if any(f"(os error {number})" in str(error) for number in _FULL):
        return _full(path)
    return None


def no_space(error: BaseException, path: Path) -> UserError | None:
    """Return the error to show where the system or SQLite found no space left; none where it was something else.

    Args:
        error: What was raised.
        path: What was being read or written.
    """
    if isinstance(error, sqlite3.Error):
        # Some errors of Python's own module (a closed connection) carry no code.
        code = getattr(error, "sqlite_errorcode", 0)
        full = code & 0xFF == sqlite3.SQLITE_FULL or (code in _PERHAPS_FULL and _is_full(path.parent))
    else:
        full = isinstance(error, OSError) and error.errno in _FULL
    return _full(path) if full else None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise the explanation of whatever goes wrong with the disk inside; other errors pass unchanged."""
    try:
        yield
    except ModelyardError:
        raise
    except Exception as error:
        better = explain(error, path)
        if better is None:
            raise
        raise better from error


def refused(error: OSError, *, unnamed: str) -> UserError:
    """Return the error to show for what the system refused and nobody explained.

    Args:
        error: What was raised.
        unnamed: What it is about where the system names no file.
    """
    named = _meant(error.filename) if isinstance(error.filename, str) else None
    project = named is not None and ".modelyard" in named.parts
    if named is not None and project:
        named = Path(*named.parts[: named.parts.index(".modelyard")])
    shown = f"the project in `{named.resolve()}`" if named and project else f"`{named}`" if named else unnamed
    why = error.strerror or str(error)
    if error.errno in _FULL:
        return UserError("disk-full", f"no space left on the disk of {shown}", hint=_FREE)
    if error.errno in _NOT_WRITABLE and (error.errno == errno.EROFS or named is None or _may_read(named)):
        hint = _COPY if project else _OTHER
        return UserError("store-not-writable", f"{shown} cannot be written: {why}", hint=hint)
    return UserError("system", f"{shown}: {why}", hint=_MEND)


def check_writable(folder: Path) -> None:
    """Raise `store-not-writable` if this user may not make files in the folder."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _not_writable(folder)


def _is_full(folder: Path) -> bool:
    """Whether this user cannot write a little more there: free space alone tells of no quota and no lack of inodes."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_LITTLE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in _FULL
    return False


def _of(named: Path | None, path: Path) -> bool:
    """Whether an error about a file is about `path`: a step reads the user's own files meanwhile."""
    return named is None or path.is_relative_to(named) or named.is_relative_to(path)


def _may_read(path: Path) -> bool:
    return os.access(path if path.exists() else path.parent, os.R_OK)


def _meant(filename: str) -> Path:
    """Return the file that is to be there in the end, for one that is written beside it until then."""
    path = Path(filename)
    for at, name in enumerate(path.parts):
        if unfinished := _UNFINISHED.fullmatch(name):
            return Path(*path.parts[:at], unfinished[1])
    return path


def _full(path: object) -> UserError:
    return UserError(
        "disk-full",
        f"no space left on the disk of `{path}`",
        hint=_FREE,
    )


def _not_writable(path: Path, why: str | None = None) -> UserError:
    # What stands elsewhere is an output that somebody has named.
    hint = _COPY if why is None or ".modelyard" in path.parts else _OTHER
    return UserError("store-not-writable", f"`{path}` cannot be written{f': {why}' if why else ''}", hint=hint)


def _of_sqlite(error: sqlite3.Error, path: Path) -> ModelyardError | None:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return _not_writable(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy("ledger-locked", f"another process is writing `{path}`", hint="try again when it is done")
        case sqlite3.SQLITE_IOERR:
            return UserError("system", f"`{path}`: {error}", hint=_MEND)
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return Tampered(
                "ledger-unreadable",
                f"`{path}` is not a ledger that can be read: {error}",
                hint="put back a copy of the file, or move `.modelyard` away and run again",
            )
    return None
