"""A small project with a past: five runs, a champion, a card, watches. `python tests/web/seed.py DIR` writes it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import polars as pl

from modelyard._kit.digest import digest_of
from modelyard.records import (
    Block,
    Candidate,
    Card,
    Check,
    CheckResult,
    Deployment,
    Draft,
    Evidence,
    Fact,
    Feature,
    Interval,
    Limit,
    ModelVersion,
    Plan,
    Problem,
    Section,
    Signature,
    Step,
    TableVersion,
    plain,
)
from modelyard.store.local import LocalStore

BEGAN = 1_795_000_000.0  # 2026-11-18
TRACE = """\
Traceback (most recent call last):
  File "features.py", line 14, in build
    frame.with_columns(nw.col("hours") * 52)
ColumnNotFoundError: hours
"""
FAMILIES = ("linear", "random_forest", "hist_gradient_boosting", "lightgbm")
COUNTRIES = ("United-States", "Mexico", "Philippines", "Germany", "Canada", "India")
CHECKS = ("roc_auc", "beats", "gap.false_negative_rate", "repeatable", "latency", "brier")


class Ticker:
    """A clock that moves only when it is told to."""

    def __init__(self, now: float = BEGAN) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Seeded:
    """What the seed wrote.

    Attributes:
        store: The store.
        clock: Its clock, at the end of the story.
        runs: Ids of the runs: first, broken, refused, best, again.
        models: Models by run id.
    """

    store: LocalStore
    clock: Ticker
    runs: list[str] = field(default_factory=list)
    models: dict[str, ModelVersion] = field(default_factory=dict)


def plan(project: str = "income") -> Plan:
    """Return a plan like the one that `modelyard run` makes."""
    steps = [
        Step(
            name="load.applicants",
            verb="modelyard.data.steps:load",
            params={"from": ["data/*.csv"]},
            outputs=("table",),
            about="read what is new in data/*.csv",
        ),
        Step(
            name="contract.applicants",
            verb="modelyard.data.steps:contract",
            inputs={"table": "load.applicants"},
            outputs=("accepted", "quarantine", "results"),
            about="hold applicants against its contract, put bad rows aside",
        ),
        Step(
            name="features",
            verb="modelyard.data.steps:features",
            inputs={"tables": ["contract.applicants#accepted"]},
            outputs=("table",),
            about="features.py:build",
        ),
        Step(
            name="split",
            verb="modelyard.data.steps:split",
            inputs={"table": "features"},
            params={"test": 0.2, "seed": 0},
            outputs=("train", "test", "problem"),
            about="20% for the test, by random",
        ),
        *(
            Step(
                name=f"train.{f}",
                verb="modelyard.models.steps:train",
                inputs={"table": "split#train", "problem": "split#problem"},
                params={"family": f, "trials": 20},
                about=f"search the settings of {f}",
            )
            for f in FAMILIES
        ),
        Step(
            name="select",
            verb="modelyard.models.steps:select",
            inputs={"candidates": [f"train.{f}" for f in FAMILIES]},
            outputs=("winner", "selection"),
            about="compare the families on the same folds; a tie goes to the cheaper",
        ),
        Step(
            name="fit",
            verb="modelyard.models.steps:fit",
            inputs={"table": "split#train", "winner": "select#winner"},
            outputs=("model", "parity"),
            about="train the winner on all training rows and export it",
        ),
        Step(
            name="evaluate",
            verb="modelyard.models.steps:evaluate",
            inputs={"model": "fit#model", "table": "split#test"},
            outputs=("predictions",),
            about="answer the test rows",
        ),
        *(
            Step(
                name=f"check.{c}",
                verb="modelyard.checks.steps:metric",
                inputs={"predictions": "evaluate"},
                outputs=("result",),
                about="a claim against a limit",
            )
            for c in CHECKS
        ),
        Step(
            name="card",
            verb="modelyard.cards.steps:card",
            inputs={"model": "fit#model", "results": [f"check.{c}" for c in CHECKS]},
            outputs=("card",),
            about="the evidence as a model card",
        ),
        Step(
            name="gate",
            verb="modelyard.checks.steps:gate",
            inputs={"results": [f"check.{c}" for c in CHECKS]},
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
        Step(
            name="promote",
            verb="modelyard.deploy.steps:promote",
            inputs={"model": "package"},
            outputs=("deployment",),
            about="point income/champion at the new model",
        ),
    ]
    return Plan(project=project, steps=tuple(steps))


SECONDS = {
    "load.applicants": 0.84,
    "contract.applicants": 0.41,
    "features": 0.22,
    "split": 0.12,
    "train.linear": 3.9,
    "train.random_forest": 14.2,
    "train.hist_gradient_boosting": 11.6,
    "train.lightgbm": 9.8,
    "select": 0.02,
    "fit": 2.6,
    "evaluate": 0.4,
    "check.roc_auc": 0.31,
    "check.beats": 0.52,
    "check.gap.false_negative_rate": 0.2,
    "check.repeatable": 7.4,
    "check.latency": 1.1,
    "check.brier": 0.1,
    "card": 0.3,
    "gate": 0.001,
    "package": 0.05,
    "promote": 0.002,
}


class Story:
    """Writes runs the way the runner does: events with outputs, step by step."""

    def __init__(self, root: Path) -> None:
        self.clock = Ticker()
        self.store = LocalStore(root, clock=self.clock)
        self.seeded = Seeded(self.store, self.clock)
        self.random = Random(7)  # noqa: S311 - the same story every time
        self.plan = plan()
        self.problem = Problem(
            task="binary", target="income", classes=("<=50K", ">50K"), positive=">50K", metric="roc_auc"
        )

    def frame(self, rows: int) -> pl.DataFrame:
        r = self.random
        return pl.DataFrame(
            {
                "id": range(1, rows + 1),
                "age": [r.randint(17, 90) for _ in range(rows)],
                "education": [r.choice(("HS-grad", "Bachelors", "Some-college", "Masters")) for _ in range(rows)],
                "hours_per_week": [r.randint(10, 70) for _ in range(rows)],
                "capital_gain": [0 if r.random() < 0.9 else r.randint(100, 20000) for _ in range(rows)],
                "native_country": [r.choice(COUNTRIES) if r.random() > 0.04 else None for _ in range(rows)],
                "sex": [r.choice(("Female", "Male")) for _ in range(rows)],
                "score": [round(r.random(), 4) for _ in range(rows)],
                "income": ["<=50K" if r.random() < 0.76 else ">50K" for _ in range(rows)],
            }
        )

    @contextmanager
    def run(self, run_id: str, actor: str = "user:ada") -> Iterator[str]:
        digest = self.store.blobs.put(msgspec.json.encode(self.plan))
        self.write("run.started", run_id, payload={"project": "income", "plan": digest}, actor=actor)
        self.seeded.runs.append(run_id)
        yield run_id

    def write(
        self, kind: Any, run_id: str, step: str = "", payload: dict[str, Any] | None = None, actor: str = "runner"
    ) -> None:
        self.store.ledger.append(Draft(kind=kind, run=run_id, step=step, actor=actor, payload=payload or {}))

    def done(self, run_id: str, step: str, outputs: dict[str, Any], *, key: str = "") -> None:
        seconds = SECONDS[step] * (0.85 + 0.3 * self.random.random())
        key = key or digest_of([run_id, step])
        self.write("step.started", run_id, step, {"key": key})
        self.clock.now += seconds
        made_of = {part: digest_of([step, part]) for part in ("code", "params", "inputs", "environment")}
        body = {
            "key": key,
            "seconds": seconds,
            "cpu_seconds": seconds * 0.9,
            "outputs": plain(outputs),
            "made_of": made_of,
        }
        self.write("step.finished", run_id, step, body)

    def side_by_side(self, run_id: str, steps: dict[str, dict[str, Any]]) -> None:
        """Run steps on two workers: each takes the next one when it is free."""
        free = [self.clock.now, self.clock.now]
        ends = []
        for step, outputs in steps.items():
            worker = free.index(min(free))
            seconds = SECONDS[step] * (0.85 + 0.3 * self.random.random())
            ends.append((free[worker] + seconds, seconds, step, outputs))
            free[worker] += seconds
        for end, seconds, step, outputs in sorted(ends, key=lambda e: e[0]):
            self.clock.now = end
            body = {
                "key": digest_of([run_id, step]),
                "seconds": seconds,
                "cpu_seconds": seconds * 0.9,
                "outputs": plain(outputs),
                "made_of": {},
            }
            self.write("step.finished", run_id, step, body)

    def cached(self, run_id: str, step: str, of: str) -> None:
        found = self.store.ledger.run(of)
        assert found is not None
        old = found.step(step)
        body = {
            "key": old.key,
            "outputs": old.outputs,
            "made_of": {},
            "from_seconds": old.seconds,
            "seconds": 0.0,
            "cpu_seconds": 0.0,
        }
        self.clock.now += 0.002
        self.write("step.cached", run_id, step, body)

    def failed(self, run_id: str, step: str, code: str, message: str, hint: str) -> None:
        error = {
            "code": code,
            "message": message,
            "where": "features.py:14",
            "hint": hint,
            "exit_code": 2,
            "trace": TRACE,
        }
        self.write("step.started", run_id, step, {"key": digest_of([run_id, step])})
        self.clock.now += 0.2
        self.write("step.failed", run_id, step, {"key": digest_of([run_id, step]), "seconds": 0.2, "error": error})

    def end(self, run_id: str, status: str, reason: str = "") -> None:
        self.write(
            "run.finished",
            run_id,
            payload={"status": status, "reason": reason, "result": digest_of([run_id, "result"])},
        )

    def table(self, name: str, frame: pl.DataFrame, parents: tuple[str, ...] = ()) -> TableVersion:
        return self.store.tables.write(
            name, frame, key=digest_of([name, frame.height, self.clock.now]), parents=parents
        )

    # -- the parts of a run

    def data(self, run_id: str, rows: int) -> tuple[TableVersion, TableVersion]:
        raw = self.frame(rows)
        loaded = self.table("load.applicants.table", raw)
        self.done(run_id, "load.applicants", {"table": loaded})
        bad = raw.head(7).with_columns(pl.lit("age: 203 is above 100").alias("reason"))
        accepted = self.table("contract.applicants.accepted", raw.tail(rows - 7), (loaded.digest,))
        aside = self.table("contract.applicants.quarantine", bad, (loaded.digest,))
        results = [self.contract(column, rows) for column in ("age", "income", "id")]
        self.done(run_id, "contract.applicants", {"accepted": accepted, "quarantine": aside, "results": results})
        made = self.table("features.table", raw.tail(rows - 7).drop("score"), (accepted.digest,))
        self.done(run_id, "features", {"table": made})
        cut = int(made.rows * 0.8)
        train = self.table("split.train", raw.head(cut), (made.digest,))
        test = self.table("split.test", raw.tail(made.rows - cut), (made.digest,))
        self.done(run_id, "split", {"train": train, "test": test, "problem": self.problem})
        return train, test

    def contract(self, column: str, rows: int) -> CheckResult:
        bad = 7 if column == "age" else 0
        return CheckResult(
            check=Check(name=f"contract.applicants.{column}", type="contract", blocking=False),
            status="passed",
            reason=f"{bad} of {rows} rows break it and were put aside" if bad else f"all {rows} rows keep it",
            limit=Limit(op="at_most", value=0.05),
            evidence=Evidence(measure="bad_share", value=bad / rows, n=rows, method="every row against the rule"),
        )

    def models(self, run_id: str, base: float) -> Candidate:
        shift = dict(zip(FAMILIES, (-0.018, -0.006, 0.0, 0.002), strict=True))
        candidates = []
        for family in FAMILIES:
            scores = tuple(round(base + shift[family] + self.random.uniform(-0.006, 0.006), 5) for _ in range(5))
            out = family == "hist_gradient_boosting" and len(self.seeded.runs) == 1
            candidates.append(
                Candidate(
                    family=family,
                    params={"learning_rate": 0.083, "num_leaves": 31, "min_child_samples": 24},
                    metric="roc_auc",
                    higher_is_better=True,
                    scores=() if out else scores,
                    trials=0 if out else 20,
                    cost={"linear": 1.0, "random_forest": 41.0, "lightgbm": 7.3}.get(family, 9.1),
                    failed="no trial finished within its 2 minutes" if out else "",
                )
            )
        self.side_by_side(run_id, {f"train.{c.family}": {"value": c} for c in candidates})
        winner = candidates[-1]
        rows = [
            {"family": c.family, "p_value": None if c is winner else round(0.01 + self.random.random() * 0.2, 3)}
            for c in candidates
        ]
        reason = (
            f"`lightgbm` scored best (roc_auc {winner.mean:.4f}), "
            "and no candidate that is not significantly worse is cheaper"
        )
        selection = Evidence(
            measure="roc_auc",
            value=winner.mean,
            n=5,
            method="mean over the folds",
            details={"winner": "lightgbm", "best": "lightgbm", "reason": reason, "rows": rows},
        )
        self.done(run_id, "select", {"winner": winner, "selection": selection})
        return winner

    def fit(self, run_id: str, winner: Candidate, train: TableVersion) -> ModelVersion:
        features = (
            Feature(name="age", type="number", source="Int64", nullable=False, low=17, high=90),
            Feature(name="hours_per_week", type="number", source="Int64", nullable=False, low=1, high=99),
            Feature(name="capital_gain", type="number", source="Int64", low=0, high=99999),
            Feature(
                name="education",
                type="category",
                source="String",
                categories=("Bachelors", "HS-grad", "Masters", "Some-college"),
            ),
            Feature(name="native_country", type="category", source="String", categories=tuple(sorted(COUNTRIES))),
            Feature(name="sex", type="category", source="String", categories=("Female", "Male")),
        )
        model = ModelVersion(
            name="income",
            digest=digest_of([run_id, "model"]),
            family=winner.family,
            params=winner.params,
            format="onnx",
            signature=Signature(features=features, problem=self.problem),
            trained_on=(train.digest,),
            environment=digest_of("environment"),
            address=digest_of([run_id, "address"]),
        )
        parity = CheckResult(
            check=Check(name="parity", type="parity"),
            status="passed",
            reason="largest difference 3.6e-07 over 6,512 rows",
            limit=Limit(op="at_most", value=1e-4),
            evidence=Evidence(
                measure="max_difference", value=3.6e-7, n=6512, method="trained model against its ONNX form, row by row"
            ),
        )
        self.done(run_id, "fit", {"model": model, "parity": parity})
        self.seeded.models[run_id] = model
        return model

    def checks(self, run_id: str, model: ModelVersion, test: TableVersion, auc: float, gap: float) -> list[CheckResult]:
        boot = "Poisson bootstrap, 1000 replicates"
        first = run_id == self.seeded.runs[0]
        given: dict[str, tuple[str, float | None, float, float, Limit | None, str, str, bool]] = {
            "roc_auc": (
                "metric",
                auc,
                auc - 0.0056,
                auc + 0.0055,
                Limit(op="at_least", value=0.9),
                "passed" if auc - 0.0056 >= 0.9 else "failed",
                f"lower bound {auc - 0.0056:.4f} against at least 0.9",
                True,
            ),
            "beats": (
                "beats",
                None if first else 0.0041,
                0.0007,
                0.0079,
                Limit(op="at_least", value=0.0),
                "skipped" if first else "passed",
                "no champion to compare with yet"
                if first
                else "0.0041 better than the champion, at least 0.0007 with 95 %",
                True,
            ),
            "gap.false_negative_rate": (
                "gap",
                gap,
                gap - 0.03,
                gap + 0.04,
                Limit(op="at_most", value=0.1),
                "passed" if gap <= 0.1 else "failed",
                f"largest gap {gap:.3f} between `sex=Female` and `sex=Male`; 2 groups have too few rows",
                True,
            ),
            "repeatable": ("repeatable", 1.0, 1.0, 1.0, None, "passed", "3 trainings gave the same bytes", True),
            "latency": (
                "latency",
                0.31,
                0.29,
                0.34,
                Limit(op="at_most", value=5.0, unit="ms"),
                "passed",
                "99 of 100 single predictions within 0.31 ms",
                True,
            ),
            "brier": (
                "metric",
                0.092,
                0.088,
                0.096,
                Limit(op="at_most", value=0.09),
                "failed",
                "0.092 against at most 0.09; it only reports",
                False,
            ),
        }
        results = []
        for name in CHECKS:
            kind, value, low, high, limit, status, reason, blocking = given[name]
            interval = (
                Interval(low=low, high=high, level=0.95, method=boot)
                if value is not None and name != "repeatable"
                else None
            )
            evidence = Evidence(
                measure=name.partition(".")[2] or name,
                value=value,
                unit="ms" if name == "latency" else "",
                interval=interval,
                n=test.rows,
                seed=0,
                method=f"{name} on the test rows",
                data=(test.digest,),
                model=model.digest,
                code=digest_of("code"),
                details={"groups": []},
            )
            result = CheckResult(
                check=Check(name=name, type=kind, blocking=blocking),
                status=status,
                reason=reason,
                limit=limit,
                evidence=evidence,
            )  # type: ignore[arg-type]
            results.append(result)
            self.done(run_id, f"check.{name}", {"result": result})
        return results

    def card(self, run_id: str, model: ModelVersion, results: list[CheckResult], missing: tuple[str, ...] = ()) -> Card:
        made = card_value(model, results, missing)
        self.done(run_id, "card", {"card": made})
        return made

    def release(self, run_id: str, model: ModelVersion, revision: int, previous: str) -> None:
        self.done(run_id, "gate", {"verdict": {"status": "passed"}})
        released = msgspec.structs.replace(model, released=True, address=digest_of([run_id, "released"]))
        self.done(run_id, "package", {"release": released})
        move = Deployment(
            endpoint="income",
            alias="champion",
            model=released,
            revision=revision,
            previous=previous,
            reason=f"gate passed in {run_id}",
        )
        self.done(run_id, "promote", {"deployment": move})
        self.write("alias.moved", run_id, "promote", {"deployment": plain(move)}, "user:ada")

    def watch(self, model: ModelVersion, drifted: float) -> None:
        results = []
        for name, base in {
            "age": 0.01,
            "hours_per_week": 0.02,
            "capital_gain": 0.03,
            "education": 0.012,
            "native_country": 0.05,
            "sex": 0.004,
            "prediction": 0.02,
        }.items():
            psi = round(
                base * (1 + self.random.random())
                + (drifted if name in ("age", "prediction") else 0) * (1 if name == "age" else 0.5),
                4,
            )
            results.append(
                CheckResult(
                    check=Check(name=f"psi.{name}", type="drift", blocking=False),
                    status="failed" if psi > 0.2 else "passed",
                    reason=f"PSI {psi:g} of {name} in 1,000 requests, limit 0.2",
                    limit=Limit(op="at_most", value=0.2),
                    evidence=Evidence(
                        measure="psi",
                        value=psi,
                        n=1000,
                        method="10 bins of the training data",
                        details={"feature": name},
                    ),
                )
            )
        payload = {
            "endpoint": "income",
            "model": model.digest,
            "window": {"rows": 1000, "from": self.clock.now - 5400, "to": self.clock.now - 40},
            "results": plain(results),
        }
        self.write("watch.finished", "", payload=payload)


def fact(label: str, value: float | int | str | None, evidence: str = "", path: str = "", unit: str = "") -> Fact:
    """Return a fact of the card."""
    return Fact(label=label, value=value, evidence=evidence, path=path, unit=unit)


def card_value(model: ModelVersion, results: list[CheckResult], missing: tuple[str, ...]) -> Card:
    """Return a card with every kind of block."""
    ev = {r.check.name: r.evidence.identity for r in results}
    curve = [i / 20 for i in range(21)]
    roc = {"name": "roc", "series": [{"name": "lightgbm", "x": curve, "y": [1 - (1 - x) ** 5 for x in curve]}]}
    groups = [
        {"label": "sex=Female", "value": 0.31, "low": 0.26, "high": 0.36, "n": 2107},
        {"label": "sex=Male", "value": 0.25, "low": 0.23, "high": 0.28, "n": 4405},
        {"label": "race=Black", "value": 0.29, "low": 0.21, "high": 0.37, "n": 611},
        {"label": "race=Other", "value": None, "n": 12},
    ]
    text = (
        "Orders applications so that a person looks at the likeliest ones first.\n\n"
        "- It orders; it does not decide.\n- A person reads each application."
    )
    rows = tuple(
        (
            fact("Check", r.check.name),
            fact("Status", r.status, ev[r.check.name], "status"),
            fact("Value", r.evidence.value, ev[r.check.name], "value"),
            fact("Rows", r.evidence.n, ev[r.check.name], "n"),
            fact("Reason", r.reason),
        )
        for r in results
    )
    sections = (
        Section(
            key="details",
            title="Model details",
            blocks=(
                Block(
                    type="facts",
                    facts=(
                        fact("Family", model.family, model.digest, "family"),
                        fact("Format", model.format),
                        fact("Environment", model.environment[:12]),
                        fact("Owners", "credit"),
                    ),
                ),
            ),
        ),
        Section(key="use", title="Intended use", blocks=(Block(type="text", title="Purpose", text=text),)),
        Section(
            key="factors",
            title="Factors",
            blocks=(
                Block(
                    type="facts",
                    facts=(
                        fact("Groups", "sex, race"),
                        fact("Smallest group", 12, ev["gap.false_negative_rate"], "details.groups.3.n", "rows"),
                    ),
                ),
            ),
        ),
        Section(
            key="metrics",
            title="Metrics",
            blocks=(
                Block(
                    type="facts",
                    title="On the test rows",
                    facts=(
                        fact("ROC AUC", 0.9213, ev["roc_auc"], "value"),
                        fact("ROC AUC low", 0.9157, ev["roc_auc"], "interval.low"),
                        fact("ROC AUC high", 0.9268, ev["roc_auc"], "interval.high"),
                        fact("ROC AUC limit", 0.9, ev["roc_auc"], "limit"),
                        fact("ROC AUC limit op", "at_least", ev["roc_auc"], "limit.op"),
                        fact("Brier", 0.092, ev["brier"], "value"),
                    ),
                ),
                Block(
                    type="chart",
                    title="ROC",
                    text="True positive rate against false positive rate.",
                    chart=roc,
                    evidence=ev["roc_auc"],
                ),
                Block(
                    type="chart",
                    title="Confusion",
                    text="At the threshold of 0.5.",
                    chart={"name": "confusion", "labels": ["<=50K", ">50K"], "counts": [[4661, 285], [592, 974]]},
                    evidence=ev["roc_auc"],
                ),
                Block(
                    type="chart",
                    title="False negatives by group",
                    text="With 95 % intervals.",
                    chart={"name": "intervals", "rows": groups, "axis": "false negative rate", "reference": 0.27},
                    evidence=ev["gap.false_negative_rate"],
                ),
            ),
        ),
        Section(
            key="evaluation",
            title="Quantitative analyses",
            blocks=(
                Block(type="table", title="Checks", header=("Check", "Status", "Value", "Rows", "Reason"), rows=rows),
            ),
        ),
        Section(
            key="ethics",
            title="Ethical considerations",
            blocks=(Block(type="text", text="A wrong low score delays an application; a person reads each one."),),
        ),
        Section(
            key="caveats",
            title="Caveats and recommendations",
            blocks=(Block(type="text", text="The data are from 1994; incomes are not today's."),),
        ),
    )
    return Card(
        model=model.name,
        digest=model.digest,
        sections=sections,
        evidence={ev[r.check.name]: plain(r.evidence) for r in results},
        missing=missing,
    )


def seed(root: Path, *, rows: int = 400) -> Seeded:
    """Write the story into the store of a project folder."""
    story = Story(root)
    clock = story.clock
    with story.run("run-01first0000000") as first:
        train, test = story.data(first, rows)
        model = story.fit(first, story.models(first, 0.917), train)
        story.done(
            first,
            "evaluate",
            {"predictions": story.table("evaluate.predictions", story.frame(test.rows).select("score"))},
        )
        story.card(first, model, story.checks(first, model, test, 0.9188, 0.071))
        story.release(first, model, 1, "")
        story.end(first, "succeeded")
    clock.now += 86400 * 0.7
    with story.run("run-02broken000000") as broken:
        for step in ("load.applicants", "contract.applicants"):
            story.cached(broken, step, first)
        story.failed(
            broken,
            "features",
            "features-column-missing",
            "column `hours` is not in `applicants`",
            "did you mean `hours_per_week`?",
        )
        story.end(broken, "failed", "column `hours` is not in `applicants`")
    clock.now += 1800
    with story.run("run-03refused00000") as refused:
        train, test = story.data(refused, rows + 120)
        model = story.fit(refused, story.models(refused, 0.921), train)
        story.done(
            refused,
            "evaluate",
            {"predictions": story.table("evaluate.predictions", story.frame(test.rows).select("score"))},
        )
        story.card(refused, model, story.checks(refused, model, test, 0.9221, 0.134))
        story.failed(
            refused,
            "gate",
            "check-failed",
            "check `gap.false_negative_rate` failed: largest gap 0.134, at most 0.1",
            "see `modelyard show checks`, then change the model or the claim",
        )
        story.end(refused, "failed", "check `gap.false_negative_rate` failed: largest gap 0.134, at most 0.1")
    clock.now += 86400
    with story.run("run-04best00000000", "user:grace") as best:
        for step in ("load.applicants", "contract.applicants"):
            story.cached(best, step, refused)
        train = story.table("split.train", story.frame(rows + 80))
        test = story.table("split.test", story.frame(rows // 4))
        story.done(best, "features", {"table": story.table("features.table", story.frame(rows + 110).drop("score"))})
        story.done(best, "split", {"train": train, "test": test, "problem": story.problem})
        model = story.fit(best, story.models(best, 0.9222), train)
        story.done(
            best,
            "evaluate",
            {"predictions": story.table("evaluate.predictions", story.frame(test.rows).select("score"))},
        )
        story.card(best, model, story.checks(best, model, test, 0.9213, 0.062))
        story.release(best, model, 2, story.seeded.models[first].digest)
        story.end(best, "succeeded")
    for day in range(12):
        clock.now += 5400
        story.watch(model, 0.31 / (1 + math.exp(6 - day)))
    clock.now += 600
    with story.run("run-05again0000000") as again:
        found = story.store.ledger.run(best)
        assert found is not None
        for done in found.steps:
            story.cached(again, done.name, best)
        story.end(again, "succeeded")
    clock.now += 240
    return story.seeded


if __name__ == "__main__":
    made = seed(Path(sys.argv[1]))
    made.store.close()
    print(*made.runs, sep="\n")
