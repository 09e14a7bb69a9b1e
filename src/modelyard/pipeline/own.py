"""The user's own steps: what `steps:` declares, held against the steps that are there and joined to them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelyard._kit.errors import Problem, SpecError, near
from modelyard.pipeline.notebooks import GIVEN_AS
from modelyard.pipeline.partitions import Partition
from modelyard.pipeline.settings import Settings, settings_of
from modelyard.records import Resources, Step
from modelyard.spec.functions import read_function
from modelyard.spec.rules.steps import circle_of
from modelyard.spec.sections.retries import to_retry

if TYPE_CHECKING:
    from modelyard.spec import Spec
    from modelyard.spec.sections.steps import OwnStep, Partitioned

__all__ = ["EXECUTED", "Own", "own_steps"]

NOTEBOOK = "modelyard.pipeline.notebooks:execute_notebook"
# The first output of a notebook: what it looks like when it has run.
EXECUTED = "notebook"


@dataclass(frozen=True, slots=True)
class Own:
    """All steps of a declaration, the built-in ones among them.

    Attributes:
        steps: The steps, by their bare names, each after everything that it takes.
        partitions: Name of a step -> what it is partitioned by.
    """

    steps: list[Step]
    partitions: dict[str, Partition] = field(default_factory=dict)


def own_steps(spec: Spec, built_in: Sequence[Step]) -> Own:
    """Return the steps of a declaration with the user's own among them.

    Args:
        spec: The declaration.
        built_in: The steps that it has besides, which may take from own ones.

    Raises:
        SpecError: A step has the name of a built-in one, takes what no step gives, or waits for itself.
    """
    if not spec.steps:
        return Own(list(built_in))
    taken = {step.name: step.outputs for step in built_in}
    problems = [
        Problem(
            "step-name-taken",
            f'"{name}" is the name of a built-in step',
            spec.where(f"steps.{name}"),
            "give the step another name; `modelyard plan` lists those that are taken",
        )
        for name in spec.steps
        if name in taken
    ]
    made = {name: _made(spec, name, step) for name, step in spec.steps.items()}
    own = {name: step for name, (step, _) in made.items()}
    partitions = {name: said.partition for name, (_, said) in made.items() if said.partition is not None}
    outputs = taken | {name: step.outputs for name, step in own.items()}
    for step in own.values():
        problems += _unknown(spec, step, outputs)
        problems += _apart(spec, step, partitions)
    if not problems:
        every = {step.name: step for step in [*built_in, *own.values()]}
        if not (circle := circle_of({step.name: list(step.upstream) for step in every.values()})):
            return Own([_with_outputs(step, outputs) for step in _ordered(every)], partitions)
        problems.append(_circle(spec, circle))
    raise SpecError(sorted(problems, key=lambda p: int(p.where.rpartition(":")[2])))


def _made(spec: Spec, name: str, step: OwnStep) -> tuple[Step, Settings]:
    """Return a step as it is declared, and what is said of it; what the file says wins over `@modelyard.step`."""
    taken = read_function(step.function, spec.root) if step.function else None
    said = _said(spec, name, step)
    if taken is not None:
        said = said.over(settings_of(taken.place, taken.settings))
    inputs = {p: ref if isinstance(ref, str) else list(ref) for p, ref in step.inputs.items()}
    retry = said.retry or to_retry(spec.retries)
    timeout = said.timeout or 0.0
    if step.notebook is not None:
        kept = said.outputs or ()
        notebook = Step(
            name=name,
            verb=NOTEBOOK,
            inputs={f"{GIVEN_AS}{p}": ref for p, ref in inputs.items()},
            params={"notebook": _place(step.notebook, spec.root), "params": step.params, "kept": list(kept)},
            outputs=(EXECUTED, *kept),
            probe="modelyard.pipeline.notebooks:notebook_probe",
            # Its kernel is a process anyway; this one waits for it beside the others.
            resources=said.over(Settings(own_process=True)).resources(),
            after=step.after,
            retry=retry,
            timeout=timeout,
            about=step.notebook,
        )
        return notebook, said
    assert step.function is not None  # noqa: S101 - a rule of the file
    file, _, function = step.function.rpartition(":")
    made = Step(
        name=name,
        verb=f"{_place(file, spec.root)}:{function}",
        inputs=inputs,
        params=step.params,
        after=step.after,
        outputs=said.outputs or ("value",),
        resources=said.resources(),
        retry=retry,
        timeout=timeout,
        about=(taken.about if taken else "") or step.function,
    )
    return made, said


def _said(spec: Spec, name: str, step: OwnStep) -> Settings:
    """Return what the file itself says: a default is not said."""
    path = f"steps.{name}"
    asked = {
        field: getattr(step.resources, field)
        for field in Resources.__struct_fields__
        if f"{path}.resources.{field}" in spec.places
    }
    return Settings(
        outputs=step.outputs if f"{path}.outputs" in spec.places else None,
        retry=to_retry(step.retries) if step.retries is not None else None,
        timeout=step.timeout,
        partition=_partition(step.partition) if step.partition is not None else None,
        **asked,
    )


def _partition(declared: Partitioned) -> Partition:
    return Partition.of(declared.every or "", declared.start or "", declared.values)


def _place(file: str, root: Path) -> str:
    """Return a path as it is the same in every checkout: relative to the project where it is inside."""
    place = Path(file).expanduser()
    if place.is_absolute():
        return place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)
    return posixpath.normpath(file)


def _unknown(spec: Spec, step: Step, outputs: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    """Yield what the step takes and no step gives."""
    for at, ref in _refs(step):
        other, _, output = ref.partition("#")
        if other not in outputs:
            known = [name for name in outputs if name != step.name]
            yield Problem(
                "step-unknown",
                f'the step "{step.name}" waits for "{other}", and there is no such step',
                spec.where(at),
                _near(other, known) or "`modelyard plan` lists the steps",
            )
        elif output and output not in outputs[other]:
            yield Problem(
                "step-output-unknown",
                f'the step "{other}" has no output "{output}"',
                spec.where(at),
                _near(output, outputs[other]) or f"it has: {', '.join(outputs[other])}",
            )


def _apart(spec: Spec, step: Step, partitions: Mapping[str, Partition]) -> Iterator[Problem]:
    """Yield what a partitioned step takes from steps that are partitioned otherwise: which of theirs would it be?"""
    own = partitions.get(step.name)
    for at, ref in _refs(step):
        name = ref.partition("#")[0]
        other = partitions.get(name)
        if own is not None and other is not None and not own.alike(other):
            yield Problem(
                "step-partition",
                f'the step "{step.name}" and "{name}", which it waits for, are partitioned differently',
                spec.where(at),
                "partition both alike, or take `partition` out of one of them",
            )


def _refs(step: Step) -> Iterator[tuple[str, str]]:
    """Yield path in the file and text of everything that a step waits for."""
    path = f"steps.{step.name}"
    yield from ((f"{path}.after", ref) for ref in step.after)
    for parameter, ref in step.inputs.items():
        at = f"{path}.inputs.{parameter.removeprefix(GIVEN_AS)}"
        yield from ((at, one) for one in ([ref] if isinstance(ref, str) else ref))


def _with_outputs(step: Step, outputs: Mapping[str, tuple[str, ...]]) -> Step:
    """Name the output that is meant where a step has several: events keep them in no order."""

    def named(ref: str) -> str:
        return f"{ref}#{outputs[ref][0]}" if len(outputs.get(ref, ())) > 1 else ref

    inputs = {p: named(ref) if isinstance(ref, str) else [named(one) for one in ref] for p, ref in step.inputs.items()}
    return step if inputs == step.inputs else msgspec.structs.replace(step, inputs=inputs)


def _circle(spec: Spec, circle: list[str]) -> Problem:
    first = next(name for name in circle if name in spec.steps)
    turned = [*circle[circle.index(first) :], *circle[: circle.index(first)], first]
    return Problem(
        "spec-contradiction",
        f'the step "{first}" waits for itself: {" -> ".join(turned)}',
        spec.where(f"steps.{first}"),
        "take one of these out of `inputs` or `after`, or take out `feeds`",
    )


def _ordered(steps: Mapping[str, Step]) -> list[Step]:
    """Return the steps in the given order, each moved behind what it takes."""
    done: dict[str, Step] = {}
    stack = list(steps)[::-1]
    while stack:
        name = stack[-1]
        waits = [above for above in steps[name].upstream if above not in done]
        if waits and name not in done:
            stack.extend(reversed(waits))
        else:
            done.setdefault(stack.pop(), steps[name])
    return list(done.values())


def _near(name: str, known: Sequence[str]) -> str:
    close = near(name, known)
    return "did you mean " + " or ".join(f"`{c}`" for c in close) + "?" if close else ""
