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
from modelyard.records import Plan, Step
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
        taken = _taken(step)
        unknown = [name for name in taken if name not in outputs]
        if unknown:
            why = _depends(step, unknown, latest.made_of, env, store) if latest else "never ran"
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
        # What only has to end before it is no part of its key; a function of the user's may change what its probe sees.
        earlier = [name for name in step.upstream if name not in outputs and not step.verb.startswith("modelyard.")]
        if hit is not None and lost:
            verdict: Literal["cached", "run", "depends"] = "run"
            why = lost
        elif hit is not None and earlier and step.probe:
            verdict = "depends"
            why = f"looks at what {_named(earlier)} may change"
        elif hit is not None:
            outputs[step.name] = hit.outputs
            verdict = "cached"
            why = "nothing it depends on changed"
        else:
            verdict = "run"
            why = _why(key, latest.made_of, store) if latest else "never ran"
        foreseen.append(Foreseen(step=step.name, verdict=verdict, why=why, seconds=seconds, needs=step.upstream))
    return foreseen


def _taken(step: Step) -> list[str]:
    """Return the names of the steps whose outputs are part of a step's key."""
    refs = [one for ref in step.inputs.values() for one in ([ref] if isinstance(ref, str) else ref)]
    return list(dict.fromkeys(ref.partition("#")[0] for ref in refs))


def _depends(step: Step, unknown: list[str], before: dict[str, str], env: str, store: Store) -> str:
    """Say what is known of a step whose inputs are not: what of its own changed, and what it takes."""
    takes = f"takes the output of {_named(unknown)}"
    try:
        own = output_key(step, code=version_of(step.verb, store.root), inputs={}, state=None, environment=env).made_of
    except ModelyardError:
        return takes  # what is wrong with its code is said when it is its turn
    # The environment is the same for all, and said of the first that runs for it.
    known = {name: own[name] for name in ("code", "params")}
    if not before or all(before.get(name) == digest for name, digest in known.items()):
        return takes
    return f"{Key('', known).explain({name: before.get(name, '') for name in known})}; {takes}"


def _named(steps: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in steps)


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
