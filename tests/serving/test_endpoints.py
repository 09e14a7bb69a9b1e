"""Several endpoints on one port: each is found by its name, and nobody learns of one where they have no part."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from modelyard.records import Draft
from modelyard.security.tokens import add_token
from modelyard.serving.grpc.messages import message
from modelyard.serving.routes import ROUTES
from modelyard.store.requests import newest

from .conftest import Server, lay, mixed_answer, mixed_bundle, regression_bundle, start  # noqa: TID252
from .grpc.conftest import SERVICE, row  # noqa: TID252
from .versions import ENDPOINT, Yard, times, until  # noqa: TID252

CREDIT = {"rows": [{"age": 30, "income": 1000, "city": "paris"}]}
HOURS = {"rows": [{"a": 1, "b": 2}]}
SAYS = pytest.approx(mixed_answer(30, 1000, "paris"), abs=1e-6)


@dataclass
class Both:
    """A server of two projects, and whom they know."""

    server: Server
    credit: Path
    hours: Path
    tokens: dict[str, str]

    def client(self, who: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=20)


def two(root: Path, *arguments: str) -> Both:
    credit, hours = root / "credit", root / "hours"
    folders = [lay(credit, mixed_bundle()), lay(hours, regression_bundle())]
    tokens = {
        "ana": add_token(credit, "ana", "analyst"),
        "olga": add_token(credit, "olga", "operator"),
        "hugo": add_token(hours, "hugo", "analyst"),
        "vera": add_token(hours, "vera", "viewer"),
        "oskar": add_token(hours, "oskar", "operator"),
    }
    other = ["--and", "--bundle", str(folders[1]), "--project", str(hours)]
    return Both(start(credit, folders[0], *arguments, *other), credit, hours, tokens)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    made = two(tmp_path_factory.mktemp("both"), "--grpc-port", "0")
    yield made
    assert made.server.stop() == 0, made.server.said
    assert not [line for line in made.server.said if "Traceback" in line], made.server.said


def test_each_model_answers_under_its_name(both: Both) -> None:
    with both.client("ana") as client:
        # Who names none asks the first.
        assert client.post("/predict", json=CREDIT).json()["predictions"][0]["probabilities"]["yes"] == SAYS
        by_name = client.post("/models/credit/predict", json=CREDIT).json()
        assert by_name["predictions"][0]["probabilities"]["yes"] == SAYS
        assert client.get("/v2/models/credit").json()["name"] == "credit"
    with both.client("hugo") as client:
        answer = client.post("/models/hours/predict", json=HOURS)
        assert answer.json()["predictions"] == [{"value": 4.0}]
        told = client.get("/models/hours/openapi.json").json()
        # Its paths are below that address.
        assert (told["info"]["title"], told["servers"]) == ("hours", [{"url": "/models/hours"}])
        inputs = [{"name": n, "datatype": "FP64", "shape": [1], "data": [v]} for n, v in (("a", 1.0), ("b", 2.0))]
        for path in ("/v2/models/hours/infer", "/models/hours/v2/models/hours/infer"):
            asked = client.post(path, json={"inputs": inputs}).json()
            assert (asked["model_name"], asked["outputs"][0]["data"]) == ("hours", [4.0])
        assert client.post("/models/hours/invocations", json={"inputs": [[1, 2]]}).json() == {"predictions": [4.0]}
    assert httpx.get(f"{both.server.url}/models/hours/ping").status_code == 200


def test_stranger_at_an_endpoint_learns_no_more_than_that_it_is_not_there(both: Both) -> None:
    """Also where it is the first, which answers requests without a name."""
    with both.client("ana") as client:
        for path in ("/v2/models/hours", "/models/hours/v2", "/v2/models/none", "/models/none/v2", "/models/none/x"):
            answer = client.get(path)
            assert answer.status_code == 404, path
            # In the form of the protocol that the path speaks.
            told = answer.json() if "/v2" in path else answer.json()["error"]
            assert told["code"] == "model-not-found", path
        assert client.post("/models/hours/predict", json=HOURS).status_code == 404
        # The name in the path and that before it are not the same.
        assert client.get("/models/credit/v2/models/hours").status_code == 404
    with both.client("hugo") as client:
        refused = client.post("/predict", json=CREDIT)
        assert (refused.status_code, "/models/NAME" in refused.json()["error"]["message"]) == (404, True)
        assert client.get("/openapi.json").status_code == 404


def test_no_route_of_an_endpoint_is_open_to_who_is_not_known_there(both: Both) -> None:
    names = {"{model}": "hours", "{version}": "1", "{region}": "r"}
    with both.client("") as nobody, both.client("ana") as ana:
        for route in ROUTES:
            path = route.path
            for name, value in names.items():
                path = path.replace(name, value)
            for at in (f"/models/hours{path}", *([path] if "{model}" in route.path else [])):
                unknown, elsewhere = nobody.request(route.method, at), ana.request(route.method, at)
                if route.action is None:
                    assert (unknown.status_code, elsewhere.status_code) == (200, 200), at
                else:
                    assert (unknown.status_code, elsewhere.status_code) == (401, 404), at


def test_questions_about_the_server_are_about_what_the_caller_may_see(both: Both) -> None:
    def index(who: str, path: str = "/v2/repository/index") -> list[str]:
        with both.client(who) as client:
            return [one["name"] for one in client.post(path).json()]

    assert (index("ana"), index("vera")) == (["credit"], ["hours"])
    with both.client("hugo") as client:
        assert client.get("/v2").status_code == 200
        assert client.get("/metrics").status_code == 403
    with both.client("oskar") as client:
        assert client.get("/stats").json()["endpoint"] == "hours"
        assert [one["name"] for one in client.get("/v2/models/stats").json()["model_stats"]] == ["hours"]
        text = client.get("/metrics").text
        assert 'model="hours"' in text
        assert "credit" not in text
    with both.client("") as client:
        assert client.get("/v2/repository/index").status_code == 401
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/models/none/v2/health/ready").status_code in (401, 404)


def test_requests_of_each_are_kept_in_its_own_project(tmp_path: Path) -> None:
    made = two(tmp_path)
    with made.client("ana") as client:
        assert [client.post("/predict", json=CREDIT).status_code for _ in range(3)] == [200] * 3
    with made.client("hugo") as client:
        assert client.post("/models/hours/predict", json=HOURS).status_code == 200
        assert client.post("/models/hours/predict", json={"rows": [{}]}).status_code == 400
    assert made.server.stop() == 0
    counted = [line for line in made.server.said if line.startswith("stopped")]
    assert counted == [
        "stopped endpoint=credit requests=3 rows=3 logged=3 held=0",
        "stopped endpoint=hours requests=1 rows=1 logged=1 held=0",
    ]
    for project, name, count in ((made.credit, "credit", 3), (made.hours, "hours", 1)):
        [log] = (project / ".modelyard" / "requests").glob("*.db")
        assert log.name == f"{name}.db"
        with closing(sqlite3.connect(log)) as db:
            assert sum(len(one.outputs) for one in newest(db)) == count
    # What is said of an endpoint stands in the logs of its project, and so does who was refused there.
    said = [(project / ".modelyard" / "logs").rglob("*.jsonl") for project in (made.credit, made.hours)]
    of_credit, of_hours = ("".join(file.read_text() for file in files) for files in said)
    assert "stopped endpoint=hours" in of_hours
    assert "rows-" in of_hours or "column" in of_hours
    assert "endpoint=hours" not in of_credit


def test_calls_name_the_endpoint_in_their_message(both: Both) -> None:
    def infer(who: str, request: Any) -> Any:
        metadata = [("authorization", f"Bearer {both.tokens[who]}")]
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        return message("ModelInferResponse").FromString(
            method(request.SerializeToString(), metadata=metadata, timeout=20)
        )

    hours = message("ModelInferRequest")(model_name="hours")
    for name, value in (("a", 1.0), ("b", 2.0)):
        hours.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    with grpc.insecure_channel(both.server.grpc) as channel:
        assert infer("ana", row()).model_name == "credit"
        answer = infer("hugo", hours)
        assert (answer.model_name, list(answer.outputs[0].contents.fp32_contents)) == ("hours", [4.0])
        for who, request in (("ana", hours), ("hugo", row())):
            with pytest.raises(grpc.RpcError) as refused:
                infer(who, request)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        with pytest.raises(grpc.RpcError) as denied:
            infer("vera", hours)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]


def test_calls_with_many_messages_may_ask_several_endpoints(tmp_path: Path) -> None:
    """Who is known at both by the same token: endpoints of one project."""
    folders = [lay(tmp_path, mixed_bundle()), lay(tmp_path, regression_bundle())]
    token = add_token(tmp_path, "ana", "analyst", roles={"hours": "analyst"})
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path)]
    server = start(tmp_path, folders[0], "--grpc-port", "0", *other)
    hours = message("ModelInferRequest")(model_name="hours", id="h")
    for name, value in (("a", 1.0), ("b", 2.0)):
        hours.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    none = message("ModelInferRequest")(model_name="none", id="n")
    asked = [row(id="c").SerializeToString(), hours.SerializeToString(), none.SerializeToString()]
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        found = call(iter(asked), metadata=[("authorization", f"Bearer {token}")], timeout=20)
        answers = [message("ModelStreamInferResponse").FromString(one) for one in found]
    assert server.stop() == 0
    assert [one.infer_response.model_name for one in answers] == ["credit", "hours", ""]
    assert "model-not-found" in answers[2].error_message


def test_token_has_a_role_for_each_endpoint_of_a_project(tmp_path: Path) -> None:
    folders = [lay(tmp_path, mixed_bundle()), lay(tmp_path, regression_bundle())]
    mixed = add_token(tmp_path, "mia", "", roles={"credit": "viewer", "hours": "analyst"})
    only = add_token(tmp_path, "otto", "", roles={"hours": "operator"})
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path)]
    server = start(tmp_path, folders[0], *other)
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {mixed}"}) as client:
        assert client.get("/v2/models/credit").status_code == 200
        assert client.post("/predict", json=CREDIT).status_code == 403
        assert client.post("/models/hours/predict", json=HOURS).status_code == 200
        assert [one["name"] for one in client.post("/v2/repository/index").json()] == ["credit", "hours"]
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {only}"}) as client:
        denied = client.post("/predict", json=CREDIT)
        assert (denied.status_code, denied.json()["error"]["code"]) == (403, "role-denied")
        assert client.get("/v2/models/credit").status_code == 403
        assert [one["name"] for one in client.post("/v2/repository/index").json()] == ["hours"]
        assert "credit" not in client.get("/metrics").text
    assert server.stop() == 0


def test_two_endpoints_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = lay(tmp_path, mixed_bundle())
    with pytest.raises(AssertionError, match="endpoint-twice"):
        start(tmp_path, folder, "--and", "--bundle", str(folder), "--project", str(tmp_path))


def test_several_processes_count_each_endpoint_together(tmp_path: Path) -> None:
    made = two(tmp_path, "--processes", "2")
    for _ in range(20):
        # A connection each: the system hands them to both.
        with made.client("hugo") as client:
            assert client.post("/models/hours/predict", json=HOURS).status_code == 200
    with made.client("oskar") as client:
        # Each tells the other once a second.
        until(lambda: client.get("/stats").json()["answered"] == 20)
        stats = client.get("/stats").json()
        assert (stats["endpoint"], stats["answered"], stats["processes"]) == ("hours", 20, 2)
    assert made.server.stop() == 0


def test_path_before_a_path_is_no_way_around(both: Both) -> None:
    """Tricks with the name before the path: none reaches what the name itself does not."""
    token = both.tokens["ana"]
    for target in (
        "/models/hours%2F/predict",
        "/models//predict",
        "/models/credit/../hours/predict",
        "/models/credit/models/hours/predict",
        "/models/./hours/predict",
        "/models/hours?x=/models/credit/predict",
        "/models/hours/predict?model=credit",
        "/models/HOURS/predict",
        "/models/h\xf6urs/predict",
        "http://credit/models/hours/predict",
    ):
        with socket.create_connection(("127.0.0.1", both.server.port), timeout=20) as sock:
            head = f"POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            sock.sendall(head.encode("latin-1") + b"content-length: 2\r\nconnection: close\r\n\r\n{}")
            got = b"".join(iter(lambda: sock.recv(65_536), b""))
        assert got.split()[1] in (b"400", b"404"), (target, got)


def hours_request() -> Any:
    made = message("ModelInferRequest")(model_name="hours")
    for name, value in (("a", 1.0), ("b", 2.0)):
        made.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    return made


def code_of(channel: grpc.Channel, token: str, request: Any, method: str = "ModelInfer") -> str:
    """Return the code that a call ends with."""
    call = channel.unary_unary(f"/{SERVICE}/{method}")
    try:
        call(request.SerializeToString(), metadata=[("authorization", f"Bearer {token}")], timeout=20)
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def test_role_of_an_endpoint_holds_for_calls_that_name_it(tmp_path: Path) -> None:
    """Who may ask one of them may not therefore ask, load or count another, and is counted where that was tried."""
    folders = [lay(tmp_path, mixed_bundle()), lay(tmp_path, regression_bundle())]
    mia = add_token(tmp_path, "mia", "", roles={"credit": "viewer", "hours": "operator"})
    none = add_token(tmp_path, "nina", "", roles={"other": "admin"})
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path)]
    server = start(tmp_path, folders[0], "--grpc-port", "0", *other, mia=mia, none=none)
    denied = "PERMISSION_DENIED"
    with grpc.insecure_channel(server.grpc) as channel:
        assert code_of(channel, mia, hours_request()) == "OK"
        assert code_of(channel, mia, row()) == denied
        for name, found in (("hours", "OK"), ("credit", denied)):
            asked = message("ModelStatisticsRequest")(name=name)
            assert code_of(channel, mia, asked, "ModelStatistics") == found
        unload = message("RepositoryModelUnloadRequest")(model_name="credit")
        assert code_of(channel, mia, unload, "RepositoryModelUnload") == denied
        assert code_of(channel, none, row()) == denied
    with server.client("mia") as client:
        # Three at `credit`, of which she may not see the counters; none at `hours`.
        assert client.get("/stats").json()["refused"] == {}
        for path in ("/v2/repository/models/hours/load", "/models/hours/v2/repository/models/hours/load"):
            assert client.post(path).status_code == 200
        for path in ("/v2/repository/models/credit/load", "/models/credit/v2/repository/models/credit/load"):
            assert client.post(path).status_code == 403
        # The name before the path and that in it are not the same.
        for word in ("load", "unload", "stats"):
            for one, two in (("hours", "credit"), ("credit", "hours")):
                told = client.post(f"/models/{one}/v2/repository/models/{two}/{word}")
                assert told.status_code == 404, (one, two, word)
        assert client.get("/models/hours/v2/models/credit/stats").status_code == 404
    with server.client("none") as client:
        for path in ("/v2", "/metrics", "/stats", "/v2/models/stats", "/v2/models/hours", "/models/hours/v2"):
            assert client.get(path).status_code == 403, path
        assert client.post("/v2/repository/index").status_code == 403
    assert server.stop() == 0


def test_limits_count_each_request_once_at_its_endpoint(tmp_path: Path) -> None:
    """By every way that a request may come; the other endpoint has a count of its own."""
    folders = [lay(tmp_path, mixed_bundle()), lay(tmp_path, regression_bundle())]
    token = add_token(tmp_path, "ana", "analyst")
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path), "--per-minute", "5"]
    server = start(tmp_path, folders[0], "--per-minute", "4", "--grpc-port", "0", *other, ana=token)

    def stream(*requests: Any) -> list[str]:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        sent = iter([one.SerializeToString() for one in requests])
        found = call(sent, metadata=[("authorization", f"Bearer {token}")], timeout=20)
        told = [message("ModelStreamInferResponse").FromString(one) for one in found]
        return [one.error_message[1:14] or one.infer_response.model_name for one in told]

    full = "rate-exceeded"
    with server.client("ana") as client, grpc.insecure_channel(server.grpc) as channel:
        # Twice on one connection: the second time its head is known.
        asked = [client.post("/models/hours/predict", json=HOURS).status_code for _ in range(2)]
        assert asked == [200, 200]
        assert [code_of(channel, token, hours_request()) for _ in range(2)] == ["OK", "OK"]
        assert stream(hours_request(), hours_request(), row()) == ["hours", full, "credit"]
        assert code_of(channel, token, hours_request()) == "RESOURCE_EXHAUSTED"
        assert client.post("/models/hours/predict", json=HOURS).status_code == 429
        # One of `credit` is taken.
        assert [client.post("/predict", json=CREDIT).status_code for _ in range(4)] == [200] * 3 + [429]
        assert stream(row(), hours_request()) == [full, full]
    assert server.stop() == 0
    refused = [line for line in server.said if line.startswith("stopped")]
    assert [line.split()[2] for line in refused] == ["requests=4", "requests=5"]


def test_refusals_are_counted_where_the_caller_is_known(both: Both) -> None:
    def refused(who: str) -> dict[str, int]:
        with both.client(who) as client:
            return dict(client.get("/stats").json()["refused"])

    before = refused("olga"), refused("oskar")
    with both.client("hugo") as client:
        assert client.get("/metrics").status_code == 403
    with both.client("vera") as client:
        assert client.post("/models/hours/predict", json=HOURS).status_code == 403
    with grpc.insecure_channel(both.server.grpc) as channel:
        assert code_of(channel, both.tokens["vera"], hours_request()) == "PERMISSION_DENIED"
    after = refused("olga"), refused("oskar")
    assert after[0] == before[0]
    assert after[1]["role-denied"] - before[1].get("role-denied", 0) == 3


def test_health_of_one_is_its_own(tmp_path: Path) -> None:
    """What a log cannot take keeps its endpoint from being ready, and the whole server, but no other endpoint."""
    made = two(tmp_path)
    log = tmp_path / "hours" / ".modelyard" / "requests" / "hours.db"
    with closing(sqlite3.connect(log, isolation_level=None)) as db, made.client("hugo") as client:
        db.execute("begin exclusive")
        assert client.post("/models/hours/predict", json=HOURS).status_code == 200
        until(lambda: client.get("/models/hours/v2/health/ready").status_code == 503, seconds=25)
        assert client.get("/models/credit/v2/health/ready").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        db.execute("rollback")
        until(lambda: client.get("/v2/health/ready").status_code == 200)
    assert made.server.stop() == 0


def test_page_of_one_origin_may_not_ask_another_endpoint(tmp_path: Path) -> None:
    folders = [lay(tmp_path, mixed_bundle()), lay(tmp_path, regression_bundle())]
    add_token(tmp_path, "ana", "analyst")
    allowed = [f'{{"access":{{"cors":["https://{name}.example"]}}}}' for name in ("credit", "hours")]
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path), "--policy", allowed[1]]
    server = start(tmp_path, folders[0], "--policy", allowed[0], *other)
    with server.client("") as client:
        for page in ("credit", "hours"):
            for at in ("credit", "hours"):
                headers = {"origin": f"https://{page}.example", "access-control-request-method": "POST"}
                first = client.options(f"/models/{at}/predict", headers=headers)
                asked = client.post(f"/models/{at}/predict", headers=headers)
                assert first.status_code == (200 if page == at else 401)
                for one in (first, asked):
                    assert ("access-control-allow-origin" in one.headers) is (page == at), (page, at)
    assert server.stop() == 0


def test_which_endpoint_cannot_be_opened_is_said(tmp_path: Path) -> None:
    folders = [lay(tmp_path / "credit", mixed_bundle()), lay(tmp_path / "hours", regression_bundle())]
    (folders[1] / "model.onnx").write_bytes(b"other bytes")
    other = ["--and", "--bundle", str(folders[1]), "--project", str(tmp_path / "hours"), "--endpoint", "bikes"]
    for processes in ("1", "2"):
        with pytest.raises(AssertionError, match="bundle-tampered") as failed:
            start(tmp_path / "credit", folders[0], "--processes", processes, *other)
        assert f"the endpoint bikes of `{tmp_path / 'hours'}` cannot be opened" in str(failed.value)


def test_what_kills_one_endpoint_leaves_the_other_alone(tmp_path: Path) -> None:
    """Also where it is the first, the caller is known at both, and only the message of a call says which is meant."""
    yard = Yard(tmp_path)
    kept = yard.keep(times(2.0))
    yard.point(kept)
    other = ["--and", "--bundle", str(lay(tmp_path, mixed_bundle())), "--project", str(tmp_path)]
    server = yard.serve(kept, "--grpc-port", "0", *other)
    ana = server.tokens["analyst"]
    payload = {"endpoint": ENDPOINT, "reason": "a drill"}
    yard.store.ledger.append(Draft(kind="endpoint.killed", actor="user:ana", payload=payload))
    yard.store.close()
    with server.client() as client, grpc.insecure_channel(server.grpc) as channel:
        until(lambda: client.post("/predict", json={"a": 3}).status_code == 503)
        for _ in range(2):
            assert code_of(channel, ana, row()) == "OK"
            assert client.post("/models/credit/predict", json=CREDIT).status_code == 200
        asked = message("ModelInferRequest")(model_name=ENDPOINT)
        assert code_of(channel, ana, asked) == "UNAVAILABLE"
        assert client.get("/models/credit/v2/health/ready").status_code == 200
        assert client.get(f"/models/{ENDPOINT}/v2/health/ready").status_code == 503
        # Somebody wanted that: a balancer that takes the whole server out for it would kill the other one, too.
        assert client.get("/v2/health/ready").status_code == 200
    assert server.stop() == 0


def test_calls_about_the_server_say_the_same_each_time(both: Both) -> None:
    """What a call may see is remembered with its headers."""
    metadata = [("authorization", f"Bearer {both.tokens['oskar']}")]
    with grpc.insecure_channel(both.server.grpc) as channel:
        # Without a timeout, which would be another header each time.
        for _ in range(5):
            answer = channel.unary_unary(f"/{SERVICE}/RepositoryIndex")(b"", metadata=metadata)
            assert [one.name for one in message("RepositoryIndexResponse").FromString(answer).models] == ["hours"]
