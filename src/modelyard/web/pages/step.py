"""A step of a run: what it was called with, what its key was made of, and everything it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from modelyard._kit.errors import NotFound
from modelyard.web.answer import answer
from modelyard.web.pages.parts import RunRow, run_row
from modelyard.web.pages.run import Given, find_run, given_by, plan_of
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["StepPage", "load", "view"]

_LONGEST = 24_000


@dataclass(frozen=True, slots=True)
class StepPage:
    """One step of one run.

    Attributes:
        title: Title of the page.
        run: The run it belongs to.
        name: Its name.
        about: One line on what it does.
        verb: Dotted path of its function.
        status: How it stands; `waiting` or `never` if it has not begun.
        started: Seconds since 1970 UTC; 0 if it has not begun.
        seconds: Wall time.
        cpu_seconds: CPU time.
        inputs: Parameter -> outputs it takes, as `step` or `step#output`.
        feeds: Steps that take something from it.
        params: Its settings, as JSON.
        key: Its output key.
        made_of: Part of the key -> digest.
        given: Everything it gave, as links.
        outputs: Everything it gave, as JSON, cut at 24 kB.
        cut: Whether the JSON was cut.
        error: Code, message, place and hint of a failed step.
        trace: Its trace.
    """

    title: str
    run: RunRow
    name: str
    about: str
    verb: str
    status: str
    started: float
    seconds: float
    cpu_seconds: float
    inputs: dict[str, tuple[str, ...]]
    feeds: tuple[str, ...]
    params: str
    key: str
    made_of: dict[str, str]
    given: tuple[Given, ...]
    outputs: str
    cut: bool
    error: dict[str, str]
    trace: str


def load(store: Reader, query: Query) -> StepPage:
    """Read one step of one run.

    Raises:
        NotFound: There is no such run, or no such step in it.
    """
    run, name = find_run(store, query.text("run")), query.text("step")
    plan = plan_of(store, run)
    planned = {step.name: step for step in plan.steps} if plan else {}
    done = {step.name: step for step in run.steps}
    if name not in done and name not in planned:
        raise NotFound.of("step", name, {*done, *planned})
    step, made = planned.get(name), done.get(name)
    row = run_row(store, run, store.catalog().tallies.get(run.id))
    status = made.status if made else ("waiting" if row.status == "running" else "never")
    outputs = msgspec.json.format(msgspec.json.encode(made.outputs), indent=2).decode() if made else ""
    refs = {key: (ref,) if isinstance(ref, str) else tuple(ref) for key, ref in step.inputs.items()} if step else {}
    return StepPage(
        title=name,
        run=row,
        name=name,
        about=step.about if step else "",
        verb=step.verb if step else "",
        status="interrupted" if status == "running" and row.status != "running" else status,
        started=made.started if made else 0.0,
        seconds=made.seconds if made else 0.0,
        cpu_seconds=made.cpu_seconds if made else 0.0,
        inputs=refs,
        feeds=tuple(other.name for other in planned.values() if name in other.upstream),
        params=msgspec.json.format(msgspec.json.encode(step.params), indent=2).decode() if step else "",
        key=made.key if made else "",
        made_of=made.made_of if made else {},
        given=tuple(given_by(made, run.id)) if made else (),
        outputs=outputs[:_LONGEST],
        cut=len(outputs) > _LONGEST,
        error={k: str(v) for k, v in made.error.items() if k in ("code", "message", "where", "hint")} if made else {},
        trace=str(made.error.get("trace", ""))[-_LONGEST:] if made else "",
    )


async def view(request: Request) -> Response:
    """Answer `/runs/{run}/steps/{step}`."""
    return await answer(request, load, "step.html")
