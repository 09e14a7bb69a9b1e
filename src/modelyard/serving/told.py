"""What the server says: a line for the operator on stderr, and the same as a line of the logs."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path

import msgspec

from modelyard.logs import About, Line, LogFiles, logs_folder
from modelyard.logs.line import Level
from modelyard.security.redact import redact

__all__ = ["Voice", "errors_said", "keep_voice", "note", "say", "speak_for", "speaking", "voice_here"]


class Voice:
    """For whom something is said: what stands on its lines, and the logs of which project they go to.

    Args:
        about: What stands on each line.
        files: The logs; none: lines go to stderr alone.
    """

    def __init__(self, about: About = About(), files: LogFiles | None = None) -> None:  # noqa: B008 - it is frozen
        self.about = about
        self.files = files

    @classmethod
    def of(cls, project: Path, endpoint: str, trace: str = "") -> Voice:
        """Return the voice of an endpoint.

        Args:
            project: Folder of its project.
            endpoint: Its name.
            trace: Id that ties the deployment to the run that made the model.
        """
        return cls(About(trace=trace, endpoint=endpoint), LogFiles(logs_folder(project)))


# For whom the process speaks where nobody says otherwise, and for whom it does here and now.
_usual = Voice()
_now: ContextVar[Voice | None] = ContextVar("voice", default=None)


class _Errors(logging.Handler):
    """Keeps what one thread says as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        self.take(record.getMessage())

    def take(self, text: str) -> None:
        if threading.get_ident() == self._thread:
            self.lines.append(text)


_listening: list[_Errors] = []


@contextmanager
def errors_said() -> Iterator[list[str]]:
    """Collect what this thread says as an error meanwhile: we ourselves, or a library through its logger."""
    heard = _Errors()
    _listening.append(heard)
    logging.getLogger().addHandler(heard)
    try:
        yield heard.lines
    finally:
        logging.getLogger().removeHandler(heard)
        _listening.remove(heard)


def speak_for(voice: Voice) -> None:
    """Speak for somebody from now on, wherever nobody says otherwise."""
    _usual.about, _usual.files = voice.about, voice.files


@contextmanager
def speaking(voice: Voice | None) -> Iterator[None]:
    """Speak for somebody meanwhile, also in callbacks that are made meanwhile; none: for whom the process does."""
    token = _now.set(voice)
    try:
        yield
    finally:
        _now.reset(token)


def voice_here() -> Voice | None:
    """Return for whom is spoken here and now, for who is made here and says something in the turn of somebody else."""
    return _now.get()


def keep_voice(work: Callable[..., object]) -> Callable[..., object]:
    """Return work for a thread that speaks there for whom it would here."""
    return partial(copy_context().run, work)


def say(text: str, *, level: Level = "info", request: str = "") -> None:
    """Write a line for the operator."""
    text = redact(text)
    # A full disk takes lines, never an answer.
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    if level == "error":
        for one in _listening:
            one.take(text)
    voice = _now.get() or _usual
    if voice.files is not None:
        line = Line.of(voice.about, voice.files.clock(), "server", text, level)
        voice.files.append(msgspec.structs.replace(line, request=request))


def note(logger: str, lines: Sequence[tuple[str, str]], *, level: Level = "info") -> None:
    """Write lines into the logs only, all in one go.

    Args:
        logger: Who says it.
        lines: Id of the request, and text, which is JSON and holds the id as well.
        level: How bad it is.
    """
    voice = _now.get() or _usual
    if voice.files is not None and lines:
        at = voice.files.clock()
        voice.files.append(*[_noted(voice.about, at, logger, request, text, level) for request, text in lines])


def _noted(about: About, at: float, logger: str, request: str, text: str, level: Level) -> Line:
    hidden = redact(request) if "\\" in text else request
    # In JSON a quote or a backslash of the id stands otherwise: there the patterns may not know what they know in it.
    if hidden != request:
        text = text.replace(_quoted(request), _quoted(hidden))
    shown = redact(text)
    line = Line.of(about, at, logger, shown, level)
    # Where there is nothing to hide in the text, there is nothing in the id, which stands there.
    return msgspec.structs.replace(line, request=hidden if shown == text else redact(hidden))


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
