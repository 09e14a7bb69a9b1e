"""A champion that has just taken over: one that errs on live traffic goes back, and nothing else sends it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.inference import BundleDraft
from modelyard.records import Deployment, ModelVersion
from modelyard.serving.versions.probation import Probation
from modelyard.serving.versions.settling import TAKEN_BACK, Pointer

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252 - the same
from .versions import ENDPOINT, Yard, fails_beyond, no_number_beyond, times, until  # noqa: TID252 - the same

WHY = re.compile(r"deployment taken back: \d+ of \d+ requests were not answered as they should")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def first(yard: Yard) -> ModelVersion:
    return yard.keep(times(1.0))


@pytest.fixture
def serve(yard: Yard) -> Iterator[Callable[..., Server]]:
    """Serve a version that is the champion."""
    started: list[Server] = []

    def make(model: ModelVersion, *arguments: str) -> Server:
        yard.point(model)
        started.append(yard.serve(model, *arguments))
        return started[-1]

    yield make
    for server in started:
        if server.process.poll() is None:
            assert server.stop() == 0, server.said


def take_over(yard: Yard, server: Server, model: ModelVersion) -> None:
    """Point the champion at a version, and wait until it answers."""
    yard.point(model)
    answers_now(server, model)


def answers_now(server: Server, model: ModelVersion) -> None:
    with server.client() as client:
        until(lambda: client.post("/predict", json={"a": 2.0}).headers["x-model-version"] == model.digest[:12])


def ask(server: Server, *values: Any) -> list[int]:
    """Ask for each value, on a connection of its own for each call; return the statuses."""
    with server.client() as client:
        return [client.post("/predict", json={"a": value}).status_code for value in values]


def moves(yard: Yard) -> list[tuple[str, str]]:
    """Return who moved the champion, and to which version."""
    events = yard.store.ledger.events(kinds=("alias.moved",))
    found = [(event.actor, event.payload["deployment"]) for event in events]
    return [(actor, to["model"]["digest"]) for actor, to in found if to["alias"] == "champion"]


def stays(yard: Yard, seconds: float = 1.0) -> bool:
    """Say whether nobody moves the champion for some looks at the ledger."""
    seen = moves(yard)
    time.sleep(seconds)
    return moves(yard) == seen


@pytest.mark.parametrize("made", [fails_beyond, no_number_beyond])
def test_champion_that_errs_goes_back_and_the_ledger_says_why(
    yard: Yard, first: ModelVersion, serve: Callable[..., Server], made: Callable[[float], BundleDraft]
) -> None:
    server = serve(first)
    second = yard.keep(made(20.0))
    take_over(yard, server, second)
    began = time.monotonic()
    # Every fourth is one that it cannot answer.
    until(lambda: ask(server, 2.0, 3.0, 4.0, 50.0) and yard.now("champion").model.digest == first.digest)
    answers_now(server, first)
    assert time.monotonic() - began < 5.0
    assert set(ask(server, *[50.0] * 20)) == {200}
    back = yard.now("champion")
    assert WHY.fullmatch(back.reason), back.reason
    assert back.previous == second.digest
    assert [actor for actor, _ in moves(yard)] == ["user:ana", "user:ana", "server"]
    assert server.stop() == 0
    said = [line for line in server.said if f"champion {second.digest[:12]} is taken back" in line]
    assert len(said) == 1
    assert f"{first.digest[:12]} answers again: " in said[0]


def test_rows_that_do_not_fit_are_no_errors(yard: Yard, first: ModelVersion, serve: Callable[..., Server]) -> None:
    server = serve(first)
    take_over(yard, server, yard.keep(fails_beyond(20.0)))
    assert set(ask(server, *["many"] * 30)) == {400}
    assert set(ask(server, 50.0, 50.0)) == {500}
    assert stays(yard)


def test_errors_after_probation_move_nothing(yard: Yard, first: ModelVersion, serve: Callable[..., Server]) -> None:
    server = serve(first, "--probation", "0.4")
    take_over(yard, server, yard.keep(fails_beyond(20.0)))
    time.sleep(0.6)
    ask(server, *[50.0] * 20)
    assert stays(yard)


def test_probation_can_be_left_out(yard: Yard, first: ModelVersion, serve: Callable[..., Server]) -> None:
    server = serve(first, "--probation", "0")
    take_over(yard, server, yard.keep(fails_beyond(20.0)))
    ask(server, *[50.0] * 20)
    assert stays(yard)


def test_what_was_deployed_before_it_began_stays(yard: Yard, first: ModelVersion, serve: Callable[..., Server]) -> None:
    yard.point(first)
    server = serve(yard.keep(fails_beyond(20.0)))
    ask(server, *[50.0] * 20)
    assert stays(yard)


def test_version_that_was_gone_back_to_stays_and_a_person_may_try_again(
    yard: Yard, serve: Callable[..., Server]
) -> None:
    first, second = yard.keep(fails_beyond(40.0)), yard.keep(fails_beyond(20.0))
    server = serve(first)
    take_over(yard, server, second)
    ask(server, *[30.0] * 10)
    answers_now(server, first)
    # Now the old one errs as well: it would never end.
    ask(server, *[50.0] * 5, *[2.0] * 95)
    assert stays(yard)
    take_over(yard, server, second)
    ask(server, *[30.0] * 10)
    answers_now(server, first)
    assert [actor for actor, _ in moves(yard)] == ["user:ana", "user:ana", "server", "user:ana", "server"]


def test_first_version_of_all_has_nothing_to_go_back_to(yard: Yard, first: ModelVersion) -> None:
    server = yard.serve(first)
    second = yard.keep(fails_beyond(20.0))
    take_over(yard, server, second)
    ask(server, *[50.0] * 20)
    assert stays(yard)
    ask(server, *[50.0] * 20)
    assert stays(yard, 0.5)
    assert server.stop() == 0
    said = [line for line in server.said if f"champion {second.digest[:12]} errs, and there is no version" in line]
    assert len(said) == 1


def test_trial_and_probation_see_the_same_answers(
    yard: Yard, first: ModelVersion, serve: Callable[..., Server]
) -> None:
    server = serve(first, "--canary", "0.5")
    second = yard.keep(fails_beyond(20.0))
    take_over(yard, server, second)
    yard.point(yard.keep(times(1.001)), "challenger")

    def trial() -> dict[str, Any]:
        with server.client("operator") as client:
            return dict(client.get("/stats").json().get("rollout", {}))

    until(trial)
    with server.client("operator") as client:
        for value in (2.0, 2.0, 50.0, 50.0):
            client.post("/predict", json={"a": value}, headers={"x-model": "champion"})
        seen = trial()["champion"]
        assert (seen["answers"], seen["errors"]) == (2, 2)
        assert stays(yard, 0.5)
        client.post("/predict", json={"a": 50.0}, headers={"x-model": "champion"})
    answers_now(server, first)
    assert WHY.fullmatch(yard.now("champion").reason)
    # The trial was that of another champion.
    assert not trial()


def test_two_processes_go_back_together(yard: Yard, first: ModelVersion, serve: Callable[..., Server]) -> None:
    server = serve(first, "--processes", "2")
    second = yard.keep(fails_beyond(20.0))
    yard.point(second)

    def back() -> bool:
        ask(server, 2.0, 50.0)
        return yard.now("champion").model.digest == first.digest

    until(back)
    until(lambda: [ask(server, 50.0)[0] for _ in range(20)] == [200] * 20)
    assert stays(yard, 0.5)
    assert [actor for actor, _ in moves(yard)] == ["user:ana", "user:ana", "server"]
    assert server.stop() == 0
    assert sum("is taken back" in line for line in server.said) == 1


def version(digest: str, answered: int = 0, erred: int = 0) -> Any:
    """A version, as far as it is looked at."""
    return SimpleNamespace(version=SimpleNamespace(digest=digest), answered=answered, erred=erred)


@pytest.mark.parametrize(
    ("before", "answered", "erred", "goes"),
    [
        ((0, 0), 998, 2, False),
        ((0, 0), 0, 2, False),
        ((0, 0), 297, 3, False),
        ((0, 0), 3, 3, True),
        # What erred as much is no better.
        ((900, 100), 90, 10, False),
        ((900, 100), 60, 40, True),
    ],
)
def test_verdict(before: tuple[int, int], answered: int, erred: int, goes: bool) -> None:
    # As a challenger it had erred already.
    service = version("new", 100, 100)
    probation = Probation(service, version("old", *before), 60.0)
    assert not probation.verdict()
    service.answered += answered
    service.erred += erred
    assert bool(probation.verdict()) == goes


def erring(yard: Yard, *models: ModelVersion) -> tuple[list[Deployment], Probation, Any]:
    """Point the champion at some versions; return their deployments, and the last one erring on probation."""
    deployments = [yard.point(model) for model in models]
    service = version(models[-1].digest)
    probation = Probation(service, version(models[-2].digest), 60.0)
    service.erred = 10
    return deployments, probation, service


def test_person_who_was_faster_is_left_alone(yard: Yard, first: ModelVersion) -> None:
    second, third = yard.keep(times(2.0)), yard.keep(times(3.0))
    (_, new), probation, _ = erring(yard, first, second)
    yard.point(third)
    probation.look(yard.store, Pointer(new, 0.0, 2))
    assert yard.now("champion").model.digest == third.digest


def test_nobody_goes_back_to_what_somebody_has_gone_back_from(yard: Yard, first: ModelVersion) -> None:
    second = yard.keep(times(2.0))
    (*_, new), probation, _ = erring(yard, first, second, first)
    probation.look(yard.store, Pointer(new, 0.0, 3))
    assert probation.done
    assert len(moves(yard)) == 3


def test_what_was_gone_back_to_by_a_server_is_not_looked_at(yard: Yard, first: ModelVersion) -> None:
    second = yard.keep(times(2.0))
    (_, new), probation, _ = erring(yard, first, second)
    probation.look(yard.store, Pointer(new, 0.0, 2, back=True))
    assert len(moves(yard)) == 2
    probation.look(yard.store, Pointer(new, 0.0, 2))
    assert moves(yard)[2:] == [("server", first.digest)]
    assert yard.now("champion").reason == f"{TAKEN_BACK}10 of 10 requests were not answered as they should"


def test_what_comes_next_is_not_taken_back_for_what_this_one_did(yard: Yard, first: ModelVersion) -> None:
    _, probation, _ = erring(yard, first, yard.keep(times(2.0)))
    # Its successor is being made ready, and does not answer yet.
    third = yard.point(yard.keep(times(3.0)))
    probation.look(yard.store, Pointer(third, 0.0, 3))
    assert yard.now("champion") == third


def test_errors_of_the_last_moment_count_only_where_they_were_seen_in_time(yard: Yard, first: ModelVersion) -> None:
    now = [0.0]
    _, new = (yard.point(model) for model in (first, yard.keep(times(2.0))))
    service = version(new.model.digest)
    probation = Probation(service, version(first.digest), 60.0, clock=lambda: now[0])
    service.erred, now[0] = 10, 60.0
    probation.look(yard.store, Pointer(new, 0.0, 2))
    assert probation.done
    assert yard.now("champion") == new


def test_where_the_challenger_points_does_not_matter(yard: Yard, first: ModelVersion) -> None:
    """A canary that was taken back leaves the alias of challengers at the champion's model."""
    (_, new), probation, _ = erring(yard, first, yard.keep(times(2.0)))
    yard.point(first, "challenger")
    probation.look(yard.store, Pointer(new, 0.0, 2))
    assert yard.now("champion").model.digest == first.digest


