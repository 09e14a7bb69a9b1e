"""What the file must hold at all, and what cannot hold together in own steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from modelyard._kit.errors import near
from modelyard._kit.periods import first_of
from modelyard.spec.declaration import Declaration
from modelyard.spec.functions import GIVEN, Taken, read_function
from modelyard.spec.report import Finding
from modelyard.spec.sections.steps import OwnStep, Partitioned

__all__ = ["OF_A_MODEL", "circle_of", "function_rules", "step_rules", "tables_of", "upstream", "whole"]

# Sections that say something of a model, and what they would do without one.
OF_A_MODEL = {
    "checks": "measure a model",
    "card": "describe a model",
    "deploy": "serve a model",
    "monitor": "watch a model",
}
_MISSING = "spec-missing-field"
_DATA = "for example `data: {applicants: {from: data/*.csv, key: id}}`"


def whole(d: Declaration, places: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    """Yield the sections that are missing for others.

    Args:
        d: The declaration.
        places: Place of each path that is written in the file.
    """
    if d.model is not None:
        if not d.data:
            yield Finding("model", 'the file needs "data": a model learns from a table', _DATA, ("data",), _MISSING)
        return
    if not d.steps:
        needed = (
            '"model", or "steps" for a project without one' if "data" in places else '"data" and "model", or "steps"'
        )
        hint = "for example `model: {target: income}`, or `steps: {clean: {function: steps.py:clean}}`"
        yield Finding("", f"the file needs {needed}", hint, ("model", "steps", "data"), _MISSING)
    for name, does in OF_A_MODEL.items():
        if name in places:
            yield Finding(
                name,
                f'"{name}" would {does}, and the file needs "model" for that',
                f"add `data` and `model`, or take `{name}` out",
                ("model",),
                _MISSING,
            )
    if not d.data and d.features is not None:
        yield Finding(
            "features", 'the file needs "data": "features" is a function of tables', _DATA, ("data",), _MISSING
        )


def tables_of(d: Declaration) -> list[str]:
    """Return the names of the tables that `features` takes, those that own steps feed included, each once."""
    return list(dict.fromkeys([*d.data, *(step.feeds for step in d.steps.values() if step.feeds)]))


def step_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what is wrong with own steps by themselves, whatever other steps there are."""
    fed: dict[str, str] = {}
    for name, step in d.steps.items():
        path = f"steps.{name}"
        if (step.function is None) == (step.notebook is None):
            both = '"function" or "notebook", and has both' if step.function else '"function"'
            yield Finding(
                path,
                f'"{path}" needs {both}',
                f"for example `function: steps.py:{name.replace('-', '_')}`",
                (f"{path}.function", f"{path}.notebook"),
                _MISSING if step.function is None else "spec-contradiction",
            )
        for parameter in step.inputs:
            if parameter in step.params:
                at = f"{path}.params.{parameter}"
                yield Finding(
                    at, f'"{parameter}" of the step "{name}" is an input and a parameter', "keep one of them", (path,)
                )
        for field, names in (("inputs", step.inputs), ("params", step.params)):
            for parameter in names:
                if parameter in GIVEN or (parameter == "partition" and step.partition is not None):
                    yield Finding(
                        f"{path}.{field}.{parameter}",
                        f'"{parameter}" of the step "{name}" is filled in by the runner',
                        "take it out; the function gets it where it has such a parameter",
                    )
        if step.partition is not None:
            yield from _partition(f"{path}.partition", step.partition)
        if step.feeds is not None:
            yield from _feeds(d, name, step, fed.setdefault(step.feeds, name))
    yield from _circles(d.steps)


def _partition(path: str, partition: Partitioned) -> Iterator[Finding]:
    either = (f"{path}.every", f"{path}.values")
    if (partition.every is None) == (not partition.values):
        has = 'both "every" and "values"' if partition.every else 'neither "every" nor "values"'
        yield Finding(path, f'"partition" has {has}', "for example `partition: daily`, or `{values: [a, b]}`", either)
    if partition.values and partition.start:
        yield Finding(f"{path}.start", '"start" is for periods, not for "values"', "take it out", either)
    if len(set(partition.values)) < len(partition.values):
        yield Finding(f"{path}.values", "a value stands twice", "keep one of them")
    if partition.start and partition.every:
        try:
            first_of(partition.every, partition.start)
        except ValueError:
            at = f"{path}.start"
            yield Finding(
                at, f'"{partition.start}" is no time', "for example `start: 2026-01-01`", code="spec-bad-value"
            )


