"""Find lines in the files of the logs, and follow them as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from modelyard.logs.files import segments
from modelyard.logs.line import About, Line, shown

__all__ = ["Place", "ends", "lines", "parsed", "tail_of", "unread"]

_decode = msgspec.json.Decoder(Line).decode
_CHUNK = 1 << 20
# Every line begins so: what stands before the last one in a row of bytes was cut off by a full disk.
_BEGIN = b'{"time":'

# Name of a file of the logs, and how many of its bytes were read.
Place = tuple[str, int]


def ends(folder: Path) -> dict[str, int]:
    """Return how many bytes each file has now: reading on from there gives what is new."""
    return {path.name: path.stat().st_size for path in segments(folder)}


def unread(folder: Path, read: Mapping[str, int], *, since: float = 0.0) -> Iterator[tuple[Place, bytes]]:
    """Yield each whole line that was not read yet, with the place after it, file by file.

    Every file is looked at, not only the newest: a process may still add to the one before.

    Args:
        folder: Where the files are.
        read: Name of a file -> bytes of it that were read.
        since: Files that were last written before this time are left out, seconds since 1970 UTC.
    """
    for path in segments(folder):
        at = read.get(path.name, 0)
        try:
            stat = path.stat()
            if stat.st_size <= at or stat.st_mtime < since:
                continue
            with path.open("rb") as file:
                file.seek(at)
                for raw in file:
                    if not raw.endswith(b"\n"):
                        break  # somebody is writing it right now
                    at += len(raw)
                    yield (path.name, at), raw
        except FileNotFoundError:
            continue  # deleted meanwhile: it was too old


def parsed(raw: bytes) -> Line | None:
    """Return the line, or what is whole of it; none if nothing is."""
    for text in (raw, raw[max(raw.rfind(_BEGIN), 0) :]):
        try:
            return _decode(text)
        except msgspec.MsgspecError:
            continue
    return None


def lines(
    folder: Path, ids: frozenset[str] = frozenset(), *, since: float = 0.0, read: dict[str, int] | None = None
) -> Iterator[Line]:
    """Yield lines file by file, in each in the order in which they were written.

    Args:
        folder: Where the files are.
        ids: Only lines whose trace, run, fire or request is one of these; empty: all.
        since: Only lines of this time and later, seconds since 1970 UTC.
        read: Name of a file -> bytes read before; brought up to date on the way.
    """
    wanted = [one.encode() for one in ids]
    for (name, at), raw in unread(folder, read or {}, since=since):
        if read is not None:
            read[name] = at
        # Most lines are told apart without being parsed.
        if wanted and not any(one in raw for one in wanted):
            continue
        line = parsed(raw)
        if line is None or line.time < since:
            continue
        if not ids or ids & {line.trace, line.run, line.fire, line.request}:
            yield line


def tail_of(folder: Path, about: About, *, most: int) -> tuple[str, ...]:
    """Return the last lines of one attempt at a step: what a process that died cannot say itself."""
    last: deque[str] = deque(maxlen=most)
    for line in lines(folder, frozenset({about.run})):
        if (line.step, line.attempt) == (about.step, about.attempt):
            last.append(shown(line.level, line.logger, line.message))
    return tuple(last)
