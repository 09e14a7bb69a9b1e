"""Files that are either whole or not there, also after a power cut."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from modelyard._kit.errors import UserError, near

__all__ = ["check_folder", "folders_for", "give", "sync", "target_of", "write_atomic", "write_named"]

# The system's names for what is open already, which may be a file.
_OPEN = re.compile(r"/dev/(?:stdout|stderr|fd/[^/]+)|/proc/.+/fd/[^/]+")
# Links that lead one to another; the system itself follows no more.
_LINKS = 40


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


@contextmanager
def folders_for(paths: Iterable[Path]) -> Iterator[None]:
    """Make the folders that files need; if what follows fails, the files that are new and these folders go again.

    Args:
        paths: The files.

    Raises:
        OSError: A folder cannot be made.
    """
    paths = list(paths)
    new = [path for path in paths if not os.path.lexists(path)]
    made: list[Path] = []
    try:
        for path in paths:
            for folder in reversed([one for one in path.parents if not one.exists()]):
                folder.mkdir(exist_ok=True)
                made.append(folder)
        yield
    except BaseException:
        with suppress(OSError):
            for path in new:
                path.unlink(missing_ok=True)
            for folder in reversed(made):
                folder.rmdir()  # unless somebody else has put something there
        raise


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, keep: bool = False) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part.

    Args:
        path: Target; its folder is made if missing.
        data: The whole content.
        mode: Permission bits, set before the content is visible.
        keep: Whether a file that is replaced hands on its own permission bits instead.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    before = _bits(path) if keep else None
    try:
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode if before is None else before)
        with os.fdopen(opened, "wb") as f:
            if before is not None:
                os.fchmod(f.fileno(), before)  # the umask is for what is new
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # Nobody knows the part, and of a full disk the system names no file at all.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def target_of(output: Path) -> Path:
    """Return what a user means by the name of an output: behind links, the file that they lead to.

    Args:
        output: File or folder that a user names; it may not be there yet.

    Raises:
        UserError: The links lead in a circle (`output-folder`).
    """
    if not output.is_symlink() or _straight(output):
        return output
    try:
        output.stat()
    except FileNotFoundError:
        pass  # it leads to what is not there yet
    except OSError as error:
        raise UserError(
            "output-folder",
            f"the link `{output}` leads nowhere: {error.strerror}",
            where=str(output),
            hint="mend the link, or name another output",
        ) from None
    return output.resolve()


def write_named(output: Path, data: bytes) -> None:
    """Write an output that a user names: a file is replaced as a whole, anything else is written into.

    A link stays, and the file that it leads to is replaced; who may read and write that file stays too.

    Args:
        output: File, link, pipe or device; of a file the folder has to be there.
        data: The whole content.

    Raises:
        OSError: It cannot be written.
        UserError: There is no such folder, or a link leads in a circle (`output-folder`).
    """
    check_folder(output)
    target = target_of(output)
    if _straight(target):
        with _opened(target) as file:
            file.write(data)
        return
    check_folder(target)
    write_atomic(target, data, keep=True)


def give(whole: Path, output: Path) -> None:
    """Put a file that is whole in the place of an output, or its content into what is no file; see `write_named`.

    Args:
        whole: A file beside the output; it is gone afterwards.
        output: From `target_of`.

    Raises:
        OSError: It cannot be written.
    """
    if not _straight(output):
        if (before := _bits(output)) is not None:
            whole.chmod(before)
        whole.replace(output)
        return
    with whole.open("rb") as content, _opened(output) as file:
        shutil.copyfileobj(content, file)
    whole.unlink()


def _straight(output: Path) -> bool:
    """Say whether a rename would put a file in the place of what is none: a pipe, a device, what is open already."""
    try:
        mode = output.stat().st_mode
    except OSError:
        return False
    if stat.S_ISREG(mode):
        return _open_already(output)
    return not stat.S_ISDIR(mode)


def _open_already(output: Path) -> bool:
    """Say whether a name, or a link on its way to a file, is the system's for what is open."""
    name = os.path.abspath(output)  # noqa: PTH100 - `Path.absolute` keeps `..`, and the others follow links
    for _ in range(_LINKS):
        if _OPEN.fullmatch(name):
            return True
        if not os.path.islink(name):  # noqa: PTH114 - it is text that is matched
            return False
        name = os.path.normpath(Path(name).parent / Path(name).readlink())
    return False


def _bits(path: Path) -> int | None:
    """Return who may read and write a file that is there."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return None


def _opened(output: Path) -> BinaryIO:
    # Nothing is made here, and what an open file holds already stays.
    return os.fdopen(os.open(output, os.O_WRONLY | os.O_APPEND), "wb")


def sync(*paths: Path) -> None:
    """Have the disk hold files, and what folders list, even after a power cut."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
