"""Every route of the table is walked without a token and with each role: the matrix is as declared."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from modelyard.security.roles import MATRIX, ROLES
from modelyard.serving.repository import unload, unsupported
from modelyard.serving.routes import ROUTES, Route

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name

if TYPE_CHECKING:
    import httpx

PUBLIC = {("GET", "/v2/health/live"), ("GET", "/v2/health/ready"), ("GET", "/ping")}
ROW = {"age": 30, "income": 1.0, "city": "rome"}
TENSORS = {
    "inputs": [
        {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [30, 1]},
        {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]},
    ]
}


@pytest.fixture(scope="module")
def version(served: Server) -> str:
    with served.client() as client:
        return str(client.get("/v2/models/credit").json()["versions"][0])


def ask(client: httpx.Client, route: Route, version: str) -> httpx.Response:
    path = route.path.replace("{model}", "credit").replace("{version}", version).replace("{region}", "r")
    whole = {"/feedback": {"id": "nobody", "truth": "yes"}, "/invocations": {"dataframe_records": [ROW]}}
    body = {"POST": {"json": TENSORS if path.endswith("infer") else whole.get(path, ROW)}}.get(route.method, {})
    return client.request(route.method, path, **body)


def test_only_health_is_open() -> None:
    assert {(r.method, r.path) for r in ROUTES if r.action is None} == PUBLIC
    assert all(r.action in MATRIX for r in ROUTES if r.action is not None)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_route_as_declared(served: Server, version: str, route: Route) -> None:
    open_to_all = (route.method, route.path) in PUBLIC
    with served.client("") as client:
        answer = ask(client, route, version)
        assert answer.status_code == (200 if open_to_all else 401), answer.text
        for header in ("Basic abc", "Bearer", "Bearer yard_00000000_no", "yard_00000000_no", "Bearer é"):
            client.headers["authorization"] = header
            answer = ask(client, route, version)
            assert answer.status_code == (200 if open_to_all else 401), (header, answer.text)
            assert open_to_all or answer.headers["www-authenticate"] == "Bearer"
    for role in ROLES:
        with served.client(role) as client:
            answer = ask(client, route, version)
        may = route.action is None or role in MATRIX[route.action]
        there = 400 if route.handler in (unload, unsupported) else 200
        assert answer.status_code == (there if may else 403), (role, answer.text)
        if not may:
            assert "role-denied" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/", "/metric", "/v2/x", "/v2/models", "/v2/models/other", "/v2/models/../../etc", "/v2/models/credit/versions/1",
     "/predict/", "/PREDICT", "//predict", "/stats/..%2f", "/%00", "/v2/repository"],
)  # fmt: skip
def test_what_is_not_there(served: Server, path: str) -> None:
    """A stranger is not told what there is; who is known gets a 404."""
    with served.client("") as client:
        assert client.get(path).status_code == 401
    with served.client("admin") as client:
        answer = client.get(path)
        assert answer.status_code == 404
        assert "not-found" in answer.text
        assert client.post(path, content=b"{}").status_code == 404


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_other_methods_are_refused(served: Server, version: str, route: Route) -> None:
    path = route.path.replace("{model}", "credit").replace("{version}", version).replace("{region}", "r")
    taken = {one.method for one in ROUTES if one.path == route.path}
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - taken:
        with served.client("admin") as client:
            answer = client.request(method, path)
            assert answer.status_code == 405, (method, answer.text)
            assert answer.headers["allow"] == ", ".join(sorted(taken))
        with served.client("") as client:
            assert client.request(method, path).status_code == 401


def test_token_as_a_password(served: Server) -> None:
    """Some clients know only names and passwords; whose name, says the token."""
    token = served.tokens["analyst"]
    with served.client("") as client:
        for name in ("", "token", "é"):
            assert client.post("/predict", json=ROW, auth=(name, token)).status_code == 200
        assert client.get("/stats", auth=("", token)).status_code == 403
        for pair in (("", ""), (token, ""), ("", token[:-1]), ("", token + ":")):
            assert client.get("/v2", auth=pair).status_code == 401
        for text in (token, f":{token}", base64.b64encode(token.encode()).decode()):
            assert client.get("/v2", headers={"authorization": f"Basic {text}"}).status_code == 401
        # Another page sends along what the browser knows.
        page = {"origin": "https://evil.example"}
        assert client.post("/predict", json=ROW, auth=("", token), headers=page).status_code == 401


def test_head_is_get_without_a_body(served: Server) -> None:
    with served.client("viewer") as client:
        answer = client.head("/v2/models/credit")
        assert (answer.status_code, answer.content) == (200, b"")
        assert client.head("/predict").status_code == 405


def test_role_is_checked_before_the_body_is_read(served: Server) -> None:
    with served.client("viewer") as client:
        assert client.post("/predict", content=b"{").status_code == 403
    with served.client("") as client:
        assert client.post("/predict", content=b"{").status_code == 401


def test_stats_count_what_happened(served: Server) -> None:
    with served.client("operator") as client:
        before = client.get("/stats").json()
        client.post("/predict", json=ROW)
        client.post("/predict", content=b"{")
        after = client.get("/stats").json()
    assert after["answered"] == before["answered"] + 1
    assert after["refused"]["body-not-json"] == before["refused"].get("body-not-json", 0) + 1
    assert not after["trouble"]


def test_tokens_that_cannot_be_read_let_nobody_in(fresh: Callable[..., Server]) -> None:
    server = fresh()
    path = server.project / ".modelyard" / "keys" / "tokens.json"
    path.write_text(path.read_text() + " ")
    path.chmod(0o644)
    with server.client("admin") as client:
        until = time.monotonic() + 10
        while client.get("/v2").status_code == 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert client.get("/v2").status_code == 401
        path.chmod(0o600)
        until = time.monotonic() + 10
        while client.get("/v2").status_code != 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert client.get("/v2").status_code == 200
    server.stop()
    assert any("chmod 600" in line for line in server.said)
