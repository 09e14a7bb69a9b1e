"""Take what a step prints and logs while it runs, line by line, with secrets masked.

While the context is open `sys.stdout`, `sys.stderr` and the loggers of `logging` are listened to. What is printed goes
on to stderr, as before: stdout may be somebody's stream of data. A step that says nothing costs two assignments.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from modelyard.logs.files import LogFiles
from modelyard.logs.line import About, Level, Line, shown
from modelyard.security.redact import redact

if TYPE_CHECKING:
    from modelyard.logs.handler import Listener, Taker

__all__ = ["LONG", "TAIL", "WIDE", "Capture", "listening"]

# Lines of an attempt that are kept with its failure.
TAIL = 50
# Characters of each of them.
WIDE = 1000
# Lines of one attempt that go into the files; a step that prints without end must not push out everything else.
_MOST = 100_000
# Characters without a line break after which a line is taken as whole.
LONG = 65_536
_PEM = "-----BEGIN "


class _Ears:
    """The listener of this process: to begin and end it at each step would cost more than a short step."""

    users = 0
    listener: Listener | None = None


@contextmanager
def listening() -> Iterator[None]:
    """Go on listening to the loggers between the captures inside, instead of beginning anew with each."""
    _Ears.users += 1
    try:
        yield
    finally:
        _Ears.users -= 1
        if not _Ears.users and _Ears.listener is not None:
            _Ears.listener.close()
            _Ears.listener = None


def _listener() -> Listener | None:
    """Return the listener; none where `logging` is not loaded: nobody can log then."""
    if _Ears.listener is None and "logging" in sys.modules:
        from modelyard.logs.handler import Listener

        listener = Listener()
        if not _Ears.users:
            return listener
        _Ears.listener = listener
    return _Ears.listener


class Capture:
    """A context that takes what one attempt at a step prints and logs inside.

    Args:
        about: What the lines belong to.
        files: Where they are written; none: they are only shown and kept for `tail`.
    """

    __slots__ = ("_about", "_before", "_count", "_err", "_files", "_heard", "_listener", "_lock", "_out", "_tail")

    def __init__(self, about: About, files: LogFiles | None) -> None:
        self._about = about
        self._files = files
        self._tail: deque[str] | None = None
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._before = sys.stdout, sys.stderr
        self._out = _Stream(self, "stdout", self._before[1])
        self._err = _Stream(self, "stderr", self._before[1])
        sys.stdout, sys.stderr = cast("TextIO", self._out), cast("TextIO", self._err)
        self._listener = _listener()
        if self._listener is not None:
            self._heard: tuple[Taker, TextIO] | None = self._listener.to
            self._listener.to = (self.logged, self._before[1])
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._before
        if self._listener is not None:
            self._listener.to = self._heard
            if self._listener is not _Ears.listener:
                self._listener.close()
        for stream in (self._out, self._err):
            if stream.pending:
                stream.end()

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines."""
        return tuple(self._tail or ())

    def logged(self, level: Level, logger: str, message: str) -> str:
        """Take a message of a logger and return it with secrets masked."""
        message = redact(message)
        self.take(level, logger, [message])
        return message

    def take(self, level: Level, logger: str, messages: Iterable[str]) -> None:
        """Take messages whose secrets are masked."""
        held = self._lock.acquire(timeout=1.0)
        try:
            if self._tail is None:
                self._tail = deque(maxlen=TAIL)
            for message in messages:
                self._tail.append(shown(level, logger, message)[:WIDE])
                self._count += 1
                if self._files is not None and self._count <= _MOST:
                    if self._count == _MOST:
                        level, message = "warning", f"more than {_MOST:,} lines; the rest is left out"
                    self._files.append(Line.of(self._about, self._files.clock(), logger, message, level))
        finally:
            if held:
                self._lock.release()


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr`: takes whole lines, and hands on what is printed to the real one."""

    def __init__(self, taker: Capture, name: str, real: TextIO) -> None:
        self._taker = taker
        self._name = name
        self._real = real
        self.pending = ""
        # Characters of `pending` that were handed on already, by a flush.
        self._handed = 0
        self._secret = False

    def __getattr__(self, name: str) -> Any:
        # `encoding`, `isatty`, `fileno`, ...: as the real one says.
        return getattr(self._real, name)

    @property
    def buffer(self) -> _Bytes:
        """For those who write bytes."""
        return _Bytes(self)

    def write(self, text: str) -> int:
        """Take a text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        pending = self.pending = self.pending + text
        end = pending.rfind("\n") + 1
        if end:
            whole, self.pending = pending[:end], pending[end:]
            handed, self._handed = self._handed, 0
            self._lines(whole, handed)
        if "\r" in text or len(self.pending) > LONG:
            self.flush()
        if len(self.pending) > LONG:
            self.end()
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Take texts."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Hand on what there is of the line, for those who show progress in one."""
        text, self._handed = self.pending[self._handed :], len(self.pending)
        if text:
            self._hand(redact(text))
        self._real.flush()

    def end(self) -> None:
        """Take the line as it is, without a line break."""
        whole, self.pending = self.pending, ""
        handed, self._handed = self._handed, 0
        self._lines(whole, handed)

    def _lines(self, whole: str, handed: int) -> None:
        clean = redact(self._masked(whole))
        self._hand(redact(whole[handed:]) if handed else clean)
        # Of a line that was written over and over, as progress is, the last state counts.
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in clean.split("\n"))
        self._taker.take("info", self._name, [line for line in lines if line.strip()])

    def _masked(self, text: str) -> str:
        """Mask a private key that is printed line by line."""
        if not self._secret and _PEM not in text:
            return text
        kept = []
        for line in text.splitlines(keepends=True):
            if _PEM in line and "PRIVATE KEY" in line:
                self._secret = True
                kept.append("[redacted]\n")
            elif not self._secret:
                kept.append(line)
            elif "-----END " in line:
                self._secret = False
        return "".join(kept)

    def _hand(self, text: str) -> None:
        self._real.write(text)


class _Bytes:
    """The `buffer` of a stream."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Take bytes as UTF-8."""
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        """See `_Stream.flush`."""
        self._stream.flush()