def test_busy_alias_is_tried_again_even_when_the_time_is_up(yard: Yard, first: ModelVersion) -> None:
    now = [0.0]
    deployments = [yard.point(model) for model in (first, yard.keep(times(2.0)))]
    service = version(deployments[1].model.digest)
    probation = Probation(service, version(first.digest), 60.0, clock=lambda: now[0])
    service.erred = 10
    pointer = Pointer(deployments[1], 0.0, 2)
    with yard.store.hold(f"alias.{ENDPOINT}", who={"actor": "user:ana"}):
        probation.look(yard.store, pointer)
    assert not probation.done
    now[0] = 61.0
    probation.look(yard.store, pointer)
    assert probation.done
    assert yard.now("champion").model.digest == first.digest


def test_only_what_the_model_does_is_counted(tmp_path: Path) -> None:
    guards = {"within": {"high": 10.0, "do": "abstain"}}
    with Endpoint(tmp_path, fails_beyond(20.0), guards) as endpoint:
        statuses = [status for status, _ in endpoint.ask({"a": 2.0}, {"a": 15.0}, {"a": "many"}, {"b": 1}, {"a": 50.0})]
        assert statuses == [200, 200, 400, 400, 500]
        # An answer that a guard held back was one.
        assert (endpoint.service.answered, endpoint.service.erred) == (2, 1)


def test_rows_that_do_not_fit_are_told_so_beside_those_that_the_model_fails_on(tmp_path: Path) -> None:
    with Endpoint(tmp_path, fails_beyond(20.0), None) as endpoint:

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(endpoint._ask([endpoint.request({"a": value})]) for value in (50.0, 1e300)))

        ((failed, _),), ((refused, body),) = asyncio.run(at_once())
        assert (failed, refused) == (500, 400), body
        assert (endpoint.service.batcher.runs, endpoint.service.erred) == (1, 1)
