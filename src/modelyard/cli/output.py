"""Print: data on stdout, talk on stderr, tables that fit, colour only where it is wanted."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import msgspec

from modelyard._kit.errors import ModelyardError, Problem

__all__ = [
    "MARKS",
    "STDOUT",
    "as_it_is",
    "data",
    "json_line",
    "paint",
    "plain_problems",
    "say",
    "say_problem",
    "table",
    "tell",
    "width",
    "write_output",
]

# One mark a status, readable without colour.
MARKS = {
    "passed": "✓",
    "succeeded": "✓",
    "cached": "=",
    "failed": "✗",
    "insufficient": "?",
    "skipped": "-",
    "running": "…",
    "cancelled": "!",
    "interrupted": "!",
    "stopped": "!",
    "retried": "~",
    "run": "+",
    "depends": "~",
}
# What an error is about that the system has with stdout.
STDOUT = "<stdout>"
# Verbs whose JSON lines are told apart by a field of theirs -> what an error has there.
_STREAMS = {"run": {"kind": "error"}, "up": {"what": "error"}}
_COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}
_STATUS = {
    "passed": "green",
    "succeeded": "green",
    "failed": "red",
    "cached": "dim",
    "insufficient": "yellow",
    "retried": "yellow",
}


def data(text: str) -> None:
    """Write a line of data to stdout."""
    with _to_stdout():
        sys.stdout.write(f"{text}\n")


def json_line(value: Any) -> None:
    """Write a value as one line of JSON to stdout."""
    with _to_stdout():
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()


def as_it_is(content: str | bytes) -> None:
    """Write text or bytes to stdout and nothing behind them."""
    with _to_stdout():
        if isinstance(content, str):
            sys.stdout.write(content)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(content)


@contextmanager
def _to_stdout() -> Iterator[None]:
    """Name standard output in what the system says of it: it names no file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from error


def say(text: str = "") -> None:
    """Write a line of talk to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def tell(error: ModelyardError, *, verb: str = "", as_json: bool = False) -> None:
    """Write every problem of an error to stderr: code, place, message, next step.

    Args:
        error: What went wrong.
        verb: Name of the verb that it ended.
        as_json: Also write it as one line of JSON to stdout, in the form of the other lines of the verb.
    """
    for problem in error.problems:
        say_problem(problem, "error")
    if as_json:
        # Who waits for JSON may have gone, or what he keeps it in may be the disk that is full.
        with suppress(OSError):
            json_line({**_STREAMS.get(verb, {}), "ok": False, "problems": plain_problems(error.problems)})


def plain_problems(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Return problems as they stand in JSON."""
    return [{"code": p.code, "where": p.where, "message": p.message, "hint": p.hint} for p in problems]


def say_problem(problem: Problem, what: str) -> None:
    """Write one problem to stderr, as an error or a warning."""
    place = f" {problem.where}" if problem.where else ""
    hint = f"\n  hint: {problem.hint}" if problem.hint else ""
    say(f"{what}[{problem.code}]{place}: {problem.message}{hint}")


def write_output(path: Path, content: bytes) -> None:
    """Write what the user has named: a file in a folder that is there, or into a pipe or a device.

    Raises:
        UserError: Its folder is not there (`output-folder`) or cannot be written, or the disk is full.
    """
    from modelyard._kit.files import write_named
    from modelyard.store.disk import explained

    with explained(path):
        write_named(path, content)


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return the text in a colour or in the colour of a status, plain where colour is not wanted."""
    stream = stream or sys.stdout
    code = _COLOURS.get(_STATUS.get(colour, colour), "")
    if not code or os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def width() -> int:
    """Return how many characters a line may have: those of the terminal, 120 elsewhere."""
    return shutil.get_terminal_size((120, 24)).columns


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Write rows in columns to stdout; the last column is cut to the width of a terminal.

    Args:
        header: Names of the columns.
        rows: Cells as text.
        right: Positions of the columns that stand flush right (numbers).
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    room = width() if sys.stdout.isatty() else 0
    for index, row in enumerate(cells):
        line = "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        if room and len(line) > room:
            line = line[: room - 1] + "…"
        data(paint(line, "bold") if index == 0 else line)
