"""What is answered together is what each request is told that is answered by itself."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard._kit.ids import ids_after
from modelyard.inference import open_bundle
from modelyard.inference.kernels import compiled
from modelyard.security.keys import trusted_keys
from modelyard.security.tokens import add_token
from modelyard.serving.lane import Lane
from modelyard.serving.pace import Pace
from modelyard.serving.service import Service
from modelyard.store.requests import newest

from .conftest import lay, regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint, logged  # noqa: TID252
from .test_glance import mixed, regression  # noqa: TID252
from .test_leaving import Held, counted  # noqa: TID252
from .turns import ROW, Groups, after, answered, asked, connect, known, statuses, turn  # noqa: TID252

pytestmark = [
    pytest.mark.skipif(compiled() is None, reason="there was no compiler when this was installed"),
    pytest.mark.usefixtures("patient"),
]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    return Groups(monkeypatch)


@pytest.fixture
def endpoint(tmp_path: Path) -> Any:
    with Endpoint(tmp_path, regression_bundle(), None) as made:
        yield made


def test_requests_of_a_turn_are_answered_together(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)
    model = Held(endpoint)

    async def work() -> None:
        await known(endpoint, request)
        answers = await turn(endpoint, *[request] * 20)
        assert statuses(answers) == [200] * 20
        assert len({re.findall(rb"x-request-id: (\S+)", answer)[0] for answer in answers}) == 20

    asked(work)
    assert groups.sizes == [20]
    assert model.sizes == [1, 20]
    assert counted(endpoint) == (21, 21, 0)
    assert endpoint.service.in_flight == endpoint.app.first.lane.counted() == 0


# Each of these is one row that nothing is said of, or something else.
def _row(rng: random.Random) -> dict[str, Any]:
    return {"a": rng.choice([0, 1.5, -2]), "b": rng.uniform(-3, 3)}


def _mixed(rng: random.Random) -> dict[str, Any]:
    odd = rng.random() < 0.05
    cities = ["oslo", None] if odd else ["paris", "rome"]
    return {"age": rng.randint(18, 95 if odd else 90), "income": rng.uniform(0, 9000), "city": rng.choice(cities)}


KINDS: dict[str, tuple[Callable[[], Any], Callable[[random.Random], dict[str, Any]], dict[str, Any]]] = {
    "regression": (regression, _row, {"within": {"low": -5, "do": "clip"}}),
    "mixed": (mixed, _mixed, {"confidence": {"at_least": 0.55, "else": "fallback"}, "fallback": "no"}),
}


def _bodies(rng: random.Random, make: Callable[[random.Random], dict[str, Any]], odd: float) -> list[Any]:
    found: list[Any] = []
    for _ in range(rng.choice([1, 2, 5, 31])):
        body: Any = {"rows": [make(rng)]}
        if rng.random() < odd:
            one = make(rng)
            body = rng.choice([{"rows": [one, one]}, one, {"rows": []}, {"rows": [{**one, "more": 1}]}, b'{"rows":['])
        found.append(body)
    return found


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@pytest.mark.parametrize("guarded", [False, True], ids=["bare", "guarded"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_lane_changes_nothing(
    tmp_path: Path, groups: Groups, monkeypatch: pytest.MonkeyPatch, kind: str, *, guarded: bool, limited: bool
) -> None:
    make, row, guards = KINDS[kind]
    every: dict[str, Any] = {"out_of_range": "warn", "missing": "warn", "outlier": {"score": 0.9, "do": "warn"}}
    every |= {"extraction": {}, "checks": [{"use": "unusual", "params": {"score": 0.9}, "do": "warn"}], **guards}

    def told(root: Path) -> Any:
        root.mkdir()
        limits = {"per_minute": 200} if limited else {}
        endpoint = Endpoint(root, make(), every if guarded else None, **limits)
        endpoint.app.ids = ids_after("req-some-")
        tokens = [endpoint.token, add_token(root, "other", "analyst"), "none"]
        rng = random.Random(kind)  # noqa: S311 - to be had again
        turns = []
        for at in range(24):
            bodies = _bodies(rng, row, 0.0 if at % 3 else 0.2)
            turns.append(
                [endpoint.request(body).replace(tokens[0].encode(), rng.choice(tokens).encode()) for body in bodies]
            )

        async def work() -> list[list[bytes]]:
            endpoint.app.heads.until = float("inf")
            found = []
            for requests in turns:
                # The lane goes on as soon as a turn is usual again.
                endpoint.app.first.lane._rests = 0
                found.append(await turn(endpoint, *requests))
            return found

        answers = asyncio.run(work())
        service = endpoint.service
        counts = service.answered, service.rows, dict(service.tally.decided), dict(endpoint.models.refused)
        times = {path: sum(one.buckets) for path, one in service.tally.by_path().items()}
        noted = None
        if guarded:
            taken = service.gate.asking.take()  # type: ignore[union-attr]
            noted = {_named(who): sorted(str((n.tolist(), t)) for n, t in one.requests) for who, one in taken.items()}
        endpoint.close()
        with closing(sqlite3.connect(endpoint.log.path)) as db:
            log = sorted((one.id, one.model, _named(one.caller), *_said(one)) for one in newest(db))
        return answers, counts, times, noted, log

    fast = told(tmp_path / "fast")
    assert any(groups.sizes)
    monkeypatch.setattr(Lane, "opens", lambda *_: False)
    seen = len(groups.sizes)
    slow = told(tmp_path / "slow")
    assert len(groups.sizes) == seen
    for one, other in zip(fast, slow, strict=True):
        assert one == other


def _named(caller: str) -> str:
    """Return the name of a caller, which is another in each project but for one."""
    return caller if caller == "other" else "first"


def _said(one: Any) -> tuple[str, str]:
    return json.dumps(one.inputs, sort_keys=True), json.dumps(one.outputs, sort_keys=True)


def test_a_turn_is_counted_and_its_pace_learned(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        batcher = endpoint.service.batcher
        batcher.turn = Pace(1e-9, least=16)
        assert statuses(await turn(endpoint, *[request] * 40)) == [200] * 40
        assert batcher.turn.rows == 16
        assert batcher.runs == 2
        assert batcher.timed.requests == 41
        assert batcher.timed.sizes[40][0] == 1

    asked(work)


def _ends(endpoint: Endpoint) -> None:
    endpoint.app.draining = True


def _drains(endpoint: Endpoint) -> None:
    endpoint.models.drain()


def _closed(endpoint: Endpoint) -> None:
    endpoint.service.closed = True


def _kill(endpoint: Endpoint) -> None:
    endpoint.models.kill("hours", "a drill")


def _unload(endpoint: Endpoint) -> None:
    endpoint.models.unload()


@pytest.mark.parametrize(
    ("change", "status"), [(_ends, 200), (_drains, 200), (_closed, 200), (_kill, 503), (_unload, 404)]
)
def test_what_is_decided_before_the_turn_ends_holds(
    endpoint: Endpoint, groups: Groups, change: Callable[[Endpoint], None], status: int
) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        wire, connection = connect(endpoint)
        connection.data_received(request)
        change(endpoint)
        assert statuses(await answered(wire)) == [status]

    asked(work)
    assert not any(groups.sizes)
    assert counted(endpoint)[0] == 1 + (status == 200)


def test_a_version_that_takes_over_before_the_turn_ends_answers_all_of_it(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)
    before = endpoint.service

    async def work() -> None:
        await known(endpoint, request)
        made = [connect(endpoint) for _ in range(3)]
        for _, connection in made:
            connection.data_received(request)
        endpoint.models.put(after)
        assert statuses(await answered(*[wire for wire, _ in made])) == [200] * 3

    after = _again(endpoint)
    asked(work)
    after.close()
    assert groups.sizes == [3]
    assert (before.answered, after.answered) == (1, 3)


def _again(endpoint: Endpoint) -> Service:
    """Return the version of an endpoint once more, opened anew."""
    root = endpoint.log.path.parent
    bundle = open_bundle(lay(root, regression_bundle()), trusted=trusted_keys(root))
    return Service(bundle, "hours", endpoint.log, endpoint.service.limits)


class Trial:
    """A challenger on trial that is given nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.seen = 0

    def pick(self, exchange: Any) -> Service:
        self.seen += 1
        return self._service

    def answered(self, service: Service, group: list[Any], took: list[float]) -> None:
        self.seen += len(group)


