"""`modelyard ab` says how the test stands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from modelyard._kit.places import log_path
from modelyard.deploy.aliases import move
from modelyard.records import Draft, ModelVersion
from modelyard.store import LocalStore
from modelyard.store.requests import Block, Turn, connect, encode, put_truths, write_block

Yard = Callable[..., "subprocess.CompletedProcess[str]"]
SPEC = "project: hours\ndata: {t: {from: a.csv}}\nmodel: {target: y}\n"


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("x,y\n1,1\n2,2\n")
    path = tmp_path / "modelyard.yaml"
    path.write_text(SPEC + "deploy: {rollout: {ab: {min: 100}}}\n")
    return path


def test_what_both_answered_is_compared(
    yard: Yard, store: LocalStore, models: list[ModelVersion], declared: Path
) -> None:
    for model, alias in ((models[0], "champion"), (models[1], "challenger")):
        move(store, "hours", alias, model, reason="test", actor="user:ana")  # type: ignore[arg-type]
    seq = list(store.ledger.events(kinds=("alias.moved",)))[-1].seq
    log = log_path(store.root, "hours")
    log.parent.mkdir(parents=True)
    with closing(connect(log)) as db:
        for model, says in ((models[0], 3.0), (models[1], 2.0)):
            ids = [f"{model.digest[:6]}-{at}" for at in range(200)]
            outputs = [[{"prediction": says + at % 3}] for at in range(200)]
            sent, one_each = [b"[{}]"] * 200, [1] * 200
            turn = Turn(4e9, model.digest, "", ids, ["a"] * 200, [1.0] * 200, one_each, sent, outputs, [""] * 200)  # type: ignore[arg-type]
            write_block(db, Block(4e9, 4e9, 200, [encode(turn)]))
            put_truths(db, [(one, "2") for one in ids])
    done = yard("ab")
    assert done.returncode == 0, done.stderr
    assert "error (less is better)" in done.stdout
    assert "to be decided: the challenger is better: error" in done.stdout
    found = json.loads(yard("ab", "--json").stdout)
    assert (found["champion"], found["challenger"]) == (models[0].digest, models[1].digest)
    assert (found["requests"], found["decision"], found["decided"]) == ([200, 200], "challenger", None)
    assert (found["keys"], found["outcomes"], found["held"]) == ([200, 200], [200, 200], [0.0, 0.0])
    assert found["difference"] == pytest.approx(-1.0, abs=0.01)
    assert found["low"] < -1 < found["high"] < 0
    # What the server has decided is what counts.
    payload = {"endpoint": "hours", "began": seq, "found": {"decision": "challenger", "reason": "it is better"}}
    store.ledger.append(Draft(kind="ab.finished", actor="server", payload=payload))
    assert ": it is better\n" in yard("ab").stdout


def test_what_is_wrong_is_said(yard: Yard, store: LocalStore, models: list[ModelVersion], declared: Path) -> None:
    move(store, "hours", "champion", models[0], reason="test", actor="user:ana")
    done = yard("ab")
    assert (done.returncode, "error[ab-no-trial]" in done.stderr) == (2, True), done.stderr
    done = yard("ab", "ours")
    assert (done.returncode, "did you mean `hours`" in done.stderr) == (2, True), done.stderr
    declared.write_text(SPEC)
    done = yard("ab")
    assert (done.returncode, "error[ab-not-declared]" in done.stderr) == (2, True), done.stderr
