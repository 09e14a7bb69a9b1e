"""Parts of an output that a kill cannot harm: whole ones count, the output appears under its name when all are there.

    .NAME.before/             the output before, where a file system cannot exchange two folders: if the process dies
                              while neither is there under its name, the next one gives it back
    .NAME.scoring/            beside the output, on the same file system
        key.json              what is answered by what; another key begins anew
        part-00000-65536.csv  number and rows of a part that is whole; its bytes were on the disk before it got the name
        .part-*               what was being written when the process died

A part holds the same rows in every attempt, so the output has the same bytes however often it was interrupted.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard._kit.digest import digest_bytes, digest_file
from modelyard._kit.errors import Busy, DataError, UserError
from modelyard._kit.files import check_folder, give, write_atomic

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Kind", "Part", "Parts", "check_output", "kind_of", "write_frame"]

Kind = Literal["csv", "parquet", "jsonl", "folder"]

MANIFEST = "manifest.json"
_KEY = "key.json"
_NAME = re.compile(r"part-([0-9]{5,})-([0-9]+)\.[a-z]+")
_ENDINGS: Mapping[str, Kind] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
# Of renameat2(2) on Linux.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def kind_of(output: str) -> Kind:
    """Return what an output is by its name: a file of rows, or with a slash at its end a folder of Parquet parts.

    Raises:
        UserError: It is neither.
    """
    path = Path(output)
    if output.endswith("/") or (path / MANIFEST).is_file():
        return "folder"
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None or path.is_dir():
        raise UserError(
            "predict-output",
            f"`{output}` is no .csv, .parquet or .jsonl file, and no folder/",
            hint="name one with -o; a folder ends with `/` and gets Parquet parts and a manifest",
        )
    return kind


def check_output(output: Path, rows: Path | None) -> None:
    """Refuse an output that cannot be there, or that would replace what is read.

    Args:
        output: File or folder.
        rows: File or folder that is read; none where it is no file of the user's.

    Raises:
        UserError: Its folder is missing (`output-folder`), or it is, holds or lies in `rows` (`predict-output`).
    """
    check_folder(output)
    if rows is None:
        return
    into, of = output.resolve(), rows.resolve()
    if into == of or into in of.parents or of in into.parents or (output.exists() and output.samefile(rows)):
        raise UserError(
            "predict-output",
            f"`{output}` would be written where the rows themselves are",
            where=str(output),
            hint="name another output; the rows stay as they are",
        )


def write_frame(frame: pl.DataFrame, path: Any, kind: Kind, *, header: bool = True) -> None:
    """Write rows to a file or an open one.

    Raises:
        DataError: CSV cannot hold a column.
    """
    import polars as pl

    try:
        if kind == "csv":
            frame.write_csv(path, include_header=header)
        elif kind == "jsonl":
            frame.write_ndjson(path)
        else:
            frame.write_parquet(path)
    except pl.exceptions.PolarsError as error:
        if "os error" in str(error):
            raise  # the disk, not the rows
        raise DataError(
            "predict-output", f"the rows cannot be written as {kind}: {error}", hint="write .parquet"
        ) from None


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is whole.

    Attributes:
        path: Its file.
        rows: How many rows it holds.
    """

    path: Path
    rows: int


