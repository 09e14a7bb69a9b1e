"""Files that are either whole or not there, also after a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from modelyard._kit.errors import UserError, near

__all__ = ["check_folder", "sync", "write_atomic"]


def check_folder(output: Path) -> None:
    """Refuse an output whose folder is not there: it is more often misspelt than meant to be made.

    Args:
        output: File or folder that a user names.

    Raises:
        UserError: There is no such folder (`output-folder`).
    """
    folder = output.parent
    if folder.is_dir():
        return
    others = (path.name for path in folder.parent.iterdir() if path.is_dir()) if folder.parent.is_dir() else ()
    close = near(folder.name, others)
    raise UserError(
        "output-folder",
        f"there is no folder `{folder}`" + (f"; did you mean `{folder.with_name(close[0])}`?" if close else ""),
        where=str(output),
        hint=f"make it (mkdir -p {folder}), or name another output",
    )


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part.

    Args:
        path: Target; its folder is made if missing.
        data: The whole content.
        mode: Permission bits, set before the content is visible.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(*paths: Path) -> None:
    """Have the disk hold files, and what folders list, even after a power cut."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
