"""A target starts a server of its own process, and stops it."""

from __future__ import annotations

import socket

import httpx
import pytest

from modelyard._kit.errors import NotFound, ServeError, Tampered
from modelyard.deploy.aliases import move
from modelyard.deploy.base import Running, Target
from modelyard.deploy.local import LocalTarget
from modelyard.records import Deployment, ModelVersion
from modelyard.security.tokens import add_token
from modelyard.store import LocalStore


@pytest.fixture
def deployment(store: LocalStore, models: list[ModelVersion]) -> Deployment:
    return move(store, "hours", "champion", models[1], reason="test", actor="user:ana")


def test_starts_answers_stops(store: LocalStore, deployment: Deployment) -> None:
    target = LocalTarget(store)
    assert isinstance(target, Target)
    headers = {"authorization": f"Bearer {add_token(store.root, 'ana', 'analyst')}"}
    running = target.start(deployment)
    assert isinstance(running, Running)
    try:
        answer = httpx.post(f"{running.url}/predict", json={"x": 21}, headers=headers)
        assert answer.json()["predictions"] == [{"value": 42.0}]
        assert answer.json()["model"] == deployment.model.digest
        assert running.alive()
    finally:
        running.stop()
    assert not running.alive()
    assert "answered=1 logged=1" in running.log.read_text()


def test_says_why_it_does_not_start(store: LocalStore, deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServeError) as caught:
        LocalTarget(store, port=taken.getsockname()[1]).start(deployment)
    assert caught.value.code == "port-taken"
    folder = store.blobs.folder(deployment.model.address)
    folder.chmod(0o755)
    (folder / "extra").write_text("x")
    with pytest.raises(Tampered, match="`extra`"):
        LocalTarget(store).start(deployment)


def test_bundle_that_is_gone(store: LocalStore, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(address: str) -> None:
        raise NotFound.of("bundle", address, [])

    monkeypatch.setattr(store.blobs, "folder", gone)
    with pytest.raises(NotFound):
        LocalTarget(store).start(deployment)
