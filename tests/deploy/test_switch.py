"""An endpoint is switched off and on by commands; the ledger keeps who and why."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from modelyard._kit.errors import Refused
from modelyard.deploy.aliases import move
from modelyard.deploy.switch import kill, killed, revive
from modelyard.records import Draft, ModelVersion
from modelyard.store import LocalStore


@pytest.fixture(autouse=True)
def served(store: LocalStore, models: list[ModelVersion]) -> None:
    move(store, "hours", "champion", models[1], reason="test", actor="user:ana")


def test_reason_is_kept_and_needed(store: LocalStore) -> None:
    with pytest.raises(Refused) as caught:
        kill(store, "hours", reason="  ", actor="user:ana")
    assert caught.value.code == "kill-no-reason"
    assert not killed(store, "hours")
    kill(store, "hours", reason="it harms", actor="user:ana")
    assert killed(store, "hours") == "it harms"
    assert not killed(store, "other")
    assert revive(store, "hours", actor="user:eve")
    assert not killed(store, "hours")
    assert not revive(store, "hours", actor="user:eve")
    events = list(store.ledger.events(kinds=("endpoint.killed", "endpoint.revived")))
    assert [(e.kind, e.actor, e.payload["reason"]) for e in events] == [
        ("endpoint.killed", "user:ana", "it harms"),
        ("endpoint.revived", "user:eve", "revived by user:eve"),
    ]


def test_commands(store: LocalStore, yard: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = yard("kill", "hours", "--reason", "it harms")
    assert (done.returncode, killed(store, "hours")) == (0, "it harms"), done.stderr
    (store.root / "t.csv").write_text("a\n1\n")
    (store.root / "modelyard.yaml").write_text("project: tiny\ndata: {t: {from: t.csv}}\n")
    now = json.loads(yard("status", "--json").stdout)
    (off,) = now["off"]
    assert (off["endpoint"], off["reason"]) == ("hours", "it harms")
    said = yard("status").stdout
    assert re.search(r"hours answers nobody since \S+ \S+, by \S+: it harms; `modelyard revive hours`", said)
    again = yard("kill", "hours", "--reason", "once more")
    assert re.match(r"hours is off already since \S+ \S+, by \S+: it harms; `modelyard revive hours`", again.stdout)
    assert json.loads(yard("kill", "hours", "--reason", "again", "--json").stdout)["was"]["reason"] == "it harms"
    assert killed(store, "hours") == "it harms"
    done = yard("kill", "ours", "--reason", "it harms")
    assert done.returncode == 2
    assert "hours" in done.stderr
    done = yard("revive", "hours", "--json")
    assert json.loads(done.stdout) == {"endpoint": "hours", "killed": False, "was": True}
    assert not killed(store, "hours")
    assert json.loads(yard("status", "--json").stdout)["off"] == []


def test_status_says_that_a_model_is_unloaded(
    store: LocalStore, yard: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (store.root / "t.csv").write_text("a\n1\n")
    (store.root / "modelyard.yaml").write_text("project: tiny\ndata: {t: {from: t.csv}}\n")
    who = {"endpoint": "hours", "caller": "ops"}
    store.ledger.append(Draft(kind="endpoint.unloaded", actor="server", payload=who))
    said = yard("status").stdout
    assert re.search(r"hours is unloaded since \S+ \S+, by ops, in servers that were up then; `POST /v2/", said)
    (gone,) = json.loads(yard("status", "--json").stdout)["unloaded"]
    assert (gone["endpoint"], gone["caller"]) == ("hours", "ops")
    store.ledger.append(Draft(kind="endpoint.loaded", actor="server", payload=who))
    assert "unloaded" not in yard("status").stdout