@pytest.mark.parametrize("what", ["rollout", "watch"])
def test_a_trial_that_begins_before_the_turn_ends_is_asked_about_each(
    endpoint: Endpoint, groups: Groups, what: str
) -> None:
    request = endpoint.request(ROW)
    trial = Trial(endpoint.service)

    async def work() -> None:
        await known(endpoint, request)
        made = [connect(endpoint) for _ in range(3)]
        for _, connection in made:
            connection.data_received(request)
        setattr(endpoint.service, what, trial)
        assert statuses(await answered(*[wire for wire, _ in made])) == [200] * 3
        # Nor do those come in that follow.
        endpoint.app.first.lane._rests = 0
        assert statuses(await turn(endpoint, request, request)) == [200] * 2
        setattr(endpoint.service, what, None)

    asked(work)
    assert trial.seen == 5
    assert not any(groups.sizes)


def test_what_is_long_is_not_answered_together(endpoint: Endpoint, groups: Groups) -> None:
    request, large = (endpoint.request(b'{"a":1,"b":2}' + b" " * more) for more in (16_371, 16_372))

    async def work() -> None:
        await known(endpoint, request, large)
        groups.sizes.clear()
        assert statuses(await turn(endpoint, request, large, request)) == [200] * 3

    asked(work)
    assert groups.sizes == [2]


