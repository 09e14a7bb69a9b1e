"""The alarm of the guards: told once, over once, by real mail and a real hook."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.serving.versions import Yard, times, until

from modelyard.automation.alerts.sender import Sender
from modelyard.records import Draft
from modelyard.serving.guards.alarm import Signal
from modelyard.serving.guards.bell import process_now, ringing, write_signal
from modelyard.serving.guards.policy import Alarm
from modelyard.spec import Spec
from modelyard.store import LocalStore

Make = Callable[..., Spec]

ON = Signal(on=True, share=0.2, rows=500, guards={"harmful": 90, "confidence": 10})
OFF = Signal(on=False, share=0.0, rows=80, guards={})


def ring(store: LocalStore, signal: Signal, then: Any = "tell") -> None:
    write_signal(store, endpoint="income", alarm=Alarm(share=0.05, then=then), signal=signal)


def test_an_alarm_is_told_once_and_its_end_once(
    project: Make, store: LocalStore, sender: Callable[..., Sender], taken: Any
) -> None:
    there = sender(project("alerts: [{to: 'mailto:a@example.org', name: team}]"))
    ring(store, ON)
    ring(store, ON)
    there.drain()
    ring(store, OFF)
    ring(store, OFF)
    there.drain()
    (told, over) = [message for _, message in taken.messages]
    assert told.title == "income: income refused or held back 20.0% of the last 500 rows"
    assert told.urgency == "high"
    assert "harmful: 90 rows" in told.text
    assert over.title == "income: recovered: income refuses and holds back as few rows as usual again"


def test_a_kill_is_in_the_ledger_once_with_its_reason_and_over_when_revived(
    project: Make, store: LocalStore, sender: Callable[..., Sender], taken: Any
) -> None:
    there = sender(project("alerts: [{to: 'mailto:a@example.org', name: team}]"))
    ring(store, ON, "kill")
    ring(store, ON, "kill")
    (killed,) = store.ledger.events(kinds=("endpoint.killed",))
    assert killed.actor == "server"
    assert killed.payload["reason"] == "guards: 20.0% of the last 500 rows were refused or held back"
    there.drain()
    store.ledger.append(Draft(kind="endpoint.revived", actor="user:ana", payload={"endpoint": "income", "reason": "."}))
    there.drain()
    assert [message.title for _, message in taken.messages] == [
        "income: income refused or held back 20.0% of the last 500 rows, and is switched off",
        "income: recovered: income is switched on again",
    ]
    # A new trouble is told again, and switches it off again.
    ring(store, ON, "kill")
    there.drain()
    assert len(taken.messages) == 3
    assert len(list(store.ledger.events(kinds=("endpoint.killed",)))) == 2


def test_it_is_not_over_while_another_process_rings(store: LocalStore) -> None:
    other = "elsewhere/1/2@3"
    payload = {"endpoint": "income", "process": other, "share": 0.2, "rows": 500}
    store.ledger.append(Draft(kind="guard.alarmed", actor="server", payload={**payload, "guards": {}, "then": "tell"}))
    ring(store, ON)
    assert ringing(store, "income") == {other, process_now()}
    ring(store, OFF)
    assert [event.payload["still"] for event in store.ledger.events(kinds=("guard.calmed",))] == [1]
    assert ringing(store, "income") == {other}


def test_a_process_that_is_gone_rings_no_more(store: LocalStore) -> None:
    host = process_now().partition("/")[0]
    payload = {"endpoint": "income", "process": f"{host}/999999999/1@gone", "share": 0.2, "rows": 500}
    store.ledger.append(Draft(kind="guard.alarmed", actor="server", payload={**payload, "guards": {}, "then": "tell"}))
    ring(store, OFF)
    assert [event.payload["still"] for event in store.ledger.events(kinds=("guard.calmed",))] == [0]
    assert ringing(store, "income") == set()


@pytest.mark.slow
def test_harmful_answers_are_told_once_by_hook_and_mail_and_their_end_once(
    project: Make, tmp_path: Path, web: Any, post: Any
) -> None:
    """From the server that gives them to those who are told, all of it real."""
    targets = f"[{{to: '{web.address}', name: hook}}, {{to: 'mailto:ml@example.org', name: mail}}]"
    more = f"mail: {{host: 127.0.0.1, port: {post.port}, tls: none}}"
    spec = project(f"alerts: {targets}", more=more)
    code = "def harmful(batch):\n    return ['too much' if answer > 5 else None for answer in batch.answers]\n"
    (spec.root / "guards.py").write_text(code)
    yard = Yard(spec.root)
    model = yard.keep(times(1.0))
    yard.point(model)
    there = Sender(spec, yard.store, draw=lambda low, high: 0.02 * high)
    check = {"use": "guards.py:harmful", "timeout": 30}
    guards = {"checks": [check], "alarm": {"share": 0.1, "window": 1}}
    server = yard.serve(model, "--policy", json.dumps({"guards": guards}))

    def asked(value: float) -> bool:
        with server.client() as client:
            for _ in range(30):
                assert client.post("/predict", json={"a": value}).status_code == 200
        return True

    def noted(kind: Any) -> list[Any]:
        return list(yard.store.ledger.events(kinds=(kind,)))

    try:
        until(lambda: asked(9.0) and noted("guard.alarmed"))
        until(lambda: asked(9.0) and there.drain() is None and post.mails)
        until(lambda: asked(1.0) and noted("guard.calmed"))
        until(lambda: there.drain() is None and len(post.mails) == len(web.requests) == 2)
    finally:
        server.stop()
        yard.store.close()
    wanted = ["income: hours refused or held back", "income: recovered: hours refuses and holds back as few"]
    for titles in ([body["title"] for body in web.bodies()], [str(mail["subject"]).strip() for mail in post.mails]):
        assert [title[: len(want)] for title, want in zip(titles, wanted, strict=True)] == wanted
