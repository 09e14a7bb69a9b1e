"""What steps asked of the machine against what they used, and what they had better ask."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from modelyard._kit.text import number, plural, size_text
from modelyard.records import Plan, Run, Step, StepRun

__all__ = ["Advice", "advice"]

# Newest runs of a step that count, and seconds that one must have lasted for its share of a core to mean something.
_NEWEST, _LONG = 5, 1.0
# Asked more than so many times what was used, and so many bytes more: too much. Room above the peak that is advised.
_TOO_MUCH, _WORTH, _ROOM = 2.0, 256_000_000, 1.5
# A peak above this part of the limit is close to it; one above this many bytes wants a limit.
_CLOSE, _LARGE = 0.9, 2_000_000_000
# More cores than asked for, by this part: an overload for the neighbours.
_OVER = 0.25
_OUT_OF_MEMORY = "out-of-memory"


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One step that asks too much or too little of one kind.

    Attributes:
        step: Name of the step.
        kind: `memory` (bytes) or `cpus` (cores).
        asked: What it asks for; 0: nothing.
        used: What it used: highest memory, or median cores.
        ask: What it had better ask.
        runs: How many runs this is about.
        text: The same as a sentence.
    """

    step: str
    kind: Literal["memory", "cpus"]
    asked: float
    used: float
    ask: float
    runs: int
    text: str


class _Ran(NamedTuple):
    step: StepRun
    killed_at: float


def advice(plan: Plan, runs: Iterable[Run], followed: Callable[[Run], Plan | None] = lambda _: None) -> list[Advice]:
    """Compare what the steps of a plan ask with what they used when they ran last.

    Args:
        plan: What is asked now.
        runs: Runs of the project, in any order; of each step the five newest that it ran in count. Steps out of the
            cache used nothing and say nothing.
        followed: Returns the plan that a run followed, if it is known: a step that was killed at a smaller limit than
            the one of now says nothing of this one.

    Returns:
        In the order of the plan; nothing for steps that ask well.
    """
    seen: dict[str, list[_Ran]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.started, reverse=True):
        for one in run.steps:
            if one.status in ("succeeded", "failed") and len(seen[one.name]) < _NEWEST:
                seen[one.name].append(_Ran(one, _killed_at(one, run, followed)))
    found = []
    for step in plan.steps:
        if ran := seen.get(step.name):
            found += [one for one in (_of_memory(step, ran), _of_cpus(step, [one.step for one in ran])) if one]
    return found


def _of_memory(step: Step, ran: list[_Ran]) -> Advice | None:
    asked = step.resources.memory
    # Killed at less than is asked now: its peak is what it was allowed, and the limit was raised since.
    ran = [one for one in ran if not (one.step.error.get("code") == _OUT_OF_MEMORY and one.killed_at < asked)]
    peak, runs = max((one.step.used.peak_bytes for one in ran), default=0), plural(len(ran), "run")
    short = sum(one.killed_at >= asked for one in ran)
    ask = _round_up(peak * _ROOM)
    if short and asked:
        ask = max(ask, _round_up(2 * asked))
        text = f"asked {size_text(asked)}, and ran out of memory in {short} of {runs}: ask {size_text(ask)}"
    elif asked and peak > _CLOSE * asked:
        text = f"asked {size_text(asked)}, peak {size_text(peak)} over {runs}, which is close: ask {size_text(ask)}"
    elif asked > _TOO_MUCH * peak and asked - ask > _WORTH and peak:
        text = f"asked {size_text(asked)}, peak {size_text(peak)} over {runs}: ask {size_text(ask)}"
    elif not asked and peak > _LARGE:
        text = (
            f"asked for no memory, peak {size_text(peak)} over {runs}: ask {size_text(ask)}, so that it waits for room"
        )
    else:
        return None
    return Advice(step=step.name, kind="memory", asked=asked, used=peak, ask=ask, runs=len(ran), text=text)


def _killed_at(one: StepRun, run: Run, followed: Callable[[Run], Plan | None]) -> float:
    """Return the largest limit at which a step ran out of memory; `inf` if none is known, -1 if it never did."""
    kills = sum(error.get("code") == _OUT_OF_MEMORY for error in (*(a.error for a in one.attempts), one.error))
    if not kills:
        return -1.0
    plan = followed(run)
    then = next((step for step in plan.steps if step.name == one.name), None) if plan else None
    if then is None or not then.resources.memory:
        return math.inf
    # The attempt after the first kill has more.
    return float(max(then.resources.memory, then.retry.memory if kills > 1 else 0))


def _of_cpus(step: Step, ran: list[StepRun]) -> Advice | None:
    asked = step.resources.cpus
    shares = [one.usage.cpu_seconds / one.seconds for one in ran if one.seconds >= _LONG and one.status == "succeeded"]
    apart = step.resources.own_process or step.resources.memory or step.resources.gpus or step.timeout
    if not shares or not apart:
        return None
    used, ask = median(shares), max(1.0, float(math.ceil(median(shares) - _OVER)))
    if used > asked * (1 + _OVER):
        text = f"took {number(used, digits=2)} of {_cores(asked)}: ask {number(ask)}"
    elif asked > 1 and used * _TOO_MUCH < asked and ask < asked:
        text = f"used {number(used, digits=2)} of {_cores(asked)}: ask {number(ask)}"
    else:
        return None
    text += f" (median of {plural(len(shares), 'run')})"
    return Advice(step=step.name, kind="cpus", asked=asked, used=used, ask=ask, runs=len(shares), text=text)


def _cores(cores: float) -> str:
    return f"{number(cores)} core" if cores == 1 else f"{number(cores)} cores"


def _round_up(size: float) -> int:
    """Return a size that a person would write: two digits at most."""
    step = 10 ** max(8, math.floor(math.log10(max(size, 1))) - 1)
    step = step * 5 if step >= 10**8 and size >= 10**9 else step
    return int(math.ceil(size / step) * step)
