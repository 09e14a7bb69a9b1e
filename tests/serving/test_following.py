"""A server follows its alias: versions change in one step, and what must not go live does not."""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard._kit.errors import ServeError
from modelyard._kit.processes import own
from modelyard.inference import Bundle, BundleDraft, open_bundle
from modelyard.records import Alias, Deployment, Draft, ModelVersion
from modelyard.security.keys import signing_key
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service
from modelyard.serving.told import errors_said, say
from modelyard.serving.versions import stage as stages
from modelyard.serving.versions.following import Follower
from modelyard.serving.versions.rehearsal import rehearse, rows_of
from modelyard.serving.versions.stage import Stage, standing

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
    told = dict(word.split("=") for word in answered.split() if "=" in word)
    # What a version that is gone has answered counts too.
    assert int(told["requests"]) == int(told["rows"]) == int(told["logged"]) > 1


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
    yard.spoil(second)
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


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_alias_of_a_broken_version_goes_back_and_the_ledger_says_why(yard: Yard, alias: Alias) -> None:
    first = yard.keep(times(1.0))
    yard.point(first)
    server = yard.serve(first, "--canary", "0.5")
    broken = yard.keep(times(10.0))
    yard.spoil(broken)
    yard.point(broken, alias)
    back = until(lambda: (now := yard.now(alias)).model.digest == first.digest and now)
    assert "[bundle-tampered]" in back.reason
    assert back.previous == broken.digest
    assert list(yard.store.ledger.events(kinds=("alias.moved",)))[-1].actor == "server"
    assert server.stop() == 0


def test_version_whose_bundle_is_out_of_reach_is_waited_for(yard: Yard, server: Server) -> None:
    """A disk that is away comes back: then nobody wants the deployment undone."""
    second = yard.keep(times(10.0))
    folder = yard.folder(second)
    away = folder.rename(folder.with_name("away"))
    yard.point(second)
    assert server.process.stderr is not None
    assert next(line for line in server.process.stderr if "does not go live" in line)
    away.rename(folder)
    third = yard.keep(times(3.0))
    yard.point(third)
    with server.client() as client:
        until(lambda: ask(client) == (6.0, third.digest[:12]))
    assert [d.model.digest for d in yard.store.ledger.aliases(ENDPOINT)][1:] == [second.digest, third.digest]


@pytest.mark.parametrize("processes", [1, 2])
def test_champion_that_cannot_be_opened_at_start_leaves_the_one_before_it(yard: Yard, processes: int) -> None:
    models = [yard.keep(times(factor)) for factor in (1.0, 2.0, 3.0, 4.0)]
    for model in models:
        yard.point(model)
    yard.spoil(models[3])
    shutil.rmtree(yard.folder(models[2]))
    server = yard.serve(models[3], "--processes", str(processes))
    assert f"model={models[1].digest[:12]}" in server.said[-1]
    said = "\n".join(server.said)
    assert f"error: champion {models[3].digest[:12]} cannot answer, {models[2].digest[:12]} before it is tried" in said
    assert "[bundle-tampered]" in said
    with server.client() as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert ask(client) == (4.0, models[1].digest[:12])
        # The seal is broken, so no server can answer with it: nothing else names it any more.
        back = until(lambda: (now := yard.now("champion")).model.digest == models[1].digest and now)
        assert back.reason.startswith("deployment taken back: [bundle-tampered]")
        assert back.previous == models[3].digest
        fifth = yard.keep(times(5.0))
        yard.point(fifth)
        until(lambda: ask(client) == (10.0, fifth.digest[:12]))
    assert server.stop() == 0


