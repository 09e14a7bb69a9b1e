"""The gate: every result is looked at, and then all that did not hold is named at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from modelyard._kit.errors import CheckFailed
from modelyard._kit.text import plural
from modelyard.records import CheckResult

__all__ = ["gate"]

# The type of the checks that ask what a consumer asks, and of the one that asks for another model.
_CONSUMER, _BEATS = "consumer", "beats"


def gate(*, results: Iterable[Any]) -> list[dict[str, Any]]:
    """Stop if a blocking check did not hold.

    A check that says `insufficient` did not show what it claims, so a blocking one stops as well; `skipped` does not.

    Args:
        results: Results, or lists of them; evidence without a claim is passed over.

    Returns:
        For each result its `name`, `type`, `status`, `reason`, `blocking` and the digest of its `evidence`.

    Raises:
        CheckFailed: At least one blocking check failed or lacks evidence (`check-failed`); all are named.
    """
    found = list(_flat(results))
    stopping = [result for result in found if not result.ok]
    if stopping:
        count = plural(len(stopping), "blocking check")
        raise CheckFailed(
            "check-failed",
            f"{count} did not hold: {'; '.join(_line(result) for result in stopping)}",
            hint=f"nothing was released and the champion stays; {'; '.join(_next_steps(stopping))}",
        )
    return [
        {
            "name": result.check.name,
            "type": result.check.type,
            "status": result.status,
            "reason": result.reason,
            "blocking": result.check.blocking,
            "evidence": result.evidence.identity,
        }
        for result in found
    ]


def _flat(results: Iterable[Any]) -> Iterator[CheckResult]:
    for item in results:
        if isinstance(item, CheckResult):
            yield item
        elif isinstance(item, list | tuple):
            yield from _flat(item)


def _next_steps(stopping: Iterable[CheckResult]) -> Iterator[str]:
    """Yield what to do: who broke what a caller relies on cannot choose to only report it, and needs the caller."""
    own = False
    for result in stopping:
        if result.check.type != _CONSUMER:
            if _lacks_champion(result):
                yield f"`{result.check.name}` says how the run goes on without the bundle that is gone"
            else:
                own = True
            continue
        file, consumer = (result.evidence.details.get(name, result.check.name) for name in ("file", "consumer"))
        yield (
            f"let the model take and answer again what {consumer} relies on, or mend {consumer} first and then {file}: "
            f"`modelyard show {result.check.name}` lists each broken promise, and `modelyard contract check {file}` "
            "says whether the champion keeps them"
        )
    if own:
        yield "mend the model or its data, or set `blocking: false` on a check that should only report"


def _lacks_champion(result: CheckResult) -> bool:
    """Whether nothing is wrong with the model as far as can be told: the one to compare it with is gone."""
    return result.check.type == _BEATS and result.status == "insufficient" and bool(result.evidence.details.get("gone"))


def _line(result: CheckResult) -> str:
    lacking = " (insufficient evidence, which blocks too)" if result.status == "insufficient" else ""
    # A metric's reason begins with its name already.
    said = (
        result.reason if result.reason.startswith(f"{result.check.name} ") else f"{result.check.name}: {result.reason}"
    )
    return f"{said}{lacking}"
