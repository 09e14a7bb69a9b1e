"""Who may do what, as one table: every route and method, without a token, with a wrong one, with each role."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelyard.inference import open_bundle
from modelyard.security.keys import trusted_keys
from modelyard.security.roles import ROLES
from modelyard.security.tokens import TokenBook, add_token, revoke_token
from modelyard.serving import admission
from modelyard.serving.app import App
from modelyard.serving.endpoint import Endpoint
from modelyard.serving.http.connection import Connection
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.routes import ROUTES, Found, Route
from modelyard.serving.service import Service

from .conftest import Server, lay, mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Wire  # noqa: TID252
from .test_fuzz import HEADERS, INSIDE  # noqa: TID252

# A row for each route that there is. A route without a row fails, and a row without a route.
OPEN, READ, INFER, OPERATE = "open to all", "read", "infer", "operate"
DECLARED = {
    "GET /v2/health/live": OPEN,
    "GET /v2/health/ready": OPEN,
    "GET /ping": OPEN,
    "GET /v2": READ,
    "GET /v2/models/{model}": READ,
    "GET /v2/models/{model}/ready": READ,
    "GET /v2/models/{model}/config": READ,
    "GET /v2/models/{model}/versions/{version}": READ,
    "GET /v2/models/{model}/versions/{version}/ready": READ,
    "GET /v2/models/{model}/versions/{version}/config": READ,
    "POST /v2/repository/index": READ,
    "GET /openapi.json": READ,
    "POST /v2/models/{model}/infer": INFER,
    "POST /v2/models/{model}/versions/{version}/infer": INFER,
    "POST /predict": INFER,
    "POST /invocations": INFER,
    "POST /feedback": INFER,
    "GET /metrics": OPERATE,
    "GET /stats": OPERATE,
    "GET /v2/models/stats": OPERATE,
    "GET /v2/models/{model}/stats": OPERATE,
    "GET /v2/models/{model}/versions/{version}/stats": OPERATE,
    "POST /v2/repository/models/{model}/load": OPERATE,
    "POST /v2/repository/models/{model}/unload": OPERATE,
    "GET /v2/trace/setting": OPERATE,
    "POST /v2/trace/setting": OPERATE,
    "GET /v2/models/{model}/trace/setting": OPERATE,
    "POST /v2/models/{model}/trace/setting": OPERATE,
    "GET /v2/logging": OPERATE,
    "POST /v2/logging": OPERATE,
    "GET /v2/systemsharedmemory/status": OPERATE,
    "POST /v2/systemsharedmemory/unregister": OPERATE,
    "GET /v2/systemsharedmemory/region/{region}/status": OPERATE,
    "POST /v2/systemsharedmemory/region/{region}/register": OPERATE,
    "POST /v2/systemsharedmemory/region/{region}/unregister": OPERATE,
    "GET /v2/cudasharedmemory/status": OPERATE,
    "POST /v2/cudasharedmemory/unregister": OPERATE,
    "GET /v2/cudasharedmemory/region/{region}/status": OPERATE,
    "POST /v2/cudasharedmemory/region/{region}/register": OPERATE,
    "POST /v2/cudasharedmemory/region/{region}/unregister": OPERATE,
}
# What each caller is told of each kind of route: 200 stands for whatever the route answers to who may ask.
CALLERS = ("nobody", "unknown", "revoked", "viewer", "analyst", "operator", "admin")
MATRIX = {
    OPEN: (200, 200, 200, 200, 200, 200, 200),
    READ: (401, 401, 401, 200, 200, 200, 200),
    INFER: (401, 401, 401, 403, 200, 200, 200),
    OPERATE: (401, 401, 401, 403, 403, 200, 200),
    "no such method": (401, 401, 401, 405, 405, 405, 405),
    "no such route": (401, 401, 401, 404, 404, 404, 404),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "QUERY")
NOWHERE = (
    "/", "/metric", "/v2/x", "/v2/models", "/v2/models/other", "/v2/models/other/infer", "/v2/models/../../etc",
    "/v2/models/credit/versions/1", "/predict/", "/PREDICT", "//predict", "/stats/..%2f", "/%00", "/v2/repository",
    "/v2/repository/models/other/load", "/v2/health", "/favicon.ico", "/.env", "/docs",
)  # fmt: skip
ROW = {"age": 30, "income": 1.0, "city": "rome"}
TENSORS = [
    {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [30, 1]},
    {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]},
]
BODIES = {
    "infer": {"inputs": TENSORS},
    "predict": ROW,
    "invocations": {"dataframe_records": [ROW]},
    "feedback": {"id": "nobody", "truth": "yes"},
}


@pytest.fixture(scope="module")
def asking(served: Server) -> dict[str, str]:
    """What each caller says of itself."""
    revoked = add_token(served.project, "once", "admin")
    known = {role: f"Bearer {served.tokens[role]}" for role in ROLES}
    with talking(served) as connection:
        until = time.monotonic() + 10
        while ask(connection, "GET", "/v2", f"Bearer {revoked}")[0] != 200:
            assert time.monotonic() < until
        revoke_token(served.project, "once")
        while ask(connection, "GET", "/v2", f"Bearer {revoked}")[0] != 401:
            assert time.monotonic() < until
    return {"nobody": "", "unknown": "Bearer yard_00000000_no", "revoked": f"Bearer {revoked}", **known}


@contextmanager
def talking(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    yield connection
    connection.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, given: str) -> tuple[int, bytes]:
    """Ask, and see that the answer tells nothing of the inside."""
    body = json.dumps(BODIES.get(path.rpartition("/")[2], {})) if method == "POST" else None
    connection.request(method, path, body, {"authorization": given} if given else {})
    answer = connection.getresponse()
    data = answer.read()
    assert {name.lower().encode() for name, _ in answer.getheaders()} <= HEADERS
    if answer.status >= 400:
        assert not INSIDE.search(data), data
        assert answer.getheader("x-request-id")
    return answer.status, data


def filled(path: str, version: str) -> str:
    return path.replace("{model}", "credit").replace("{version}", version).replace("{region}", "r")


@pytest.fixture(scope="module")
def version(served: Server) -> str:
    with served.client() as client:
        return str(client.get("/v2/models/credit").json()["versions"][0])


def test_every_route_has_a_row_in_the_table() -> None:
    assert {f"{route.method} {route.path}": route.action or OPEN for route in ROUTES} == DECLARED
    assert CALLERS[3:] == ROLES


@pytest.mark.parametrize("caller", CALLERS)
def test_every_route_and_method_answers_as_the_table_says(
    served: Server, asking: dict[str, str], version: str, caller: str
) -> None:
    at, wrong = CALLERS.index(caller), []
    with talking(served) as connection:
        for path in dict.fromkeys(row.partition(" ")[2] for row in DECLARED):
            for method in METHODS:
                row = DECLARED.get(f"{'GET' if method == 'HEAD' else method} {path}", "no such method")
                status, data = ask(connection, method, filled(path, version), asking[caller])
                # What the protocol has and this server does not is refused to who may ask.
                allowed = status == 200 or (status == 400 and (b"not-supported" in data or method == "HEAD"))
                if (200 if allowed else status) != MATRIX[row][at]:
                    wrong.append((method, path, status, MATRIX[row][at], data))
        for path in NOWHERE:
            for method in METHODS:
                status, data = ask(connection, method, path, asking[caller])
                if status != MATRIX["no such route"][at]:
                    wrong.append((method, path, status, MATRIX["no such route"][at], data))
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    "given", ["Basic abc", "Bearer", "Bearer ", "bearer: x", "{analyst}", "Bearer {analyst}x", "Bearer é"]
)
def test_what_is_no_token_is_nobodys(served: Server, given: str) -> None:
    given = given.replace("{analyst}", served.tokens["analyst"])
    with talking(served) as connection:
        connection.request("GET", "/v2", headers={"authorization": given})
        answer = connection.getresponse()
        answer.read()
    assert answer.status == 401
    assert answer.getheader("www-authenticate") == "Bearer"


def test_what_an_address_takes_is_said_to_who_is_known(served: Server) -> None:
    with served.client("viewer") as client:
        assert client.put("/predict").headers["allow"] == "POST"
        assert client.put("/v2/trace/setting").headers["allow"] == "GET, POST"


def test_error_that_nobody_foresaw_tells_the_caller_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(models: Models, exchange: object) -> bytes:
        raise RuntimeError("numpy 1.2.3 in /home/somebody/secret.py")

    route = Route("GET", "/v2", "read", broken)
    monkeypatch.setattr(admission, "match", lambda path: Found({b"GET": route}))
    bundle = open_bundle(lay(tmp_path, mixed_bundle()), trusted=trusted_keys(tmp_path))
    token = add_token(tmp_path, "ana", "viewer")
    log = RequestLog(tmp_path / "requests.db")
    service = Service(bundle, "credit", log, Limits())
    app, wire = App([Endpoint(Models(service), Limits(), TokenBook(tmp_path))], Limits()), Wire()
    connection = Connection(app)
    connection.connection_made(wire)
    connection.data_received(b"GET /v2 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n\r\n" % token.encode())
    service.close()
    log.close(seconds=5)
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    error = json.loads(body)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert not INSIDE.search(wire.sent)
    assert set(error) == {"error", "code", "id"}
    # The operator finds all of it under the id that the caller was given.
    told = capsys.readouterr().err
    assert error["id"] in told
    assert "secret.py" in told


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"no http\r\n\r\n"),
        (413, b"POST /predict HTTP/1.1\r\nauthorization: Bearer TOKEN\r\ncontent-length: 2000000000\r\n\r\n"),
        (431, b"GET /v2 HTTP/1.1\r\n" + b"x: 0123456789\r\n" * 5000),
        (415, b"POST /invocations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer TOKEN\r\ncontent-type: a/b\r\n\r\n"),
    ],
)  # fmt: skip
def test_refusals_before_a_route_tell_nothing(served: Server, status: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(data.replace(b"TOKEN", served.tokens["analyst"].encode()))
        got = sock.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert not INSIDE.search(got)
    assert {line.partition(b":")[0] for line in head.splitlines()[1:]} <= HEADERS
    assert json.loads(body)["error"]["code"]
