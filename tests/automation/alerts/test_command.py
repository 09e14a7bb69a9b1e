"""`modelyard alerts`: list, test, acknowledge."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.automation.alerts.outbox import begin
from modelyard.automation.alerts.routes import targets
from modelyard.automation.alerts.sender import Sender
from modelyard.cli.main import main
from modelyard.spec import Spec
from modelyard.store import LocalStore

Make = Callable[..., Spec]
Out = pytest.CaptureFixture[str]


def ask(spec: Spec, *words: str) -> int:
    return main(["alerts", *words, "-f", str(spec.path)])


def test_what_was_sent_waits_and_was_given_up_is_listed(
    project: Make, store: LocalStore, sender: Callable[[Spec], Sender], story: Any, taken: Any, clock: Any, capsys: Out
) -> None:
    spec = project(
        "alerts: [{to: 'mailto:a@b.org', name: up}, {to: 'mailto:c@b.org', name: down}, "
        "{to: 'mailto:d@b.org', name: later, on: stale, digest: 1h}]"
    )
    there = sender(spec)
    taken.down = {"down"}
    story.fail()
    story.start("run-2")
    story.end("skipped", "run-2", "too old")
    there.drain()
    assert ask(spec) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["state", "when", "to", "about"]
    assert any(line.startswith("sent") and " up " in line and "run failed at fit" in line for line in lines)
    assert any(line.startswith("waiting") and " down " in line and "nobody is there" in line for line in lines)
    assert any(line.startswith("waiting") and " later " in line and "(not before " in line for line in lines)
    assert ask(spec, "--state", "sent", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {alert["target"] for alert in listed} == {"up"}
    clock.pass_(2 * 86_400)
    there.drain()
    assert ask(spec, "--state", "failed", "--limit", "1") == 0
    assert "given up: nobody is there" in capsys.readouterr().out


def test_nothing_to_list_is_said(project: Make, store: LocalStore, capsys: Out) -> None:
    assert ask(project("alerts: ['mailto:a@b.org']")) == 0
    assert "no alert yet" in capsys.readouterr().err


def test_a_person_acknowledges(
    project: Make, store: LocalStore, sender: Callable[[Spec], Sender], story: Any, capsys: Out
) -> None:
    spec = project("alerts: ['mailto:a@b.org']")
    there = sender(spec)
    story.fail()
    there.drain()
    (alert,) = store.ledger.alerts()
    assert ask(spec, "ack", alert.id[:10], "--reason", "on it") == 0
    assert "is known" in capsys.readouterr().err
    (event,) = store.ledger.events(kinds=("alert.acked",))
    assert event.actor.startswith("user:")
    assert event.payload == {"id": alert.id, "reason": "on it"}
    assert ask(spec, "ack", alert.id, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == alert.id
    assert ask(spec, "ack", "alert-x") == 2
    assert "alert-not-found" in capsys.readouterr().err
    assert ask(spec, "ack") == 2
    assert "alert-id" in capsys.readouterr().err


def test_a_test_message_is_sent_now_and_the_answer_is_shown(project: Make, web: Any, post: Any, capsys: Out) -> None:
    spec = project(
        f"alerts: [{{to: '{web.address}', name: hook, quiet: 'Mon-Fri'}}, {{to: 'mailto:a@b.org', name: team}}]",
        more=f"mail: {{host: 127.0.0.1, port: {post.port}}}",
    )
    assert ask(spec, "test") == 0
    said = capsys.readouterr().out
    assert "hook: 200 OK" in said
    assert "team: 250 taken" in said
    assert web.bodies()[0]["title"] == "income: test message"
    assert web.bodies()[0]["on"] == "test"
    assert post.mails[0]["Subject"] == "income: test message"
    # Only one of them, and nothing is written down.
    assert ask(spec, "test", "hook", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"target": "hook", "taken": True, "said": "200 OK"}
    assert len(post.mails) == 1
    assert not (spec.root / ".modelyard").exists()


def test_what_a_target_does_not_take_is_said(project: Make, web: Any, capsys: Out, monkeypatch: Any) -> None:
    monkeypatch.delenv("ML_HOOK", raising=False)
    web.answers = [403]
    spec = project(f"alerts: [{{to: '{web.address}', name: hook}}, 'env:ML_HOOK']")
    assert ask(spec, "test") == 1
    said = capsys.readouterr()
    assert "hook: answered 403 Forbidden" in said.out
    assert "ml-hook: `ML_HOOK` is not set" in said.out
    assert "alert-undelivered" in said.err
    assert ask(spec, "test", "hok") == 2
    assert "did you mean `hook`" in capsys.readouterr().err


def test_without_targets_the_way_to_one_is_shown(project: Make, capsys: Out) -> None:
    assert ask(project(""), "test") == 2
    said = capsys.readouterr().err
    assert "alert-no-target" in said
    assert "mailto:" in said


def test_what_waits_is_sent_before_a_container_ends(
    project: Make, store: LocalStore, story: Any, web: Any, capsys: Out
) -> None:
    # Whatever waits for later does not hold it up.
    later = "{to: 'mailto:a@b.org', name: team, on: start, digest: 52w}"
    spec = project(f"alerts: [{{to: '{web.address}', name: hook}}, {later}]")
    begin(store, targets(spec))
    story.fail()
    assert ask(spec, "send") == 0
    assert [body["on"] for body in web.bodies()] == ["failure"]
    assert ask(spec, "send") == 0
    assert len(web.requests) == 1
    # What a target does not take in time is said.
    web.answers = [500] * 50
    story.start("run-2")
    story.end("failed", "run-2", "why")
    assert ask(spec, "send", "--for", "1ms") == 1
    said = capsys.readouterr().err
    assert "alert-undelivered" in said
    assert store.holder("alerts") is None


def test_another_sender_is_left_to_it(project: Make, store: LocalStore, web: Any, capsys: Out) -> None:
    spec = project(f"alerts: ['{web.address}']")
    with store.hold("alerts", who={}):
        assert ask(spec, "send", "--for", "1ms") == 0
