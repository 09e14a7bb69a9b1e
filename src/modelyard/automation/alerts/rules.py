"""What is worth telling: from what the ledger says, and for some from the clock, to what happened.

Pure: the same events give the same happenings, on any machine and however often they are read. Who is told of them, and
when, is the business of `routes`; in which words, of `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard._kit.text import plural, seconds_text
from modelyard.automation.alerts.anomalies import anomalies
from modelyard.records import (
    AlertKind,
    Event,
    EventKind,
    Prices,
    Run,
    Urgency,
    Usage,
    fold_run,
)

__all__ = ["READ", "TROUBLES", "Happening", "happenings", "is_moot", "is_over", "lost", "well"]

# Kinds of event that something may be told of.
READ: tuple[EventKind, ...] = (
    "run.started",
    "run.finished",
    "step.finished",
    "step.failed",
    "watch.finished",
    "guard.alarmed",
    "guard.calmed",
    "endpoint.revived",
)
# What is a trouble: told again only after a while, and over at some time.
TROUBLES: tuple[AlertKind, ...] = ("failure", "stuck", "stale", "budget", "drift", "guards", "anomaly")

# More things than so many are counted, not listed.
_LISTED = 5
_DIED = "its process died"

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that somebody may want to know.

    Attributes:
        on: What it is.
        urgency: `high` is sent in quiet hours too, and never gathered.
        key: Name of the trouble, the same each time it comes again. What begins with `run/` is over when a run
            succeeds, `drift/ENDPOINT` when a watch finds nothing, `guards/ENDPOINT` when the alarm goes off.
        at: When, seconds since 1970 UTC.
        what: One sentence without the project's name.
        cause: Sequence number of the event; 0 where the clock is the cause.
        facts: Label and text, in the order of reading.
        run: Id of the run.
        step: Name of the step.
        trace: Id that ties it to its fire, run and log lines.
        once: What makes it one and the same, where that is not the event.
    """

    on: AlertKind
    urgency: Urgency
    key: str
    at: float
    what: str
    cause: int = 0
    facts: Facts = ()
    run: str = ""
    step: str = ""
    trace: str = ""
    once: str = ""

    @property
    def identity(self) -> str:
        """What its alerts have their ids from."""
        return self.once or f"{self.cause}/{self.key}"


def happenings(event: Event, story: Callable[[], Sequence[Event]]) -> list[Happening]:
    """Return what an event says that somebody may want to know.

    Args:
        event: One of the kinds in `READ`; others say nothing.
        story: Returns the events of its run; called only where they are needed.
    """
    match event.kind:
        case "run.started":
            return [_started(event)]
        case "run.finished":
            return [*_finished(event, story())]
        case "step.finished":
            return [_done(event), *_odd(event)]
        case "step.failed":
            return [] if event.payload["error"].get("stale") else [_step_failed(event)]
        case "watch.finished":
            return [*_drifted(event)]
        case "guard.alarmed":
            return [_alarmed(event)]
    return []


def is_over(key: str, event: Event) -> bool:
    """Say whether an event ends the trouble of a key."""
    if event.kind == "run.finished" and event.payload["status"] == "succeeded":
        return key.startswith("run/")
    if event.kind == "watch.finished":
        return key == _drift_key(event) and not _failed(event)
    if event.kind == "endpoint.revived" or (event.kind == "guard.calmed" and not event.payload["still"]):
        return key == _guards_key(event)
    return False


def well(event: Event) -> str:
    """Return what is told of an event that ends a trouble."""
    match event.kind:
        case "watch.finished":
            return "the requests are as in training again"
        case "guard.calmed":
            return f"{event.payload['endpoint']} refuses and holds back as few rows as usual again"
        case "endpoint.revived":
            return f"{event.payload['endpoint']} is switched on again"
    return "run succeeded"


def is_moot(key: str, event: Event) -> bool:
    """Say whether an event ends the trouble of a key without its being well: the run of a stuck step has ended."""
    return event.kind == "run.finished" and key.startswith(f"run/stuck/{event.run}/")


def lost(run: Run, now: float) -> Happening:
    """Return what is told of a run that says `running` while no process alive runs it."""
    return _lost(run, now, cause=0)


def _started(event: Event) -> Happening:
    body = event.payload
    facts = [("by", event.actor)]
    if body.get("fire"):
        facts.append(("fire", body["fire"]))
    return Happening(
        on="start",
        urgency="low",
        key=f"start/{event.run}",
        at=event.time,
        what=f"run started by {event.actor}",
        cause=event.seq,
        facts=(*facts, ("run", event.run)),
        run=event.run,
        trace=body.get("trace", ""),
    )


