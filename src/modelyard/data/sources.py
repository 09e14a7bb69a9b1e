"""Files as a source: a path, a pattern or a folder becomes a sorted list of files with the digests of their content."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.errors import DataError, near
from modelyard.data.base import Context, Item, Opened, Options, Source
from modelyard.data.digests import Digests

__all__ = ["ENTRY_POINTS", "FileSource", "named_files", "probe", "source_for"]

ENTRY_POINTS = "modelyard.sources"
# What a folder is searched for.
_ENDINGS = (".csv", ".tsv", ".parquet", ".pq")
_PATTERN = frozenset("*?[")


def probe(ctx: Context, *, source: dict[str, Any], **_: Any) -> dict[str, Any]:
    """See which files there are and what is in them; part of a load's key.

    Args:
        ctx: Where the project is.
        source: The declaration of the table; `from` is looked at.

    Returns:
        `files`: path, size and digest of each, sorted; `unkeyed`: the project's folder, which the load needs to open
        them and which is not part of its key.

    Raises:
        DataError: There is no such file (`data-source-missing`), or it cannot be read.
    """
    found: dict[str, Item] = {}
    sources: dict[str, Source] = {}
    for address in _texts(source["from"]):
        scheme = _scheme(address)
        if scheme not in sources:
            sources[scheme] = source_for(address, ctx.root)
        found.update((item.path, item) for item in sources[scheme].list(address))
    files = [{"path": i.path, "size": i.size, "sha256": i.sha256} for _, i in sorted(found.items())]
    return {"files": files, "unkeyed": {"root": str(ctx.root)}}


def source_for(address: str, root: Path) -> Source:
    """Return the source that an address belongs to, by its scheme; without one, files.

    Raises:
        DataError: No installed package knows the scheme (`data-source-unknown`).
    """
    scheme = _scheme(address)
    if not scheme:
        return FileSource(root)
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme in plugins:
        made: Source = plugins[scheme].load()(root)
        return made
    close = near(scheme, plugins)
    raise DataError(
        "data-source-unknown",
        f"nothing installed reads `{scheme}://` addresses (`{address}`)",
        hint=f"did you mean `{close[0]}://`?" if close else "give a path to CSV or Parquet files",
    )


class FileSource:
    """CSV and Parquet files below (or beside) the project's folder.

    Args:
        root: Folder that relative paths begin at.
        clock: Source of the time.
    """

    def __init__(self, root: Path, *, clock: Clock = system_clock) -> None:
        self._root = root
        self._digests = Digests(root, clock=clock)

    def list(self, address: str) -> list[Item]:
        """Return the files of a path, a pattern (`*`, `?`, `[..]`, `**`) or a folder, sorted by path.

        A folder stands for its CSV, TSV and Parquet files, not for those of the folders in it. Hidden files are left
        out unless named.

        Raises:
            DataError: There is none (`data-source-missing`), or one cannot be read (`data-source-unreadable`).
        """
        items = [self._item(name) for name in named_files(address, self._root)]
        self._digests.save()
        return items

    def read(self, item: Item, options: Options) -> Opened:
        """Open a file that was listed.

        Raises:
            DataError: It cannot be read (codes of `readers`), or changed since it was listed.
        """
        from modelyard.data.readers import open_file

        now = self._item(item.path)
        self._digests.save()
        if now != item:
            raise DataError(
                "data-source-changing",
                f"`{item.path}` changed between being listed and being read",
                where=item.path,
                hint="run again when it is whole",
            )
        return open_file(self._root / item.path, item, options)

    def _item(self, name: str) -> Item:
        try:
            size, digest = self._digests.of(self._root / name)
        except FileNotFoundError as error:
            raise _missing(name, self._root / name, self._root) from error
        except OSError as error:
            raise DataError(
                "data-source-unreadable",
                f"`{name}` cannot be read: {error.strerror or error}",
                where=name,
                hint="give the user who runs this the right to read it",
            ) from error
        return Item(path=name, size=size, sha256=digest)


def named_files(address: str, root: Path) -> list[str]:
    """Return the files that a path, a pattern or a folder stands for, sorted, relative where it was given so.

    Raises:
        DataError: There is none (`data-source-missing`).
    """
    given = Path(address).expanduser().as_posix()
    if (root / given).is_dir():
        names = _in_folder(given, root)
    elif (root / given).exists():
        names = [given]
    elif _PATTERN & set(given):
        # `Path.glob` knows no `..` and no absolute pattern.
        found = glob.glob(given, root_dir=root, recursive=True)  # noqa: PTH207
        names = [name for name in found if (root / name).is_file()]
    else:
        names = []
    if not names:
        raise _missing(address, root / given, root)
    return sorted({Path(name).as_posix() for name in names})


def _in_folder(name: str, root: Path) -> list[str]:
    found = [p.name for p in (root / name).iterdir() if p.is_file() and p.suffix.lower() in _ENDINGS]
    return [f"{name.rstrip('/')}/{n}" if name not in ("", ".") else n for n in found if not n.startswith(".")]


def _missing(address: str, path: Path, root: Path) -> DataError:
    """Say that nothing is there, and what is near."""
    # The deepest folder that exists, and the first part of the path that is not in it.
    folder, wanted = path.parent, path.name
    while not folder.is_dir() and folder != folder.parent:
        folder, wanted = folder.parent, folder.name
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    place = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.as_posix()
    close = near(wanted, names)
    if path.is_dir():
        message, hint = f"folder `{address}` holds no CSV, TSV or Parquet file", "put files there, or name them"
    elif close:
        prefix = "" if place == "." else f"{place}/"
        message = f"there is no file `{address}`"
        hint = "did you mean " + " or ".join(f"`{prefix}{name}`" for name in close) + "?"
    else:
        message, hint = f"there is no file `{address}`", f"`{place}` holds {_some(names)}"
    return DataError("data-source-missing", message, where=address, hint=hint)


def _some(names: Sequence[str], most: int = 6) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(f"`{n}`" for n in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _scheme(address: str) -> str:
    scheme, found, _ = address.partition("://")
    return scheme.lower() if found else ""


def _texts(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
