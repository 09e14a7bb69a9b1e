"""An endpoint is unloaded and loaded again by a request, in every process, and nobody loses an answer by it."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from modelyard.records import Draft
from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.messages import message
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.protocols.repository import index_of
from modelyard.serving.service import Service
from modelyard.serving.versions.following import Follower
from modelyard.serving.versions.stage import Stage

from .conftest import Server  # noqa: TID252 - the suite is not installed
from .grpc.conftest import asker  # noqa: TID252
from .versions import ENDPOINT, Yard, times, until  # noqa: TID252

ROW = {"rows": [{"a": 3}]}
LOAD, UNLOAD = (f"/v2/repository/models/{ENDPOINT}/{word}" for word in ("load", "unload"))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


def value(client: httpx.Client) -> float | int:
    """Return what is answered, or the status of a refusal."""
    answer = client.post("/predict", json=ROW)
    return answer.json()["predictions"][0]["value"] if answer.status_code == 200 else answer.status_code


def test_index_has_one_word_on_a_model_that_is_on_its_way_out(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.db")
    service = Service(times(1.0).bundle(), ENDPOINT, log, Limits())
    models = Models(service)
    assert [one["state"] for one in index_of([models], only_ready=False)] == ["READY"]
    # Something of it is under way still.
    models.unload()
    told = {"name": ENDPOINT, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert index_of([models], only_ready=False) == [told]
    assert index_of([models], only_ready=True) == []
    service.close()
    log.close()


def test_unloaded_model_is_not_there_until_it_is_loaded_as_its_alias_points_then(yard: Yard) -> None:
    kept = [yard.keep(times(factor)) for factor in (2.0, 5.0)]
    yard.point(kept[0])
    server = yard.serve(kept[0])
    with server.client("operator") as operator, server.client("analyst") as client:
        assert client.post(UNLOAD).status_code == 403
        assert operator.post(LOAD).status_code == 200, "it is loaded"
        assert operator.post(UNLOAD, json={"parameters": {"unload_dependents": False}}).status_code == 200
        assert value(client) == 404
        # Nobody brings a model, or what it shall be like, by a request.
        refused = operator.post(LOAD, json={"parameters": {"config": "{}"}})
        assert (refused.status_code, refused.json()["code"]) == (400, "not-supported")
        assert value(client) == 404
        for path in (f"/v2/models/{ENDPOINT}", f"/v2/models/{ENDPOINT}/ready", "/openapi.json"):
            assert client.get(path).status_code == 404, path
        told = {"name": ENDPOINT, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert client.post("/v2/repository/index").json() == [told]
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        # It counts on, and says that nobody need come here.
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert f'modelyard_ready{{model="{ENDPOINT}",version=""}} 0' in operator.get("/metrics").text
        assert operator.get("/stats").json()["endpoint"] == ENDPOINT
        assert "modelyard_refused_total" in operator.get("/metrics").text
        assert operator.post(UNLOAD).status_code == 200, "it is unloaded"
        yard.point(kept[1])
        assert operator.post(LOAD).status_code == 200
        assert value(client) == 15.0
    events = yard.store.ledger.events(kinds=("endpoint.loaded", "endpoint.unloaded"))
    told = [(one.kind, one.payload["caller"]) for one in events]
    assert told == [("endpoint.unloaded", "operator"), ("endpoint.loaded", "operator")]
    assert server.stop() == 0
    assert [line for line in server.said if line.startswith(("loaded", "unloaded"))] == [
        f"unloaded endpoint={ENDPOINT}",
        f"loaded endpoint={ENDPOINT} model={kept[1].digest[:12]}",
    ]


def test_version_that_cannot_be_made_ready_is_not_said_to_be_loaded(yard: Yard) -> None:
    kept = [yard.keep(times(factor)) for factor in (2.0, 5.0)]
    yard.point(kept[0])
    server = yard.serve(kept[0])
    with server.client("operator") as client:
        assert client.post(UNLOAD).status_code == 200
        yard.spoil(kept[1])
        yard.point(kept[1])
        refused = client.post(LOAD)
        assert (refused.status_code, refused.json()["code"]) == (503, "model-not-loaded")
        assert value(client) == 404
        # The alias goes back by hand, and what answered before is there again.
        yard.point(kept[0])
        until(lambda: client.post(LOAD).status_code == 200)
        assert value(client) == 6.0
    assert server.stop() == 0


def test_every_process_follows_also_one_that_is_started_again(yard: Yard) -> None:
    kept = yard.keep(times(2.0))
    yard.point(kept)
    since = str(yard.store.ledger.head()[0])
    server = yard.serve(kept, "--processes", "2", "--since", since)

    def asked() -> set[float | int]:
        found = set()
        for _ in range(20):
            with server.client("analyst") as client:
                found.add(value(client))
        return found

    with server.client("operator") as client:
        assert client.post(UNLOAD).status_code == 200
        until(lambda: asked() == {404})
        [*children] = children_of(server.process.pid)
        os.kill(children[0], signal.SIGKILL)
        until(lambda: len(children_of(server.process.pid)) == 2)
        assert asked() == {404}
        assert client.post(LOAD).status_code == 200
        until(lambda: asked() == {6.0})
    assert server.stop() == 0


def test_server_that_starts_anew_serves_what_it_is_told_to(yard: Yard) -> None:
    kept = yard.keep(times(2.0))
    yard.point(kept)
    payload = {"endpoint": ENDPOINT, "caller": "x"}
    yard.store.ledger.append(Draft(kind="endpoint.unloaded", actor="server", payload=payload))
    for arguments in ((), ("--since", str(yard.store.ledger.head()[0]))):
        server = yard.serve(kept, *arguments)
        with server.client() as client:
            assert value(client) == 6.0
        assert server.stop() == 0


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_is_under_way_is_answered_and_nothing_else_is_lost(yard: Yard) -> None:
    """Load and unload again and again under traffic: every answer is 200 and right, or says that it is not there."""
    kept = yard.keep(times(2.0))
    yard.point(kept)
    server = yard.serve(kept)
    found: list[float | int] = []
    stop = threading.Event()

    def ask() -> None:
        with server.client("analyst") as client:
            while not stop.is_set():
                found.append(value(client))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    with server.client("operator") as client:
        for _ in range(5):
            assert [client.post(path).status_code for path in (UNLOAD, LOAD)] == [200, 200]
    stop.set()
    for thread in threads:
        thread.join()
    assert set(found) == {6.0, 404}
    assert server.stop() == 0
    assert f"requests={found.count(6.0)} rows={found.count(6.0)} logged={found.count(6.0)}" in server.said[-1]


def test_calls_load_and_unload(yard: Yard) -> None:
    kept = yard.keep(times(2.0))
    yard.point(kept)
    server = yard.serve(kept, "--grpc-port", "0")
    with grpc.insecure_channel(server.grpc) as channel:
        ask = asker(channel, server)
        ready = message("ModelReadyRequest")(name=ENDPOINT)
        ask("RepositoryModelUnload", message("RepositoryModelUnloadRequest")(model_name=ENDPOINT), "operator")
        assert not ask("ModelReady", ready).ready
        [index] = ask("RepositoryIndex").models
        assert (index.name, index.state) == (ENDPOINT, "UNAVAILABLE")
        ask("RepositoryModelLoad", message("RepositoryModelLoadRequest")(model_name=ENDPOINT), "operator")
        assert ask("ModelReady", ready).ready
        for name in ("RepositoryModelUnload", "RepositoryModelLoad"):
            with pytest.raises(grpc.RpcError) as refused:
                ask(name, message(f"{name}Request")(model_name="none"), "operator")
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
            with pytest.raises(grpc.RpcError) as denied:
                ask(name, message(f"{name}Request")(model_name=ENDPOINT), "analyst")
            assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
    assert server.stop() == 0


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_an_unmodified_client_of_triton_unloads_and_loads(yard: Yard, kind: str) -> None:
    kept = yard.keep(times(2.0))
    yard.point(kept)
    server = yard.serve(kept, "--grpc-port", "0")
    triton = importlib.import_module(f"tritonclient.{kind}")
    client = triton.InferenceServerClient(server.grpc if kind == "grpc" else f"127.0.0.1:{server.port}")
    headers = {"authorization": f"Bearer {server.tokens['operator']}"}
    for want in (False, True):
        (client.load_model if want else client.unload_model)(ENDPOINT, headers=headers)
        assert client.is_model_ready(ENDPOINT, headers=headers) is want
        index = client.get_model_repository_index(headers=headers)
        states = [one["state"] for one in index] if kind == "http" else [one.state for one in index.models]
        assert states == ["READY" if want else "UNAVAILABLE"]
        assert client.is_server_ready(headers=headers) is want
    client.close()
    assert server.stop() == 0


def test_server_of_one_bundle_cannot_unload_what_it_could_not_load_again(served: Server) -> None:
    with served.client("operator") as client:
        refused = client.post("/v2/repository/models/credit/unload")
        assert (refused.status_code, refused.json()["code"]) == (400, "not-supported")


def test_memory_of_an_unloaded_model_is_given_back(yard: Yard) -> None:
    kept = yard.keep(times(2.0))
    log = RequestLog(yard.root / "log.db")
    stage = Stage(yard.root, ENDPOINT, log, Limits())
    freed: list[str] = []

    async def follow() -> None:
        models = Models(stage.prepare(yard.store, yard.point(kept)))
        weakref.finalize(models.default, lambda: freed.append(threading.current_thread().name))
        follower = Follower(stage, models, lambda: None, "champion", every=0.01)
        follower.begin()
        follower.start(asyncio.get_running_loop())
        unloaded = Draft(kind="endpoint.unloaded", actor="server", payload={"endpoint": ENDPOINT, "caller": "x"})
        yard.store.ledger.append(unloaded)
        async with asyncio.timeout(10):
            while not freed:
                await asyncio.sleep(0.01)
        assert not models.loaded
        await asyncio.to_thread(follower.close)

    asyncio.run(follow())
    log.close()
    assert freed == ["following"]


class Asked:
    """A request to load or unload, and what became of it."""

    caller = "olga"

    def __init__(self) -> None:
        self.status = 0

    def reply(self, status: int, body: bytes) -> None:
        self.status = status

    def refuse(self, error: HttpError) -> None:
        self.status = error.status


@contextmanager
def following(yard: Yard, *, begin: bool = True) -> Iterator[tuple[Models, Follower]]:
    """Give the models of one process, and what follows the ledger for them whenever it is told to look."""
    log = RequestLog(yard.root / "log.db")
    stage = Stage(yard.root, ENDPOINT, log, Limits())
    models = Models(stage.prepare(yard.store, yard.now("champion")))
    follower = Follower(stage, models, lambda: None, "champion")
    if begin:
        follower.begin()
    follower._loop = asyncio.get_running_loop()
    yield models, follower
    follower.close()
    for service in models:
        service.close()
    log.close()


def test_who_asks_while_another_request_is_settled_hears_of_its_own(yard: Yard) -> None:
    """The loop may be busy while the thread looks again: nobody is told what is not so yet."""
    yard.point(yard.keep(times(2.0)))
    first, second = Asked(), Asked()

    async def follow() -> None:
        with following(yard) as (models, follower):
            for asked, loaded in ((first, False), (second, True)):
                follower.loading.ask(asked, b"{}", loaded=loaded)  # type: ignore[arg-type]
                # The loop does nothing meanwhile.
                looking = threading.Thread(target=follower.look)
                looking.start()
                looking.join()
            await asyncio.sleep(0.01)
            # What was on its way out is made ready anew.
            assert (models.loaded, first.status, second.status) == (False, 200, 0)
            follower.look()
            await asyncio.sleep(0.01)
            assert (models.loaded, second.status) == (True, 200)

    asyncio.run(follow())


def test_many_who_ask_for_the_same_are_one_event(yard: Yard) -> None:
    yard.point(yard.keep(times(2.0)))
    asked = [Asked() for _ in range(100)]

    async def follow() -> None:
        with following(yard) as (models, follower):
            for one in asked:
                follower.loading.ask(one, b"{}", loaded=False)  # type: ignore[arg-type]
            follower.look()
            await asyncio.sleep(0.01)
            assert not models.loaded

    asyncio.run(follow())
    assert {one.status for one in asked} == {200}
    assert len(list(yard.store.ledger.events(kinds=("endpoint.unloaded",)))) == 1


def test_what_was_said_not_to_be_done_is_not_done_later(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.point(yard.keep(times(2.0)))
    monkeypatch.setattr("modelyard.serving.versions.loading._SECONDS", 0.01)
    asked = Asked()

    async def follow() -> None:
        with following(yard) as (models, follower):
            follower.loading.ask(asked, b"{}", loaded=False)  # type: ignore[arg-type]
            async with asyncio.timeout(10):
                while not asked.status:
                    await asyncio.sleep(0.01)
            # Only now the ledger can be reached.
            follower.look()
            await asyncio.sleep(0.01)
            assert models.loaded

    asyncio.run(follow())
    assert asked.status == 503
    assert not list(yard.store.ledger.events(kinds=("endpoint.unloaded",)))


def test_server_that_began_without_a_ledger_is_unloaded_once_it_is_there(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.point(yard.keep(times(2.0)))
    payload = {"endpoint": ENDPOINT, "caller": "x"}
    unloaded = Draft(kind="endpoint.unloaded", actor="server", payload=payload)
    yard.store.ledger.append(unloaded)

    async def follow() -> None:
        with following(yard, begin=False) as (models, follower):
            with monkeypatch.context() as away:
                away.setattr("modelyard.serving.versions.following.open_address", lambda *of: 1 / 0)
                follower.begin()
            assert follower.trouble
            # What was unloaded before is not for a server that starts anew.
            for loaded in (True, False):
                follower.look()
                await asyncio.sleep(0.01)
                assert models.loaded is loaded
                yard.store.ledger.append(unloaded)

    asyncio.run(follow())


def test_load_right_after_an_unload_holds_whichever_server_is_asked(yard: Yard) -> None:
    """A balancer sends one of them here and the other there: each hears of what the other did a moment later."""
    kept = yard.keep(times(2.0))
    yard.point(kept)
    servers = [yard.serve(kept), yard.serve(kept)]
    with servers[0].client("operator") as one, servers[1].client("operator") as other:
        for _ in range(4):
            assert one.post(UNLOAD).status_code == 200
            assert other.post(LOAD).status_code == 200
            for client in (one, other):
                until(lambda client=client: value(client) == 6.0, seconds=5)
        # One that starts anew is loaded, and loads the others.
        assert one.post(UNLOAD).status_code == 200
        until(lambda: value(other) == 404)
        servers.append(yard.serve(kept))
        with servers[2].client("operator") as anew:
            assert value(anew) == 6.0
            assert anew.post(LOAD).status_code == 200
        until(lambda: value(one) == 6.0)
    assert [server.stop() for server in servers] == [0, 0, 0]


def test_statistics_of_what_is_unloaded(yard: Yard) -> None:
    kept = yard.keep(times(2.0))
    yard.point(kept)
    server = yard.serve(kept)
    with server.client("operator") as client:
        assert value(client) == 6.0
        assert client.post(UNLOAD).status_code == 200
        # A question about the server has its answer, also while nothing is loaded.
        assert client.get("/v2/models/stats").json() == {"model_stats": []}
        assert client.get(f"/v2/models/{ENDPOINT}/stats").status_code == 404
        # What it answered before still counts.
        assert client.get("/stats").json()["answered"] == 1
        assert f'modelyard_rows_total{{model="{ENDPOINT}"' in client.get("/metrics").text
    assert server.stop() == 0


def test_version_that_comes_while_the_server_ends_takes_nothing_new(yard: Yard) -> None:
    yard.point(yard.keep(times(2.0)))
    later = yard.keep(times(5.0))

    async def follow() -> None:
        with following(yard) as (models, follower):
            before = models.default
            models.drain()
            assert not models.ready
            yard.point(later)
            follower.look()
            await asyncio.sleep(0.01)
            assert models.default is not before
            assert [models.default.ready, models.ready] == [False, False]

    asyncio.run(follow())