def _done(event: Event) -> Happening:
    took = seconds_text(event.payload.get("seconds", 0.0))
    return Happening(
        on="stage",
        urgency="low",
        key=f"stage/{event.run}/{event.step}",
        at=event.time,
        what=f"{event.step} is done after {took}",
        cause=event.seq,
        facts=(("run", event.run),),
        run=event.run,
        step=event.step,
    )


def _step_failed(event: Event) -> Happening:
    error = event.payload["error"]
    return Happening(
        on="stage",
        urgency="normal",
        key=f"stage/{event.run}/{event.step}",
        at=event.time,
        what=f"{event.step} failed: {error['message']}",
        cause=event.seq,
        facts=(*_of_error(error), ("next step", error.get("hint", "")), ("run", event.run)),
        run=event.run,
        step=event.step,
    )


def _finished(event: Event, story: Sequence[Event]) -> Iterator[Happening]:
    # What came after it belongs to it no more: the story ends with the event.
    run = fold_run(e for e in story if e.seq <= event.seq)
    if run is None:
        return
    match event.payload["status"]:
        case "succeeded":
            yield _succeeded(event, run, story)
        case "failed":
            yield _failure(event, run)
        case "skipped":
            yield _stale(event, run, story)
        case "stopped":
            yield _budget(event, run)
        case "interrupted" if run.reason == _DIED:
            yield _lost(run, event.time, cause=event.seq)


def _succeeded(event: Event, run: Run, story: Sequence[Event]) -> Happening:
    ran = sum(step.status == "succeeded" for step in run.steps)
    cached = sum(step.status == "cached" for step in run.steps)
    moved = [e.payload["deployment"] for e in story if e.kind == "alias.moved"]
    facts = [("steps", f"{ran} ran, {cached} taken from the ledger")]
    facts += [
        (to["alias"], f"{to['model']['name']} {to['model']['digest'][:12]}, revision {to['revision']}") for to in moved
    ]
    return Happening(
        on="success",
        urgency="low",
        key=f"success/{run.id}",
        at=event.time,
        what=f"run succeeded after {seconds_text(run.seconds)}",
        cause=event.seq,
        facts=(*facts, *_of_run(run)),
        run=run.id,
        trace=run.trace,
    )


def _failure(event: Event, run: Run) -> Happening:
    step = next((s for s in run.steps if s.status == "failed"), None)
    if step is None:
        what = f"run failed: {run.reason}"
        return Happening(
            on="failure",
            urgency="high",
            key="run/failure",
            at=event.time,
            what=what,
            cause=event.seq,
            facts=_of_run(run),
            run=run.id,
            trace=run.trace,
        )
    code = step.error.get("code", "step-failed")
    facts = _of_error(step.error)
    if step.attempts:
        facts += (("attempts", str(len(step.attempts) + 1)),)
    return Happening(
        on="failure",
        urgency="high",
        key=f"run/failure/{step.name}/{code}",
        at=event.time,
        what=f"run failed at {step.name}: {step.error.get('message', run.reason)}",
        cause=event.seq,
        facts=(
            *facts,
            ("replay", f"modelyard replay {run.id} {step.name}"),
            ("explain", f"modelyard explain {code}"),
            *_of_run(run),
        ),
        run=run.id,
        step=step.name,
        trace=run.trace,
    )


def _lost(run: Run, at: float, *, cause: int) -> Happening:
    cut = [step.name for step in run.steps if step.status in ("running", "interrupted")]
    again = "its fire is queued again" if run.fire else "`modelyard run` goes on from its finished steps"
    return Happening(
        on="failure",
        # A run that a trigger asked for comes again by itself.
        urgency="normal" if run.fire else "high",
        key="run/lost",
        at=at,
        what=f"run was lost: {_DIED}" + (f" in {', '.join(cut[:_LISTED])}" if cut else ""),
        cause=cause,
        facts=(
            ("likely cause", "killed by a person or by the system, e.g. out of memory, or the machine went down"),
            ("next step", again),
            ("run", run.id),
            ("by", run.actor),
        ),
        run=run.id,
        trace=run.trace,
        once=f"run/lost/{run.id}",
    )


