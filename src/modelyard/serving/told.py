"""What the server says: a line for the operator on stderr, and the same as a line of the logs."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modelyard.logs import About, Line, LogFiles, logs_folder
from modelyard.logs.line import Level
from modelyard.security.redact import redact

__all__ = ["errors_said", "note", "say", "speak_for"]


class _Voice:
    """For whom this process speaks: a server is one process."""

    about = About()
    files: LogFiles | None = None


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


def speak_for(project: Path, endpoint: str, trace: str) -> None:
    """Write what is said from now on into the logs of a project, too.

    Args:
        project: Its folder.
        endpoint: Name of the endpoint.
        trace: Id that ties the deployment to the run that made the model.
    """
    _Voice.about = About(trace=trace, endpoint=endpoint)
    _Voice.files = LogFiles(logs_folder(project))


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
    if _Voice.files is not None:
        line = Line.of(_Voice.about, _Voice.files.clock(), "server", text, level)
        _Voice.files.append(msgspec.structs.replace(line, request=request))


def note(logger: str, lines: Sequence[tuple[str, str]], *, level: Level = "info") -> None:
    """Write lines into the logs only, all in one go.

    Args:
        logger: Who says it.
        lines: Id of the request, and text, which is JSON and holds the id as well.
        level: How bad it is.
    """
    if _Voice.files is not None and lines:
        _Voice.files.append(*[_noted(logger, request, text, level) for request, text in lines])


def _noted(logger: str, request: str, text: str, level: Level) -> Line:
    assert _Voice.files is not None  # noqa: S101 - who notes has looked
    hidden = redact(request) if "\\" in text else request
    # In JSON a quote or a backslash of the id stands otherwise: there the patterns may not know what they know in it.
    if hidden != request:
        text = text.replace(_quoted(request), _quoted(hidden))
    shown = redact(text)
    line = Line.of(_Voice.about, _Voice.files.clock(), logger, shown, level)
    # Where there is nothing to hide in the text, there is nothing in the id, which stands there.
    return msgspec.structs.replace(line, request=hidden if shown == text else redact(hidden))


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