def _feeds(d: Declaration, name: str, step: OwnStep, first: str) -> Iterator[Finding]:
    at = f"steps.{name}.feeds"
    if first != name:
        yield Finding(at, f'the steps "{first}" and "{name}" both feed "{step.feeds}"', "give each table its own name")
    if d.model is None and d.features is None:
        yield Finding(at, f'nothing takes the table "{step.feeds}": there is neither model nor features', "take it out")
    if step.partition is not None and step.partition.values:
        yield Finding(
            at, "a step with a partition by values makes several tables", "join them in a step, and feed that"
        )
    if step.notebook is not None:
        yield Finding(at, "the first output of a notebook is its executed copy, not a table", "feed from a function")


def function_rules(name: str, step: OwnStep, root: Path) -> Iterator[Finding]:
    """Yield where a step gives its function what it does not take, or does not give what it needs.

    Args:
        name: Name of the step.
        step: The step.
        root: Folder of the project; the function's file is read and never run.
    """
    taken = read_function(step.function, root) if step.function else None
    if taken is None or step.function is None:
        return
    path, function = f"steps.{name}", step.function.rpartition(":")[2]
    for keyword, line in taken.unread.items():
        yield Finding(
            f"{path}.function",
            f'"{keyword}" of `@modelyard.step` in {taken.file}:{line} is not a plain literal',
            "write the value itself there, or write it in the file's step",
            code="step-setting",
        )
    if taken.nameless:
        named = ", ".join(taken.nameless)
        yield Finding(
            f"{path}.function",
            f'"{function}" ({taken.place}) takes {named} by position only, and a step gives by name',
            "take the `/` out of its parameters",
            code="step-parameter",
        )
    partitioned = step.partition is not None or "partition" in taken.settings
    given = {**dict.fromkeys(step.inputs, "inputs"), **dict.fromkeys(step.params, "params")}
    if partitioned:
        given["partition"] = "partition"
    yield from _too_much(path, function, taken, given)
    needs = (f"{path}.inputs.*", f"{path}.params.*", f"{path}.partition")
    for parameter in taken.needed:
        if parameter not in given and parameter not in GIVEN:
            hint = f"add it to `inputs` or `params` of the step, or give it a default in {taken.file}"
            if parameter == "partition":
                hint = "say what the step is partitioned by, for example `partition: daily`"
            yield Finding(
                f"{path}.function",
                f'"{function}" ({taken.place}) needs "{parameter}", which the step does not give',
                hint,
                needs,
                "step-parameter",
            )


def _too_much(path: str, function: str, taken: Taken, given: Mapping[str, str]) -> Iterator[Finding]:
    if taken.anything:
        return
    for parameter, field in given.items():
        if parameter not in taken.names:
            close = near(parameter, taken.names)
            hint = f"did you mean `{close[0]}`?" if close else f"it takes: {', '.join(taken.names) or 'nothing'}"
            yield Finding(
                f"{path}.{field}" if field == "partition" else f"{path}.{field}.{parameter}",
                f'"{function}" ({taken.place}) takes no "{parameter}"',
                hint,
                code="step-parameter",
            )


def _circles(steps: Mapping[str, OwnStep]) -> Iterator[Finding]:
    graph = {name: [u for u in upstream(step) if u in steps] for name, step in steps.items()}
    while circle := circle_of(graph):
        yield Finding(
            f"steps.{circle[0]}",
            f'the step "{circle[0]}" waits for itself: {" -> ".join([*circle, circle[0]])}',
            "take one of these out of the `inputs` or `after` of the step that has it",
            tuple(f"steps.{name}.{field}.*" for name in circle for field in ("inputs", "after")),
        )
        # Told once; another circle may be left.
        graph[circle[0]] = []


def circle_of(graph: Mapping[str, list[str]]) -> list[str]:
    """Return steps of which each waits for the next and the last for the first; none if there is no circle.

    Args:
        graph: Name of a step -> the steps it waits for; the circle begins with the one that stands first here.
    """
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # It names who is waited for before who waits.
        circle = list(reversed(error.args[1]))[:-1]
        first = circle.index(min(circle, key=list(graph).index))
        return circle[first:] + circle[:first]
    return []


def upstream(step: OwnStep) -> tuple[str, ...]:
    """Return the names of the steps that a step waits for, each once, in order."""
    refs = list(step.after)
    for ref in step.inputs.values():
        refs.extend([ref] if isinstance(ref, str) else ref)
    return tuple(dict.fromkeys(ref.partition("#")[0] for ref in refs))