@dataclass(slots=True)
class Parts:
    """The parts of one output.

    Attributes:
        output: Where the output will be; behind links, the file or folder itself.
        kind: What it is.
        about: What it is the answer of: `rows`, `model` and whatever else makes two outputs differ.
        done: Parts that are whole, in order.
    """

    output: Path
    kind: Kind
    about: dict[str, str]
    done: list[Part] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the parts are until the output is whole."""
        return self.output.with_name(f".{self.output.name}.scoring")

    @property
    def rows(self) -> int:
        """Rows in the parts that are whole."""
        return sum(part.rows for part in self.done)

    @contextmanager
    def held(self) -> Iterator[str]:
        """Take the folder for this process alone, and give why what lies in it was begun anew; usually empty.

        Raises:
            Busy: Another process writes the same output.
            UserError: The output is a folder of somebody else's.
        """
        if self.kind == "folder" and self.output.exists() and not (self.output / MANIFEST).is_file():
            raise UserError(
                "predict-output",
                f"`{self.output}` is there and holds no answers",
                hint="name a folder that is not there yet",
            )
        fd = _locked(self.folder, self.output)
        try:
            self._restore()
            yield self._resume()
        finally:
            if _is(fd, self.folder):
                self._tidy()
            os.close(fd)

    def finished(self) -> tuple[int, int, str] | None:
        """Return rows, rows and digest of a folder of parts that is there already, with the same key, or none."""
        if self.kind == "folder":
            with suppress(OSError, msgspec.DecodeError, KeyError, TypeError):
                data = (self.output / MANIFEST).read_bytes()
                manifest = msgspec.json.decode(data)
                rows = int(manifest["rows"])
                return (rows, rows, digest_bytes(data)) if manifest["about"] == self.about else None
        return None

    def write(self, number: int, frame: pl.DataFrame) -> Path:
        """Write a part to the disk without a name of its own; from any thread.

        Raises:
            OSError: The disk is full; nothing of it stays.
            DataError: CSV cannot hold a column.
        """
        path = self.folder / f".part-{number:05}"
        try:
            write_frame(frame, path, self.kind, header=number == 0)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def take(self, written: Path, rows: int) -> None:
        """Give the next part its name: from here on it counts."""
        ending = "parquet" if self.kind == "folder" else self.kind
        part = Part(self.folder / f"part-{len(self.done):05}-{rows}.{ending}", rows)
        written.replace(part.path)
        self.done.append(part)

    def finish(self, rows_at_once: int) -> str:
        """Make the output of the parts, and return its digest.

        It takes the place of the one before it in one step; on systems that cannot exchange two folders, a folder does
        so in two, between which there is none.

        Args:
            rows_at_once: Rows of a row group of Parquet.
        """
        if self.kind == "folder":
            return self._finish_folder()
        whole = self.folder / ".whole"
        try:
            _join([part.path for part in self.done], whole, self.kind, rows_at_once)
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        digest = digest_file(whole)
        give(whole, self.output)
        self.discard()
        return digest

    def discard(self) -> None:
        """Take away what is not whole, and the parts that are of no more use."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- inside

    def _resume(self) -> str:
        """Find the parts that are whole, and say why those that are there do not count."""
        why, before = "", self._key()
        if before != self.about:
            changed = sorted(name for name in self.about if before.get(name) != self.about[name])
            why = f"the {' and the '.join(changed)} changed" if before else ""
            _empty(self.folder)
            write_atomic(self.folder / _KEY, msgspec.json.encode(self.about))
        found = {}
        for path in self.folder.iterdir():
            if matched := _NAME.fullmatch(path.name):
                found[int(matched[1])] = Part(path, int(matched[2]))
            elif path.name != _KEY:
                path.unlink()
        # Up to the first that is missing: whoever took the folder away may have been killed meanwhile.
        self.done = [found.pop(number) for number in itertools.takewhile(found.__contains__, range(len(found)))]
        for part in found.values():
            part.path.unlink()
        return why

    def _tidy(self) -> None:
        """Take away what an attempt that was stopped leaves, and the folder where no part of it is whole."""
        for left in self.folder.glob(".part-*"):
            left.unlink(missing_ok=True)  # written, but after one that is missing
        if not any(self.folder.glob("part-*")):
            self.discard()

    def _key(self) -> dict[str, str]:
        try:
            return msgspec.json.decode((self.folder / _KEY).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}

    def _finish_folder(self) -> str:
        parts = [{"file": p.path.name, "rows": p.rows, "sha256": digest_file(p.path)} for p in self.done]
        manifest = msgspec.json.encode({"format": 1, "about": self.about, "rows": self.rows, "parts": parts})
        write_atomic(self.folder / MANIFEST, manifest)
        (self.folder / _KEY).unlink()
        if self.output.exists():
            self._replace()
        else:
            self.folder.rename(self.output)
        return digest_file(self.output / MANIFEST)

    def _replace(self) -> None:
        """Put the folder in the place of the output before."""
        # After the exchange the old one has the name at which others look for our lock.
        fd = os.open(self.output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _exchange(self.folder, self.output):
                self.discard()
                return
        finally:
            os.close(fd)
        self.output.rename(self._before)
        self.folder.rename(self.output)
        shutil.rmtree(self._before, ignore_errors=True)

    @property
    def _before(self) -> Path:
        return self.output.with_name(f".{self.output.name}.before")

    def _restore(self) -> None:
        """Give back the output before, if a process died when it had taken it away."""
        if self._before.exists() and not self.output.exists():
            self._before.rename(self.output)
        shutil.rmtree(self._before, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, and say whether this system can.

    Raises:
        OSError: It can, and it failed.
    """
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if not rename(_AT_FDCWD, os.fsencode(one.absolute()), _AT_FDCWD, os.fsencode(other.absolute()), _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _locked(folder: Path, output: Path) -> int:
    """Make the folder and lock it; the system lets go of it when the process dies."""
    for _ in range(10):
        folder.mkdir(exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            break
        # Whoever had it may have made the output of it meanwhile, or taken it away.
        if _is(fd, folder):
            return fd
        os.close(fd)
    else:
        fd = -1
    if fd >= 0:
        os.close(fd)
    raise Busy("predict-running", f"another process writes `{output}`", hint="wait for it, or name another output")


def _is(fd: int, folder: Path) -> bool:
    """Say whether a folder is still the one that was opened."""
    try:
        return os.path.samestat(os.fstat(fd), folder.stat())
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _join(parts: list[Path], whole: Path, kind: Kind, rows_at_once: int) -> None:
    """Write the parts one after the other into one file, to the disk."""
    if kind == "parquet":
        import polars as pl

        rows = pl.scan_parquet(parts, glob=False, hive_partitioning=False)
        rows.sink_parquet(whole, row_group_size=rows_at_once, maintain_order=True, sync_on_close="all")
        return
    with whole.open("wb") as into:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, into, 1 << 20)
        into.flush()
        os.fsync(into.fileno())
