"""What `modelyard status` says of the models that are served."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.places import log_path
from modelyard.automation.served import served
from modelyard.deploy.aliases import move
from modelyard.records import ModelVersion
from modelyard.serving.observability.log import RequestLog
from modelyard.store import LocalStore
from modelyard.store.requests import Turn


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
    log = RequestLog(log_path(store.root, "hours"))
    log.put(Turn(1_700_000_000.0, first.digest, "", ["a"], ["ana"], [1.0], [1], [b'[{"x":1}]'], [[{}]]), 1)
    assert log.close() == 0
    (store.root / "t.csv").write_text("a\n1\n")
    (store.root / "modelyard.yaml").write_text("project: tiny\ndata: {t: {from: t.csv}}\n")
    done = yard("status")
    said = done.stdout
    assert done.returncode == 1, done.stderr
    lines = [line for line in said.splitlines() if line.startswith("model ")]
    asked = as_text(1_700_000_000.0)
    assert re.fullmatch(
        rf"model   hours/challenger -> \w+ {short(second.digest)} \(on trial\), since .+, last asked {asked}", lines[1]
    )
    assert f"hours/champion -> {first.family} {short(first.digest)} (gate passed)" in lines[0]
    told = json.loads(yard("status", "--json").stdout)["served"]
    assert [(to["alias"], to["model"], to["asked"]) for to in told] == [
        ("champion", first.digest, 1_700_000_000.0),
        ("challenger", second.digest, 1_700_000_000.0),
    ]

    # A log that is broken is somebody else's news.
    log_path(store.root, "hours").write_bytes(b"no database" * 100)
    assert [to.asked for to in served(store)] == [0.0, 0.0]
