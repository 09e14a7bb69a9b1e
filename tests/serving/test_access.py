"""Who is let in: before the body is read, by tokens that can be read; what was asked and refused is counted."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name

ROW = {"age": 30, "income": 1.0, "city": "rome"}


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
