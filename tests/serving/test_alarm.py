"""The alarm of the guards: rings once, ends once, and what a server does with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelyard.deploy.switch import killed, revive
from modelyard.serving.guards.alarm import Signal, Watcher
from modelyard.serving.guards.policy import Alarm
from modelyard.serving.observability.metrics import Tally

from .conftest import mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252 - the same
from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the same


@dataclass
class Version:
    """Counts as a version does."""

    rows: int = 0
    tally: Tally = field(default_factory=Tally)

    def took(self, guard: str, did: str, rows: int) -> None:
        """Count answered rows that one guard has taken from their callers."""
        self.tally.decide(guard, did, rows)
        self.tally.take(rows)


def watched() -> tuple[Watcher, list[Signal], list[float]]:
    now, rung = [0.0], list[Signal]()
    return Watcher(Alarm(share=0.1, window=60), rung.append, clock=lambda: now[0]), rung, now


def test_it_rings_once_and_says_when_it_is_over() -> None:
    watcher, rung, now = watched()
    one = Version()
    for second in range(300):
        now[0] = float(second)
        one.rows += 10
        if 100 <= second < 130:
            one.took("confidence", "abstain", 5)
        one.tally.decide("out_of_range", "clip", 5)
        watcher.look([one])
    assert [signal.on for signal in rung] == [True, False]
    assert rung[0].share > 0.1 >= rung[1].share
    assert set(rung[0].guards) == {"confidence"}
    assert not watcher.on


def test_silence_does_not_end_it() -> None:
    watcher, rung, now = watched()
    one = Version()
    watcher.look([one])
    one.rows = 100
    one.took("harmful", "abstain", 100)
    for second in range(1, 600):
        now[0] = float(second)
        watcher.look([one])
    assert [signal.on for signal in rung] == [True]
    for second in range(600, 700):
        now[0] = float(second)
        one.rows += 1
        watcher.look([one])
    assert [signal.on for signal in rung] == [True, False]
    assert rung[1].rows >= 50


def test_a_version_that_comes_or_goes_counts_nothing_twice() -> None:
    watcher, rung, now = watched()
    old, new = Version(rows=1000), Version()
    watcher.look([old])
    for second in range(1, 120):
        now[0] = float(second)
        old.rows += 10 if second < 60 else 0
        new.rows += 10 if second >= 30 else 0
        watcher.look([old] if second < 30 else [old, new] if second < 60 else [new])
    assert rung == []
    new.rows += 200
    new.took("harmful", "fallback", 200)
    now[0] = 121.0
    watcher.look([new])
    assert [signal.on for signal in rung] == [True]
    assert rung[0].guards == {"harmful": 200}


def test_a_person_who_switches_it_on_again_begins_anew() -> None:
    watcher, rung, now = watched()
    one = Version()
    watcher.look([one])
    for second, add in ((1, 100), (2, 0), (3, 100)):
        now[0] = float(second)
        one.rows += add
        one.took("harmful", "abstain", add)
        if second == 2:
            watcher.reset()
        watcher.look([one])
    assert [signal.on for signal in rung] == [True, True]


OLD, MARS, BOTH = {"age": 200}, {"city": "mars"}, {"age": 200, "city": "mars"}
REJECTS = {"unseen": "reject", "out_of_range": "reject"}
UNSURE = {"age": 18, "income": 800, "city": "rome"}


@pytest.mark.parametrize(
    ("guards", "bodies", "taken", "rows"),
    [
        # A row that two guards refuse is one row.
        (REJECTS, [{}, {}, BOTH, {}], 1, 4),
        # Of a request that is refused nobody gets a row.
        (REJECTS, [[{}] * 9 + [MARS], [{}] * 10, [OLD, MARS]], 12, 22),
        # A row that is held back by the first guard is not held back again by the next.
        ({"confidence": {"at_least": 0.9, "else": "fallback"}, "fallback": "no"}, [[UNSURE, UNSURE, {}]], 2, 3),
        # What the signature refuses never came to a guard.
        (REJECTS, [{}, {"age": "old"}], 0, 1),
    ],
)
def test_each_row_counts_once(tmp_path: Path, guards: dict[str, Any], bodies: list[Any], taken: int, rows: int) -> None:
    usual = {"age": 80, "income": 0, "city": "paris"}
    rung: list[Signal] = []
    with Endpoint(tmp_path, mixed_bundle(), guards) as endpoint:
        each = [body if isinstance(body, list) else [body] for body in bodies]
        asked = [{"rows": [{**usual, **one} for one in some]} for some in each]
        endpoint.ask(*asked)
        service = endpoint.service
        assert (service.tally.taken, service.rows + service.tally.refused) == (taken, rows)
        watcher = Watcher(Alarm(share=0.999 * taken / rows, window=60), rung.append)
        # As many again and again as an alarm wants to have seen.
        for _ in range(60):
            endpoint.ask(*asked)
        watcher.look([service])
    told = [round(signal.share, 6) for signal in rung if signal.on]
    assert told == ([round(taken / rows, 6)] if taken else [])


def test_row_that_has_no_place_takes_its_request_with_it(tmp_path: Path) -> None:
    tensors = [
        {"name": "numeric", "shape": [2, 2], "datatype": "FP32", "data": [18, 800, 80, 0]},
        {"name": "categorical", "shape": [2, 1], "datatype": "BYTES", "data": ["rome", "paris"]},
    ]
    with Endpoint(tmp_path, mixed_bundle(), {"confidence": {"at_least": 0.9, "else": "abstain"}}) as endpoint:
        ((status, _),) = endpoint.ask({"inputs": tensors}, path="/v2/models/credit/infer")
        assert status == 422
        assert (endpoint.service.tally.taken, endpoint.service.tally.refused) == (2, 2)


def test_harmful_answers_switch_the_endpoint_off_until_somebody_switches_it_on(tmp_path: Path) -> None:
    (tmp_path / "guards.py").write_text(
        "def harmful(batch, *, limit):\n    return [float(answer > limit) for answer in batch.answers]\n"
    )
    yard = Yard(tmp_path)
    model = yard.keep(times(1.0))
    yard.point(model)
    check = {"use": "guards.py:harmful", "params": {"limit": 5}, "timeout": 20}
    guards = {"checks": [check], "alarm": {"share": 0.1, "window": 60, "then": "kill"}}
    server = yard.serve(model, "--policy", json.dumps({"guards": guards}))
    try:
        with server.client() as client:
            for _ in range(60):
                answer = client.post("/predict", json={"rows": [{"a": 1.0}, {"a": 9.0}]})
                if answer.status_code == 503:
                    break
                assert answer.json()["predictions"] == [{"value": 1.0}, {"value": None, "withheld": "harmful"}]
            until(lambda: client.post("/predict", json={"a": 1.0}).status_code == 503)
            reason = until(lambda: killed(yard.store, ENDPOINT))
            assert "rows were refused or held back" in reason
            (rung,) = yard.store.ledger.events(kinds=("guard.alarmed",))
            assert (rung.actor, rung.payload["then"], set(rung.payload["guards"])) == ("server", "kill", {"harmful"})
            with server.client("operator") as operator:
                assert f'modelyard_guard_alarm{{model="{ENDPOINT}"}} 1' in operator.get("/metrics").text
            revive(yard.store, ENDPOINT, actor="user:ana")
            until(lambda: client.post("/predict", json={"a": 1.0}).status_code == 200)
            for _ in range(60):
                client.post("/predict", json={"a": 9.0})
            until(lambda: killed(yard.store, ENDPOINT))
    finally:
        server.stop()
    assert len(list(yard.store.ledger.events(kinds=("endpoint.killed",)))) == 2
    # The reason of each row stands in the log, and in no answer.
    assert not [line for line in server.said if "Traceback" in line], server.said
