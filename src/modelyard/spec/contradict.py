"""Find what is wrong between fields: each is right alone and they cannot hold together.

Each rule yields findings. A finding names the paths it was judged by, and is dropped when one of them could not be
read, so that one mistake is not told twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelyard._kit.errors import near
from modelyard.checks.metrics import METRICS
from modelyard.checks.section import Beats, Gap, MetricLimit, given
from modelyard.data.section import Rule, Source
from modelyard.models.section import Model
from modelyard.spec.declaration import Declaration
from modelyard.spec.outside import function_problems, notebook_problems, source_problems
from modelyard.spec.report import Finding, Report
from modelyard.spec.rules.alerts import alert_rules
from modelyard.spec.rules.columns import column_rules
from modelyard.spec.rules.consumers import consumer_rules
from modelyard.spec.rules.guards import guard_rules
from modelyard.spec.rules.logs import log_rules
from modelyard.spec.rules.rollout import rollout_rules
from modelyard.spec.rules.schedule import schedule_rules
from modelyard.spec.rules.stages import stage_rules
from modelyard.spec.rules.steps import function_rules, step_rules, tables_of, whole
from modelyard.spec.rules.store import store_rules
from modelyard.spec.rules.triggers import trigger_rules

__all__ = ["contradict"]

_TASKS = ("binary", "multiclass", "regression")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "text": (str, int, float),
    "bool": (bool, str),
    "date": (str,),
    "datetime": (str,),
}


def contradict(
    declaration: Declaration, root: Path, places: dict[str, tuple[int, int]], report: Report, *, files: bool
) -> None:
    """Note every contradiction in the report.

    Args:
        declaration: What was read; values that could not be used are placeholders.
        root: Folder of the project.
        places: Line and column of each path.
        report: Takes the findings.
        files: Also look at the files that are named.
    """
    rules = [
        _tables,
        step_rules,
        alert_rules,
        column_rules(root, files=files),
        guard_rules(root, files=files),
        log_rules,
        rollout_rules,
        stage_rules,
        store_rules,
        *([_outside(root), consumer_rules(root)] if files else []),
    ]
    findings = [*whole(declaration, places), *(finding for rule in rules for finding in rule(declaration))]
    if declaration.model is not None:
        findings += [f for rule in (_target, _split, _tasks) for f in rule(declaration, declaration.model)]
    for name, source in declaration.data.items():
        findings += _source(f"data.{name}", source)
    findings += _checks(declaration, places)
    findings += trigger_rules(declaration, root, places, files=files)
    findings += schedule_rules(declaration, root, places, files=files)
    for finding in findings:
        if report.judges(finding.at, *finding.needs):
            line, column = _place(finding.at, places)
            report.add(finding.code, finding.message, line, column, hint=finding.hint)


def _place(path: str, places: dict[str, tuple[int, int]]) -> tuple[int, int]:
    while path and path not in places:
        path = path.rpartition(".")[0]
    return places.get(path, (1, 1))


def _target(d: Declaration, model: Model) -> Iterator[Finding]:
    if model.target in model.drop:
        yield Finding(
            f"model.drop.{model.drop.index(model.target)}",
            f'the target "{model.target}" stands in "model.drop"',
            "take it out of `drop`: the target is never an input",
            ("model.target",),
        )
    if model.positive is None:
        return
    for name, source in d.data.items():
        rule = source.contract.get(model.target)
        if rule and rule.allowed and model.positive not in (known := [_as_text(v) for v in rule.allowed]):
            close = near(model.positive, known)
            yield Finding(
                "model.positive",
                f'"{model.positive}" is not among the values that the contract of "{name}" allows for "{model.target}"',
                f"did you mean `{close[0]}`?" if close else "there is: " + ", ".join(known),
                ("model.target", f"data.{name}.contract"),
            )


def _split(d: Declaration, model: Model) -> Iterator[Finding]:
    split = model.split
    if split.by != "random" and split.column is None:
        yield Finding(
            "model.split",
            f'a split by {split.by} needs "column"',
            "name the column with the time" if split.by == "time" else "name the column with the group",
            ("model.split.by", "model.split.column"),
        )
    elif split.by == "random" and split.column is not None:
        yield Finding(
            "model.split.column",
            'a random split has no use for "column"',
            "add `by: time` or `by: group`, or take `column` out",
            ("model.split.by",),
        )
    elif split.column is not None and split.column == model.target:
        yield Finding(
            "model.split.column",
            f'the split goes by "{split.column}", which is the target',
            "split by another column, or at random",
            ("model.target",),
        )


def _tables(d: Declaration) -> Iterator[Finding]:
    tables = tables_of(d)
    if d.model is not None and len(tables) > 1 and d.features is None:
        names = ", ".join(f'"{name}"' for name in tables)
        yield Finding(
            "data",
            f'there are {len(tables)} tables ({names}) and no "features" that makes one of them',
            "add `features: features.py:build`, a function of these tables that returns the model's table",
            ("features", "model"),
        )


def _tasks(d: Declaration, model: Model) -> Iterator[Finding]:
    """Hold everything that fits only some kinds of problem against what was said before it."""
    said: list[tuple[str, str, tuple[str, ...]]] = []
    if model.task != "auto":
        said.append(("model.task", f'"model.task" is {model.task}', (model.task,)))
    if model.metric:
        said.append(("model.metric", _measures(model.metric), METRICS[model.metric].tasks))
    if model.positive is not None:
        said.append(("model.positive", '"model.positive" is for binary problems', ("binary",)))
    if "logistic" in model.candidates:
        path = f"model.candidates.{model.candidates.index('logistic')}"
        said.append((path, '"logistic" is for classification', ("binary", "multiclass")))
    for index, kind, settings in _entries(d):
        metric = kind if isinstance(settings, MetricLimit) else getattr(settings, "metric", "")
        if metric in METRICS:
            tail = ".metric" if isinstance(settings, Gap) else ""
            said.append((f"checks.{index}.{kind}{tail}", _measures(metric), METRICS[metric].tasks))
    left = set(_TASKS)
    so_far: list[tuple[str, str, tuple[str, ...]]] = []
    for path, text, tasks in said:
        if left & set(tasks):
            left &= set(tasks)
            so_far.append((path, text, tasks))
            continue
        other, other_text, _ = next((s for s in so_far if not set(s[2]) & set(tasks)), so_far[-1])
        yield Finding(path, f"{text}, but {other_text}", "make them agree", (other,))


def _measures(metric: str) -> str:
    return f'"{metric}" measures {" and ".join(METRICS[metric].tasks)} problems'


def _outside(root: Path) -> Any:
    def rule(d: Declaration) -> Iterator[Finding]:
        for name, source in d.data.items():
            for index, pattern in enumerate(source.from_):
                for code, message, hint in source_problems(pattern, root):
                    at = f"data.{name}.from" + (f".{index}" if len(source.from_) > 1 else "")
                    yield Finding(at, message, hint, code=code)
        if d.features is not None:
            for code, message, hint in function_problems(d.features, root):
                yield Finding("features", message, hint, code=code)
        for name, step in d.steps.items():
            if step.function is not None:
                takes = ", ".join([*step.inputs, *step.params])
                for code, message, hint in function_problems(step.function, root, takes):
                    yield Finding(f"steps.{name}.function", message, hint, code=code)
            if step.notebook is not None:
                for code, message, hint in notebook_problems(step.notebook, root):
                    yield Finding(f"steps.{name}.notebook", message, hint, code=code)
            yield from function_rules(name, step, root)

    return rule


def _source(path: str, source: Source) -> Iterator[Finding]:
    for column, rule in source.contract.items():
        yield from _rule(f"{path}.contract.{column}", column, rule)
    if len(source.delimiter) == 2 and (source.delimiter[1] != " " or source.delimiter[0] == " "):
        yield Finding(
            f"{path}.delimiter",
            f'"{source.delimiter}" is not one character, nor one with a space after it',
            'for example `delimiter: ";"`',
        )
    if not source.columns:
        return
    doubled = sorted({c for c in source.columns if source.columns.count(c) > 1})
    if doubled:
        yield Finding(f"{path}.columns", f'"{doubled[0]}" stands twice in "columns"', "give each column its own name")
    named = [(f"{path}.key", c) for c in source.key] + [(f"{path}.contract.{c}", c) for c in source.contract]
    if source.cursor:
        named.append((f"{path}.cursor", source.cursor))
    for at, column in named:
        if column not in source.columns:
            close = near(column, source.columns)
            yield Finding(
                at,
                f'"{column}" is not among the "columns" of the file',
                f"did you mean `{close[0]}`?" if close else "there is: " + ", ".join(source.columns),
                (f"{path}.columns",),
            )


def _rule(path: str, column: str, rule: Rule) -> Iterator[Finding]:
    if rule.range is not None:
        yield from _range(f"{path}.range", column, rule)
    if rule.pattern is not None:
        yield from _pattern(path, column, rule)
    if rule.type is not None:
        odd = [v for v in rule.allowed if not _fits(v, rule.type)]
        if odd:
            yield Finding(
                f"{path}.allowed",
                f'"{_as_text(odd[0])}" is allowed for "{column}", and is not of its type {rule.type}',
                "write values of that type, or change `type`",
                (f"{path}.type",),
            )
    if not rule.nullable and rule.max_missing:
        yield Finding(
            f"{path}.max_missing",
            f'"{column}" may miss no value (`nullable: false`) and some (`max_missing`)',
            "keep one of them",
            (f"{path}.nullable",),
        )


def _range(at: str, column: str, rule: Rule) -> Iterator[Finding]:
    assert rule.range is not None  # noqa: S101 - for the type checker
    ends = [end for end in rule.range if end is not None]
    needs = (f"{at.rpartition('.')[0]}.type",)
    if rule.type in ("text", "bool"):
        yield Finding(
            at,
            f'"{column}" is {rule.type}, and a range is for numbers and dates',
            "take `range` out, or change `type`",
            needs,
        )
    elif rule.type is not None and (
        odd := [end for end in ends if not _fits(end, "float" if rule.type == "int" else rule.type)]
    ):
        yield Finding(
            at,
            f'"{odd[0]}" bounds "{column}", and is not of its type {rule.type}',
            "write it as the column has it",
            needs,
        )
    elif len({isinstance(end, str) for end in ends}) > 1:
        yield Finding(at, f'the range of "{column}" mixes a number and a text', "write both as the column has them")
    elif len(ends) == 2 and ends[0] > ends[1]:  # type: ignore[operator]
        yield Finding(
            at,
            f'the range of "{column}" begins at {ends[0]} and ends before it, at {ends[1]}',
            "write the smaller one first",
        )


def _pattern(path: str, column: str, rule: Rule) -> Iterator[Finding]:
    assert rule.pattern is not None  # noqa: S101 - for the type checker
    at = f"{path}.pattern"
    if rule.type not in (None, "text"):
        yield Finding(
            at,
            f'"{column}" is {rule.type}, and a pattern is for text',
            "take `pattern` out, or say `type: text`",
            (f"{path}.type",),
        )
    try:
        re.compile(rule.pattern)
    except re.error as error:
        yield Finding(
            at,
            f'"{rule.pattern}" is not a regular expression: {error}',
            "put a backslash before a sign that is meant as it is",
            code="spec-bad-value",
        )
        return
    if re.search(r"(?<!\\)\(\?(=|!|<=|<!)|\\[1-9]|\(\?P=", rule.pattern):
        yield Finding(
            at,
            f'"{rule.pattern}" looks around or back, which one pass over the rows cannot',
            "write it without `(?=`, `(?!`, `(?<` and `\\1`",
            code="spec-bad-value",
        )


def _fits(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _entries(d: Declaration) -> Iterator[tuple[int, str, Any]]:
    """Yield number, kind and settings of each check that could be read."""
    for index, entry in enumerate(d.checks):
        if (found := given(entry)) is not None:
            yield index, *found


def _checks(d: Declaration, places: dict[str, tuple[int, int]]) -> Iterator[Finding]:
    seen: dict[tuple[str, Any], str] = {}
    for index, kind, settings in _entries(d):
        path = f"checks.{index}.{kind}"
        first = seen.setdefault((kind, settings), path)
        if first != path:
            yield Finding(
                path,
                f'the check "{kind}" stands twice, word for word; the first is on line {_place(first, places)[0]}',
                "keep one of them",
                (f"{path}.*", f"{first}.*"),
                code="spec-duplicate-check",
            )
        match settings:
            case MetricLimit():
                yield from _limit(path, kind, settings)
            case Beats(champion=False, baseline=False):
                yield Finding(path, '"beats" compares with neither champion nor baseline', "set one of them to `true`")
            case Gap():
                yield from _gap(path, d, settings)


def _limit(path: str, kind: str, limit: MetricLimit) -> Iterator[Finding]:
    if limit.at_least is None and limit.at_most is None:
        side = "at_most" if METRICS[kind].higher_is_better is False else "at_least"
        yield Finding(
            path,
            f'"{kind}" has no limit',
            f"add `{side}: NUMBER`",
            (f"{path}.at_least", f"{path}.at_most"),
            code="spec-missing-field",
        )
    elif limit.at_least is not None and limit.at_most is not None and limit.at_least > limit.at_most:
        yield Finding(
            f"{path}.at_least",
            f'"{kind}" cannot be at least {limit.at_least:g} and at most {limit.at_most:g}',
            "take one of them out, or exchange them",
            (f"{path}.at_most",),
        )


def _gap(path: str, d: Declaration, gap: Gap) -> Iterator[Finding]:
    at = f"{path}.across"
    for column in gap.across:
        if d.model is not None and column == d.model.target:
            yield Finding(
                at,
                f'the gap is measured across "{column}", which is the target',
                "name a column that makes groups",
                ("model.target",),
            )
