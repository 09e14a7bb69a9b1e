"""Turn a declaration into ordered steps; the one place where the houses are joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.clock import system_clock
from modelyard.checks.kinds import KINDS
from modelyard.checks.section import Parity, to_check
from modelyard.pipeline.own import Own, own_steps
from modelyard.pipeline.partitions import newest
from modelyard.pipeline.release_steps import consumer_steps, promotion_step
from modelyard.pipeline.table_steps import data_steps, features_step
from modelyard.records import Check, Plan, Resources, Step
from modelyard.spec.sections.retries import to_retry

if TYPE_CHECKING:
    from modelyard.models.section import Model
    from modelyard.spec import Spec

__all__ = ["all_steps", "compose"]

_OWN = Resources(own_process=True)
_RATES = "rates"


def compose(spec: Spec, *, now: float | None = None) -> Plan:
    """Return the plan of a declaration.

    `guard -> load.T -> contract.T -> features -> split -> train.FAMILY -> select -> fit -> evaluate -> check.NAME
    -> card -> gate -> package -> promote`, and the user's own steps; without `model`, those of the data and own ones.

    Args:
        spec: The declaration.
        now: Seconds since 1970 UTC, which says what the newest complete partition is; the clock's by default.

    Raises:
        SpecError: An own step does not fit to the others.
        UserError: No partition of an own step is complete yet (`partition-none`).
    """
    own = all_steps(spec)
    steps = newest(own.steps, own.partitions, system_clock() if now is None else now) if own.partitions else own.steps
    return Plan(project=spec.project, steps=tuple(steps))


def all_steps(spec: Spec) -> Own:
    """Return every step of a declaration by its bare name, and what each is partitioned by.

    Raises:
        SpecError: An own step does not fit to the others.
    """
    steps = data_steps(spec)
    if spec.features is not None or spec.model is not None:
        steps.append(features_step(spec))
    if spec.model is not None:
        steps += [*_models(spec, spec.model), *_measures(spec), *_checks(spec), *consumer_steps(spec), *_release(spec)]
    retry = to_retry(spec.retries)
    return own_steps(spec, [msgspec.structs.replace(step, retry=retry) for step in steps])


def _models(spec: Spec, model: Model) -> list[Step]:
    # One key a table: in joined rows any of them ties rows together.
    keys = [list(key) for key in sorted({tuple(sorted(source.key)) for source in spec.data.values()} - {()})]
    drop = _drop_of(spec)
    group = model.split.column if model.split.by == "group" else None
    order = model.split.column if model.split.by == "time" else None
    seconds = model.search.minutes * 60 if model.search.minutes else None
    common = {"drop": drop, "seed": model.seed}
    steps = [
        Step(
            name="split",
            verb="modelyard.data.steps:split",
            inputs={"table": "features", **_sources(spec, model)},
            params={
                "target": model.target,
                "metric": model.metric or "",
                "task": model.task,
                "positive": "" if model.positive is None else str(model.positive),
                "by": model.split.by,
                "test": model.split.test,
                "column": model.split.column,
                "seed": model.split.seed,
                "keys": keys,
                "keep": _kept_columns(spec),
                # Without any there is nothing to hold against the columns, and a key stays as it was.
                **({"drop": list(model.drop)} if model.drop else {}),
            },
            outputs=("train", "test", "problem"),
            about=f"{model.split.test:.0%} for the test, by {model.split.by}",
        ),
    ]
    steps += [
        Step(
            name=f"train.{family}",
            verb="modelyard.models.steps:train",
            inputs={"table": "split#train", "problem": "split#problem"},
            params={
                "family": family,
                "folds": model.search.folds,
                "group": group,
                "order": order,
                "keys": keys,
                "trials": model.search.trials,
                "seconds": seconds,
                **common,
            },
            resources=_OWN,
            about=f"search the settings of {family}",
        )
        for family in model.families
    ]
    steps += [
        Step(
            name="select",
            verb="modelyard.models.steps:select",
            inputs={"candidates": [f"train.{family}" for family in model.families], "problem": "split#problem"},
            outputs=("winner", "selection"),
            measures=True,
            about="compare the families on the same folds; a tie goes to the cheaper",
        ),
        Step(
            name="fit",
            verb="modelyard.models.steps:fit",
            inputs={
                "table": "split#train",
                "holdout": "split#test",
                "winner": "select#winner",
                "problem": "split#problem",
            },
            params={"name": spec.model_name, "limit": _parity_limit(spec), **common},
            outputs=("model", "parity"),
            resources=_OWN,
            about="train the winner on all training rows and export it",
        ),
    ]
    return steps


def _measures(spec: Spec) -> list[Step]:
    keep = _kept_columns(spec)
    factors = list(spec.card.factors)
    tested: dict[str, str | list[str]] = {"predictions": "evaluate", "problem": "split#problem"}
    steps = [
        Step(
            name="evaluate",
            verb="modelyard.models.steps:evaluate",
            inputs={"model": "fit#model", "table": "split#test"},
            params={"keep": keep},
            outputs=("predictions",),
            measures=True,
            about="answer the test rows",
        ),
        Step(
            name="curves",
            verb="modelyard.checks.steps:curves",
            inputs=tested,
            measures=True,
            about="curves, calibration and confusion on the test rows",
        ),
        Step(
            name="importances",
            verb="modelyard.models.steps:importances",
            inputs={"model": "fit#model", "table": "split#test", "problem": "split#problem"},
            params={"repeats": 3, "seed": spec.required_model.seed},
            resources=_OWN,
            measures=True,
            about="how much the metric loses when a column is shuffled",
        ),
    ]
    if factors:
        steps.append(
            Step(
                name=_RATES,
                verb="modelyard.checks.steps:rates",
                inputs=tested,
                params={"factors": factors, "seed": spec.required_model.seed},
                measures=True,
                about=f"error rates by {', '.join(factors)}",
            )
        )
    needs = {need for check in _claims(spec) for need in KINDS[check.type].needs}
    if "champion_predictions" in needs:
        steps += [
            Step(
                name="champion",
                verb="modelyard.pipeline.steps:champion",
                inputs={"model": "fit#model"},
                params={"endpoint": spec.endpoint},
                probe="modelyard.pipeline.probes:comparator",
                outputs=("model",),
                about="which model to compare with",
            ),
            Step(
                name="evaluate.champion",
                verb="modelyard.pipeline.steps:evaluate_champion",
                inputs={"model": "champion", "table": "split#test", "candidate": "fit#model"},
                params={"keep": keep, "endpoint": spec.endpoint},
                probe="modelyard.pipeline.probes:still_champion",
                outputs=("predictions",),
                measures=True,
                about="the champion's answers to the same rows",
            ),
        ]
    for check in _claims(spec):
        if "repeats" in KINDS[check.type].needs:
            steps.append(
                Step(
                    name=f"repeats.{check.name}",
                    verb="modelyard.models.steps:repeats",
                    inputs={
                        "table": "split#train",
                        "holdout": "split#test",
                        "winner": "select#winner",
                        "problem": "split#problem",
                        "model": "fit#model",
                    },
                    params={
                        "name": spec.model_name,
                        "runs": check.params["runs"],
                        "drop": _drop_of(spec),
                        "seed": spec.required_model.seed,
                        "limit": _parity_limit(spec),
                    },
                    resources=_OWN,
                    about="train again in fresh processes",
                )
            )
        if "latency" in KINDS[check.type].needs:
            steps.append(
                Step(
                    name=f"timing.{check.name}",
                    verb="modelyard.models.steps:latency",
                    inputs={"model": "fit#model", "table": "split#test"},
                    params={"rows": check.params["rows"]},
                    about="time predictions in process",
                )
            )
    return steps


# What a check needs -> the output that has it.
_SUPPLY = {
    "predictions": "evaluate",
    "champion_predictions": "evaluate.champion",
    "train": "split#train",
    "test": "split#test",
    "problem": "split#problem",
    "model": "fit#model",
    "parity": "fit#parity",
}
# What a check needs and another check of its kind may need with other settings: each has a step of its own.
_OWN_SUPPLY = {"repeats": "repeats", "latency": "timing"}


def _supply(check: Check, need: str) -> str:
    return f"{_OWN_SUPPLY[need]}.{check.name}" if need in _OWN_SUPPLY else _SUPPLY[need]


def _checks(spec: Spec) -> list[Step]:
    return [
        Step(
            name=f"check.{check.name}",
            verb=KINDS[check.type].verb,
            inputs={need: _supply(check, need) for need in KINDS[check.type].needs},
            params={"check": msgspec.to_builtins(check), "seed": spec.required_model.seed},
            outputs=("result",),
            measures=True,
            about=KINDS[check.type].about,
        )
        for check in _claims(spec)
    ]


def _release(spec: Spec) -> list[Step]:
    results = [f"check.{check.name}" for check in _claims(spec)] + [step.name for step in consumer_steps(spec)]
    contracts = ["guard#results", *(f"contract.{name}#results" for name in spec.data)]
    card_inputs: dict[str, str | list[str]] = {
        "model": "fit#model",
        "problem": "split#problem",
        "selection": "select#selection",
        "results": results,
        "contracts": contracts,
        "curves": "curves",
        "importances": "importances",
    }
    if spec.card.factors:
        card_inputs["rates"] = _RATES
    tables = ["features", "split#train", "split#test", *(f"contract.{name}#quarantine" for name in spec.data)]
    return [
        Step(
            name="facts",
            verb="modelyard.pipeline.steps:facts",
            inputs={"tables": tables},
            about="which tables the model rests on",
        ),
        Step(
            name="card",
            verb="modelyard.cards.steps:card",
            inputs={**card_inputs, "tables": "facts"},
            params={
                "project": _project(spec),
                "human": msgspec.to_builtins(spec.card),
                "split": msgspec.to_builtins(spec.required_model.split),
            },
            outputs=("card",),
            about="the evidence as a model card",
        ),
        Step(
            name="gate",
            verb="modelyard.checks.steps:gate",
            inputs={"results": results},
            after=("card",),  # a model that is refused has a card too, which says why
            outputs=("verdict",),
            about="a failed blocking check stops here",
        ),
        Step(
            name="package",
            verb="modelyard.models.steps:package",
            inputs={"model": "fit#model", "card": "card", "verdict": "gate"},
            outputs=("release",),
            about="put the card into the bundle and seal it",
        ),
        promotion_step(spec),
    ]


def _claims(spec: Spec) -> tuple[Check, ...]:
    """Return the declared checks; that the portable model answers as the trained one is always claimed."""
    declared = spec.check_list()
    if any(check.type == "parity" for check in declared):
        return declared
    return (*declared, to_check("parity", Parity()))


def _parity_limit(spec: Spec) -> float:
    """Return the difference up to which the portable model stands for the trained one."""
    return float(next(check.params["at_most"] for check in _claims(spec) if check.type == "parity"))


def _sources(spec: Spec, model: Model) -> dict[str, list[str]]:
    """Return what the names in `drop` are held against besides the model's table, where own code made that table.

    Elsewhere nothing takes columns away, and a key stays as it was.
    """
    fed = [name for name, step in spec.steps.items() if step.feeds]
    if not model.drop or not (fed or spec.features is not None):
        return {}
    return {"sources": [*(f"contract.{name}#accepted" for name in spec.data), *fed]}


def _drop_of(spec: Spec) -> list[str]:
    """Return the columns that the model does not see.

    Besides those that the user drops: keys name rows, and the column that a split goes by says nothing of a new row.
    """
    keys = {column for source in spec.data.values() for column in source.key}
    by = [spec.required_model.split.column] if spec.required_model.split.column else []
    return sorted({*spec.required_model.drop, *keys, *by})


def _kept_columns(spec: Spec) -> list[str]:
    columns = [*spec.card.factors]
    columns += [column for check in _claims(spec) for column in _across(check)]
    return list(dict.fromkeys(columns))


def _across(check: Check) -> list[str]:
    return list(check.params.get("across", ()))


def _project(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.project,
        "purpose": spec.purpose,
        "owners": msgspec.to_builtins(spec.owners),
        "endpoint": spec.model_name,
    }
