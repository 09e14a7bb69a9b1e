"""Make checks of what a fault did, compare them with the last drill, and write them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard.automation.drill.bench import Order
from modelyard.automation.drill.faults import Found
from modelyard.records import Check, CheckResult, Deployment, Draft, Evidence, Limit, Status, plain
from modelyard.store.base import Store

__all__ = ["BACK", "Drilled", "judged", "last_of", "not_tried", "record"]

# Seconds until the service has to be back: of one process of several, and of a whole server.
BACK, _BACK_WHOLE = 5.0, 20.0
# Share of the served that may come later than the deadline.
_LATE = 0.01
_METHOD = {
    "kill": "kill -9 of one of the processes that answer",
    "disk": "RLIMIT_FSIZE of the server's processes set to 0, so that every write to a file fails",
    "clock": "time.time of the server's processes a day ahead, then a day back",
    "lock": "BEGIN IMMEDIATE on the server's own ledger and log by another process; back: it follows the ledger",
    "spike": "ten times the rate that held, open-loop Poisson arrivals",
    "restart": "kill -9 of the whole server, then started again at the same port",
}
# Measure -> unit, and what it says of one, of several.
_SAID = {
    "failed": ("requests", "{value} failed"),
    "wrong": ("answers", "{value} answered otherwise than before"),
    "back": ("s", "all as before after {value} s"),
    "died": ("processes", "{value} died of it"),
    "lost": ("requests", "{value} answered and not logged"),
    "late": ("", "{value} of the served came late"),
    "hintless": ("refusals", "{value} did not say when to come back"),
    "torn": ("blocks", "{value} of the log cannot be read"),
}


@dataclass(frozen=True, slots=True)
class Drilled:
    """What came out.

    Attributes:
        results: One a fault and measure; one of a fault that was not tried.
        last: Value of the last drill like this one, by name of the check.
        before: Whether there was one.
    """

    results: Sequence[CheckResult]
    last: Mapping[str, float | None]
    before: bool


def judged(order: Order, name: str, found: Found, last: Mapping[str, float | None], model: str) -> list[CheckResult]:
    """Return a result for each measure of a fault.

    Args:
        order: How the server was broken.
        name: The fault.
        found: What it did.
        last: Value of the last drill by name of the check.
        model: Digest of the model.
    """
    limits = {"failed": float(found.allowed), "back": _BACK_WHOLE if name == "restart" else BACK, "late": _LATE}
    values: dict[str, float | None] = {
        "failed": found.failed,
        "wrong": found.wrong,
        "back": found.back,
        "died": found.died,
        "lost": found.lost,
        **found.more,
    }
    judge = _Judge(order, name, found, last, model)
    return [judge.result(measure, value, limits.get(measure, 0.0)) for measure, value in values.items()]


def not_tried(order: Order, name: str, why: str, model: str) -> CheckResult:
    """Return the result of a fault that could not be brought about: it has not been passed."""
    evidence = Evidence(measure=name, value=None, seed=order.seed, method=_METHOD[name], model=model, volatile=True)
    check = Check(name=f"drill.{name}", type="drill", blocking=False)
    return CheckResult(check=check, status="skipped", reason=f"not tried: {why}", limit=None, evidence=evidence)


class _Judge:
    """Judges the measures of one fault; see `judged`."""

    def __init__(self, order: Order, name: str, found: Found, last: Mapping[str, float | None], model: str) -> None:
        self._order = order
        self._name = name
        self._found = found
        self._last = last
        self._model = model

    def result(self, measure: str, value: float | None, most: float) -> CheckResult:
        """Hold a measure against the most that it may be; none: it never came so far."""
        name, unit = f"drill.{self._name}.{measure}", _SAID[measure][0]
        status: Status = "passed" if value is not None and value <= most else "failed"
        reason = self._reason(measure, value, most)
        if status == "failed" and measure in self._found.doubtful:
            status, reason = "insufficient", f"{reason}; {self._found.doubtful[measure]}"
        before = self._last.get(name)
        if before is not None:
            reason += f" (last time {_shown(measure, before)})"
        evidence = Evidence(
            measure=measure,
            value=value,
            unit=unit,
            n=self._found.asked,
            seed=self._order.seed,
            method=_METHOD[self._name],
            model=self._model,
            # Once a fault is enough.
            details=dict(self._found.details) if measure == "failed" else {},
            volatile=True,
        )
        check = Check(name=name, type="drill", params=self._order.like(), blocking=False)
        limit = Limit(op="at_most", value=most, unit=unit)
        return CheckResult(check=check, status=status, reason=reason, limit=limit, evidence=evidence)

    def _reason(self, measure: str, value: float | None, most: float) -> str:
        if value is None:
            return f"not as before within half a minute; at most {_shown(measure, most)}"
        said = _SAID[measure][1].format(value=_shown(measure, value))
        said += f" of {self._found.asked:,}" if measure == "failed" else ""
        said += f"; at most {_shown(measure, most)}"
        return f"{said}, which were under way" if measure == "failed" and most else said


def _shown(measure: str, value: float) -> str:
    if measure == "late":
        return f"{value:.1%}"
    return f"{value:.2f}" if measure == "back" else f"{value:,.0f}"


def last_of(store: Store, endpoint: str, order: Order) -> tuple[dict[str, float | None], bool]:
    """Return the newest value of each check of earlier drills like this one, and whether there was any such drill."""
    found: dict[str, float | None] = {}
    there = False
    for event in store.ledger.events(kinds=("drill.finished",)):
        payload = event.payload
        if payload["endpoint"] == endpoint and payload["like"] == order.like():
            there = True
            for one in payload["results"]:
                result = msgspec.convert(one, CheckResult)
                found[result.check.name] = result.evidence.value
    return found, there


def record(store: Store, deployment: Deployment, order: Order, drilled: Drilled, *, actor: str) -> dict[str, Any]:
    """Write what came out to the ledger, and return it as plain JSON."""
    payload = {
        "endpoint": deployment.endpoint,
        "model": deployment.model.digest,
        "like": order.like(),
        "results": [plain(result) for result in drilled.results],
    }
    store.ledger.append(Draft(kind="drill.finished", actor=actor, payload=payload))
    return payload
