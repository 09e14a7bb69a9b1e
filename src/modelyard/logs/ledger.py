"""What the ledger tells, as lines of the logs: nothing of it is written twice."""

from __future__ import annotations

from typing import Any

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.text import number, plural, seconds_text
from modelyard.logs.line import Level, Line
from modelyard.records import Event
from modelyard.store import Ledger

__all__ = ["Teller"]

_ABOUT_ENDPOINTS = ("alias.moved", "model.approved", "model.unapproved")
_ENDED: dict[str, Level] = {"succeeded": "info", "failed": "error"}


class Teller:
    """Turns events into lines, with the trace of the run that they belong to.

    Args:
        ledger: Where a run's trace and fire are looked up.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, tuple[str, str]] = {}

    def line(self, event: Event) -> Line:
        """Return an event as a line."""
        try:
            level, message = _said(event)
        except (KeyError, TypeError, AttributeError):
            # Written by another version: that it happened is worth a line all the same.
            level, message = "info", f"{event.kind} by {event.actor}"
        trace, fire = self._of_run(event)
        body = event.payload
        about = body.get("deployment", body)
        return Line(
            time=event.time,
            level=level,
            logger="ledger",
            message=message,
            trace=trace or str(body.get("trace", "")),
            run=event.run,
            step=event.step,
            attempt=attempt if isinstance(attempt := body.get("attempt"), int) else 0,
            fire=fire,
            endpoint=str(about.get("endpoint", ""))
            if event.kind in _ABOUT_ENDPOINTS and isinstance(about, dict)
            else "",
            event=event.kind,
        )

    def _of_run(self, event: Event) -> tuple[str, str]:
        if event.kind in ("fire.queued", "fire.dropped"):
            return str(event.payload.get("trace", "")), str(event.payload.get("id", ""))
        if not event.run:
            return "", ""
        if event.kind == "run.started":
            self._known[event.run] = _ids(event)
        elif event.run not in self._known:
            found = next(iter(self._ledger.events(run=event.run, kinds=("run.started",), limit=1)), None)
            self._known[event.run] = _ids(found) if found else ("", "")
        if len(self._known) > 1000:
            self._known = {event.run: self._known[event.run]}
        return self._known[event.run]


def _ids(event: Event) -> tuple[str, str]:
    return str(event.payload.get("trace", "")), str(event.payload.get("fire", ""))


def _said(event: Event) -> tuple[Level, str]:
    """Return how bad an event is, and what it says."""
    body = event.payload
    about = event.kind.partition(".")[0]
    if about == "run":
        return _run(event, body)
    if about == "step":
        return _step(event, body)
    if about == "fire":
        return _fire(event, body)
    if about == "alert":
        level: Level = "warning" if event.kind == "alert.failed" else "info"
        what = body.get("title") or body.get("error") or body.get("why") or ", ".join(map(str, body.get("ids", [])))
        to = f" to {body['target']}" if body.get("target") else ""
        return level, f"alert {event.kind.partition('.')[2]}{to}: {what}"
    if event.kind == "alias.moved":
        to = body["deployment"]
        model = short(str(to["model"]["digest"]))
        return "info", f"{to['endpoint']}/{to['alias']} points at model {model} ({to.get('reason', '')})"
    if event.kind == "stages.declared":
        asks = (
            f"{one['name']} ({plural(one['approvals'], 'approval')}{', four eyes' if one['four_eyes'] else ''})"
            for one in body["stages"]
        )
        by = f" by {body['file']}" if body["file"] else ""
        return "info", f"{event.actor} declares the stages of {body['model']}{by}: {', '.join(asks)}"
    if event.kind in ("model.approved", "model.unapproved"):
        done = "approves" if event.kind == "model.approved" else "no longer approves"
        reason = f": {body['reason']}" if body["reason"] else ""
        return "info", f"{event.actor} {done} model {short(body['model'])} for {body['endpoint']}{reason}"
    return "info", f"{event.kind} by {event.actor}"


def _run(event: Event, body: dict[str, Any]) -> tuple[Level, str]:
    if event.kind == "run.started":
        asked = f", asked for by {body['fire']}" if body.get("fire") else ""
        return "info", f"run of {body['project']} started by {event.actor}{asked}"
    reason = f": {body['reason']}" if body.get("reason") else ""
    return _ENDED.get(body["status"], "warning"), f"run {body['status']}{reason}"


def _step(event: Event, body: dict[str, Any]) -> tuple[Level, str]:
    match event.kind:
        case "step.started":
            return "info", "started"
        case "step.finished":
            tables = [f"{number(v['rows'])} rows" for v in body["outputs"].values() if _is_table(v)]
            return "info", f"finished in {seconds_text(body.get('seconds', 0.0))}{_listed(tables)}"
        case "step.cached":
            return "info", "found in the ledger"
        case "step.retried":
            error = body["error"]
            then = f"the next attempt in {seconds_text(body['waits'])}"
            return "warning", f"attempt {body['attempt']} failed, {then}: {error['code']}: {error['message']}"
        case "step.failed":
            error = body["error"]
            place = f" at {error['where']}" if error.get("where") else ""
            return "error", f"failed{place}: {error['code']}: {error['message']}"
    return "warning", f"skipped: {body.get('reason', '')}"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") == "table"


def _listed(parts: list[str]) -> str:
    return f": {', '.join(parts)}" if parts else ""


def _fire(event: Event, body: dict[str, Any]) -> tuple[Level, str]:
    what = f"trigger {body['trigger']} ({body['kind']}), due {as_text(body['due'])}"
    if event.kind == "fire.queued":
        items = [item["name"] for item in body.get("items", [])]
        more = f" and {len(items) - 5} more" if len(items) > 5 else ""
        return "info", f"{what}: a run is asked for{_listed(items[:5])}{more}"
    return "info", f"{what}: left out, {body.get('why', '')}"
