"""What finds no room is refused at a glance, and told, counted and logged as every other refusal."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.serving.app import App
from modelyard.serving.http.connection import Connection

from .conftest import mixed_bundle, regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

Change = tuple[int, Callable[[], object] | None]

ROOM = 3
CREDIT = {"age": 30, "income": 1000, "city": "paris"}
PATHS = {
    "/predict": {"rows": [{"a": 1, "b": 2}]},
    "/v2/models/hours/infer": {"inputs": [{"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]},
}


def crowd(
    endpoint: Endpoint, count: int, path: str, more: bytes = b"", *, often: int = 1, change: Change = (0, None)
) -> list[bytes]:
    """Ask on so many connections in one turn of the loop, whose heads are known, and return what each was told.

    Args:
        endpoint: Whom to ask.
        count: How many connections.
        path: What to ask.
        more: Further headers.
        often: Requests on each connection; they do not wait for answers.
        change: What happens in between: before the request of which connection, and what.
    """
    request = endpoint.request(PATHS[path], path).replace(b"\r\nhost", more + b"\r\nhost", 1)

    async def ask() -> list[bytes]:
        wires, connections = [Wire() for _ in range(count)], []
        for wire in wires:
            connections.append(Connection(endpoint.app))
            connections[-1].connection_made(wire)  # type: ignore[arg-type]
        # Whose head is seen for the first time is parsed.
        connections[0].data_received(request)
        while not wires[0].sent:
            await asyncio.sleep(0)
        wires[0]._sent.clear()
        for at, connection in enumerate(connections * often):
            if at == change[0] and change[1] is not None:
                change[1]()
            connection.data_received(request)
        while not all(wire.sent.count(b"HTTP/1.1 ") == often for wire in wires):
            await asyncio.sleep(0)
        return [wire.sent for wire in wires]

    return asyncio.run(ask())


def nameless(answer: bytes) -> bytes:
    """Return an answer without the id, which is another for each."""
    return re.sub(rb"req-[0-9a-z]+-[0-9a-f]+", b"ID", answer)


@pytest.mark.parametrize("path", PATHS)
def test_a_crowd_is_refused_as_one_is(tmp_path: Path, path: str) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as endpoint:
        answers = crowd(endpoint, ROOM + 5, path)
        assert [answer[9:12] for answer in answers] == [b"200"] * ROOM + [b"429"] * 5
        # The first of them was refused by the way that every refusal takes.
        first, *others = map(nameless, answers[ROOM:])
        assert set(others) == {first}
        assert b"\r\nretry-after: 1\r\n" in first
        for answer in answers[ROOM:]:
            head, _, body = answer.partition(b"\r\n\r\n")
            assert int(re.findall(rb"content-length: (\d+)", head)[0]) == len(body)
            assert json.loads(body)["error"]
            assert re.findall(rb"x-request-id: (\S+)", head)[0] in body
        assert len(set(answers)) == len(answers)
        assert endpoint.models.refused == {"too-many-requests": 5}
        assert [n for key, n in endpoint.models.metrics.other.items() if key[3] == 429] == [5]
        lines = [json.loads(text) for _, text in endpoint.app.first.access._lines]
        assert [(line["status"], line["code"], line["route"]) for line in lines] == [
            (429, "too-many-requests", lines[0]["route"])
        ] * 5
        assert all(line["caller"].startswith("caller") for line in lines)
        # Where there is room again, everybody is answered.
        assert [answer[9:12] for answer in crowd(endpoint, ROOM, path)] == [b"200"] * ROOM
        assert not endpoint.app.pressed


def test_lines_about_a_flood_are_left_out_and_counted(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as endpoint:
        endpoint.app.first.access._most = 4
        crowd(endpoint, ROOM + 10, "/predict")
        assert len(endpoint.app.first.access._lines) == 4
        assert endpoint.app.first.access._left_out == 6
        assert endpoint.models.refused == {"too-many-requests": 10}


def test_what_is_switched_off_says_so_under_load_too(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as endpoint:
        killed = ROOM + 2, lambda: endpoint.models.kill("hours", "a drill")
        answers = crowd(endpoint, ROOM + 5, "/predict", change=killed)
        # Those that had found room wait for their turn, and are not answered any more either.
        assert [answer[9:12] for answer in answers] == [b"503"] * ROOM + [b"429"] * 2 + [b"503"] * 3
        assert endpoint.service.in_flight == 0


def test_answers_keep_the_order_of_the_requests_on_a_connection(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as endpoint:
        told = crowd(endpoint, ROOM + 2, "/predict", often=2)
        found = [re.findall(rb"HTTP/1.1 (\d+)", answers) for answers in told]
        assert found == [[b"200", b"429"]] * ROOM + [[b"429", b"429"]] * 2


def test_pages_that_may_ask_may_read_the_refusal(tmp_path: Path) -> None:
    cors = {"access": {"cors": ["https://page.example"]}}
    with Endpoint(tmp_path, regression_bundle(), None, declared=cors, in_flight=ROOM) as endpoint:
        answers = crowd(endpoint, ROOM + 5, "/predict", b"\r\norigin: https://page.example")
        assert [answer[9:12] for answer in answers[ROOM:]] == [b"429"] * 5
        assert all(b"access-control-allow-origin: https://page.example" in answer for answer in answers)


def test_whoever_finds_no_room_has_asked_all_the_same(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM, per_minute=ROOM + 5) as endpoint:
        answers = crowd(endpoint, ROOM + 9, "/predict")
        assert [answer[9:12] for answer in answers] == [b"200"] * ROOM + [b"429"] * 9
        # One has asked before all of them.
        assert endpoint.models.refused == {"too-many-requests": 4, "rate-exceeded": 5}


def test_a_server_that_ends_closes_the_connections_that_it_refuses(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as endpoint:

        def end() -> None:
            endpoint.app.draining = True

        answers = crowd(endpoint, ROOM + 5, "/predict", change=(ROOM + 2, end))
        assert [answer[9:12] for answer in answers[ROOM:]] == [b"429"] * 5
        closed = [b"\r\nconnection: close\r\n" in answer for answer in answers[ROOM:]]
        assert closed == [False] * 2 + [True] * 3


def test_whether_it_lives_is_told_under_load_too(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as endpoint:
        wire, connection = Wire(), Connection(endpoint.app)

        def look() -> None:
            connection.connection_made(wire)  # type: ignore[arg-type]
            for _ in range(3):
                connection.data_received(b"GET /v2/health/live HTTP/1.1\r\nhost: here\r\n\r\n")

        answers = crowd(endpoint, ROOM + 5, "/predict", change=(ROOM + 2, look))
        assert [answer[9:12] for answer in answers[ROOM:]] == [b"429"] * 5
        assert re.findall(rb"HTTP/1.1 (\d+)", wire.sent) == [b"200"] * 3


def test_overload_of_one_endpoint_takes_nothing_from_what_another_counts(tmp_path: Path) -> None:
    """Only where a caller's requests are not counted may one be refused without a look at how many there were."""
    (tmp_path / "other").mkdir()
    with (
        Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as hours,
        Endpoint(tmp_path / "other", mixed_bundle(), None, in_flight=ROOM, per_minute=ROOM + 2) as credit,
    ):
        both = App([hours.app.first, credit.app.first], hours.app.limits)
        hours.app = credit.app = both
        asked = [hours.request({"a": 1, "b": 2}), credit.request(CREDIT, "/models/credit/predict")]

        async def ask() -> list[list[bytes]]:
            found = []
            # Each has no room in the end; the first of them then says so at a glance.
            for request, count in zip([*asked, *asked], (ROOM, ROOM, 1, 4), strict=True):
                wires = [Wire() for _ in range(count)]
                for wire in wires:
                    connection = Connection(both)
                    connection.connection_made(wire)  # type: ignore[arg-type]
                    connection.data_received(request)
                found.append(wires)
            while not all(wire.sent for wires in found for wire in wires):
                await asyncio.sleep(0)
            return [[wire.sent for wire in wires] for wires in found]

        *_, last = found = asyncio.run(ask())
        statuses = [answer[9:12] for answers in found for answer in answers]
        assert statuses == [b"200"] * 2 * ROOM + [b"429"] * 5
        codes = [json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] for answer in last]
        assert codes == ["too-many-requests"] * 2 + ["rate-exceeded"] * 2


def test_endpoint_with_room_does_not_end_the_quick_refusals_of_a_crowded_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        Endpoint(tmp_path, regression_bundle(), None, in_flight=ROOM) as hours,
        Endpoint(tmp_path / "other", mixed_bundle(), None) as credit,
    ):
        both = App([hours.app.first, credit.app.first], hours.app.limits)
        calm = credit.request(CREDIT, "/models/credit/predict")
        crowded = hours.request({"a": 1, "b": 2})

        async def ask() -> list[bytes]:
            wires = [Wire() for _ in range(ROOM + 3)]
            for wire, request in zip(wires, [calm, *[crowded] * (ROOM + 1), calm], strict=True):
                connection = Connection(both)
                connection.connection_made(wire)  # type: ignore[arg-type]
                connection.data_received(request)
            assert both.pressed
            while not all(wire.sent for wire in wires):
                await asyncio.sleep(0)
            return [wire.sent[9:12] for wire in wires]

        assert asyncio.run(ask()) == [b"200", *[b"200"] * ROOM, b"429", b"200"]
