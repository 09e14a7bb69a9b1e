"""Which runtime answers for a model: the cheapest of those that meet the limits, or none and how far the nearest is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelyard._kit.text import number, plural, size_text
from modelyard.checks.latency import FEWEST
from modelyard.checks.verdict import holds
from modelyard.records import Check, CheckResult, Evidence, Limit, Runtime, RuntimeName

__all__ = ["ALIKE", "Cell", "Limits", "Missed", "choose", "missed"]

# Largest loss where none is declared: that to which an export is held, `modelyard.models.export.LIMIT`.
ALIKE = 1e-4
# Costs that differ by less are the same cost: two measurements of one runtime differ by as much.
_SAME = 0.05


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a runtime.

    Attributes:
        name: The only one that may be chosen; empty: any.
        p99: Seconds that 99 of 100 predictions stay below.
        memory: Bytes that it may add to a server.
        size: Bytes of the files that it reads.
        batch: Rows of a prediction, for which all of this holds.
        max_loss: Largest loss; none: any, for it was named.
    """

    name: RuntimeName | None = None
    p99: float | None = None
    memory: int | None = None
    size: int | None = None
    batch: int = 1
    max_loss: float | None = ALIKE


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime with some threads, asked for some rows at once.

    Attributes:
        runtime: Which.
        threads: Threads of one prediction.
        batch: Rows of one prediction.
        n: Predictions timed.
        p50_ms: Half of them were faster.
        p99_ms: 99 of 100 were faster.
        cpu_us: CPU a row in microseconds, of all threads: the middle of `rounds`.
        rounds: The same by round.
        memory: Resident bytes that loading it, and answering so far, added to a process that had only the rows.
        size: Bytes of the files that it reads.
        loss: How far its answers are from those that the model was released with, see `modelyard.models.losing`.
        worst: Largest difference of one of them.
        equal: Share of rows with the same label; 1 for regression.
    """

    runtime: RuntimeName
    threads: int
    batch: int
    n: int
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rounds: tuple[float, ...]
    memory: int
    size: int
    loss: float
    worst: float
    equal: float


class Missed(msgspec.Struct, frozen=True):
    """A limit that a cell misses.

    Attributes:
        times: So many times the limit is what was measured; more than 1.
        text: One sentence.
    """

    times: float
    text: str


def missed(cell: Cell, limits: Limits) -> list[Missed]:
    """Return the limits that a cell misses, the farthest first."""
    ms = limits.p99 * 1e3 if limits.p99 is not None else None
    found = [
        _over("p99", cell.p99_ms, ms, lambda value: f"{number(value)} ms"),
        _over("memory", cell.memory, limits.memory, size_text),
        _over("size", cell.size, limits.size, size_text),
        _over("loss", cell.loss, limits.max_loss, lambda value: f"{number(value * 100)}%"),
    ]
    if ms is not None and cell.n < FEWEST:
        found.append(Missed(float("inf"), f"{plural(cell.n, 'timing')} tell too little about p99; it needs {FEWEST}"))
    return sorted((one for one in found if one is not None), key=lambda one: -one.times)


def _over(what: str, value: float, bar: float | None, text: Any) -> Missed | None:
    if bar is None or holds(value, Limit(op="at_most", value=bar)):
        return None
    times = value / bar if bar else float("inf")
    return Missed(times, f"its {what} of {text(value)} is {_times(times)} the limit of {text(bar)}")


def _times(times: float) -> str:
    return f"{number(times, digits=3)} times" if times < float("inf") else "above"


def choose(
    cells: Sequence[Cell],
    limits: Limits,
    *,
    usual: RuntimeName,
    left_out: Mapping[RuntimeName, str],
    evidence: Evidence,
) -> tuple[Runtime | None, CheckResult]:
    """Choose a runtime.

    The cheapest is the one that takes the least CPU for a row, in predictions of `limits.batch` rows. Costs within 5%
    of the least are the same; of these what answers anyway is kept, then the fewer threads, the smaller files.

    Args:
        cells: What was measured.
        limits: What is asked.
        usual: What answers where nothing is decided.
        left_out: Runtime -> why it was not measured.
        evidence: How it was measured; value, count and what was chosen are put in.

    Returns:
        What was chosen, none if nothing meets the limits; and the same as the result of a check.
    """
    asked = [one for one in cells if one.batch == limits.batch and limits.name in (None, one.runtime)]
    good = [one for one in asked if not missed(one, limits)]
    check = Check(name="runtime", type="runtime", params=msgspec.to_builtins(limits), blocking=False)
    if not good:
        found = msgspec.structs.replace(evidence, details={**evidence.details, "chosen": None})
        reason = _nearest(asked, limits, left_out)
        return None, CheckResult(check=check, status="failed", reason=reason, limit=None, evidence=found)
    least = min(one.cpu_us for one in good)
    same = [one for one in good if one.cpu_us <= least * (1 + _SAME)]
    best = min(same, key=lambda one: (one.runtime != usual, one.threads, one.size, one.cpu_us))
    found = msgspec.structs.replace(
        evidence,
        value=best.cpu_us,
        n=best.n,
        details={**evidence.details, "chosen": {"runtime": best.runtime, "threads": best.threads}},
    )
    reason = (
        f"{_named(best)} takes {number(best.cpu_us, digits=3)} µs of CPU a row, {_beside(best, asked, good, limits)}"
    )
    runtime = Runtime(name=best.runtime, threads=best.threads)
    return runtime, CheckResult(check=check, status="passed", reason=reason, limit=None, evidence=found)


def _beside(best: Cell, asked: Sequence[Cell], good: Sequence[Cell], limits: Limits) -> str:
    if limits.name is not None:
        return "and was named"
    others = [one for one in good if one.runtime != best.runtime]
    if others:
        next_best = min(others, key=lambda one: one.cpu_us)
        least = f"the least of {len(good)} of {len(asked)} that meet the limits"
        return f"{least}; {_named(next_best)} takes {number(next_best.cpu_us, digits=3)}"
    return f"and no other runtime meets the limits ({plural(len(asked) - len(good), 'cell')} of {len(asked)} do not)"


def _nearest(asked: Sequence[Cell], limits: Limits, left_out: Mapping[RuntimeName, str]) -> str:
    if not asked:
        why = left_out.get(limits.name, "") if limits.name else ""
        return f"{limits.name or 'no runtime'} cannot answer for this model: {why or 'it was not measured'}"
    nearest = min(asked, key=lambda one: (missed(one, limits)[0].times, one.cpu_us))
    said = "; ".join(one.text for one in missed(nearest, limits))
    which = f"{limits.name} does not meet" if limits.name else "no runtime meets"
    return f"{which} the limits; the nearest is {_named(nearest)}: {said}"


def _named(cell: Cell) -> str:
    return f"{cell.runtime} on {plural(cell.threads, 'thread')}"
