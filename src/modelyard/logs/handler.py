"""Listen to the loggers of `logging`; loaded only where `logging` is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

from modelyard.logs.line import Level
from modelyard.security.redact import redact

__all__ = ["Listener", "Taker"]

_PLAIN = logging.Formatter()
# Takes level, name and message; returns the message as it may be shown.
Taker = Callable[[Level, str, str], str]


class Listener(logging.Handler):
    """Hands on what is logged, until it is closed.

    Messages from `info` on are taken where nobody has chosen a level. Where nobody else shows messages, those from
    `warning` on are shown on stderr, as Python does it. Secrets are masked as soon as something is logged in a step, so
    that no handler of the user's sees them either.

    Attributes:
        to: Who takes messages, and where they are shown; none between two steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to: tuple[Taker, TextIO] | None = None
        root = logging.getLogger()
        self._alone = not root.handlers
        self._level = root.level
        if self._level == logging.WARNING:
            # What Python begins with: nobody has chosen it.
            root.setLevel(logging.INFO)
        root.addHandler(self)
        self._factory = logging.getLogRecordFactory()
        self._ours = self._masked  # bound once, so that it is known again
        logging.setLogRecordFactory(self._ours)

    def _masked(self, *args: Any, **given: Any) -> logging.LogRecord:
        """Make a record without secrets."""
        record: logging.LogRecord = self._factory(*args, **given)
        if self.to is None:
            return record
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - a mistake of whoever logs; the handlers say so
            return record
        masked = redact(said)
        if masked is not said and masked != said:
            record.msg, record.args = masked, None
        if record.exc_info and record.exc_info[0] is not None:
            # Formatters take this text if it is there already.
            record.exc_text = redact(_PLAIN.formatException(record.exc_info))
        return record

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        to = self.to
        shows = self._alone and record.levelno >= logging.WARNING
        try:
            if to is None:
                if shows:
                    sys.stderr.write(f"{self.format(record)}\n")
                return
            take, real = to
            message = take(_level(record.levelno), record.name, self.format(record))
            if shows:
                real.write(f"{message}\n")
        except Exception:  # noqa: BLE001 - `logging` says of it what there is to say
            self.handleError(record)

    def close(self) -> None:
        """Stop listening."""
        root = logging.getLogger()
        root.removeHandler(self)
        if logging.getLogRecordFactory() is self._ours:
            logging.setLogRecordFactory(self._factory)
        if self._level == logging.WARNING and root.level == logging.INFO:
            root.setLevel(self._level)
        super().close()


def _level(number: int) -> Level:
    if number >= logging.CRITICAL:
        return "critical"
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
