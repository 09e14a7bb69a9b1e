"""What the file must hold at all, and what cannot hold together in own steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.spec.sections.steps import OwnStep

__all__ = ["OF_A_MODEL", "step_rules", "upstream", "whole"]

# Sections that say something of a model, and what they would do without one.
OF_A_MODEL = {
    "checks": "measure a model",
    "card": "describe a model",
    "deploy": "serve a model",
    "monitor": "watch a model",
}


def whole(d: Declaration, places: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    """Yield the sections that are missing for others.

    Args:
        d: The declaration.
        places: Place of each path that is written in the file.
    """
    if d.model is None:
        if not d.steps and "data" in places:
            yield Finding(
                "",
                'the file needs "model", or "steps" for a project without one',
                "for example `model: {target: income, metric: roc_auc}`",
                ("model", "steps"),
                code="spec-missing-field",
            )
        elif not d.steps:
            yield Finding(
                "",
                'the file needs "data" and "model", or "steps"',
                "for example `steps: {clean: {function: steps.py:clean}}`; `modelyard init` writes a whole file",
                ("model", "steps", "data"),
                code="spec-missing-field",
            )
        for name, does in OF_A_MODEL.items():
            if name in places:
                yield Finding(
                    name,
                    f'"{name}" would {does}, and the file needs "model" for that',
                    f"add `model: {{target: COLUMN}}` and `data`, or take `{name}` out",
                    ("model",),
                    code="spec-missing-field",
                )
    if not d.data and d.model is not None:
        yield Finding(
            "model",
            'the file needs "data": a model learns from a table',
            "for example `data: {applicants: {from: data/*.csv, key: id}}`",
            ("data",),
            code="spec-missing-field",
        )
    if not d.data and d.model is None and d.features is not None:
        yield Finding(
            "features",
            'the file needs "data": "features" is a function of tables',
            "for example `data: {applicants: {from: data/*.csv, key: id}}`",
            ("data",),
            code="spec-missing-field",
        )


def step_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what is wrong with own steps by themselves, whatever other steps there are."""
    for name, step in d.steps.items():
        path = f"steps.{name}"
        if step.function is None:
            yield Finding(
                path,
                f'"{path}" needs "function"',
                f"for example `function: steps.py:{name.replace('-', '_')}`",
                (f"{path}.function",),
                code="spec-missing-field",
            )
        for parameter in step.inputs:
            if parameter in step.params:
                yield Finding(
                    f"{path}.params.{parameter}",
                    f'"{parameter}" of the step "{name}" is an input and a parameter',
                    "keep one of them",
                    (f"{path}.inputs",),
                )
    yield from _circles(d.steps)


def _circles(steps: Mapping[str, OwnStep]) -> Iterator[Finding]:
    """Built-in steps take nothing from own ones, so a circle can only be among these."""
    graph = {name: [u for u in upstream(step) if u in steps] for name, step in steps.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            first = min(circle, key=list(steps).index)
            turned = circle[:-1]
            while turned[0] != first:
                turned.append(turned.pop(0))
            waits = " -> ".join([*turned, first])
            at = f"steps.{first}"
            yield Finding(
                at,
                f'the step "{first}" waits for itself: {waits}',
                "take one of these out of the `inputs` or `after` of the step that has it",
                tuple(f"steps.{name}.{field}.*" for name in turned for field in ("inputs", "after")),
            )
            # Told once; another circle may be left.
            graph[first] = []
        else:
            return


def upstream(step: OwnStep) -> tuple[str, ...]:
    """Return the names of the steps that a step waits for, each once, in order."""
    refs = list(step.after)
    for ref in step.inputs.values():
        refs.extend([ref] if isinstance(ref, str) else ref)
    return tuple(dict.fromkeys(ref.partition("#")[0] for ref in refs))