def test_what_the_model_raises_is_told_to_each(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)

    def broken(feeds: Any) -> Any:
        raise ValueError("broken")

    async def work() -> None:
        await known(endpoint, request)
        endpoint.service.batcher._predictor.predict = broken  # type: ignore[method-assign]
        assert statuses(await turn(endpoint, request, request)) == [500, 500]

    asked(work)
    assert groups.sizes == [0]
    assert endpoint.service.erred == 2


@pytest.mark.parametrize("output", [np.full((2, 1), np.inf, np.float32), np.zeros((2, 2), np.float32)])
def test_what_is_no_answer_is_found_by_the_other_way(endpoint: Endpoint, groups: Groups, output: Any) -> None:
    request = endpoint.request(ROW)
    real = endpoint.service.batcher._predictor.predict

    def odd(feeds: Any) -> Any:
        model.append(len(feeds["numeric"]))
        return output if len(model) == 1 else real(feeds)

    async def work() -> None:
        await known(endpoint, request)
        endpoint.service.batcher._predictor.predict = odd  # type: ignore[method-assign]
        assert statuses(await turn(endpoint, request, request)) == [200, 200]

    model: list[int] = []
    asked(work)
    assert groups.sizes == [0]
    assert model == [2, 2]
    assert endpoint.service.batcher.timed.requests == counted(endpoint)[0] == 3


def test_an_answer_that_cannot_be_made_is_not_recorded(
    endpoint: Endpoint, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = endpoint.request(ROW)

    def broken(*given: Any) -> None:
        raise RuntimeError("broken")

    async def work() -> None:
        await known(endpoint, request)
        with monkeypatch.context() as patch:
            patch.setattr(endpoint.service.writer, "_letters", broken)
            patch.setattr(endpoint.service.writer, "_width", 7)
            assert statuses(await turn(endpoint, request, request)) == [200, 200]

    asked(work)
    assert groups.sizes == [0]
    assert counted(endpoint) == (3, 3, 0)
    assert len(logged(endpoint)) == 3


def test_a_turn_is_logged_in_the_order_of_its_requests(endpoint: Endpoint) -> None:
    requests = [endpoint.request({"rows": [{"a": at, "b": 2}]}) for at in range(9)]
    asked(lambda: after(endpoint, requests[0], requests))
    assert [round(one["prediction"]) for one in logged(endpoint)] == [2, *range(2, 19, 2)]


@pytest.mark.parametrize(
    "declared",
    [
        {"requests": {"sample": 0.5}},
        {"requests": {"redact": ["a"]}},
        {"access": {"log": "all"}},
        {"access": {"per_day": 9}},
    ],
)
def test_what_is_to_be_told_of_each_is_not_answered_together(
    tmp_path: Path, groups: Groups, declared: dict[str, Any]
) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, declared=declared) as endpoint:
        request = endpoint.request(ROW)
        assert statuses(asked(lambda: after(endpoint, request, [request] * 3))) == [200] * 3
        assert not any(groups.sizes)
        assert counted(endpoint) == (4, 4, 0)
