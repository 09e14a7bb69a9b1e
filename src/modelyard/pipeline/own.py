"""The user's own steps: what `steps:` declares, held against the steps that are there and joined to them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import Problem, SpecError, near
from modelyard.records import Step
from modelyard.spec.sections.retries import to_retry

if TYPE_CHECKING:
    from modelyard.spec import Spec
    from modelyard.spec.sections.steps import OwnStep

__all__ = ["own_steps"]


def own_steps(spec: Spec, built_in: Sequence[Step]) -> list[Step]:
    """Return the own steps of a declaration, each after everything that it takes.

    Args:
        spec: The declaration.
        built_in: The steps that it has besides.

    Raises:
        SpecError: A step has the name of a built-in one, or takes what no step gives.
    """
    outputs = {step.name: step.outputs for step in built_in}
    problems = [
        Problem(
            "step-name-taken",
            f'"{name}" is the name of a built-in step',
            spec.where(f"steps.{name}"),
            "give the step another name; `modelyard plan` lists those that are taken",
        )
        for name in spec.steps
        if name in outputs
    ]
    outputs |= {name: step.outputs for name, step in spec.steps.items()}
    for name, step in spec.steps.items():
        problems += _unknown(spec, name, step, outputs)
    if problems:
        raise SpecError(sorted(problems, key=lambda p: int(p.where.rpartition(":")[2])))
    steps = {name: _step(spec, name, step) for name, step in spec.steps.items()}
    order = TopologicalSorter({n: [u for u in s.upstream if u in steps] for n, s in steps.items()})
    return [steps[name] for name in order.static_order()]


def _step(spec: Spec, name: str, step: OwnStep) -> Step:
    assert step.function is not None  # noqa: S101 - a rule of the file
    return Step(
        name=name,
        verb=_verb(step.function, spec.root),
        inputs={p: ref if isinstance(ref, str) else list(ref) for p, ref in step.inputs.items()},
        params=step.params,
        after=step.after,
        outputs=step.outputs,
        resources=step.resources.to_resources(),
        retry=to_retry(step.retries, to_retry(spec.retries)),
        timeout=step.timeout or 0.0,
        about=step.function,
    )


def _verb(function: str, root: Path) -> str:
    """Return the path of a function as it is the same in every checkout: relative to the project where it is inside."""
    file, _, name = function.rpartition(":")
    place = Path(file).expanduser()
    if place.is_absolute() and place.is_relative_to(root):
        file = place.relative_to(root).as_posix()
    return f"{posixpath.normpath(file)}:{name}"


def _unknown(spec: Spec, name: str, step: OwnStep, outputs: dict[str, tuple[str, ...]]) -> Iterator[Problem]:
    """Yield what the step takes and no step gives."""
    path = f"steps.{name}"
    refs = [(f"{path}.after", ref) for ref in step.after]
    for parameter, ref in step.inputs.items():
        refs += [(f"{path}.inputs.{parameter}", one) for one in ([ref] if isinstance(ref, str) else ref)]
    for at, ref in refs:
        other, _, output = ref.partition("#")
        if other not in outputs:
            yield Problem(
                "step-unknown",
                f'the step "{name}" waits for "{other}", and there is no such step',
                spec.where(at),
                _near(other, outputs) or "`modelyard plan` lists the steps",
            )
        elif output and output not in outputs[other]:
            yield Problem(
                "step-output-unknown",
                f'the step "{other}" has no output "{output}"',
                spec.where(at),
                _near(output, outputs[other]) or f"it has: {', '.join(outputs[other])}",
            )


def _near(name: str, known: Sequence[str] | dict[str, tuple[str, ...]]) -> str:
    close = near(name, known)
    return "did you mean " + " or ".join(f"`{c}`" for c in close) + "?" if close else ""