def _stale(event: Event, run: Run, story: Sequence[Event]) -> Happening:
    guard = next((s for s in run.steps if s.status == "failed"), None)
    skipped = [e for e in story if e.kind == "step.skipped"]
    saved = sum((msgspec.convert(e.payload["saved"], Usage) for e in skipped if e.payload.get("saved")), Usage())
    facts = [("skipped", plural(len(skipped), "step"))]
    if saved != Usage():
        facts.append(("saved", _cost(saved, story)))
    if guard is not None and guard.error.get("hint"):
        facts.append(("next step", guard.error["hint"]))
    return Happening(
        on="stale",
        urgency="normal",
        key="run/stale",
        at=event.time,
        what=f"run skipped: {run.reason}",
        cause=event.seq,
        facts=(*facts, *_of_run(run)),
        run=run.id,
        step=guard.name if guard else "",
        trace=run.trace,
    )


def _budget(event: Event, run: Run) -> Happening:
    done = sum(step.status in ("succeeded", "cached") for step in run.steps)
    return Happening(
        on="budget",
        urgency="normal",
        key="run/budget",
        at=event.time,
        what=f"run stopped: {run.reason}",
        cause=event.seq,
        facts=(
            ("kept", plural(done, "finished step")),
            ("next step", "`modelyard cost` shows where it went; raise the budget and run again"),
            *_of_run(run),
        ),
        run=run.id,
        trace=run.trace,
    )


def _drifted(event: Event) -> Iterator[Happening]:
    failed = _failed(event)
    if not failed:
        return
    body = event.payload
    span = body.get("window", {})
    facts = [(result["check"]["name"], result["reason"]) for result in failed[:_LISTED]]
    if len(failed) > _LISTED:
        facts.append(("and", f"{len(failed) - _LISTED} more"))
    yield Happening(
        on="drift",
        urgency="normal",
        key=_drift_key(event),
        at=event.time,
        what=f"{body['endpoint']} has drifted: {len(failed)} of {plural(len(body['results']), 'check')} failed",
        cause=event.seq,
        facts=(
            *facts,
            ("requests", f"{span.get('rows', 0):,}"),
            ("next step", "`modelyard watch --all` shows every check; train again if the world has changed"),
        ),
    )


def _alarmed(event: Event) -> Happening:
    body = event.payload
    endpoint, killed = body["endpoint"], body["then"] == "kill"
    what = f"{endpoint} refused or held back {body['share']:.1%} of the last {plural(body['rows'], 'row')}"
    guards = sorted(body["guards"].items(), key=lambda item: (-item[1], item[0]))
    step = "`modelyard logs --follow` shows what its server says, `modelyard watch` whether requests have changed"
    if killed:
        step += f"; `modelyard revive {endpoint}` switches it on again"
    return Happening(
        on="guards",
        urgency="high",
        key=_guards_key(event),
        at=event.time,
        what=f"{what}, and is switched off" if killed else what,
        cause=event.seq,
        facts=(
            *((name, plural(rows, "row")) for name, rows in guards[:_LISTED]),
            ("allowed", f"{body['limit']:.1%}"),
            ("next step", step if killed else f"{step}; `modelyard kill {endpoint}` switches it off"),
        ),
    )


def _guards_key(event: Event) -> str:
    return f"guards/{event.payload['endpoint']}"


def _drift_key(event: Event) -> str:
    return f"drift/{event.payload['endpoint']}"


def _failed(event: Event) -> list[dict[str, Any]]:
    return [result for result in event.payload["results"] if result["status"] == "failed"]


def _odd(event: Event) -> Iterator[Happening]:
    for label, sentence in anomalies(event.payload["outputs"]):
        yield Happening(
            on="anomaly",
            urgency="normal",
            key=f"anomaly/{event.step}/{label}",
            at=event.time,
            what=f"{event.step}: {sentence}",
            cause=event.seq,
            facts=(("run", event.run),),
            run=event.run,
            step=event.step,
        )


def _of_error(error: dict[str, Any]) -> Facts:
    told = (
        ("error", error.get("code", "")),
        ("where", error.get("where", "")),
    )
    return tuple((label, text) for label, text in told if text)


def _of_run(run: Run) -> Facts:
    facts = [("run", run.id), ("by", run.actor), ("took", seconds_text(run.seconds))]
    if run.fire:
        facts.append(("fire", run.fire))
    return tuple(facts)


def _cost(usage: Usage, story: Sequence[Event]) -> str:
    """Return what a usage is worth: in money where prices are declared."""
    text = f"about {seconds_text(usage.cpu_seconds)} of CPU"
    raw = next((e.payload["prices"] for e in story if e.kind == "run.started" and "prices" in e.payload), None)
    if raw is None:
        return text
    prices = msgspec.convert(raw, Prices)
    return f"{text}, {prices.of(usage):.4g} {prices.currency}"
