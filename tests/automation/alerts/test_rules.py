"""Each rule fires where it should, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from modelyard.automation.alerts.anomalies import anomalies
from modelyard.automation.alerts.happening import Happening
from modelyard.automation.alerts.rules import happenings, is_moot, is_over
from modelyard.automation.alerts.runs import lost
from modelyard.automation.alerts.stuck import UnderWay, stuck
from modelyard.records import (
    Candidate,
    Check,
    CheckResult,
    Event,
    Evidence,
    Run,
    Usage,
    plain,
)


class Events:
    """Makes the events of a run."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    def add(self, kind: str, step: str = "", run: str = "run-1", **payload: Any) -> Event:
        seq = len(self.all) + 1
        raw = {"kind": kind, "run": run, "step": step, "payload": payload, "seq": seq, "time": 100.0 * seq, "hash": ""}
        event = msgspec.convert(raw, Event)
        self.all.append(event)
        return event

    def told(self, event: Event) -> list[Happening]:
        return happenings(event, lambda: self.all)


@pytest.fixture
def events() -> Events:
    found = Events()
    found.add("run.started", project="income", trace="t" * 32, fire="fire-1")
    return found


ERROR = {"code": "step-failed", "message": "step `fit` raised KeyError: 'age'", "where": "steps.py:7", "hint": "look"}


def facts(happening: Happening) -> dict[str, str]:
    return dict(happening.facts)


def test_a_start_is_told_with_who_asked(events: Events) -> None:
    (told,) = events.told(events.all[0])
    assert (told.on, told.urgency, told.run, told.trace) == ("start", "low", "run-1", "t" * 32)
    assert facts(told)["fire"] == "fire-1"


def test_a_step_that_ran_is_told_and_one_out_of_the_ledger_is_not(events: Events) -> None:
    (told,) = events.told(events.add("step.finished", "fit", key="k", outputs={"value": 1}, seconds=185.0))
    assert (told.on, told.what) == ("stage", "fit is done after 3 min 05 s")
    assert events.told(events.add("step.cached", "fit", key="k", outputs={"value": 1})) == []


def test_a_step_that_failed_is_told_and_one_with_stale_data_is_not(events: Events) -> None:
    (told,) = events.told(events.add("step.failed", "fit", key="k", error=ERROR))
    assert (told.on, told.urgency, told.step) == ("stage", "normal", "fit")
    assert events.told(events.add("step.failed", "guard", key="k", error={**ERROR, "stale": True})) == []


def test_a_success_is_told_with_what_came_of_it(events: Events) -> None:
    events.add("step.finished", "fit", key="k", outputs={}, seconds=1.0)
    events.add("step.cached", "load", key="l", outputs={})
    (told,) = events.told(events.add("run.finished", status="succeeded", reason=""))
    assert (told.on, told.urgency) == ("success", "low")
    assert facts(told)["steps"] == "1 ran, 1 taken from the ledger"


def test_a_failure_says_where_why_and_what_next(events: Events) -> None:
    events.add("step.started", "fit", key="k")
    events.add("step.retried", "fit", key="k", attempt=1, waits=1.0, error=ERROR)
    events.add("step.failed", "fit", key="k", error=ERROR)
    (told,) = events.told(events.add("run.finished", status="failed", reason="..."))
    assert (told.on, told.urgency, told.key) == ("failure", "high", "run/failure/fit/step-failed")
    assert told.what == "run failed at fit: step `fit` raised KeyError: 'age'"
    said = facts(told)
    assert said["where"] == "steps.py:7"
    assert said["attempts"] == "2"
    assert said["replay"] == "modelyard replay run-1 fit"
    assert said["explain"] == "modelyard explain step-failed"
    assert (told.run, said["run"], told.trace) == ("run-1", "run-1", "t" * 32)


def test_a_run_that_failed_without_a_step_is_told_too(events: Events) -> None:
    (told,) = events.told(events.add("run.finished", status="failed", reason="modelyard.yaml:3: no such field"))
    assert told.what == "run failed: modelyard.yaml:3: no such field"


def test_a_failure_is_told_as_it_was_then_not_as_it_is_now(events: Events) -> None:
    events.add("step.failed", "fit", key="k", error=ERROR)
    ended = events.add("run.finished", status="failed", reason="...")
    events.add("step.failed", "later", key="k", error={**ERROR, "message": "something else"})
    assert "fit" in events.told(ended)[0].what


