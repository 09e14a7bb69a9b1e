"""A server follows its alias: versions change in one step, and what must not go live does not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelyard._kit.errors import ServeError
from modelyard.inference import Bundle
from modelyard.records import Draft
from modelyard.serving.limits import Limits
from modelyard.serving.log import RequestLog
from modelyard.serving.rehearsal import rehearse, rows_of
from modelyard.serving.service import Service

from .conftest import Server, mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .versions import ENDPOINT, Yard, nothing, times, until  # noqa: TID252 - the same


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def server(yard: Yard) -> Iterator[Server]:
    first = yard.keep(times(1.0))
    yard.point(first)
    started = yard.serve(first)
    yield started
    if started.process.poll() is None:
        started.stop()


def ask(client: httpx.Client, value: float = 2.0) -> tuple[float, str]:
    """Return what was answered, and the version that the answer names."""
    answer = client.post("/predict", json={"a": value})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["model"][:12] == answer.headers["x-model-version"]
    return body["predictions"][0]["value"], answer.headers["x-model-version"]


def test_champion_that_moves_answers_without_a_new_start(yard: Yard, server: Server) -> None:
    second = yard.keep(times(10.0))
    with server.client() as client:
        assert ask(client)[0] == 2.0
        yard.point(second)
        until(lambda: ask(client) == (20.0, second.digest[:12]))
        infer = client.post(
            f"/v2/models/{ENDPOINT}/infer",
            json={"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [2.0]}]},
        )
        assert infer.json()["model_version"] == infer.headers["x-model-version"] == second.digest[:12]
    assert server.stop() == 0
    swapped = [line for line in server.said if line.startswith("swapped")]
    assert len(swapped) == 1
    assert f"model={second.digest[:12]}" in swapped[0]
    answered = server.said[-1]
    assert answered.split("answered=")[1].split()[0] == answered.split("logged=")[1]


def test_version_that_was_replaced_is_gone_and_can_come_back(yard: Yard, server: Server) -> None:
    first = yard.store.ledger.alias(ENDPOINT, "champion")
    assert first is not None
    old = first.model.digest[:12]
    second = yard.keep(times(10.0))
    with server.client() as client:
        assert client.get(f"/v2/models/{ENDPOINT}/versions/{old}").status_code == 200
        yard.point(second)
        until(lambda: client.get(f"/v2/models/{ENDPOINT}/versions/{old}").status_code == 404)
        assert ask(client)[1] == second.digest[:12]
        yard.point(first.model)
        until(lambda: ask(client) == (2.0, old))


def test_changed_bundle_never_goes_live(yard: Yard, server: Server) -> None:
    second = yard.keep(times(10.0))
    model = yard.folder(second) / "model.onnx"
    model.chmod(0o600)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    yard.point(second)
    assert server.process.stderr is not None
    said = next(line for line in server.process.stderr if "does not go live" in line)
    assert "bundle-tampered" in said
    with server.client() as client:
        assert ask(client)[0] == 2.0
        assert client.get("/v2/health/ready").status_code == 200
        # What comes after it goes live as if nothing had been.
        third = yard.keep(times(3.0))
        yard.point(third)
        until(lambda: ask(client) == (6.0, third.digest[:12]))


def test_model_that_answers_no_number_never_goes_live(yard: Yard, server: Server) -> None:
    yard.point(yard.keep(nothing()))
    assert server.process.stderr is not None
    said = next(line for line in server.process.stderr if "does not go live" in line)
    assert "rehearsal-failed" in said
    with server.client() as client:
        assert ask(client)[0] == 2.0


def test_endpoint_is_switched_off_and_on(yard: Yard, server: Server) -> None:
    body = {"endpoint": ENDPOINT, "reason": "it harms"}
    with server.client() as client, httpx.Client(base_url=server.url) as stranger:
        ask(client)
        yard.store.ledger.append(Draft(kind="endpoint.killed", actor="user:ana", payload=body))
        refused = until(lambda: (a := client.post("/predict", content=b"no JSON")).status_code == 503 and a)
        assert refused.json()["error"]["code"] == "endpoint-killed"
        assert "harms" not in refused.text
        assert client.post(f"/v2/models/{ENDPOINT}/infer", json={}).status_code == 503
        assert stranger.post("/predict", json={"a": 1}).status_code == 401
        assert stranger.get("/v2/health/ready").status_code == 503
        assert stranger.get("/v2/health/live").status_code == 200
        # Another version does not switch it on.
        second = yard.keep(times(10.0))
        yard.point(second)
        until(lambda: client.get(f"/v2/models/{ENDPOINT}/versions/{second.digest[:12]}").status_code == 200)
        assert client.post("/predict", json={"a": 1}).status_code == 503
        yard.store.ledger.append(Draft(kind="endpoint.revived", actor="user:ana", payload=body))
        until(lambda: client.post("/predict", json={"a": 1}).status_code == 200)
        assert stranger.get("/v2/health/ready").status_code == 200


def test_server_that_is_started_meanwhile_is_off_too(yard: Yard) -> None:
    first = yard.keep(times(1.0))
    yard.point(first)
    body = {"endpoint": ENDPOINT, "reason": "it harms"}
    yard.store.ledger.append(Draft(kind="endpoint.killed", actor="user:ana", payload=body))
    server = yard.serve(first)
    with server.client() as client:
        refused = client.post("/predict", json={"a": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "endpoint-killed")
    assert server.stop() == 0


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Service]:
    log = RequestLog(tmp_path / "log.db")
    service = Service(opened(), "credit", log, Limits())
    yield service
    service.close()
    log.close()


def opened() -> Bundle:
    return mixed_bundle().bundle()


def test_rehearsal_asks_what_was_seen_in_training(mixed: Service) -> None:
    asked = rows_of(mixed.validator)
    numbers = [mixed.validator.numbers_of(parsed)[0] for parsed in asked]  # type: ignore[index]
    assert min(n[0] for n in numbers) == 18
    assert max(n[0] for n in numbers) == 90
    mixed.validator.fit(asked)
    assert not [parsed for parsed in asked if parsed.warnings or parsed.error]


def test_rehearsal_holds_a_version_to_its_time(mixed: Service) -> None:
    assert 0 < rehearse(mixed) < 60
    with pytest.raises(ServeError) as caught:
        rehearse(mixed, p99=1e-9)
    assert caught.value.code == "rehearsal-failed"


def test_version_that_is_closed_is_let_go_at_once(tmp_path: Path) -> None:
    """The collector never looks again at what lived when the server began, so nothing may hold it in a circle."""
    log = RequestLog(tmp_path / "log.db")
    service = Service(opened(), "credit", log, Limits())
    service.warm()
    gone = weakref.ref(service)
    gc.disable()
    try:
        service.close()
        del service
        assert gone() is None
    finally:
        gc.enable()
        log.close()
