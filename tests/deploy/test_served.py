"""What `modelyard status` says of the models that are served."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.places import log_path
from modelyard.automation.served import served
from modelyard.deploy.aliases import move, pointed
from modelyard.deploy.local import command, telling
from modelyard.deploy.running import running
from modelyard.monitoring.window import reading
from modelyard.records import ModelVersion
from modelyard.serving.observability.log import RequestLog
from modelyard.store import LocalStore
from modelyard.store.requests import Turn, answered_last


def declared(store: LocalStore) -> None:
    (store.root / "t.csv").write_text("a\n1\n")
    (store.root / "modelyard.yaml").write_text("project: tiny\ndata: {t: {from: t.csv}}\n")


def test_status_says_which_model_answers_since_when_and_who_asked_last(
    store: LocalStore, models: list[ModelVersion], yard: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert served(store) == []
    first, second, _ = models
    move(store, "hours", "champion", first, reason="gate passed", actor="user:ana")
    move(store, "hours", "challenger", first, reason="trial ended", actor="user:ana")
    # A challenger that is the champion's model is on no trial.
    (one,) = served(store)
    assert (one.endpoint, one.alias, one.model, one.reason, one.asked) == (
        "hours",
        "champion",
        first.digest,
        "gate passed",
        0.0,
    )

    move(store, "hours", "challenger", second, reason="on trial", actor="user:ana")
    answered = time.time() + 60
    log = RequestLog(log_path(store.root, "hours"))
    log.put(Turn(answered, first.digest, "", ["a"], ["ana"], [1.0], [1], [b'[{"x":1}]'], [[{}]]), 1)
    assert log.close() == 0
    declared(store)
    done = yard("status")
    said = done.stdout
    assert done.returncode == 1, done.stderr
    lines = [line for line in said.splitlines() if line.startswith("model ")]
    champion = f"hours/champion -> {first.family} {short(first.digest)} (gate passed)"
    assert re.fullmatch(rf"model   {re.escape(champion)}, since .+, last asked {as_text(answered)}", lines[0])
    # The log knows of no answer of the other.
    assert re.fullmatch(rf"model   hours/challenger -> \w+ {short(second.digest)} \(on trial\), since [^,]+", lines[1])
    told = json.loads(yard("status", "--json").stdout)["served"]
    assert [(to["alias"], to["model"], to["asked"]) for to in told] == [
        ("champion", first.digest, pytest.approx(answered)),
        ("challenger", second.digest, 0.0),
    ]

    # A log that is broken is somebody else's news.
    log_path(store.root, "hours").write_bytes(b"no database" * 100)
    assert [to.asked for to in served(store)] == [0.0, 0.0]


def test_the_last_answer_of_a_model_is_looked_for_newest_first_and_not_for_ever(store: LocalStore) -> None:
    path = log_path(store.root, "hours")
    for at, model in enumerate(["a", "b", "b"]):
        # A block of its own.
        log = RequestLog(path)
        log.put(Turn(10.0 + at, model, "", [f"r{at}"], ["ana"], [1.0], [1], [b'[{"x":1}]'], [[{}]]), 1)
        assert log.close() == 0
    with reading(path) as db:
        (blocks,) = db.execute("SELECT count(*) FROM blocks").fetchone()
        assert blocks == 3
        found = {
            (model, since, seconds): answered_last(db, model, since=since, seconds=seconds)
            for model, since, seconds in [
                ("b", 0.0, 60.0),
                ("a", 0.0, 60.0),
                ("a", 10.5, 60.0),
                ("c", 0.0, 60.0),
                ("b", 0.0, -1.0),
                ("a", 0.0, -1.0),
            ]
        }
    assert list(found.values()) == [12.0, 10.0, 0.0, 0.0, 12.0, 0.0]


def test_status_says_that_a_challenger_without_a_champion_is_not_tried(
    store: LocalStore, models: list[ModelVersion], yard: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    declared(store)
    move(store, "hours", "challenger", models[0], reason="on trial", actor="user:ana")
    assert [to.tried for to in served(store)] == [False]
    said = yard("status").stdout
    assert f"{short(models[0].digest)} (not tried: there is no champion), since" in said


def test_status_says_when_no_server_tries_a_challenger(
    store: LocalStore, models: list[ModelVersion], yard: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    declared(store)
    first, second, third = models
    move(store, "hours", "champion", first, reason="gate passed", actor="user:ana")
    move(store, "hours", "challenger", second, reason="gate passed, on trial", actor="user:ana")
    assert [to.tried for to in served(store)] == [True, True]
    move(store, "hours", "champion", third, reason="promoted", actor="user:ana")
    assert [(to.alias, to.tried) for to in served(store)] == [("champion", True), ("challenger", False)]
    said = yard("status").stdout
    assert f"{short(second.digest)} (not tried: the champion moved after it was named), since" in said
    assert "on trial" not in said


def test_status_tells_of_a_server_that_no_daemon_keeps(
    store: LocalStore, models: list[ModelVersion], yard: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    declared(store)
    move(store, "hours", "champion", models[0], reason="", actor="user:ana")
    assert "server " not in yard("status").stdout
    # Its model has no bundle, so the server itself would end at once: something that stays has its command line.
    stays = "import time; print(flush=True); time.sleep(60)"
    line = [sys.executable, "-c", stays, *command(telling(store, pointed(store, "hours")), port=0)[1:]]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            # The system shows the line of a process some time after it was started.
            assert server.stdout is not None
            server.stdout.readline()
            assert running(store.root, "hours") == [server.pid]
            said = yard("status")
            assert f"server  hours is served without a daemon: process {server.pid}\n" in said.stdout
            assert json.loads(yard("status", "--json").stdout)["servers"] == {"hours": [server.pid]}
        finally:
            server.terminate()
