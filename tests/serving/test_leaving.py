"""Whose answer nobody waits for any more is not run, not logged, and gives its room back."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from modelyard.serving.batch import INLINE_ROWS
from modelyard.serving.grpc.answers import Calls
from modelyard.serving.grpc.frames import Kind, frame
from modelyard.serving.grpc.messages import message
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.heads import Heads

from .conftest import regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Echo, Wire  # noqa: TID252
from .grpc.wire import Peer  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

ROW = {"rows": [{"a": 1, "b": 2}]}
MANY = {"rows": [{"a": 1, "b": 2}] * INLINE_ROWS}
GONE = "caller-gone"


class Held:
    """A model that runs once it may, and remembers how many rows it ran for."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.go_on = threading.Event()
        self.sizes: list[int] = []
        self._predict = endpoint.service.batcher._predictor.predict
        endpoint.service.batcher._predictor = self  # type: ignore[assignment]

    def predict(self, feeds: Any) -> Any:
        self.sizes.append(len(feeds["numeric"]))
        if threading.current_thread() is not threading.main_thread():
            assert self.go_on.wait(10)
        return self._predict(feeds)


def asking(endpoint: Endpoint, *bodies: Any, wire: Any = None) -> tuple[Connection, Any]:
    """Ask for some things on a connection of one's own."""
    wire, connection = wire or Wire(), Connection(endpoint.app)
    connection.connection_made(wire)
    for body in bodies:
        connection.data_received(endpoint.request(body))
    return connection, wire


async def idle(endpoint: Endpoint) -> None:
    async with asyncio.timeout(10):
        while endpoint.service.in_flight:
            await asyncio.sleep(0.001)


def counted(endpoint: Endpoint) -> tuple[int, int, int]:
    """Return how many requests were answered, how many rows, and how many callers had left."""
    return endpoint.service.answered, endpoint.service.rows, endpoint.models.refused[GONE]


@pytest.mark.parametrize("stay", [0, 1, 3])
def test_who_has_left_is_taken_out_of_the_group(tmp_path: Path, stay: int) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> list[bytes]:
            staying = [asking(endpoint, ROW) for _ in range(stay)]
            leaving = [asking(endpoint, ROW) for _ in range(2)]
            # Two at once on one connection.
            leaving.append(asking(endpoint, ROW, ROW))
            for connection, _ in leaving:
                connection.connection_lost(None)
            await idle(endpoint)
            assert not any(wire.sent for _, wire in leaving)
            return [wire.sent for _, wire in staying]

        answers = asyncio.run(main())
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * stay
        assert counted(endpoint) == (stay, stay, 4)
        # The first came by the way of all others, since its head was not known, and the others together.
        assert model.sizes == {0: [], 1: [1], 3: [1, 2]}[stay]
        assert endpoint.service.batcher.runs == len(model.sizes)
        assert {key[3]: count for key, count in endpoint.models.metrics.other.items()} == {499: 4}
    assert endpoint.log.logged == stay