def test_stale_data_are_told_with_what_was_saved(events: Events) -> None:
    events.all[0] = msgspec.structs.replace(
        events.all[0], payload={**events.all[0].payload, "prices": {"currency": "EUR", "cpu_hour": 3.6}}
    )
    events.add("step.failed", "guard", key="k", error={**ERROR, "stale": True, "hint": "wait for the next delivery"})
    events.add("step.skipped", "load", reason="stale", saved=plain(Usage(cpu_seconds=100.0)))
    events.add("step.skipped", "fit", reason="stale", saved=plain(Usage(cpu_seconds=400.0)))
    events.add("step.skipped", "new", reason="stale", saved=None)
    (told,) = events.told(events.add("run.finished", status="skipped", reason="applicants are 3 days old"))
    assert (told.on, told.urgency, told.key) == ("stale", "normal", "run/stale")
    assert told.what == "run skipped: applicants are 3 days old"
    assert facts(told)["skipped"] == "3 steps"
    assert facts(told)["saved"] == "about 8 min 20 s of CPU, 0.5 EUR"
    assert facts(told)["next step"] == "wait for the next delivery"


def test_a_spent_budget_is_told(events: Events) -> None:
    events.add("step.finished", "load", key="k", outputs={})
    (told,) = events.told(events.add("run.finished", status="stopped", reason="the run has cost 6 EUR"))
    assert (told.on, told.key, facts(told)["kept"]) == ("budget", "run/budget", "1 finished step")


@pytest.mark.parametrize("status", ["cancelled", "interrupted"])
def test_what_a_person_or_the_daemon_stopped_is_no_trouble(events: Events, status: str) -> None:
    assert events.told(events.add("run.finished", status=status, reason="stopped by Ctrl-C")) == []


def test_a_process_that_died_is_lost_whoever_finds_it(events: Events) -> None:
    events.add("step.started", "fit", key="k")
    run = Run(id="run-1", project="income", status="running", started=1.0, fire="fire-1", trace="t" * 32)
    by_clock = lost(run, 500.0)
    (by_event,) = events.told(events.add("run.finished", status="interrupted", reason="its process died"))
    assert by_clock.identity == by_event.identity
    assert (by_event.on, by_event.key) == ("failure", "run/lost")
    assert by_event.what == "run was lost: its process died in fit"
    # A fire comes again by itself; a run that a person started does not.
    assert by_clock.urgency == "normal"
    assert lost(msgspec.structs.replace(run, fire=""), 500.0).urgency == "high"


def test_drift_is_told_where_a_check_failed(events: Events) -> None:
    def watched(*statuses: str) -> list[Happening]:
        results = [{"check": {"name": f"c{n}"}, "status": s, "reason": f"why {n}"} for n, s in enumerate(statuses)]
        return events.told(events.add("watch.finished", endpoint="e", window={"rows": 9}, results=results))

    (told,) = watched("passed", "failed", "insufficient", *["failed"] * 6)
    assert (told.on, told.urgency, told.key) == ("drift", "normal", "drift/e")
    assert told.what == "e has drifted: 7 of 9 checks failed"
    assert facts(told)["c1"] == "why 1"
    assert facts(told)["and"] == "2 more"
    assert watched("passed", "insufficient") == []


def test_what_is_over_is_said_by_the_next_good_run_or_watch(events: Events) -> None:
    good = events.add("run.finished", status="succeeded", reason="")
    bad = events.add("run.finished", status="failed", reason="")
    assert all(is_over(key, good) for key in ("run/failure/fit/x", "run/stale", "run/budget", "run/lost"))
    assert not any(is_over(key, good) for key in ("drift/e", "start/run-1"))
    assert not is_over("run/stale", bad)
    well = events.add("watch.finished", endpoint="e", results=[{"status": "passed"}])
    ill = events.add("watch.finished", endpoint="e", results=[{"status": "failed"}])
    assert is_over("drift/e", well)
    assert not is_over("drift/other", well)
    assert not is_over("drift/e", ill)
    assert is_moot("run/stuck/run-1/fit", bad)
    assert not is_moot("run/stuck/run-2/fit", bad)


# -- anomalies


def candidate(**more: Any) -> dict[str, Any]:
    base = {"family": "lightgbm", "params": {}, "metric": "roc_auc", "higher_is_better": True}
    made = Candidate(**{**base, "scores": (0.9, 0.91), "trials": 2, "cost": 1.0, **more})
    return plain(made)  # type: ignore[no-any-return]


def result(status: str, *, blocking: bool) -> dict[str, Any]:
    check = Check(name="latency", type="latency", blocking=blocking)
    evidence = Evidence(measure="latency", value=9.0)
    made = CheckResult(check=check, status=status, reason="9 ms, above 5", limit=None, evidence=evidence)  # type: ignore[arg-type]
    return plain(made)  # type: ignore[no-any-return]