@pytest.mark.parametrize("why", ["rehearsal-failed", "bundle-untrusted-signer"])
def test_what_was_deployed_before_a_server_began_and_may_do_elsewhere_stays(
    yard: Yard, tmp_path: Path, why: str
) -> None:
    first = yard.keep(times(1.0))
    signed = signing_key(tmp_path / "elsewhere" if why == "bundle-untrusted-signer" else yard.root)
    second = yard.keep(times(2.0) if why == "bundle-untrusted-signer" else nothing(), signed)
    for model in (first, second):
        yard.point(model)
    server = yard.serve(second)
    assert f"[{why}]" in "\n".join(server.said)
    third = yard.keep(times(3.0))
    with server.client() as client:
        # Whoever names another one waits until it has looked more than once.
        yard.point(third)
        until(lambda: ask(client)[0] == 6.0)
    assert server.stop() == 0
    assert [d.model.digest for d in yard.store.ledger.aliases(ENDPOINT)] == [
        one.digest for one in (first, second, third)
    ]


def test_server_none_of_whose_versions_opens_ends_and_says_why(yard: Yard) -> None:
    first, second = yard.keep(times(1.0)), yard.keep(times(2.0))
    for model in (first, second, first):
        yard.point(model)
    yard.spoil(first)
    # The second opens, but somebody has gone back from it.
    with pytest.raises(AssertionError, match=r"error\[bundle-tampered\]"):
        yard.serve(first)


def test_what_somebody_has_gone_back_from_does_not_stand() -> None:
    a, b, c = (Deployment(endpoint="e", alias="champion", model=version(of), revision=1) for of in "abc")
    assert standing([]) == []
    assert standing([a, b, c]) == [c, b, a]
    assert standing([a, b, a]) == [a]
    assert standing([a, b, c, b, c]) == [c, b, a]


def version(digest: str) -> ModelVersion:
    return msgspec.structs.replace(times(1.0).version, digest=digest)


def test_error_that_is_said_while_a_version_is_made_ready_is_heard() -> None:
    with errors_said() as said:
        logging.getLogger("some.library").error("no kernel for %s", "this")
        logging.getLogger("some.library").info("all is well")
        say("it broke", level="error")
        say("it works")
        other = threading.Thread(target=logging.getLogger("another").error, args=("elsewhere",))
        other.start()
        other.join()
    say("too late", level="error")
    assert said == ["no kernel for this", "it broke"]


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
        before = client.post("/predict", json={"a": 1}).json()["id"]
        until(lambda: client.post("/feedback", json={"id": before, "truth": 1}).json()["joined"])
        yard.store.ledger.append(Draft(kind="endpoint.killed", actor="user:ana", payload=body))
        refused = until(lambda: (a := client.post("/predict", content=b"no JSON")).status_code == 503 and a)
        assert refused.json()["error"]["code"] == "endpoint-killed"
        # Somebody has to decide: whoever comes again at once costs both of them something.
        assert refused.headers["retry-after"] == "60"
        assert "harms" not in refused.text
        assert client.post(f"/v2/models/{ENDPOINT}/infer", json={}).status_code == 503
        assert stranger.post("/predict", json={"a": 1}).status_code == 401
        # What becomes known of earlier answers is taken all the same: it may be why it was switched off.
        known = client.post("/feedback", json={"id": before, "truth": 2})
        assert (known.status_code, known.json()["joined"], known.json()["replaced"]) == (200, 1, 1)
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
    asked = rows_of(mixed.validator.columns)
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


def test_what_a_server_is_told_of_the_time_holds_for_its_versions(yard: Yard) -> None:
    yard.point(first := yard.keep(times(1.0)))
    with pytest.raises(AssertionError, match=r"error\[rehearsal-failed\].* were declared"):
        yard.serve(first, "--p99", "1e-9")
    assert yard.serve(first, "--p99", "60").stop() == 0


