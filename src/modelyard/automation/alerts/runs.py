"""What is worth telling of a run: that it began, what became of its steps, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from modelyard._kit.text import plural, seconds_text
from modelyard.automation.alerts.anomalies import anomalies
from modelyard.automation.alerts.happening import LISTED, Facts, Happening
from modelyard.records import Event, Prices, Run, Usage, fold_run

__all__ = ["finished", "lost", "started", "step_done", "step_failed", "step_odd"]

_DIED = "its process died"


def started(event: Event) -> Happening:
    """Say that a run has begun."""
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


def step_done(event: Event) -> Happening:
    """Say that a step has succeeded."""
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


def step_failed(event: Event) -> Happening:
    """Say that a step has failed."""
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


def step_odd(event: Event) -> Iterator[Happening]:
    """Yield what is wrong in the outputs of a step that succeeded."""
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


def finished(event: Event, story: Sequence[Event]) -> Iterator[Happening]:
    """Yield how a run ended, if that is worth telling.

    Args:
        event: Its end.
        story: The events of the run.
    """
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


def lost(run: Run, now: float) -> Happening:
    """Return what is told of a run that says `running` while no process alive runs it."""
    return _lost(run, now, cause=0)


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
        what=f"run was lost: {_DIED}" + (f" in {', '.join(cut[:LISTED])}" if cut else ""),
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