FIRING: list[tuple[Any, str]] = [
    (candidate(failed="LightGBMError: no rows", scores=()), "lightgbm is out: LightGBMError: no rows"),
    (candidate(history=({"score": None}, {"score": None}, {"score": 0.9})), "2 of 3 trials of lightgbm gave no number"),
    ({**candidate(), "scores": [0.9, None]}, "lightgbm has a score that is not a number"),
    ([candidate(), candidate(failed="why")], "lightgbm is out: why"),
    (result("failed", blocking=False), "latency does not hold, and does not block: 9 ms, above 5"),
    ({"loss": [1.0, 0.5, None]}, "loss became a number that is none (NaN or infinite)"),
    ({"val_loss": None}, "val_loss became a number that is none (NaN or infinite)"),
    ({"train_loss": [1.0, 0.01, 0.5]}, "train_loss diverged: it ends at 0.5 and was 0.01"),
]
QUIET: list[Any] = [
    candidate(),
    candidate(history=({"score": None}, {"score": 0.9})),
    result("failed", blocking=True),
    result("passed", blocking=False),
    {"loss": [1.0, 0.5, 0.4]},
    {"loss": [0.01, 0.5]},
    {"loss": [0.0, 0.0, 5.0]},
    {"accuracy": None, "note": "loss"},
    {"kind": "table", "name": "losses"},
    [1, 2, None],
    "loss",
    None,
    7,
]


@pytest.mark.parametrize(("value", "sentence"), FIRING)
def test_an_anomaly_is_seen(value: Any, sentence: str) -> None:
    assert [said for _, said in anomalies({"value": value})] == [sentence]


@pytest.mark.parametrize("value", QUIET)
def test_what_is_well_is_no_anomaly(value: Any) -> None:
    assert list(anomalies({"value": value})) == []


def test_an_output_called_loss_is_looked_at_itself() -> None:
    assert [label for label, _ in anomalies({"loss": [3.0, None]})] == ["loss"]


def test_an_anomaly_is_told_beside_the_step(events: Events) -> None:
    told = events.told(events.add("step.finished", "train", key="k", outputs={"loss": [1.0, None]}, seconds=1.0))
    assert [(h.on, h.key) for h in told] == [("stage", "stage/run-1/train"), ("anomaly", "anomaly/train/loss")]
    assert len({h.identity for h in told}) == 2


# -- the clock

NOW = 10_000.0


def under_way(*events: Event) -> UnderWay:
    made = UnderWay("run-1")
    for event in events:
        made.note(event)
    return made


def began(seconds: float, step: str = "fit") -> Event:
    return at(NOW - seconds, "step.started", step, key="k")


def at(time: float, kind: str, step: str, **payload: Any) -> Event:
    event = Events().add(kind, step, **payload)
    return msgspec.structs.replace(event, time=time)


def seen(steps: UnderWay, usual: Sequence[float]) -> list[Happening]:
    return list(stuck(steps, NOW, lambda _: usual))


def test_a_step_is_stuck_when_it_takes_much_longer_than_as_a_rule() -> None:
    (told,) = seen(under_way(began(1900.0)), [600.0, 500.0, 400.0])
    assert (told.on, told.urgency, told.key) == ("stuck", "high", "run/stuck/run-1/fit")
    assert told.what == "fit has been running for 31 min 40 s"
    assert facts(told)["usual"] == "95 of 100 earlier runs took at most 10 min 00 s"
    # One that took long once in a hundred times does not count.
    assert seen(under_way(began(1900.0)), [600.0] * 99 + [5000.0])


def test_a_step_is_not_stuck_before_its_time() -> None:
    assert seen(under_way(began(1700.0)), [600.0, 500.0, 400.0]) == []
    # Three times a second is no reason to wake anybody.
    assert seen(under_way(began(500.0)), [1.0, 1.0, 1.0]) == []


@pytest.mark.parametrize("kind", ["step.finished", "step.cached", "step.failed"])
def test_a_step_that_has_ended_is_not_stuck(kind: str) -> None:
    steps = under_way(began(9000.0), at(NOW - 5, kind, "fit", key="k"))
    assert seen(steps, [1.0, 1.0, 1.0]) == []
    assert ("fit" in steps.done) == (kind != "step.failed")


def test_a_step_that_nobody_knows_is_given_hours() -> None:
    assert seen(under_way(began(9000.0)), [1.0]) == []
    (told,) = stuck(under_way(began(9000.0)), NOW + 4 * 3600, lambda _: ())
    assert "too seldom" in facts(told)["usual"]


def test_the_wait_before_another_attempt_does_not_count() -> None:
    again = at(NOW - 1900.0, "step.retried", "fit", attempt=1, waits=1000.0)
    assert seen(under_way(began(5000.0), again), [300.0] * 3) == []
    assert seen(under_way(began(5000.0)), [300.0] * 3)
