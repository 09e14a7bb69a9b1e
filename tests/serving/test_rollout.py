"""A challenger on trial: its share, what takes it away, what it never changes."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.checks.profile import profile
from modelyard.inference import BundleDraft
from modelyard.records import Deployment, ModelVersion
from modelyard.serving.versions.rollout import Plan, Rollout, Tally, alike, distance, verdict
from modelyard.serving.versions.settling import Pointer, settle

from .conftest import MIXED, Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252 - the same
from .versions import (  # noqa: TID252 - the same
    ENDPOINT,
    SIGNATURE,
    Yard,
    fails_beyond,
    no_number_beyond,
    times,
    until,
)


def tally(answers: int, errors: int = 0, ms: float = 1.0, values: list[float] | None = None) -> Tally:
    made = Tally(answers, errors)
    made.took.extend([ms] * answers)
    made.values.extend([0.0] * answers if values is None else values)
    return made


def drawn(count: int, mean: float, seed: int) -> list[float]:
    numbers = random.Random(seed)  # noqa: S311 - a sample, not a secret
    return [numbers.gauss(mean, 1.0) for _ in range(count)]


@pytest.mark.parametrize(
    ("champion", "challenger", "says"),
    [
        (tally(900), tally(100), ""),
        (tally(900), tally(0, errors=2), ""),
        (tally(900), tally(97, errors=3), "3 of 100 requests"),
        # A champion that errs as much is no better.
        (tally(900, errors=30), tally(97, errors=3), ""),
        (tally(900, ms=2.0), tally(300, ms=10.0), ""),
        (tally(900, ms=2.0), tally(300, ms=12.0), "99 of 100 answers"),
        (tally(900, ms=2.0), tally(100, ms=99.0), ""),
        (tally(900), tally(300, values=[0.0] * 180 + [1.0] * 120), "40% of its answers"),
        (tally(900), tally(300, values=[0.0] * 250 + [1.0] * 50), ""),
    ],
)
def test_verdict(champion: Tally, challenger: Tally, says: str) -> None:
    found = verdict(champion, challenger, classes=True)
    assert found.startswith(says)
    assert bool(found) == bool(says)


@pytest.mark.parametrize("seed", range(20))
def test_numbers_of_one_distribution_are_never_too_different(seed: int) -> None:
    champion = tally(2000, values=drawn(2000, 0.0, seed))
    assert not verdict(champion, tally(200, values=drawn(200, 0.0, seed + 100)), classes=False)
    assert verdict(champion, tally(200, values=drawn(200, 2.0, seed + 100)), classes=False)


def test_distance() -> None:
    assert distance([0.0, 1.0], [1.0, 0.0], classes=True) == 0
    assert distance([0.0], [1.0], classes=True) == 1
    assert distance([1.0, 2.0, 3.0, 4.0] * 10, [4.0], classes=False) == pytest.approx(0.75)


def test_only_models_that_take_and_answer_the_same_are_compared() -> None:
    assert alike(SIGNATURE, SIGNATURE)
    assert not alike(SIGNATURE, MIXED)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def champion(yard: Yard) -> ModelVersion:
    made = yard.keep(times(1.0))
    yard.point(made)
    return made


@pytest.fixture
def serve(yard: Yard, champion: ModelVersion) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def make(*arguments: str) -> Server:
        started.append(yard.serve(champion, *arguments))
        return started[-1]

    yield make
    for server in started:
        if server.process.poll() is None:
            server.stop()


def rollout(server: Server) -> dict[str, Any]:
    with server.client("operator") as client:
        return dict(client.get("/stats").json().get("rollout", {}))


def test_canary_answers_its_share_and_each_answer_names_its_model(yard: Yard, serve: Callable[..., Server]) -> None:
    server = serve("--canary", "0.3")
    challenger = yard.keep(times(1.001))
    yard.point(challenger, "challenger")
    until(lambda: rollout(server))
    # So few that nobody compares their times yet, which on a machine with other work say little.
    count, took = 400, 0
    with server.client() as client:
        for _ in range(count):
            answer = client.post("/predict", json={"a": 2.0})
            its = answer.headers["x-model-version"] == challenger.digest[:12]
            assert answer.json()["predictions"][0]["value"] == pytest.approx(2.002 if its else 2.0, abs=1e-5)
            took += its
        # Five standard deviations of a binomial.
        assert abs(took - 0.3 * count) < 5 * math.sqrt(count * 0.3 * 0.7)
        stayed = [client.post("/predict", json={"a": 2.0}, headers={"x-canary-key": "ana"}) for _ in range(20)]
        assert len({answer.headers["x-model-version"] for answer in stayed}) == 1
    seen = rollout(server)
    assert seen["challenger"]["answers"] + seen["champion"]["answers"] == count + 20
    assert seen["challenger"]["errors"] == 0


def test_header_forces_a_model_for_operators_only(yard: Yard, serve: Callable[..., Server]) -> None:
    server = serve("--canary", "0.0001")
    challenger = yard.keep(times(1.001))
    yard.point(challenger, "challenger")
    until(lambda: rollout(server))
    asked = {"x-model": "challenger"}
    with server.client("operator") as operator, server.client("analyst") as analyst:
        for _ in range(10):
            forced = operator.post("/predict", json={"a": 2.0}, headers=asked)
            assert forced.headers["x-model-version"] == challenger.digest[:12]
        wrong = operator.post("/predict", json={"a": 2.0}, headers={"x-model": "chalenger"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "rollout-model")
        assert "not `chalenger`; did you mean `challenger`" in wrong.json()["error"]["message"]
        # Neither the champion nor chance answers in the place of what was asked for.
        refusal_of_choice(analyst, "/predict", {"a": 2.0})


def refusal_of_choice(client: httpx.Client, path: str, body: Any) -> None:
    """See that who may not choose is told so, the same whether a challenger is on trial or not."""
    for name, status, code in (
        ("challenger", 403, "role-denied"),
        ("champion", 403, "role-denied"),
        ("chalenger", 400, "rollout-model"),
    ):
        refused = client.post(path, json=body, headers={"x-model": name})
        assert (refused.status_code, code in refused.text) == (status, True), refused.text
        assert "x-model-version" not in refused.headers
    assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize("arguments", [(), ("--shadow",)])
def test_a_challenger_that_answers_nobody_is_not_asked_for(
    yard: Yard, serve: Callable[..., Server], champion: ModelVersion, arguments: tuple[str, ...]
) -> None:
    server = serve(*arguments)
    if arguments:
        yard.point(yard.keep(times(1.001)), "challenger")
        until(lambda: rollout(server))
    tensor = {"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [2.0]}
    with server.client("operator") as operator, server.client("analyst") as analyst:
        for path, body in (("/predict", {"a": 2.0}), (f"/v2/models/{ENDPOINT}/infer", {"inputs": [tensor]})):
            for name, says in (("challenger", "none answers requests"), ("chalenger", "did you mean `challenger`")):
                refused = operator.post(path, json=body, headers={"x-model": name})
                assert (refused.status_code, "rollout-model" in refused.text) == (400, True), refused.text
                assert says in refused.text
            refusal_of_choice(analyst, path, body)
            answer = operator.post(path, json=body, headers={"x-model": "Champion"})
            assert (answer.status_code, answer.headers["x-model-version"]) == (200, champion.digest[:12])


def test_canary_that_errs_is_taken_back_and_the_ledger_says_why(
    yard: Yard, serve: Callable[..., Server], champion: ModelVersion
) -> None:
    server = serve("--canary", "0.5")
    yard.point(yard.keep(fails_beyond(20.0)), "challenger")
    until(lambda: rollout(server))
    with server.client() as client:

        def back() -> Deployment | None:
            client.post("/predict", json={"a": 50.0})
            now = yard.store.ledger.alias(ENDPOINT, "challenger")
            return now if now is not None and now.model.digest == champion.digest else None

        now = until(back)
        assert now.reason.startswith("canary taken back: ")
        assert "not answered as they should" in now.reason
        until(lambda: not rollout(server))
        for _ in range(50):
            answer = client.post("/predict", json={"a": 50.0})
            assert (answer.status_code, answer.headers["x-model-version"]) == (200, champion.digest[:12])
    newest = list(yard.store.ledger.events(kinds=("alias.moved",)))[-1]
    assert newest.actor == "server"


def test_what_a_challenger_refuses_is_counted_as_its_own(
    yard: Yard, serve: Callable[..., Server], champion: ModelVersion
) -> None:
    server = serve("--canary", "0.5")
    challenger = yard.keep(fails_beyond(20.0))
    yard.point(challenger, "challenger")
    until(lambda: rollout(server))
    with server.client("operator") as client:
        for name, value in (("challenger", 50.0), ("champion", "many"), ("challenger", "many")):
            client.post("/predict", json={"a": value}, headers={"x-model": name})
        told = client.get("/metrics").text
        stats = client.get(f"/v2/models/{ENDPOINT}/stats").json()["model_stats"]
    counted = {
        (version, status): int(count)
        for version, status, count in re.findall(r'route="/predict".*version="(\w+)",status="([45]\d\d)"} (\d+)', told)
    }
    its = challenger.digest[:12]
    # Rows are read before it is drawn who answers them.
    assert counted == {(its, "500"): 1, (champion.digest[:12], "400"): 2}
    assert {one["version"]: one["inference_stats"]["fail"]["count"] for one in stats} == {
        its: 1,
        champion.digest[:12]: 2,
    }


@pytest.mark.thorough
def test_canary_that_held_becomes_the_champion(yard: Yard, serve: Callable[..., Server]) -> None:
    server = serve("--canary", "0.5", "--watch", "0.2")
    challenger = yard.keep(times(1.001))
    yard.point(challenger, "challenger")
    with server.client() as client:

        def moved() -> bool:
            client.post("/predict", json={"a": 2.0})
            now = yard.store.ledger.alias(ENDPOINT, "champion")
            return now is not None and now.model.digest == challenger.digest and now.reason.startswith("canary held")

        until(moved)
        until(lambda: not rollout(server))
        for _ in range(20):
            answer = client.post("/predict", json={"a": 2.0})
            assert answer.headers["x-model-version"] == challenger.digest[:12]


def test_shadow_changes_no_answer_and_is_compared(
    yard: Yard, serve: Callable[..., Server], champion: ModelVersion
) -> None:
    server = serve("--shadow")
    yard.point(yard.keep(fails_beyond(20.0)), "challenger")
    until(lambda: rollout(server))
    with server.client() as client:
        for value in (2.0, 50.0) * 20:
            answer = client.post("/predict", json={"a": value})
            assert answer.json()["predictions"] == [{"value": value}]
            assert answer.headers["x-model-version"] == champion.digest[:12]
    seen = until(lambda: (s := rollout(server))["shadow"]["compared"] == 20 and s["challenger"]["errors"] == 20 and s)
    assert seen["shadow"] == {"compared": 20, "agreed": 20, "dropped": 0}
    assert yard.store.ledger.alias(ENDPOINT, "challenger").model.digest != champion.digest  # type: ignore[union-attr]
    assert server.stop() == 0


def test_challenger_of_another_champion_is_not_tried(yard: Yard, serve: Callable[..., Server]) -> None:
    yard.point(yard.keep(times(5.0)), "challenger")
    second = yard.keep(times(1.002))
    yard.point(second)
    server = serve("--canary", "0.9")
    with server.client() as client:
        until(lambda: client.post("/predict", json={"a": 1.0}).headers["x-model-version"] == second.digest[:12])
        assert not rollout(server)


def test_nothing_is_settled_that_somebody_has_moved_since(yard: Yard, champion: ModelVersion) -> None:
    first, second = yard.keep(times(2.0)), yard.keep(times(3.0))
    deployments = [
        yard.point(champion),
        yard.point(first, "challenger"),
        yard.point(second, "challenger"),
    ]
    now, old, new = (Pointer(to, 0.0, at) for at, to in enumerate(deployments))
    assert not settle(yard.store, (now, old), old.to, now.to, "late")
    assert settle(yard.store, (now, new), new.to, now.to, "in time")
    back = yard.store.ledger.alias(ENDPOINT, "challenger")
    assert back is not None
    assert (back.model.digest, back.previous, back.reason) == (champion.digest, second.digest, "in time")


@pytest.mark.parametrize(
    ("made", "guards", "values", "answers", "errors"),
    [
        (fails_beyond(20.0), None, (2.0, 50.0, "many", 50.0), 1, 2),
        (no_number_beyond(20.0), None, (2.0, 50.0, "many", 50.0), 1, 2),
        # What a guard holds back was answered.
        (fails_beyond(20.0), {"within": {"high": 10.0, "do": "abstain"}}, (2.0, 15.0, 50.0), 2, 1),
    ],
    ids=["raises", "no-number", "held"],
)
def test_each_request_that_could_not_be_answered_is_one_error(
    tmp_path: Path, made: BundleDraft, guards: Any, values: tuple[Any, ...], answers: int, errors: int
) -> None:
    with Endpoint(tmp_path, made, guards) as endpoint:
        service = endpoint.service
        trial = service.watch = Rollout(service, service, Plan(0.5))
        endpoint.ask(*[{"a": value} for value in values])
        assert trial.tally(service).shown() | {"p99_ms": 0} == {"answers": answers, "errors": errors, "p99_ms": 0}
        assert service.erred == errors


def test_rows_that_do_not_fit_are_no_errors_beside_those_that_the_model_fails_on(tmp_path: Path) -> None:
    with Endpoint(tmp_path, fails_beyond(20.0), None) as endpoint:
        service = endpoint.service
        trial = service.watch = Rollout(service, service, Plan(0.5))

        async def at_once() -> None:
            await asyncio.gather(*(endpoint._ask([endpoint.request({"a": value})]) for value in (50.0, 1e300)))

        asyncio.run(at_once())
        assert (service.batcher.runs, trial.tally(service).errors) == (1, 1)


def test_requests_that_are_held_back_are_no_errors(tmp_path: Path) -> None:
    made = times(1.0)
    columns = {"a": np.random.default_rng(0).normal(size=2000).tolist()}
    files = {**made.files, "profile.json": json.dumps(profile(columns, SIGNATURE)).encode()}
    files.pop("model.json")
    guards = {"outlier": {"score": 0.99, "do": "quarantine"}, "fallback": "0"}
    with Endpoint(tmp_path, BundleDraft.of(made.version, files), guards) as endpoint:
        service = endpoint.service
        trial = service.watch = Rollout(service, service, Plan(0.5))
        assert [status for status, _ in endpoint.ask(*[{"a": 1000.0}] * 5)] == [200] * 5
        endpoint.log.apart().settle(5)
        assert (endpoint.log.held, trial.tally(service).errors) == (5, 0)
