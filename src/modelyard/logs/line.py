"""One line of the logs, and what it is about."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["MOST", "About", "Level", "Line", "shown"]

Level = Literal["debug", "info", "warning", "error", "critical"]

# Characters that a message may have; the rest of a longer one is left out.
MOST = 16_384


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a line belongs to.

    Attributes:
        trace: Id that ties trigger, run, steps, deployment and requests together: 32 hex digits.
        run: Id of the run.
        step: Name of the step.
        attempt: Which attempt at it, 1 for the first.
        fire: Id of the fire that asked for the run.
        endpoint: Name of the endpoint, for lines of a server.
    """

    trace: str = ""
    run: str = ""
    step: str = ""
    attempt: int = 0
    fire: str = ""
    endpoint: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line; what is empty is not written.

    Attributes:
        time: Seconds since 1970 UTC.
        level: How bad it is.
        logger: Who says it: the name of a logger of the user's code, `stdout`, `stderr`, `native` (written past
            Python), `server`, `requests`, or `ledger` for what the ledger tells.
        message: What it says, secrets masked.
        trace: See `About`.
        run: See `About`.
        step: See `About`.
        attempt: See `About`.
        fire: See `About`.
        endpoint: See `About`.
        request: Id of the request.
        event: Kind of the event, for what the ledger tells.
    """

    time: float
    level: Level = "info"
    logger: str
    message: str
    trace: str = ""
    run: str = ""
    step: str = ""
    attempt: int = 0
    fire: str = ""
    endpoint: str = ""
    request: str = ""
    event: str = ""

    @classmethod
    def of(cls, about: About, time: float, logger: str, message: str, level: Level = "info") -> Line:
        """Return a line about something; a message that is too long is cut."""
        if len(message) > MOST:
            message = f"{message[:MOST]}… ({len(message) - MOST} more characters)"
        return cls(
            time=time,
            level=level,
            logger=logger,
            message=message,
            trace=about.trace,
            run=about.run,
            step=about.step,
            attempt=about.attempt,
            fire=about.fire,
            endpoint=about.endpoint,
        )


def shown(level: Level, logger: str, message: str) -> str:
    """Return what a line says as one text: printed text as it is, logged text with its level and logger."""
    return message if logger in ("stdout", "stderr", "native") else f"{level.upper()} {logger}: {message}"
