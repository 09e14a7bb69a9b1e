"""What a CSV file is made of, before any value is read: where its rows begin, and which of them are broken.

Polars fills a line that is too short with missing values and says nothing, and of one that is too long it does not
say which. So the bytes are looked at first, in blocks: encoding, quotes, the number of cells of each row.
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelyard._kit.errors import DataError
from modelyard.data.base import PROVENANCE, REASONS, ROW, Options

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Lines", "header", "scan"]

_BLOCK = 4 << 20
# Enough for the names of columns where only they are asked for.
_HEAD = 256 << 10
# A row longer than this is a quote that was never closed.
_LONGEST = 64 << 20
_BOM = b"\xef\xbb\xbf"
# Broken rows are kept for the quarantine; with more than these the file is something else than it was said to be.
_MOST_BROKEN = 10_000
_QUOTE, _LF, _CR = ord('"'), ord("\n"), ord("\r")


@dataclass(slots=True)
class Lines:
    """What was found.

    Attributes:
        names: Names of the columns.
        padded: Delimiter and space stand between cells.
        quoted: Quotes enclose cells.
        skip_lines: Lines before the first row.
        rows: Rows, blank ones included, comments not.
        blank: Positions of blank rows.
        broken: Position -> text of a row with more or fewer cells than there are columns.
        breaks: Where lines and rows drift apart (a row over several lines, a comment): positions, and the extra
            lines up to there.
    """

    names: tuple[str, ...]
    padded: bool
    quoted: bool
    skip_lines: int
    rows: int = 0
    blank: list[int] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    breaks: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def line_of(self, row: int) -> int:
        """Return the line of its file (from 1) that a row begins at."""
        at = bisect_left(self.breaks[0], row)
        return self.skip_lines + 1 + row + (self.breaks[1][at - 1] if at else 0)


def scan(path: Path, name: str, options: Options) -> Lines:
    """Look at a CSV file.

    Args:
        path: The file.
        name: What to call it in errors.
        options: How it is written.

    Raises:
        DataError: It is empty (`data-empty-file`), not UTF-8 (`data-not-utf8`), has no usable header
            (`data-header`), stray quotes (`data-quotes`) or far too many broken rows (`data-ragged-lines`).
    """
    delimiter = _delimiter(name, options)
    try:
        return _Scan(path, name, options, delimiter, quoted=True).run()
    except _StrayQuote as stray:
        # Tab-separated text is mostly written without any quoting; elsewhere a stray quote is a mistake.
        if delimiter == "\t":
            return _Scan(path, name, options, delimiter, quoted=False).run()
        raise DataError(
            "data-quotes",
            f"`{name}` has a quote at line {stray.line} that does not enclose a whole cell",
            where=f"{name}:{stray.line}",
            hint='enclose the cell and double the quotes in it: `"5"" pipe"`',
        ) from stray


def header(path: Path, name: str, options: Options) -> tuple[str, ...]:
    """Return the names of the columns of a CSV file; nothing below its first row is looked at.

    Args:
        path: The file.
        name: What to call it in errors.
        options: How it is written.

    Raises:
        DataError: It is empty (`data-empty-file`) or has no usable header (`data-header`).
    """
    delimiter = _delimiter(name, options)
    try:
        return _Scan(path, name, options, delimiter, quoted=True).names()
    except _StrayQuote:
        return _Scan(path, name, options, delimiter, quoted=False).names()


def _delimiter(name: str, options: Options) -> str:
    delimiter = options.delimiter.rstrip(" ") or " "
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
        raise DataError(
            "data-header",
            f"`{options.delimiter}` cannot stand between cells",
            where=name,
            hint="give one ASCII character, with a space after it if the file has one: `;` or `, `",
        )
    return delimiter


class _StrayQuote(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Scan:
    def __init__(self, path: Path, name: str, options: Options, delimiter: str, *, quoted: bool) -> None:
        self._path, self._name, self._options = path, name, options
        self._delimiter, self._comment, self._quoted = delimiter, options.comment.encode(), quoted
        self._offset = 0  # bytes before the block
        self._line = 0  # lines before the block
        self._extra = 0  # lines so far beyond one a row

    def names(self) -> tuple[str, ...]:
        with self._path.open("rb") as file:
            head = file.read(_HEAD)
        return self._begin(head, len(_BOM) if head.startswith(_BOM) else 0)[0].names

    def run(self) -> Lines:
        with self._path.open("rb") as file:
            head = file.read(_BLOCK)
            start = len(_BOM) if head.startswith(_BOM) else 0
            found, begin = self._begin(head, start)
            file.seek(begin)
            self._offset, self._line = begin, found.skip_lines
            rest = b""
            while block := file.read(_BLOCK):
                rest = self._take(rest + block, found)
                if len(rest) > _LONGEST:
                    raise _StrayQuote(self._line + 1)
        if rest and self._take(rest + b"\n", found):
            raise _StrayQuote(self._line + 1)
        if len(found.broken) > _MOST_BROKEN:
            row, text = next(iter(found.broken.items()))
            line = found.line_of(row)
            raise DataError(
                "data-ragged-lines",
                f"`{self._name}` has {len(found.broken):,} rows that do not have {len(found.names)} cells, the first "
                f"at line {line}: `{text[:80]}`",
                where=f"{self._name}:{line}",
                hint="see that `delimiter` is what stands between the cells",
            )
        return found

    # ---- the first row: names, or cells that are counted

    def _begin(self, head: bytes, start: int) -> tuple[Lines, int]:
        """Read the first row; return what it says and where the rows begin."""
        lines, at = 0, start
        while at < len(head):
            end = self._end_of_row(head, at)
            row = head[at:end]
            if row.strip() and not (self._comment and row.startswith(self._comment)):
                break
            lines, at = lines + 1, end
        else:
            raise DataError(
                "data-empty-file",
                f"`{self._name}` is empty",
                where=self._name,
                hint="remove it, or write at least a line with the names of its columns",
            )
        self._offset, self._line = at, lines
        text = self._decoded(row).rstrip("\r\n")
        quotes = '"' if self._quoted else None
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE
        if "\r" in text and '"' not in text:
            raise self._header(lines + 1, "ends its lines with carriage returns alone", "convert them to `\\n`")
        try:
            cells = next(csv.reader([text], delimiter=self._delimiter, quotechar=quotes, quoting=quoting))
        except csv.Error as error:
            raise self._header(lines + 1, f"begins with a line that is none of CSV: {error}", "mend it") from error
        # Written `a, b, c` the names say by themselves that spaces set cells apart.
        padded = len(self._options.delimiter) > 1 or (len(cells) > 1 and all(c.startswith(" ") for c in cells[1:]))
        cells = [c.strip() for c in cells] if padded else cells
        header = not self._options.columns or tuple(cells) == self._options.columns
        names = self._names(cells, lines + 1)
        taken = row.count(b"\n") if header else 0
        found = Lines(names=names, padded=padded, quoted=self._quoted, skip_lines=lines + taken)
        return found, end if header else at

    def _end_of_row(self, head: bytes, at: int) -> int:
        """Return where the row that begins at `at` ends, its line end included."""
        end = at
        while (end := head.find(b"\n", end) + 1) > 0:
            if not self._quoted or head.count(b'"', at, end) % 2 == 0:
                return end
        if self._quoted and head.count(b'"', at) % 2:
            raise _StrayQuote(head.count(b"\n", 0, at) + 1)
        return len(head)

    def _names(self, cells: list[str], line: int) -> tuple[str, ...]:
        given = self._options.columns
        if given:
            if len(given) != len(cells):
                raise self._header(line, f"has {len(cells)} cells a row, and `columns` names {len(given)}", "name each")
            return given
        if len(cells) == 1 and (other := next((d for d in ";\t|," if d in cells[0] and d != self._delimiter), "")):
            shown = "\\t" if other == "\t" else other
            raise self._header(line, f"has one column, `{cells[0][:60]}`", f'set `delimiter: "{shown}"`')
        names = tuple(c if c.strip() else f"column_{at}" for at, c in enumerate(cells, 1))
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise self._header(line, f"has two columns called `{twice}`", "give each column a name of its own")
        taken = next((n for n in names if n in (*PROVENANCE, REASONS, ROW)), None)
        if taken is not None:
            raise self._header(line, f"has a column called `{taken}`, a name kept for Modelyard", "rename it")
        return names

    def _header(self, line: int, what: str, hint: str) -> DataError:
        return DataError("data-header", f"`{self._name}` {what}", where=f"{self._name}:{line}", hint=hint)

    # ---- the rows

    def _take(self, data: bytes, found: Lines) -> bytes:
        """Look at the whole rows of a block; return what is left of it."""
        import numpy as np

        codes = np.frombuffer(data, np.uint8)
        line_ends = codes == _LF
        inside = None
        if self._quoted and b'"' in data:
            inside = np.logical_xor.accumulate(codes == _QUOTE)
        ends = np.flatnonzero(line_ends if inside is None else line_ends & ~inside)
        if not len(ends):
            return data
        whole = int(ends[-1]) + 1
        self._decoded(data[:whole])
        if inside is not None:
            self._check_quotes(codes[:whole], inside[:whole])
        starts = np.concatenate([[0], ends[:-1] + 1])
        cuts = codes[:whole] == ord(self._delimiter)
        cells = np.add.reduceat(cuts if inside is None else cuts & ~inside[:whole], starts, dtype=np.int32) + 1
        lines = None if inside is None else np.add.reduceat(line_ends[:whole], starts, dtype=np.int32)
        self._note(data, codes, starts, ends, cells, lines, found)
        self._line += int(line_ends[:whole].sum())
        self._offset += whole
        return data[whole:]

    def _note(
        self, data: bytes, codes: Array, starts: Array, ends: Array, cells: Array, lines: Array | None, found: Lines
    ) -> None:
        """Note the rows of a block that are not one plain line."""
        import numpy as np

        comment = np.zeros(len(starts), bool)
        if self._comment:
            for at in np.flatnonzero(codes[starts] == self._comment[0]).tolist():
                comment[at] = data.startswith(self._comment, int(starts[at]))
        lengths = ends - starts
        lengths = lengths - ((lengths > 0) & (codes[ends - 1] == _CR))
        # In a file of one column an empty line is a missing value.
        blank = (lengths == 0) & ~comment if len(found.names) > 1 else np.zeros(len(starts), bool)
        rows = np.cumsum(~comment) - 1 + found.rows
        found.blank.extend(rows[blank].tolist())
        for at in np.flatnonzero((cells != len(found.names)) & ~blank & ~comment).tolist():
            if len(found.broken) <= _MOST_BROKEN:
                text = data[int(starts[at]) : int(starts[at]) + int(lengths[at])]
                found.broken[int(rows[at])] = text.decode()
        extra = (np.ones(len(starts), np.int64) if lines is None else lines) - ~comment
        for at in np.flatnonzero(extra).tolist():
            self._extra += int(extra[at])
            found.breaks[0].append(int(rows[at]))
            found.breaks[1].append(self._extra)
        found.rows += int((~comment).sum())

    def _check_quotes(self, codes: Array, inside: Array) -> None:
        """Refuse a quote that does not stand at the edge of a cell."""
        import numpy as np

        quotes = np.flatnonzero(codes == _QUOTE)
        opening = inside[quotes]
        edges = (ord(self._delimiter), _LF, _CR, _QUOTE)
        before = codes[np.maximum(quotes - 1, 0)]
        after = codes[np.minimum(quotes + 1, len(codes) - 1)]
        stray = ~np.isin(np.where(opening, before, after), edges) & ~(opening & (quotes == 0))
        if stray.any():
            raise _StrayQuote(self._line + 1 + int((codes[: quotes[stray.argmax()]] == _LF).sum()))

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = self._line + 1 + data.count(b"\n", 0, error.start)
            wide = data[:2] in (b"\xff\xfe", b"\xfe\xff") and self._offset == 0
            guess = "UTF-16" if wide else "WINDOWS-1252"
            raise DataError(
                "data-not-utf8",
                f"`{self._name}` is not UTF-8: byte 0x{data[error.start]:02x} at line {line}, byte "
                f"{self._offset + error.start + 1:,} of the file",
                where=f"{self._name}:{line}",
                hint=f"convert it: iconv -f {guess} -t UTF-8 {self._path.name}",
            ) from error
