"""Find the files of a pattern, with what tells one state of a file from another; each folder is read once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from modelyard._kit.errors import NotFound, UserError
from modelyard.automation.triggers.common import log
from modelyard.automation.triggers.globs import HIDDEN, Part, fits, parts_of
from modelyard.spec.sections.triggers import split_pattern

__all__ = ["Pattern", "file_name", "file_path", "patterns", "same_file", "state_of"]

# Begins a name that no text can hold: its bytes follow, those beyond ASCII written with `%`.
_BYTES = "bytes:"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Files below one folder.

    Attributes:
        folder: The folder, absolute.
        shown: What the names of its files begin with: relative to the project where it is inside.
        parts: What is wanted below it, part by part; none stands for folders in folders (`**`).
        root: Folder of the project.
        follow: Whether links are followed that lead out of the project and of the folder.
    """

    folder: Path
    shown: str
    parts: tuple[Part, ...]
    root: Path
    follow: bool = False
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def hidden(self) -> bool:
        """Whether hidden files or folders are wanted."""
        return any(part is not None and not part.pattern.startswith(HIDDEN) for part in self.parts)

    @property
    def deep(self) -> bool:
        """Whether files in folders below the folder are wanted."""
        return len(self.parts) > 1 or None in self.parts

    def scan(self) -> dict[str, str]:
        """Return name -> state of every file; names that no text can hold are written as `file_name` says.

        Raises:
            NotFound: The folder is not there.
            UserError: The folder, or one in it, cannot be read.
        """
        found: dict[str, str] = {}
        todo = [(str(self.folder), self.shown, self._from({0}))]
        linked: set[str] = set()
        while todo:
            folder, shown, wanted = todo.pop()
            for entry in self._entries(folder):
                state, is_folder = self._look(entry, linked, takes=self._takes(entry.name, wanted))
                if state:
                    found[file_name(shown + entry.name)] = state
                elif is_folder and (below := self._from(self._into(entry.name, wanted))):
                    todo.append((entry.path, f"{shown}{entry.name}/", below))
        return found

    def means(self, name: str) -> bool:
        """Say whether the name of a file is one that the pattern wants."""
        return name.startswith(self.shown) and fits(self.parts, name[len(self.shown) :].split("/"))

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError) as error:
            # A folder below may go while we look; without the first one nothing is known of any file.
            if folder == str(self.folder):
                raise NotFound(
                    "trigger-folder-missing",
                    f"there is no folder `{file_name(folder)}`",
                    hint="make it again, or mount it; its files do not count as deleted meanwhile",
                ) from error
        except OSError as error:
            raise UserError(
                "trigger-folder-unreadable",
                f"`{file_name(folder)}` cannot be looked at: {error.strerror or error}",
                hint="give the user who runs this the right to read it; no file counts as deleted meanwhile",
            ) from error

    def _look(self, entry: os.DirEntry[str], linked: set[str], *, takes: bool) -> tuple[str, bool]:
        """Return the state of an entry (none if it is no wanted file), and whether it is a folder to go into."""
        try:
            if entry.is_symlink():
                return self._link(entry, linked, takes=takes)
            if entry.is_dir(follow_symlinks=False):
                return "", True
            return state_of(entry.stat(follow_symlinks=False)) if takes and entry.is_file() else "", False
        except FileNotFoundError:
            return "", False
        except OSError as error:
            raise UserError(
                "trigger-folder-unreadable",
                f"`{file_name(entry.path)}` cannot be looked at: {error.strerror or error}",
                hint="give the user who runs this the right to read it; no file counts as deleted meanwhile",
            ) from error

    def _link(self, entry: os.DirEntry[str], linked: set[str], *, takes: bool) -> tuple[str, bool]:
        target = os.path.realpath(entry.path)
        if not (self.follow or _inside(target, self.root) or _inside(target, self.folder)):
            if entry.path not in self._told and (takes or entry.is_dir()):
                self._told.add(entry.path)
                log.warning(
                    "%s leads out of the project and is left out; `follow: true` takes it", file_name(entry.path)
                )
            return "", False
        if not Path(target).exists():
            return "", False
        if entry.is_dir():
            # Each is gone into once, so that a circle of links has an end.
            new = target not in linked
            linked.add(target)
            return "", new
        return state_of(entry.stat()) if takes and entry.is_file() else "", False

    def _from(self, places: set[int]) -> frozenset[int]:
        """Return the parts that the names of a folder are held against: `**` may stand for no folder at all."""
        more = set(places)
        for place in sorted(places):
            at = place
            while at < len(self.parts) - 1 and self.parts[at] is None:
                at += 1
                more.add(at)
        return frozenset(more)

    def _into(self, name: str, wanted: frozenset[int]) -> set[int]:
        below = set()
        for place in wanted:
            part = self.parts[place]
            if part is None:
                if not name.startswith("."):
                    below.add(place)
            elif place < len(self.parts) - 1 and part.fullmatch(name):
                below.add(place + 1)
        return below

    def _takes(self, name: str, wanted: frozenset[int]) -> bool:
        last = len(self.parts) - 1
        if last not in wanted:
            return False
        part = self.parts[last]
        return not name.startswith(".") if part is None else part.fullmatch(name) is not None


def patterns(given: tuple[str, ...], root: Path, *, follow: bool = False) -> list[Pattern]:
    """Return what the file says as patterns; a folder that is there stands for the files in it.

    Args:
        given: Patterns, folders and files, relative to the project.
        root: Folder of the project.
        follow: Whether links are followed that lead out.
    """
    made = []
    for text in given:
        folder, parts = split_pattern(text)
        if len(parts) == 1 and (root / folder / parts[0]).is_dir():
            folder, parts = split_pattern(f"{text.rstrip('/')}/")
        whole = Path(os.path.normpath(root / folder))
        shown = whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix()
        shown = "" if shown == "." else f"{shown.rstrip('/')}/"
        made.append(Pattern(whole, shown, parts_of(parts), root, follow))
    return made


def _inside(target: str, folder: Path) -> bool:
    return Path(target).is_relative_to(os.path.realpath(folder))


def state_of(stat: os.stat_result) -> str:
    """Return what tells this state of a file from every other: size, time of change, number, time of the entry."""
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}-{stat.st_ctime_ns}"


def same_file(before: str, after: str) -> bool:
    """Say whether two states are of the same content.

    A change of rights alone is none. A file that was replaced by another of equal size and time has another number, and
    came to its name later; where numbers change by themselves (a network folder mounted again), that time does not.
    """
    if before == after:
        return True
    old, new = before.split("-"), after.split("-")
    return old[:2] == new[:2] and len(old) == len(new) == 4 and (old[2] == new[2] or old[3] == new[3])


def file_name(path: str) -> str:
    r"""Return a name as a text that JSON can hold; `file_path` turns it back.

    Examples:
        >>> file_name("in/a.csv"), file_name("in/\udcff 1.csv")
        ('in/a.csv', 'bytes:in/%FF%201.csv')
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + quote_from_bytes(os.fsencode(path))
    return _BYTES + quote_from_bytes(path.encode()) if path.startswith(_BYTES) else path


def file_path(name: str, root: Path) -> Path:
    """Return the path of a file that a fire names.

    Args:
        name: `Item.name` of a fire for files.
        root: Folder of the project.
    """
    if name.startswith(_BYTES):
        name = os.fsdecode(unquote_to_bytes(name.removeprefix(_BYTES)))
    return root / name