def test_a_group_in_which_nobody_has_left_is_not_looked_at(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        looked: list[Any] = []
        stays = endpoint.service.batcher._stays
        endpoint.service.batcher._stays = lambda one: looked.append(one) or stays(one)  # type: ignore[func-returns-value]

        async def main() -> None:
            asking(endpoint, ROW)
            # Nobody waits on it.
            asking(endpoint)[0].connection_lost(None)
            await idle(endpoint)
            assert not looked
            asking(endpoint, ROW)[0].connection_lost(None)
            await idle(endpoint)
            assert len(looked) == 1
            asking(endpoint, ROW)
            await idle(endpoint)

        asyncio.run(main())
        assert len(looked) == 1
        assert counted(endpoint) == (2, 2, 1)


def test_who_leaves_while_the_turn_before_runs(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> None:
            endpoint.service.batcher.inline.learn(1, 1.0)
            first = asking(endpoint, ROW)
            await asyncio.sleep(0.01)
            second, third = asking(endpoint, ROW), asking(endpoint, ROW)
            await asyncio.sleep(0.01)
            second[0].connection_lost(None)
            model.go_on.set()
            await idle(endpoint)
            assert [bool(wire.sent) for _, wire in (first, second, third)] == [True, False, True]

        asyncio.run(main())
        assert model.sizes == [1, 1]
        assert counted(endpoint) == (2, 2, 1)


def test_who_leaves_with_a_large_request(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> None:
            asking(endpoint, MANY)
            leaves, stays = asking(endpoint, MANY), asking(endpoint, MANY)
            await asyncio.sleep(0.01)
            leaves[0].connection_lost(None)
            model.go_on.set()
            await idle(endpoint)
            assert stays[1].sent

        asyncio.run(main())
        assert model.sizes == [INLINE_ROWS] * 2
        assert counted(endpoint) == (2, 2 * INLINE_ROWS, 1)


def test_who_leaves_while_it_waits_for_the_log(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        go_on, write = threading.Event(), endpoint.log._write
        endpoint.log._backlog = 1

        def slowly(*given: Any) -> Any:
            go_on.wait(10)
            return write(*given)

        endpoint.log._write = slowly  # type: ignore[method-assign]

        async def main() -> None:
            asking(endpoint, ROW)
            await idle(endpoint)
            asking(endpoint, ROW)[0].connection_lost(None)
            await asyncio.sleep(0.05)
            # It does not even wait until there is room.
            assert endpoint.service.in_flight == 0
            go_on.set()

        asyncio.run(main())
        assert counted(endpoint) == (1, 1, 1)


@pytest.mark.parametrize("waits", ["model", "log"])
def test_who_waits_while_the_endpoint_is_switched_off_is_told_so(tmp_path: Path, waits: str) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model, go_on, write = Held(endpoint), threading.Event(), endpoint.log._write
        if waits == "log":
            endpoint.log._backlog = 1
            endpoint.log._write = lambda *given: go_on.wait(10) and write(*given)  # type: ignore[method-assign]

        async def main() -> bytes:
            if waits == "model":
                endpoint.service.batcher.inline.learn(1, 1.0)
            asking(endpoint, ROW)
            await asyncio.sleep(0.01)
            _, wire = asking(endpoint, ROW)
            await asyncio.sleep(0.01)
            endpoint.models.kill(endpoint.service.endpoint, "test")
            model.go_on.set()
            await idle(endpoint)
            go_on.set()
            return bytes(wire.sent)

        answer = asyncio.run(main())
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"endpoint-killed"' in answer
        assert model.sizes == [1]
        assert counted(endpoint) == (1, 1, 0)


def called(endpoint: Endpoint, peer: Peer, stream: int, *, micros: int | str = -1, **more: str) -> None:
    """Ask for one row over gRPC."""
    request = message("ModelInferRequest")(model_name=endpoint.service.endpoint)
    request.inputs.add(name="numeric", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    if isinstance(micros, str):
        request.parameters["timeout"].string_param = micros
    elif micros >= 0:
        request.parameters["timeout"].int64_param = micros
    path = "/inference.GRPCInferenceService/ModelInfer"
    peer.send(peer.call(stream, request.SerializeToString(), path, token=endpoint.token, **more))


def test_calls_that_are_given_up(tmp_path: Path) -> None:
    """By a reset, by their own time, or with their connection; who was told that its time is up is counted as that."""
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> None:
            endpoint.service.batcher.inline.learn(1, 1.0)
            peer, lost = Peer(Calls(endpoint.app)), Peer(Calls(endpoint.app))  # type: ignore[arg-type]
            called(endpoint, peer, 1)
            await asyncio.sleep(0.01)
            called(endpoint, peer, 3)
            called(endpoint, peer, 5, grpc_timeout="10m")
            called(endpoint, peer, 7)
            called(endpoint, lost, 1)
            peer.send(frame(Kind.RST_STREAM, 0, 3, (8).to_bytes(4, "big")))
            lost.connection.connection_lost(None)
            await asyncio.sleep(0.05)
            model.go_on.set()
            await idle(endpoint)
            told = {stream: head["grpc-status"] for stream, (_, head) in peer.answers().items()}
            assert told == {1: "0", 5: "4", 7: "0"}

        asyncio.run(main())
        assert model.sizes == [1, 1]
        assert counted(endpoint) == (2, 2, 2)
        assert endpoint.models.refused["deadline-exceeded"] == 1


@pytest.mark.parametrize("how", ["reset", "broken", "late", "slow", "lost", "ended"])
def test_each_way_to_give_up_a_call_is_seen(tmp_path: Path, how: str) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> None:
            endpoint.service.batcher.inline.learn(1, 1.0)
            asking(endpoint, ROW)
            await asyncio.sleep(0.01)
            peer = Peer(Calls(endpoint.app))  # type: ignore[arg-type]
            called(endpoint, peer, 1, **({"grpc_timeout": "10m"} if how == "late" else {}))
            if how == "reset":
                peer.send(frame(Kind.RST_STREAM, 0, 1, (8).to_bytes(4, "big")))
            elif how == "broken":
                # A stream that was ended says nothing more.
                peer.send(frame(Kind.DATA, 0, 1, b"more"))
            elif how == "slow":
                peer.connection.overdue(time.monotonic() + 1000.0, endpoint.app.limits)
            elif how == "lost":
                peer.connection.connection_lost(None)
            elif how == "ended":
                # What is no frame ends the connection.
                peer.send(frame(Kind.DATA, 0, 0, b"none"))
            await asyncio.sleep(0.05)
            model.go_on.set()
            await idle(endpoint)

        asyncio.run(main())
        assert model.sizes == [1]
        assert endpoint.service.answered == 1


@pytest.mark.parametrize("guards", [None, {"within": {"high": 1.0, "do": "abstain"}}])
def test_a_call_whose_time_is_up_while_the_model_is_at_work_is_not_counted_as_answered_too(
    tmp_path: Path, guards: Any
) -> None:
    with Endpoint(tmp_path, regression_bundle(), guards) as endpoint:
        model = Held(endpoint)

        async def main() -> None:
            endpoint.service.batcher.inline.learn(1, 1.0)
            peer = Peer(Calls(endpoint.app))  # type: ignore[arg-type]
            called(endpoint, peer, 1, grpc_timeout="20m")
            await asyncio.sleep(0.05)
            model.go_on.set()
            await idle(endpoint)
            assert peer.answers()[1][1]["grpc-status"] == "4"

        asyncio.run(main())
        assert model.sizes == [1]
        assert counted(endpoint) == (0, 0, 0)
        assert endpoint.models.refused == {"deadline-exceeded": 1}
    assert endpoint.log.logged == 0


@pytest.mark.parametrize("begin", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_caller_that_says_no_more_is_asked_whether_it_still_listens(
    begin: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """One that has closed its end and one that has closed all look alike until something is sent to them."""
    echo = Echo(Heads())
    ask = b"POST /predict/later HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 2\r\n\r\n{}"

    async def main() -> tuple[bool, bool, bytes]:
        loop, found = asyncio.get_running_loop(), []
        server = await loop.create_server(lambda: found.append(Connection(echo)) or found[-1], "127.0.0.1", 0)  # type: ignore[func-returns-value]
        port = server.sockets[0].getsockname()[1]
        leaves, listens = (socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(2))
        for one in (leaves, listens):
            one.sendall(ask)
        async with asyncio.timeout(20):
            while len(echo.waiting) < 2:
                await asyncio.sleep(0.001)
        leaves.close()
        listens.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(5):
            while not any(one.transport is None for one in found):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        gone = [one.gone for one in echo.waiting]
        echo.turn()
        said = b""
        while part := await asyncio.to_thread(listens.recv, 4096):
            said += part
        listens.close()
        server.close()
        return gone[0], gone[1], said

    with asyncio.Runner(loop_factory=begin) as runner:
        left, stayed, said = runner.run(main())
    assert (sorted((left, stayed))) == [False, True]
    interim, _, answer = said.rpartition(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"{}")
    assert set(interim.split(b"\r\n\r\n")) == {b"HTTP/1.1 102 Processing", b""}


def half_closed(echo: Echo, ask: bytes) -> bytes:
    """Ask, say no more, and return what comes until the server closes; it answers after a tenth of a second."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(echo), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname(), timeout=5) as caller:
            caller.sendall(ask)
            caller.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.1)
            echo.turn()
            said = b""
            while part := await asyncio.to_thread(caller.recv, 4096):
                said += part
        server.close()
        return said

    return asyncio.run(main())


def test_all_that_was_asked_is_answered_after_the_end_of_what_a_caller_says() -> None:
    ask = b"POST /predict/later HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 1\r\n\r\n"
    said = half_closed(Echo(Heads()), b"".join(ask + body for body in (b"1", b"2", b"3")))
    assert [part[-1:] for part in said.split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2", b"3"]


def test_who_speaks_an_older_http_gets_no_answer_but_the_last() -> None:
    ask = b"POST /predict/later HTTP/1.0\r\nauthorization: Bearer good\r\ncontent-length: 1\r\n\r\n1"
    said = half_closed(Echo(Heads()), ask)
    assert said.startswith(b"HTTP/1.1 200 OK")
    assert said.endswith(b"1")


HEADER = "x-envoy-expected-rq-timeout-ms"
TENSORS = {"inputs": [{"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
FORMS = {
    "/predict": ROW,
    "/v2/models/{}/infer": TENSORS,
    "/invocations": {"dataframe_records": ROW["rows"]},
}


def late(endpoint: Endpoint, path: str, body: Any, *, header: str = "", seconds: float = 0.05) -> bytes:
    """Ask while the model is busy for so long, and return what comes."""
    request = endpoint.request(body, path.format(endpoint.service.endpoint))
    if header:
        request = request.replace(b"\r\nhost:", f"\r\n{HEADER}: {header}\r\nhost:".encode())
    model = Held(endpoint)

    async def main() -> bytes:
        endpoint.service.batcher.inline.learn(1, 1.0)
        asking(endpoint, ROW)
        await asyncio.sleep(0.01)
        connection, wire = asking(endpoint)
        connection.data_received(request)
        await asyncio.sleep(seconds)
        model.go_on.set()
        await idle(endpoint)
        return bytes(wire.sent)

    return asyncio.run(main())


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(("given", "status"), [("20", 504), ("5000", 200), ("0", 200), ("", 200)])
def test_who_waits_only_for_so_long_is_not_answered_later(tmp_path: Path, path: str, given: str, status: int) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        answer = late(endpoint, path, FORMS[path], header=given)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        answered = 1 + (status == 200)
        assert (endpoint.service.answered, endpoint.service.rows) == (answered, answered)
        assert (b'"deadline-exceeded"' in answer) == (status == 504)
        assert endpoint.models.refused["deadline-exceeded"] == (status == 504)
    assert endpoint.log.logged == answered


@pytest.mark.parametrize(
    ("micros", "header", "status"),
    [(20_000, "", 504), (5_000_000, "", 200), (0, "", 200), (5_000_000, "20", 504), (20_000, "5000", 504)],
)
def test_the_least_time_that_a_caller_gives_counts(tmp_path: Path, micros: int, header: str, status: int) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        body = {**TENSORS, "parameters": {"timeout": micros}}
        answer = late(endpoint, "/v2/models/{}/infer", body, header=header)
        assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_a_large_request_has_its_time_too(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> bytes:
            asking(endpoint, MANY)
            connection, wire = asking(endpoint)
            connection.data_received(
                endpoint.request(MANY).replace(b"\r\nhost:", f"\r\n{HEADER}: 20\r\nhost:".encode())
            )
            await asyncio.sleep(0.05)
            model.go_on.set()
            await idle(endpoint)
            return bytes(wire.sent)

        assert asyncio.run(main()).startswith(b"HTTP/1.1 504 ")
        assert model.sizes == [INLINE_ROWS]


@pytest.mark.parametrize("micros", [-1, True, "5", 0.5, None, [], 2**64])
def test_a_time_that_is_none_is_refused(tmp_path: Path, micros: Any) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        path = f"/v2/models/{endpoint.service.endpoint}/infer"
        ((status, said),) = endpoint.ask({**TENSORS, "parameters": {"timeout": micros}}, path=path)
        assert (status, said["code"]) == (400, "deadline-value")
        assert endpoint.service.in_flight == 0


@pytest.mark.parametrize("given", ["-1", "1.5", "soon", "10, 20", "1" * 12])
def test_a_header_that_is_no_time_is_refused(tmp_path: Path, given: str) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        answer = late(endpoint, "/predict", ROW, header=given)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"deadline-value"' in answer


@pytest.mark.parametrize(("micros", "told"), [(20_000, "4"), (5_000_000, "0"), (0, "0"), (None, "3")])
def test_the_time_that_a_message_gives(tmp_path: Path, micros: int | None, told: str) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        model = Held(endpoint)

        async def main() -> str:
            endpoint.service.batcher.inline.learn(1, 1.0)
            peer = Peer(Calls(endpoint.app))  # type: ignore[arg-type]
            called(endpoint, peer, 1)
            await asyncio.sleep(0.01)
            called(endpoint, peer, 3, micros="soon" if micros is None else micros)
            await asyncio.sleep(0.05)
            model.go_on.set()
            await idle(endpoint)
            return peer.answers()[3][1]["grpc-status"]

        assert asyncio.run(main()) == told
