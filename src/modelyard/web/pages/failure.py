"""What is known of a step beyond its row: attempts, the likely cause of its failure, its last lines, what it used."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from modelyard._kit.errors import ModelyardError
from modelyard.logs import logs_folder
from modelyard.logs.files import segments
from modelyard.logs.line import Line, shown
from modelyard.logs.read import lines
from modelyard.pipeline.capsule import opened
from modelyard.pipeline.causes import cause_of, likely
from modelyard.pipeline.execute import Failure
from modelyard.records import Attempt, EventKind, Prices, Run, StepRun
from modelyard.security.redact import redact
from modelyard.web.reader import Reader

__all__ = ["AttemptRow", "CauseRow", "Facts", "FailureRow", "attempt_rows", "facts_of", "failure_of", "last_lines"]

_KINDS: tuple[EventKind, ...] = ("run.started", "step.finished", "step.retried", "step.failed", "step.cached")
_LINES, _LONGEST = 40, 400


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt that failed and was followed by another.

    Attributes:
        number: 1 for the first.
        time: When it ended, seconds since 1970 UTC.
        seconds: Wall time.
        waits: Seconds until the next one.
        kind: Class of the error: `network`, `disk`, `memory`, `permission`, `data`, `code`, `environment`, `time` or
            `check`; empty where it cannot be told.
        code: Code of the error.
        message: What it said.
    """

    number: int
    time: float
    seconds: float
    waits: float
    kind: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CauseRow:
    """What likely caused a failure.

    Attributes:
        kind: Class of the error.
        says: What happened, and what changed since it worked.
        next: What to do.
        run: The run in which the step last succeeded; empty if it never did.
    """

    kind: str
    says: str
    next: str
    run: str


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A step that failed.

    Attributes:
        step: Its name.
        error: Code, message, place and hint.
        cause: What likely caused it; none where it cannot be told.
        replay: The command that runs just this step again on the same inputs; empty where nothing was kept for it.
        log: The last lines that it logged or printed.
    """

    step: str
    error: dict[str, str]
    cause: CauseRow | None
    replay: str
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the events of a run tell beyond its fold.

    Attributes:
        prices: Those that it was started with.
        saved: Seconds that the cached steps took when they ran.
        notes: Step -> what was done otherwise than asked, in sentences.
    """

    prices: Prices
    saved: float
    notes: dict[str, tuple[str, ...]]


def facts_of(store: Reader, run_id: str) -> Facts:
    """Read them."""
    prices, saved, notes = Prices(), 0.0, dict[str, tuple[str, ...]]()
    for event in store.ledger.events(run=run_id, kinds=_KINDS):
        body = event.payload
        if event.kind == "run.started":
            prices = msgspec.convert(body.get("prices", {}), Prices)
        elif event.kind == "step.cached":
            saved += float(body.get("from_seconds", 0.0))
        elif body.get("notes"):
            told = (*notes.get(event.step, ()), *(redact(str(note)) for note in body["notes"]))
            notes[event.step] = tuple(dict.fromkeys(told))
    return Facts(prices, saved, notes)


def attempt_rows(attempts: Iterable[Attempt]) -> tuple[AttemptRow, ...]:
    """Return attempts as rows, each with the class of its error."""
    return tuple(
        AttemptRow(
            number=one.number,
            time=one.time,
            seconds=one.seconds,
            waits=one.waits,
            kind=_kind(one),
            code=str(one.error.get("code", "")),
            message=redact(str(one.error.get("message", ""))),
        )
        for one in attempts
    )


def _kind(attempt: Attempt) -> str:
    try:
        return likely(msgspec.convert(attempt.error, Failure), {}, None).kind
    except msgspec.ValidationError:
        return ""


def failure_of(store: Reader, run: Run, step: StepRun) -> FailureRow | None:
    """Return what is known of a failed step; none if it did not fail."""
    if step.status != "failed":
        return None
    words = ("code", "message", "where", "hint")
    return FailureRow(
        step=step.name,
        error={key: redact(str(step.error[key])) for key in words if key in step.error},
        cause=_cause(store, run, step),
        replay=shlex.join(["modelyard", "replay", run.id, step.name]) if step.capsule else "",
        log=_kept(store, step),
    )


def _cause(store: Reader, run: Run, step: StepRun) -> CauseRow | None:
    try:
        found = cause_of(store.store, run, step.name)
    except (ModelyardError, msgspec.MsgspecError):
        # What it would be compared with is gone, or of another release.
        return None
    if found is None:
        return None
    return CauseRow(found.kind, redact(found.says), redact(found.next), found.run)


def _kept(store: Reader, step: StepRun) -> tuple[str, ...]:
    """Return the lines that a failed attempt left behind."""
    try:
        log = opened(store.store, step.capsule).log if step.capsule else ()
    except (ModelyardError, msgspec.MsgspecError):
        return ()
    return tuple(_cut(redact(line)) for line in log[-_LINES:])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def last_lines(store: Reader, run: Run, step: StepRun) -> tuple[str, ...]:
    """Return the last lines that a step logged or printed, from the files of the logs.

    Only the files of its days are looked at: there may be a month of them.
    """
    folder = logs_folder(store.store.root)
    ends = step.started + step.seconds or store.clock()
    begins = min([step.started, *(one.time - one.seconds for one in step.attempts)])
    days = [datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in (begins, ends)]
    others = {path.name: path.stat().st_size for path in segments(folder) if not days[0] <= path.name[:10] <= days[1]}
    found: list[Line] = [line for line in lines(folder, frozenset({run.id}), read=others) if line.step == step.name]
    found.sort(key=lambda line: line.time)
    return tuple(_cut(redact(shown(line.level, line.logger, line.message))) for line in found[-_LINES:])
