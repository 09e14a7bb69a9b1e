"""Tables: their versions by digest, what each was made from, and its first rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard._kit.errors import ModelyardError, NotFound
from modelyard.records import Column, TableVersion
from modelyard.web.answer import answer
from modelyard.web.pages.parts import TableLink, is_quarantine, table_link
from modelyard.web.query import Query
from modelyard.web.reader import Catalog, Made, Reader

if TYPE_CHECKING:
    import polars as pl
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["TablePage", "TableRow", "TablesPage", "Version", "load", "load_version", "preview", "view", "view_version"]

_ROWS = 50
_COLUMNS = 40
_CELL = 60
_VERSIONS = 40


@dataclass(frozen=True, slots=True)
class TableRow:
    """One table in the list.

    Attributes:
        name: Its name.
        versions: Versions there are.
        digest: Digest of the newest.
        rows: Rows of the newest.
        change: Rows more (or fewer) than the version before; none for the first.
        columns: Columns of the newest.
        run: Run that made the newest.
        time: When.
        quarantine: Whether it holds rows that were set aside.
    """

    name: str
    versions: int
    digest: str
    rows: int
    change: int | None
    columns: int
    run: str
    time: float
    quarantine: bool


@dataclass(frozen=True, slots=True)
class TablesPage:
    """Every table.

    Attributes:
        title: Title of the page.
        tables: The tables, those written last first.
        q: The words asked for.
        total: Tables there are.
    """

    title: str
    tables: tuple[TableRow, ...]
    q: str
    total: int


@dataclass(frozen=True, slots=True)
class Version:
    """One version in the history of a table.

    Attributes:
        digest: Digest of its content.
        rows: Rows stored.
        run: Run that made it.
        step: Step that made it.
        time: When.
    """

    digest: str
    rows: int
    run: str
    step: str
    time: float


@dataclass(frozen=True, slots=True)
class TablePage:
    """One version of a table.

    Attributes:
        title: Title of the page.
        name: Name of the table.
        version: The version shown.
        number: Which version it is, 1 for the oldest.
        versions: The newest 40 versions, newest first.
        total: Versions there are.
        columns: Names and types in order.
        parents: The table versions it was made from.
        children: The table versions that were made from it.
        address: Where the store keeps it.
        newest_by: Key columns; readers see the newest row of each key.
        newest_order: Column that says which row is the newest.
        parts: Loads that were appended to make it.
        quarantine: Whether it holds rows that were set aside.
        header: Columns of the preview, at most 40.
        preview: The first 50 rows as text; none is a missing value.
        unreadable: Why there is no preview; empty if there is one.
    """

    title: str
    name: str
    version: Version
    number: int
    versions: tuple[Version, ...]
    total: int
    columns: tuple[Column, ...]
    parents: tuple[TableLink, ...]
    children: tuple[TableLink, ...]
    address: str
    newest_by: tuple[str, ...]
    newest_order: str
    parts: int
    quarantine: bool
    header: tuple[Column, ...]
    preview: tuple[tuple[str | None, ...], ...]
    unreadable: str


def load(store: Reader, query: Query) -> TablesPage:
    """Read the list of tables."""
    catalog, words = store.catalog(), query.text("q")
    rows = [_row(name, list(made.values())) for name, made in list(catalog.tables.items())]
    fits = [row for row in rows if all(word in row.name.lower() for word in words.lower().split())]
    return TablesPage(
        title="Tables",
        tables=tuple(sorted(fits, key=lambda row: (-row.time, row.name))),
        q=words,
        total=len(rows),
    )


def _row(name: str, versions: list[Made[TableVersion]]) -> TableRow:
    newest = versions[-1]
    return TableRow(
        name=name,
        versions=len(versions),
        digest=newest.value.digest,
        rows=newest.value.rows,
        change=newest.value.rows - versions[-2].value.rows if len(versions) > 1 else None,
        columns=len(newest.value.columns),
        run=newest.run,
        time=newest.time,
        quarantine=is_quarantine(name),
    )


def load_version(store: Reader, query: Query) -> TablePage:
    """Read one version of a table with its first rows.

    Raises:
        NotFound: There is no such table, or no such version of it.
    """
    catalog, name = store.catalog(), query.text("table")
    made = catalog.tables.get(name)
    if made is None:
        raise NotFound.of("table", name, list(catalog.tables))
    all_versions = list(made.values())
    wanted = query.text("digest")
    digests = [one.value.digest for one in all_versions]
    digest = digests[-1] if wanted == "latest" else next((d for d in digests if wanted and d.startswith(wanted)), "")
    if not digest:
        raise NotFound.of("version of the table", wanted, digests)
    number = digests.index(digest) + 1
    table = all_versions[number - 1].value
    header, rows, unreadable = preview(store, table)
    return TablePage(
        title=name,
        name=name,
        version=_version(all_versions[number - 1]),
        number=number,
        versions=tuple(_version(one) for one in reversed(all_versions[-_VERSIONS:])),
        total=len(all_versions),
        columns=table.columns,
        parents=tuple(table_link(catalog, parent) for parent in table.parents),
        children=_children(catalog, digest),
        address=table.address,
        newest_by=table.newest_by,
        newest_order=table.newest_order,
        parts=len(table.parts),
        quarantine=is_quarantine(name),
        header=header,
        preview=rows,
        unreadable=unreadable,
    )


def _version(made: Made[TableVersion]) -> Version:
    return Version(made.value.digest, made.value.rows, made.run, made.step, made.time)


def _children(catalog: Catalog, digest: str) -> tuple[TableLink, ...]:
    found = [
        TableLink(one.value.name, one.value.digest, one.value.rows)
        for versions in list(catalog.tables.values())
        for one in list(versions.values())
        if digest in one.value.parents
    ]
    return tuple(found[-20:])


def preview(store: Reader, table: TableVersion) -> tuple[tuple[Column, ...], tuple[tuple[str | None, ...], ...], str]:
    """Return the columns and the first rows of a version as text, or why they cannot be read."""
    try:
        frame = store.tables.read(table)
        names = frame.collect_schema().names()[:_COLUMNS]
        head: pl.DataFrame = frame.select(names).head(_ROWS).collect()
    except ModelyardError as error:
        return (), (), error.problem.message
    except Exception as error:  # noqa: BLE001 - files that are gone are a fact to show, not a page that breaks
        return (), (), f"the stored rows cannot be read ({type(error).__name__}); `modelyard verify` says more"
    columns = tuple(Column(name, str(dtype)) for name, dtype in head.schema.items())
    return columns, tuple(tuple(_cell(value) for value in row) for row in head.iter_rows()), ""


def _cell(value: object) -> str | None:
    if value is None:
        return None
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


async def view(request: Request) -> Response:
    """Answer `/tables`."""
    return await answer(request, load, "tables.html")


async def view_version(request: Request) -> Response:
    """Answer `/tables/{table}/{digest}`."""
    return await answer(request, load_version, "table.html")