@pytest.mark.parametrize("says", ["", "no kernel for this"])
def test_version_that_says_an_error_on_the_way_is_not_made_ready(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    def opens(*given: Any, **named: Any) -> Bundle:
        if says:
            logging.getLogger("some.library").error(says)
        return open_bundle(*given, **named)

    monkeypatch.setattr(stages, "open_bundle", opens)
    to, log = yard.point(yard.keep(times(1.0))), RequestLog(tmp_path / "requests.db")
    stage = Stage(yard.root, ENDPOINT, log, Limits())
    if says:
        with pytest.raises(ServeError, match="an error was said: no kernel for this") as caught:
            stage.prepare(yard.store, to)
        assert caught.value.code == "rehearsal-failed"
    else:
        stage.prepare(yard.store, to).close()
    log.close(seconds=5)


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


def test_model_of_a_version_that_is_closed_is_let_go_whoever_holds_the_version(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log.db")
    bundle = opened()
    service = Service(bundle, "credit", log, Limits())
    gone = weakref.ref(bundle.predictor())
    del bundle
    service.warm()
    service.close()
    assert gone() is None
    assert service.closed
    log.close()


def test_version_that_was_replaced_is_freed_beside_the_answers(yard: Yard) -> None:
    """Memory goes back to where it came from: to the thread that opens versions, and a forest takes a while to free."""
    models_kept = [yard.keep(times(factor)) for factor in (1.0, 2.0)]
    first = yard.point(models_kept[0])
    log = RequestLog(yard.root / "log.db")
    stage = Stage(yard.root, ENDPOINT, log, Limits())
    freed: list[str] = []

    async def follow() -> None:
        models = Models(stage.prepare(yard.store, first))
        weakref.finalize(models.default.batcher._predictor, lambda: freed.append(threading.current_thread().name))
        follower = Follower(stage, models, lambda: None, "champion", every=0.01)
        follower.begin()
        follower.start(asyncio.get_running_loop())
        yard.point(models_kept[1])
        for _ in range(1000):
            if freed:
                break
            await asyncio.sleep(0.01)
        assert models.default.version.digest == models_kept[1].digest
        await asyncio.to_thread(follower.close)
        models.default.close()

    asyncio.run(follow())
    log.close()
    assert freed == ["following"]


@pytest.mark.thorough
def test_swaps_leave_nothing_behind(yard: Yard) -> None:
    """More versions than the counters tell apart come and go: what is left does not grow with their number."""
    kept = [yard.keep(times(float(factor))) for factor in range(12)]
    log = RequestLog(yard.root / "log.db")
    stage = Stage(yard.root, ENDPOINT, log, Limits())

    async def follow() -> list[int]:
        models = Models(stage.prepare(yard.store, yard.point(kept[0])))
        follower = Follower(stage, models, lambda: None, "champion", every=0.002)
        follower.begin()
        follower.start(asyncio.get_running_loop())
        left = []
        for at in range(1, 73):
            model = kept[at % len(kept)]
            yard.point(model)
            while models.default.version.digest != model.digest or follower._leaving.gone:
                await asyncio.sleep(0.002)
            if at % 24 == 0:
                gc.collect()
                # Of types that are gone, weak references stay in a table that is made anew now and then.
                left.append(sum(type(one) is not weakref.ref for one in gc.get_objects()))
        await asyncio.to_thread(follower.close)
        models.default.close()
        return left

    first, *later = asyncio.run(follow())
    log.close()
    assert max(later) - first < 24, (first, later)


def heavy(factor: float) -> BundleDraft:
    """A model that answers its input times a factor, and holds 32 MB."""
    big = np.full(8 << 20, factor, np.float32)
    # What is asked decides what is looked up, so that nobody works it out beforehand.
    nodes = [
        helper.make_node("ReduceMax", ["numeric"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["big", "at"], ["one"], axis=0),
        helper.make_node("Mul", ["numeric", "one"], ["prediction"]),
    ]
    return times(factor, nodes, {"big": big})


@pytest.mark.thorough
def test_server_holds_no_model_that_was_replaced(yard: Yard) -> None:
    kept = [yard.keep(heavy(factor)) for factor in (1.0, 2.0, 3.0)]
    yard.point(kept[0])
    server = yard.serve(kept[0])
    held = own([server.process.pid])
    assert held > 32 << 20
    with server.client() as client:
        for model in (*kept[1:], kept[0]):
            yard.point(model)
            until(lambda model=model: ask(client)[1] == model.digest[:12])
            until(lambda: own([server.process.pid]) < held + (16 << 20))
    assert server.stop() == 0
