"""Say what a plan would do, and why, without doing it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelyard._kit.errors import ModelyardError, NotFound, Tampered
from modelyard.pipeline.code import version_of
from modelyard.pipeline.environment import Environment, environment
from modelyard.pipeline.keys import Key, output_key
from modelyard.pipeline.probes import probe
from modelyard.pipeline.there import gone
from modelyard.records import Plan
from modelyard.store import Store

__all__ = ["Foreseen", "preview"]


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to one step.

    Attributes:
        step: Its name.
        verdict: `cached`, `run`, or `depends`: whether it runs shows only when a step before it has run.
        why: One sentence.
        seconds: How long it took last time; none if it never finished.
        needs: Names of the steps it takes something from.
    """

    step: str
    verdict: Literal["cached", "run", "depends"]
    why: str
    seconds: float | None = None
    needs: tuple[str, ...] = ()


def preview(plan: Plan, store: Store) -> list[Foreseen]:
    """Return, for each step in order, whether it would run and why; nothing is written."""
    foreseen: list[Foreseen] = []
    outputs: dict[str, dict[str, Any]] = {}
    env = environment().digest
    for step in plan.steps:
        latest = store.ledger.latest(step.name)
        seconds = latest.seconds if latest else None
        unknown = [name for name in step.upstream if name not in outputs]
        if unknown:
            why = f"takes the output of {', '.join(f'`{n}`' for n in unknown)}" if latest else "never ran"
            guess: Literal["depends", "run"] = "depends" if latest else "run"
            foreseen.append(Foreseen(step=step.name, verdict=guess, why=why, seconds=seconds, needs=step.upstream))
            continue
        inputs = {name: _input(ref, outputs) for name, ref in step.inputs.items()}
        try:
            _, keyed = probe(step, inputs, store)
            code = version_of(step.verb, store.root)
        except ModelyardError as error:
            why = f"will fail: {error.problem.message}"
            foreseen.append(Foreseen(step=step.name, verdict="run", why=why, seconds=seconds, needs=step.upstream))
            continue
        key = output_key(step, code=code, inputs=inputs, state=keyed, environment=env)
        hit = store.ledger.output(key.digest)
        lost = gone(hit.outputs, store) if hit is not None else ""
        if hit is not None and lost:
            verdict: Literal["cached", "run"] = "run"
            why = lost
        elif hit is not None:
            outputs[step.name] = hit.outputs
            verdict = "cached"
            why = "nothing it depends on changed"
        else:
            verdict = "run"
            why = _why(key, latest.made_of, store) if latest else "never ran"
        foreseen.append(Foreseen(step=step.name, verdict=verdict, why=why, seconds=seconds, needs=step.upstream))
    return foreseen


def _why(key: Key, before: dict[str, str], store: Store) -> str:
    """Say what changed; for the environment, which library or version."""
    why = key.explain(before)
    if before.get("environment") not in (None, key.made_of["environment"]):
        try:
            then = msgspec.json.decode(store.blobs.get(before["environment"]), type=Environment)
        except (NotFound, Tampered, msgspec.DecodeError):
            return why  # what changed cannot be named any more; that it changed is still true
        why += f": {', '.join(then.changes(environment())[:3])}"
    return why


def _input(ref: str | list[str], outputs: dict[str, dict[str, Any]]) -> Any:
    if isinstance(ref, list):
        return [_input(one, outputs) for one in ref]
    name, _, output = ref.partition("#")
    return outputs[name][output] if output else next(iter(outputs[name].values()))
