"""What is told to whom and when, on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from modelyard._kit.errors import Busy, NotFound
from modelyard.automation.alerts.outbox import acknowledge, begin
from modelyard.automation.alerts.routes import targets
from modelyard.automation.alerts.sender import Sender
from modelyard.records import Draft
from modelyard.spec import Spec
from modelyard.store import LocalStore

Make = Callable[..., Spec]
Open = Callable[[Spec], Sender]

TEAM = "alerts: [{to: 'mailto:ml@example.org', name: team"
ALL = "on: [start, stage, success, failure, stuck, stale, budget, drift, anomaly, recovered]"
HOUR = 3600.0


def test_everything_is_told_once_and_in_order(
    project: Make, sender: Open, story: Any, taken: Any, store: LocalStore
) -> None:
    there = sender(project(f"{TEAM}, {ALL}}}]"))
    with store.hold("run", who={"run": "run-1"}):
        story.start()
        story.done("load")
        there.drain()
    story.write("step.failed", "run-1", "fit", key="k", error={"code": "x", "message": "no", "where": "", "hint": ""})
    story.end("failed", reason="no")
    story.succeed()
    there.drain()
    there.drain()
    assert taken.titles() == [
        "run started by runner",
        "load is done after 1.00 s",
        "fit failed: no",
        "run failed at fit: no",
        "run started by runner",
        "fit is done after 1.00 s",
        "recovered: run succeeded",
        "run succeeded after 0 µs",
    ]


def test_by_default_only_what_matters_is_told(project: Make, sender: Open, story: Any, taken: Any) -> None:
    there = sender(project("alerts: ['mailto:ml@example.org']"))
    story.succeed("run-0")
    there.drain()
    story.fail()
    there.drain()
    story.succeed()
    there.drain()
    assert taken.titles() == ["run failed at fit: no luck", "recovered: run succeeded"]
    assert {name for name, _ in taken.messages} == {"mail-example.org"}


def test_each_target_is_told_what_it_asked_for(project: Make, sender: Open, story: Any, taken: Any) -> None:
    there = sender(
        project(
            """
            alerts:
              - {to: "mailto:a@example.org", name: stages, on: stage, stages: [load, "check.*"]}
              - {to: "mailto:b@example.org", name: urgent, on: [start, stale, failure], at_least: high}
              - {to: "mailto:c@example.org", name: normal, on: [start, stale, failure], at_least: normal}
            """
        )
    )
    story.start()
    for step in ("load", "fit", "check.gap"):
        story.done(step)
    story.write("step.failed", "run-1", "guard", key="", error={"code": "x", "message": "old", "stale": True})
    story.end("skipped", reason="too old")
    story.fail("run-2")
    there.drain()
    assert taken.titles("stages") == ["load is done after 1.00 s", "check.gap is done after 1.00 s"]
    assert taken.titles("urgent") == ["run failed at fit: no luck"]
    assert taken.titles("normal") == ["run skipped: too old", "run failed at fit: no luck"]


def test_a_new_target_is_told_of_nothing_before(
    project: Make, sender: Open, story: Any, taken: Any, store: LocalStore
) -> None:
    story.fail("run-1")
    spec = project("alerts: [{to: 'mailto:a@example.org', name: a}]")
    begin(store, targets(spec))
    story.fail("run-2", step="load")
    # The sender comes later than the run, and knows from when on to tell.
    sender(spec).drain()
    assert taken.titles() == ["run failed at load: no luck"]
    story.fail("run-3", step="third")
    both = "alerts: [{to: 'mailto:a@example.org', name: a}, {to: 'mailto:b@example.org', name: b}]"
    sender(project(both)).drain()
    assert taken.titles("a") == ["run failed at load: no luck", "run failed at third: no luck"]
    assert taken.titles("b") == []


def test_the_same_trouble_is_told_again_only_after_a_while(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any
) -> None:
    there = sender(project(f"{TEAM}, repeat: 6h, on: failure}}]"))
    for number, hours in enumerate([0.0, 1.0, 4.9, 0.2, 1.0]):
        clock.pass_(hours * HOUR)
        story.fail(f"run-{number}")
        there.drain()
    # The first, and the one after 6 h 06 min; another step is another trouble.
    assert len(taken.titles()) == 2
    story.fail("run-9", step="load")
    there.drain()
    assert len(taken.titles()) == 3


def test_what_came_back_is_told_at_once(project: Make, sender: Open, story: Any, taken: Any) -> None:
    there = sender(project(f"{TEAM}, on: failure}}]"))
    for number in range(2):
        story.fail(f"run-{number}")
        story.succeed(f"good-{number}")
        there.drain()
    assert len(taken.titles()) == 2


def test_recovered_is_told_once_to_whom_heard_of_it(
    project: Make, sender: Open, story: Any, taken: Any, store: LocalStore
) -> None:
    there = sender(
        project(
            """
            alerts:
              - {to: "mailto:a@example.org", name: both, on: [failure, stale, recovered]}
              - {to: "mailto:b@example.org", name: deaf, on: [success, recovered]}
              - {to: "mailto:c@example.org", name: drift, on: [drift, recovered]}
            """
        )
    )
    story.fail("run-1")
    story.fail("run-2", step="load")
    story.watch("failed")
    story.succeed("run-3")
    story.succeed("run-4")
    there.drain()
    assert taken.titles("both") == [
        "run failed at fit: no luck",
        "run failed at load: no luck",
        "recovered: run succeeded",
    ]
    (_, last) = [m for m in taken.messages if m[0] == "both"][-1]
    assert [text.partition(" (since")[0] for label, text in last.alerts[0].facts if label == "over"] == [
        "run failed at fit: no luck",
        "run failed at load: no luck",
    ]
    assert taken.titles("deaf") == ["run succeeded after 0 µs"] * 2
    # A run that succeeds does not end a drift; a watch does.
    assert taken.titles("drift") == ["income has drifted: 1 of 1 check failed"]
    story.watch("passed")
    there.drain()
    assert taken.titles("drift")[1:] == ["recovered: the requests are as in training again"]
    assert store.ledger.alerts(open_only=True) == []


def test_what_is_not_urgent_waits_for_the_end_of_quiet_hours(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any
) -> None:
    there = sender(project(f"{TEAM}, quiet: '22:00-07:00', zone: UTC, {ALL}}}]"))
    clock.pass_(11 * HOUR)  # 23:00
    story.fail()
    there.drain()
    # What runs is not urgent, what failed is.
    assert taken.titles() == ["run failed at fit: no luck"]
    clock.pass_(7.9 * HOUR)
    there.drain()
    assert len(taken.titles()) == 1
    clock.pass_(0.2 * HOUR)  # 07:06
    there.drain()
    assert taken.titles()[1:] == ["run started by runner", "fit failed: no luck"]


def test_good_news_of_an_urgent_trouble_is_as_urgent(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any
) -> None:
    there = sender(project(f"{TEAM}, quiet: '22:00-07:00', zone: UTC, on: [failure, recovered]}}]"))
    clock.pass_(11 * HOUR)
    story.fail("run-1")
    story.succeed("run-2")
    story.fail("run-3")
    there.drain()
    # Held back, the good news would come after the next failure and be wrong.
    assert taken.titles() == ["run failed at fit: no luck", "recovered: run succeeded", "run failed at fit: no luck"]


def test_a_digest_gathers_what_is_not_urgent(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    there = sender(project(f"{TEAM}, digest: 1h, {ALL}}}]"))
    story.succeed("run-1")
    story.fail("run-2")
    there.drain()
    assert taken.titles() == ["run failed at fit: no luck"]
    clock.pass_(0.9 * HOUR)
    story.succeed("run-3")
    there.drain()
    clock.pass_(0.2 * HOUR)
    there.drain()
    # Good news of what was urgent is not gathered either.
    assert taken.titles()[1:] == ["recovered: run succeeded", "8 messages (3 start, 3 stage, 2 success)"]
    text = taken.messages[-1][1].text
    assert text.count("run started by runner") > 2
    assert {a.state for a in store.ledger.alerts()} == {"sent"}
    # Nothing new: no empty digest.
    clock.pass_(5 * HOUR)
    there.drain()
    assert len(taken.messages) == 3


def test_nobody_acknowledges_and_it_goes_further(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any
) -> None:
    there = sender(project(f"{TEAM}, escalate: {{after: 30m, to: 'mailto:boss@example.org'}}}}]"))
    story.fail()
    there.drain()
    clock.pass_(1790)
    there.drain()
    assert [name for name, _ in taken.messages] == ["team"]
    clock.pass_(20)
    there.drain()
    clock.pass_(3000)
    there.drain()
    assert [name for name, _ in taken.messages] == ["team", "team.further"]
    assert "nobody acknowledged" in taken.messages[-1][1].text
    # Whoever was told hears of the end.
    story.succeed()
    there.drain()
    assert taken.titles("team.further") == ["run failed at fit: no luck", "recovered: run succeeded"]


def test_an_escalation_may_go_to_another_target(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any
) -> None:
    more = "{to: 'mailto:boss@example.org', name: boss, on: budget}]"
    there = sender(project(f"{TEAM}, escalate: {{after: 30m, to: boss}}}}, {more}"))
    story.fail()
    there.drain()
    clock.pass_(1900)
    there.drain()
    assert [name for name, _ in taken.messages] == ["team", "boss"]


def test_what_is_acknowledged_goes_no_further_and_is_not_repeated(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    there = sender(project(f"{TEAM}, escalate: {{after: 30m, to: 'mailto:boss@example.org'}}}}]"))
    story.fail()
    there.drain()
    (alert,) = store.ledger.alerts()
    assert acknowledge(store, alert.id[:12], actor="user:ann")[0].id == alert.id
    # A second time changes nothing.
    assert acknowledge(store, alert.id, actor="user:ann")[0].id == alert.id
    assert len(list(store.ledger.events(kinds=("alert.acked",)))) == 1
    clock.pass_(7 * HOUR)
    story.fail("run-2")
    there.drain()
    assert len(taken.messages) == 1
    # It was over; then it is a new trouble.
    story.succeed("run-3")
    story.fail("run-4")
    there.drain()
    assert taken.titles()[1:] == ["recovered: run succeeded", "run failed at fit: no luck"]
    with pytest.raises(NotFound, match="alert-nope"):
        acknowledge(store, "alert-nope", actor="user:ann")


def test_a_dead_target_delays_nobody_and_is_told_all_when_it_is_back(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    on = "on: [start, success]"
    there = sender(project(f"{TEAM}, {on}}}, {{to: 'mailto:b@example.org', name: other, {on}}}]"))
    taken.down = {"team"}
    for number in range(3):
        story.succeed(f"run-{number}")
        there.drain()
        clock.pass_(2)
    assert len(taken.titles("other")) == 6
    assert taken.titles("team") == []
    failed = list(store.ledger.events(kinds=("alert.failed",)))
    assert [e.payload["attempt"] for e in failed] == [1, 2, 3][: len(failed)]
    taken.down = set()
    clock.pass_(60)
    there.drain()
    assert taken.titles("team") == taken.titles("other")
    assert {a.state for a in store.ledger.alerts()} == {"sent"}


def test_a_dead_target_is_tried_less_and_less_and_given_up_after_a_day(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    there = sender(project(f"{TEAM}, on: failure}}]"))
    taken.down = {"team"}
    story.fail()
    times = []
    began = clock.now
    while store.ledger.alerts(states=("waiting",)) or not times:
        tried = len(taken.tried)
        there.drain()
        if len(taken.tried) > tried:
            times.append(clock.now - began)
        clock.pass_(1.0 if clock.now - began < 200 else 60.0)
    assert times[:8] == [0, 1, 3, 7, 15, 31, 63, 127]
    assert all(late - early <= 960 for early, late in pairwise(times))
    assert 86_400 <= times[-1] < 86_400 + 960
    (alert,) = store.ledger.alerts()
    assert (alert.state, alert.error) == ("failed", "nobody is there")
    assert not there.turn()


def test_a_message_that_is_never_taken_does_not_hold_up_the_others(
    project: Make, store: LocalStore, story: Any, clock: Any
) -> None:
    from modelyard.automation.alerts.undelivered import Undelivered

    got: list[str] = []

    def picky(target: Any, message: Any) -> str:
        if "fit" in message.title:
            raise Undelivered("too strange")
        got.append(message.title)
        return "taken"

    spec = project(f"{TEAM}, on: failure}}]")
    there = Sender(spec, store, clock=clock, make=lambda: picky, draw=lambda low, high: high)
    story.fail("run-1")
    story.fail("run-2", step="load")
    for _ in range(10):
        there.drain()
        clock.pass_(40)
    assert got == ["income: run failed at load: no luck"]


def test_a_restart_forgets_nothing_and_doubles_nothing(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    spec = project(f"{TEAM}, {ALL}}}]")
    first = sender(spec)
    story.succeed("run-0")
    first.drain()
    story.fail("run-1")
    taken.down = {"team"}
    first.drain()  # written down, not taken
    written = len(store.ledger.alerts())
    taken.down = set()
    clock.pass_(5)
    second = sender(spec)
    second.drain()
    second.drain()
    assert len(store.ledger.alerts()) == written
    assert len(taken.titles()) == written
    assert len(set(taken.titles())) == written - 1  # two runs have started
    # Read again from the beginning, as by a sender whose notes are lost: all is known.
    store.ledger.append(Draft(kind="alert.read", payload={"upto": {"team": 0}}))
    sender(spec).drain()
    assert len(taken.titles()) == written


def test_how_far_was_read_is_noted_at_the_end(project: Make, sender: Open, story: Any, store: LocalStore) -> None:
    there = sender(project(f"{TEAM}, on: failure}}]"))
    story.succeed()
    there.drain()
    there.finish()
    head = store.ledger.head()[0]
    assert store.ledger.seen("@alerts") == {"team": str(head - 1)}
    there.finish()
    assert store.ledger.head()[0] == head


def test_a_step_that_hangs_is_told_once_and_that_it_went_on(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    for number in range(3):
        story.start(f"old-{number}")
        story.done("fit", f"old-{number}", seconds=700.0)
        story.end("succeeded", f"old-{number}")
    there = sender(project("alerts: ['mailto:ml@example.org']"))
    with store.hold("run", who={"run": "run-1"}):
        story.start("run-1")
        story.write("step.started", "run-1", "fit", key="k")
        for _ in range(4):
            there.drain()
            clock.pass_(900)
        assert taken.titles() == ["fit has been running for 45 min 00 s"]
        assert "at most 11 min 40 s" in taken.messages[0][1].text
        story.done("fit", "run-1", seconds=3600.0)
        clock.pass_(10)
        there.drain()
        assert taken.titles()[1:] == ["recovered: fit is done"]
    assert store.ledger.alerts(open_only=True) == []


def test_a_stuck_run_that_ends_badly_is_not_called_well(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    there = sender(project("alerts: ['mailto:ml@example.org']"))
    with store.hold("run", who={"run": "run-1"}):
        story.start("run-1")
        story.write("step.started", "run-1", "fit", key="k")
        clock.pass_(5 * HOUR)
        there.drain()
        story.end("cancelled", "run-1", "stopped by Ctrl-C")
    there.drain()
    assert taken.titles() == ["fit has been running for 300 min 00 s"]
    assert store.ledger.alerts(open_only=True) == []


def test_a_run_whose_process_died_is_lost_once_whoever_closes_it(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    there = sender(project("alerts: ['mailto:ml@example.org']"))
    with store.hold("run", who={"run": "run-1"}):
        story.start("run-1")
        story.write("step.started", "run-1", "fit", key="k")
        there.drain()
        assert taken.titles() == []
    clock.pass_(10)
    there.drain()
    assert taken.titles() == ["run was lost: its process died in fit"]
    story.end("interrupted", "run-1", "its process died")
    clock.pass_(10)
    there.drain()
    assert len(taken.titles()) == 1


def test_a_changed_file_counts_at_once_and_a_broken_one_not_at_all(
    project: Make, sender: Open, story: Any, taken: Any, store: LocalStore
) -> None:
    said: list[str] = []
    spec = project(f"{TEAM}, on: failure}}]")
    there = Sender(spec, store, make=lambda: taken, say=said.append)
    project(f"{TEAM}, on: [failure, success], digest: 1h}}]")
    there.turn()
    (spec.root / "modelyard.yaml").write_text("project: [", encoding="utf-8")
    there.turn()
    assert "cannot be used" in said[0]
    project(f"{TEAM}, on: [failure, success]}}]")
    there.turn()
    story.succeed()
    there.drain()
    assert taken.titles() == ["run succeeded after 0 µs"]


def test_what_was_for_a_target_that_is_gone_is_given_up(
    project: Make, sender: Open, story: Any, taken: Any, clock: Any, store: LocalStore
) -> None:
    taken.down = {"team"}
    there = sender(project(f"{TEAM}, on: failure}}]"))
    story.fail()
    there.drain()
    sender(project("alerts: [{to: 'mailto:ml@example.org', name: others}]")).drain()
    (alert,) = store.ledger.alerts()
    assert (alert.state, alert.error) == ("failed", "the target stands in the file no more")


def test_there_is_one_sender_at_a_time(project: Make, sender: Open, store: LocalStore) -> None:
    import threading

    there = sender(project(f"{TEAM}}}]"))
    with store.hold("alerts", who={}), pytest.raises(Busy):
        there.serve(threading.Event(), idle=0.0)
    there.serve(threading.Event(), idle=0.0)
    assert store.holder("alerts") is None


def test_the_likely_cause_of_a_failure_is_told(
    project: Make, sender: Open, story: Any, taken: Any, store: LocalStore
) -> None:
    there = sender(project("alerts: ['mailto:ml@example.org']"))
    story.succeed("run-1")
    story.fail("run-2", message="step `fit` raised ConnectionError: no answer")
    there.drain()
    facts = dict(taken.messages[0][1].alerts[0].facts)
    assert facts["likely cause"].startswith("network: a service over the network did not answer as it should")
    assert "run-1" in facts["likely cause"]
    assert "retries" in facts["next step"]


def test_an_event_that_cannot_be_read_is_said_once_and_the_others_are_told(
    project: Make, store: LocalStore, taken: Any
) -> None:
    said: list[str] = []
    one = Sender(
        project("alerts: ['mailto:ml@example.org']"), store, make=lambda: lambda target, message: "ok", say=said.append
    )
    strange = {"endpoint": "e", "results": [{"check": {"name": "psi"}, "status": "failed"}]}
    number = store.ledger.append(Draft(kind="watch.finished", payload=strange))[0].seq
    store.ledger.append(
        Draft(kind="run.started", run="run-1", payload={"project": "p"}),
        Draft(kind="run.finished", run="run-1", payload={"status": "failed", "reason": "boom", "result": ""}),
    )
    for _ in range(3):
        one.drain()
    assert [alert.run for alert in store.ledger.alerts()] == ["run-1"]
    assert [line for line in said if f"event {number} " in line] == said
    assert len(said) == 1


def test_a_project_without_targets_tells_nobody(project: Make, sender: Open, story: Any, tmp_path: Path) -> None:
    there = sender(project(""))
    story.fail()
    assert not there.turn()
