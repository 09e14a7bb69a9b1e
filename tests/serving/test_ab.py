"""An A/B test on a server: shares, outcomes that are joined later, the verdict in the ledger and what follows."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.checks.ab import Arm, Question
from modelyard.checks.arms import Arms
from modelyard.records import Event, ModelVersion
from modelyard.serving.versions import comparing
from modelyard.store.requests import Turn, connect
from modelyard.store.tail import turns_after

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252 - the same
from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the same


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


Begin = Callable[..., tuple[Server, ModelVersion, ModelVersion]]


@pytest.fixture
def begin(yard: Yard) -> Iterator[Begin]:
    """Serve a champion, with a challenger on trial beside it."""
    started: list[Server] = []

    def make(champion: float, challenger: float, **settings: Any) -> tuple[Server, ModelVersion, ModelVersion]:
        first, second = yard.keep(times(champion)), yard.keep(times(challenger))
        yard.point(first)
        server = yard.serve(first, "--ab", json.dumps({"share": 0.5, "min": 100, **settings}))
        started.append(server)
        yard.point(second, "challenger")
        return server, first, second

    yield make
    for server in started:
        assert server.stop() == 0, server.said


def on_trial(server: Server) -> bool:
    with server.client("operator") as client:
        return "rollout" in client.get("/stats").json()


def traffic(server: Server, count: int, truth: float) -> Counter[str]:
    """Ask for 2, and say what was right each time; return how often each version answered."""
    seen: Counter[str] = Counter()
    with server.client() as client:
        outcomes = []
        for _ in range(count):
            answer = client.post("/predict", json={"a": 2.0})
            assert answer.status_code == 200, answer.text
            seen[answer.headers["x-model-version"]] += 1
            outcomes.append({"id": answer.json()["id"], "truth": truth})
        assert client.post("/feedback", json=outcomes).status_code == 200
    return seen


def decided(yard: Yard) -> list[Event]:
    return list(yard.store.ledger.events(kinds=("ab.finished",)))


@pytest.mark.parametrize("promote", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_challenger_that_is_better_wins(yard: Yard, begin: Begin, promote: bool) -> None:
    server, first, second = begin(3.0, 2.0, promote=promote)
    until(lambda: on_trial(server))
    seen = traffic(server, 300, truth=4.0)
    # Five standard deviations of a binomial.
    assert abs(seen[second.digest[:12]] - 150) < 44
    (event,) = until(lambda: decided(yard))
    assert event.actor == "server"
    assert (event.payload["champion"], event.payload["challenger"]) == (first.digest, second.digest)
    found = event.payload["found"]
    assert (found["decision"], found["difference"], found["means"]) == ("challenger", -2.0, [2.0, 0.0])
    assert found["high"] < 0
    # It may have looked before the last ones were written.
    assert 200 <= sum(found["outcomes"]) <= 300
    if promote:
        assert yard.now("champion").model.digest == second.digest
        assert yard.now("champion").reason == f"A/B test: {found['reason']}"
        with server.client() as client:
            until(lambda: client.post("/predict", json={"a": 2.0}).headers["x-model-version"] == second.digest[:12])
    else:
        assert yard.now("champion").model.digest == first.digest
        # It keeps its share, and nothing is decided twice.
        assert set(traffic(server, 60, truth=4.0)) == {first.digest[:12], second.digest[:12]}
        assert len(decided(yard)) == 1


def test_challenger_that_is_worse_is_taken_back(yard: Yard, begin: Begin) -> None:
    server, first, second = begin(2.0, 3.0, promote=True)
    until(lambda: on_trial(server))
    traffic(server, 300, truth=4.0)
    (event,) = until(lambda: decided(yard))
    assert event.payload["found"]["decision"] == "champion"
    back = yard.now("challenger")
    assert (back.model.digest, back.previous) == (first.digest, second.digest)
    assert back.reason.startswith("A/B test: the champion is better: error 2 against 0")
    until(lambda: not on_trial(server))


@pytest.mark.thorough
def test_challenger_that_is_no_better_in_time_is_taken_back(yard: Yard, begin: Begin) -> None:
    _, first, _ = begin(2.0, 2.0001, at_most=0.5, metric="label", label="none", promote=True)
    (event,) = until(lambda: decided(yard))
    assert event.payload["found"]["decision"] == "none"
    assert yard.now("challenger").model.digest == first.digest
    assert yard.now("champion").model.digest == first.digest
    assert [d.alias for d in yard.store.ledger.aliases(ENDPOINT)] == ["champion", "challenger", "challenger"]


def test_only_what_is_drawn_counts_and_its_key_is_in_the_log(yard: Yard, begin: Begin) -> None:
    server, first, second = begin(2.0, 3.0)
    until(lambda: on_trial(server))
    with server.client("operator") as client:
        for headers in ({}, {"x-canary-key": "ana"}, {"x-canary-key": "ana"}, {"x-canary-key": ""}):
            client.post("/predict", json={"a": 2.0}, headers=headers).raise_for_status()
        for name in ("champion", "challenger"):
            client.post("/predict", json={"a": 2.0}, headers={"x-model": name}).raise_for_status()
        row = {"inputs": [{"name": "a", "shape": [1, 1], "datatype": "FP64", "data": [2.0]}]}
        for model in (first, second):
            path = f"/v2/models/{ENDPOINT}/versions/{model.digest}/infer"
            client.post(path, json=row).raise_for_status()

    def logged() -> list[Turn]:
        with closing(connect(server.log)) as db:
            turns = [turn for _, some in turns_after(db, 0, 0.0) for turn in some]
        return turns if sum(len(turn.ids) for turn in turns) == 8 else []

    keys = [key for turn in until(logged) for key in turn.keys]
    assert keys[0] == keys[3] == ""
    assert keys[1] == keys[2] != "ana"
    assert len(keys[1]) == 16
    assert keys[4:] == [None] * 4
    with closing(connect(server.log)) as db:
        arms = Arms((first.digest, second.digest), 0.0, Question(metric="ms"), classes=()).read(db)
    assert (sum(arm.requests for arm in arms), sum(arm.keys for arm in arms)) == (4, 3)


def test_no_keys_are_kept_where_nothing_is_tried(tmp_path: Path) -> None:
    with Endpoint(tmp_path, times(2.0), {}) as endpoint:
        assert endpoint.ask({"a": 2.0})[0][0] == 200
    with closing(connect(tmp_path / "requests.db")) as db:
        ((_, (turn,)),) = turns_after(db, 0, 0.0)
    assert (turn.counts, turn.keys) == ([1], [])


def test_whoever_follows_the_ledger_does_not_wait_for_a_long_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(tmp_path / "log.db").close()
    gate, reads = threading.Event(), []

    def read(*_: Any) -> tuple[Arm, Arm]:
        reads.append(gate.wait(2.0))
        return Arm(), Arm()

    monkeypatch.setattr(Arms, "read", read)
    version = SimpleNamespace(version=SimpleNamespace(digest="a"), problem=SimpleNamespace(classes=("a", "b")))
    rollout: Any = SimpleNamespace(champion=version, challenger=version)
    test = comparing.Comparing(rollout, Question(at_most=0.0), tmp_path / "log.db", 0.0)
    assert [test.look(), test.look()] == [None, None]
    gate.set()
    assert until(test.look).decision == "none"
    assert reads == [True]
