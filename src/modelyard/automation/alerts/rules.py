"""What is worth telling: from what the ledger says, and for some from the clock, to what happened.

Pure: the same events give the same happenings, on any machine and however often they are read. What runs have to tell
stands in `runs`. Who is told, and when, is the business of `routes`; in which words, of `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from modelyard._kit.text import plural
from modelyard.automation.alerts.happening import LISTED, Happening
from modelyard.automation.alerts.runs import finished, started, step_done, step_failed, step_odd
from modelyard.records import AlertKind, Event, EventKind

__all__ = ["READ", "TROUBLES", "happenings", "is_moot", "is_over", "well"]

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


def happenings(event: Event, story: Callable[[], Sequence[Event]]) -> list[Happening]:
    """Return what an event says that somebody may want to know.

    Args:
        event: One of the kinds in `READ`; others say nothing.
        story: Returns the events of its run; called only where they are needed.
    """
    match event.kind:
        case "run.started":
            return [started(event)]
        case "run.finished":
            return [*finished(event, story())]
        case "step.finished":
            return [step_done(event), *step_odd(event)]
        case "step.failed":
            return [] if event.payload["error"].get("stale") else [step_failed(event)]
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


def _drifted(event: Event) -> Iterator[Happening]:
    failed = _failed(event)
    if not failed:
        return
    body = event.payload
    span = body.get("window", {})
    facts = [(result["check"]["name"], result["reason"]) for result in failed[:LISTED]]
    if len(failed) > LISTED:
        facts.append(("and", f"{len(failed) - LISTED} more"))
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
            *((name, plural(rows, "row")) for name, rows in guards[:LISTED]),
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
