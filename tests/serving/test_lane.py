"""Who is in the fast lane, how it is left, and when it is closed."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelyard.inference.kernels import compiled
from modelyard.serving import lane as lanes
from modelyard.serving.http.sweep import sweep
from modelyard.serving.pace import Pace
from modelyard.store.requests import newest

from .conftest import regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252
from .test_glance import mixed, regression  # noqa: TID252
from .test_leaving import counted  # noqa: TID252
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


def test_a_large_turn_is_more_than_one_run(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)
    asked(lambda: after(endpoint, request, [request] * 600))
    assert groups.sizes == [256, 256, 88]
    assert counted(endpoint) == (601, 601, 0)


def test_answers_keep_their_order_where_more_is_asked_on_the_connection(endpoint: Endpoint, groups: Groups) -> None:
    request, other = endpoint.request(ROW), endpoint.request({"rows": [{"a": 5, "b": 5}]})

    async def work() -> None:
        await known(endpoint, request)
        (first, one), (second, two) = connect(endpoint), connect(endpoint)
        for data in (request, other, request):
            one.data_received(data)
        two.data_received(request)
        assert one.busy
        assert two.busy
        (answers, _) = await answered(first, often=3), await answered(second)
        assert re.findall(rb'"value":([\d.]+)', answers[0]) == [b"4.0", b"15.0", b"4.0"]
        assert [one.busy, two.busy] == [False, False]
        assert one.began == two.began == 0.0

    asked(work)
    # The one that was followed by others went their way.
    assert groups.sizes == [1]
    assert counted(endpoint) == (5, 5, 0)


def test_half_a_request_behind_one_in_the_lane(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        wire, connection = connect(endpoint)
        connection.data_received(request)
        connection.data_received(request[:30])
        await answered(wire)
        connection.data_received(request[30:])
        assert statuses(await answered(wire, often=2)) == [200, 200]

    asked(work)


def test_who_leaves_the_lane_by_hanging_up_is_counted_and_not_answered(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        made = [connect(endpoint) for _ in range(3)]
        for _, connection in made:
            connection.data_received(request)
        made[1][1].connection_lost(None)
        await answered(made[0][0], made[2][0])
        await asyncio.sleep(0.01)
        assert not made[1][0].sent

    asked(work)
    assert groups.sizes == [2]
    assert counted(endpoint) == (3, 3, 1)
    assert endpoint.service.in_flight == 0


def test_all_may_leave_it(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        _, connection = connect(endpoint)
        connection.data_received(request)
        connection.connection_lost(None)
        assert statuses(await turn(endpoint, request, request)) == [200, 200]

    asked(work)
    assert groups.sizes == [2]
    assert counted(endpoint) == (3, 3, 1)


def test_who_says_no_more_is_answered_and_told_that_it_ends(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        wire, connection = connect(endpoint)
        connection.data_received(request)
        assert connection.eof_received()
        (answer,) = await answered(wire)
        assert b"\r\nconnection: close\r\n" in answer
        assert wire.closed

    asked(work)


def test_a_server_that_ends_answers_it_and_says_so(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        wire, connection = connect(endpoint)
        connection.data_received(request)
        endpoint.app.draining = True
        endpoint.models.drain()
        connection.drain()
        assert not wire.closed
        assert sweep([connection], endpoint.app.limits) == 0
        (answer,) = await answered(wire)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nconnection: close\r\n" in answer

    asked(work)


def test_who_asks_in_the_lane_is_not_idle(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        wire, connection = connect(endpoint)
        connection.began, connection.idle = 0.0, 1e-9
        connection.data_received(request)
        await answered(wire)
        assert sweep([connection], endpoint.app.limits) == 0
        assert not wire.closed

    asked(work)


def test_a_connection_that_takes_no_answer_keeps_nobody_from_theirs(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)
    told: list[Any] = []

    def broken(data: bytes) -> None:
        raise OSError("broken")

    async def work() -> None:
        await known(endpoint, request)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        made = [connect(endpoint) for _ in range(3)]
        made[1][0].write = broken
        for _, connection in made:
            connection.data_received(request)
        await answered(made[0][0], made[2][0])
        assert made[1][0].aborted

    asked(work)
    assert [str(error) for error in told] == ["broken"]


def test_a_mistake_of_ours_is_told_to_each(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    request = endpoint.request(ROW)

    def mistaken(*given: Any) -> None:
        raise RuntimeError("a mistake")

    async def work() -> None:
        await known(endpoint, request)
        monkeypatch.setattr(lanes, "answer_together", mistaken)
        answers = await turn(endpoint, request, request)
        assert statuses(answers) == [500, 500]
        assert all(b"a mistake" not in answer for answer in answers)

    asked(work)
    assert endpoint.service.erred == 2


def test_requests_go_the_other_way_for_a_while_after_an_unusual_turn(endpoint: Endpoint, groups: Groups) -> None:
    # As long as each other: of both the head is known.
    request, unusual = (
        endpoint.request({"rows": [{"a": 1, "b": 333}]}),
        endpoint.request({"rows": [{"a": 1, "b": "x"}]}),
    )

    async def work() -> None:
        await known(endpoint, request)
        assert statuses(await turn(endpoint, request, unusual)) == [200, 400]
        for times in (1, 2):
            tried = len(groups.sizes)
            for _ in range(32 * times):
                await turn(endpoint, request)
            assert len(groups.sizes) == tried
            # Each time it fails it stays away twice as long.
            await turn(endpoint, request, unusual)
            assert groups.sizes[tried:] == [0]
        for _ in range(128):
            await turn(endpoint, request)
        await turn(endpoint, request, request)
        assert groups.sizes[-1] == 2
        # A turn that works makes it half as long, and no more.
        await turn(endpoint, request, unusual)
        tried = len(groups.sizes)
        for _ in range(128):
            await turn(endpoint, request)
        assert len(groups.sizes) == tried
        await turn(endpoint, request)
        assert groups.sizes[tried:] == [1]

    asked(work)


def test_a_turn_has_no_more_than_may_be_under_way(tmp_path: Path, groups: Groups) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=20) as endpoint:
        request = endpoint.request(ROW)
        answers = asked(lambda: after(endpoint, request, [request] * 25))
        assert statuses(answers) == [200] * 20 + [429] * 5
        assert groups.sizes == [20]
        assert endpoint.models.refused == {"too-many-requests": 5}
        # The turn is over.
        assert statuses(asked(lambda: turn(endpoint, *[request] * 20))) == [200] * 20


def test_what_goes_the_other_way_takes_room_from_it(tmp_path: Path, groups: Groups) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=20) as endpoint:
        request = endpoint.request(ROW)
        other = request.replace(b"host: here", b"host: here\r\naccept: application/*")
        for mixed in ([request, *[other] * 10, *[request] * 14], [other, *[request] * 10, *[other] * 14]):
            answers = asked(lambda some=mixed: after(endpoint, request, some))
            assert statuses(answers) == [200] * 20 + [429] * 5
        assert any(groups.sizes)


def test_room_that_others_have_taken_meanwhile_is_not_given_again(tmp_path: Path, groups: Groups) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=64) as endpoint:
        request = endpoint.request(ROW)
        other = request.replace(b"host: here", b"host: here\r\naccept: application/*")
        answers = asked(lambda: after(endpoint, request, [request, *[other] * 60, *[request] * 19]))
        assert statuses(answers) == [200] * 64 + [429] * 16
        assert groups.sizes == [4]


def test_a_turn_that_would_take_too_long_takes_no_more(endpoint: Endpoint) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        endpoint.service.batcher.turn.rows = 18
        assert statuses(await turn(endpoint, *[request] * 20)) == [200] * 18 + [429] * 2

    asked(work)


def test_what_keeps_the_loop_goes_to_the_thread(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)

    async def work() -> None:
        await known(endpoint, request)
        # More than one run has: the whole turn counts.
        endpoint.service.batcher.inline.rows = 299
        assert statuses(await turn(endpoint, *[request] * 300)) == [200] * 300
        assert not groups.sizes
        endpoint.service.batcher.inline.rows = 300
        endpoint.app.first.lane._rests = 0
        await turn(endpoint, *[request] * 300)

    asked(work)
    assert groups.sizes == [256, 44]


def test_a_turn_that_kept_the_loop_is_looked_at_as_a_whole(endpoint: Endpoint, groups: Groups) -> None:
    request = endpoint.request(ROW)
    real = endpoint.service.batcher._predictor.predict

    def slow(feeds: Any) -> Any:
        time.sleep(0.003)
        return real(feeds)

    async def work() -> None:
        await known(endpoint, request)
        endpoint.service.batcher._predictor.predict = slow  # type: ignore[method-assign]
        endpoint.service.batcher.inline = Pace(0.005, least=0)
        await turn(endpoint, *[request] * 512)
        assert groups.sizes == [256, 256]
        # Each of its runs was short enough, and both together were not.
        assert not endpoint.service.batcher.keeps_up(512)

    asked(work)


def test_a_caller_that_gets_no_answers_is_counted_once_a_request(tmp_path: Path, groups: Groups) -> None:
    with Endpoint(tmp_path, regression(), {"extraction": {"do": "limit"}}, per_minute=6) as endpoint:
        request = endpoint.request(ROW)
        gate = endpoint.service.gate
        assert gate is not None
        assert gate.asking is not None
        gate.asking.limited = lambda caller: 9.0 if endpoint.service.answered else 0.0  # type: ignore[method-assign]
        answers = asked(lambda: after(endpoint, request, [request] * 7))
        assert statuses(answers) == [429] * 7
        assert endpoint.models.refused == {"caller-limited": 5, "rate-exceeded": 2}


def test_a_caller_that_asks_too_often_is_counted_once_a_request(tmp_path: Path, groups: Groups) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, per_minute=6) as endpoint:
        request = endpoint.request(ROW)
        answers = asked(lambda: after(endpoint, request, [request] * 7))
        assert statuses(answers) == [200] * 5 + [429] * 2
        assert groups.sizes == [5]
        assert endpoint.models.refused == {"rate-exceeded": 2}


def test_the_lane_is_open_to_rows_however_they_are_written(tmp_path: Path, groups: Groups) -> None:
    with Endpoint(tmp_path, mixed(), None) as endpoint:
        row = {"age": 40, "income": 1000.0, "city": "paris"}
        plain = endpoint.request({"rows": [row]})
        spaced = endpoint.request(json.dumps({"rows": [row]}, indent=1).encode() + b"\n")
        single = endpoint.request(row)

        async def work() -> None:
            await known(endpoint, plain, spaced, single)
            groups.sizes.clear()
            await turn(endpoint, plain, spaced, single)

        asked(work)
        assert groups.sizes == [3]
        endpoint.close()
        with closing(sqlite3.connect(endpoint.log.path)) as db:
            assert [one.inputs for one in newest(db)] == [[row]] * 6
