"""Under load: a swap every second loses no request, and no answer comes from another version than it names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.deploy.aliases import move, pointed
from modelyard.deploy.approving import approve
from modelyard.deploy.promotion import declare, named, stages_of
from modelyard.records import ModelVersion
from modelyard.spec import load
from modelyard.store.requests import ids_of

from .conftest import Server, started  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .versions import Yard, fails_beyond, nothing, times, until  # noqa: TID252 - the same

STAGED = """\
project: hours
data: {t: {from: t.csv}}
model: {target: y}
deploy: {stages: {dev: {}, prod: {approvals: 1}}}
"""
CONNECTIONS, RATE, SECONDS = 16, 2000.0, 6.0


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


async def caller(server: Server, until: float, answers: list[tuple[int, str, str, float]], asking: float = 2.0) -> None:
    """Ask at an even rate on one connection, and keep status, version and id of each answer, and its value."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b'{"a": %.1f}' % asking
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.tokens['analyst']}\r\n"
    asked = head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        if due > now:
            await asyncio.sleep(due - now)
        due += CONNECTIONS / RATE
        writer.write(asked)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        answer = json.loads(await reader.readexactly(int(headers["content-length"])))
        value = answer["predictions"][0]["value"] if "predictions" in answer else -1.0
        answers.append((int(lines[0].split()[1]), headers.get("x-model-version", ""), headers["x-request-id"], value))
    writer.close()
    await writer.wait_closed()


async def patient(server: Server, over: asyncio.Event, answered: list[str], lost: list[float]) -> None:
    """Ask one after the other until it is over, on a new connection now and then, and whenever one breaks off."""
    body = b'{"a": 2.0}'
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.tokens['analyst']}\r\n"
    asked = head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    while not over.is_set():
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            for _ in range(20):
                writer.write(asked)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                await reader.readexactly(int(headers["content-length"]))
                assert lines[0].split()[1] == "200"
                answered.append(headers["x-request-id"])
                await asyncio.sleep(0.002)
        except (OSError, asyncio.IncompleteReadError):
            lost.append(began)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def prefixes(ids: list[str]) -> set[str]:
    """Return what the processes that gave these ids put before their numbers."""
    return {one.rsplit("-", 1)[0] for one in ids}


@pytest.mark.slow
def test_killed_process_costs_what_it_was_answering_and_is_back(yard: Yard) -> None:
    model = yard.keep(times(2.0))
    yard.point(model)
    server = yard.serve(model, "--processes", "2")
    answered: list[str] = []
    lost: list[float] = []
    killed = 0.0

    async def load() -> None:
        over = asyncio.Event()

        async def story() -> None:
            nonlocal killed
            while len(prefixes(answered)) < 2 or len(answered) < 500:
                await asyncio.sleep(0.01)
            path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
            killed = time.monotonic()
            # One goes on, and one takes the place of the other.
            while len(prefixes(answered)) < 3:
                await asyncio.sleep(0.01)
            over.set()

        async with asyncio.timeout(60):
            await asyncio.gather(story(), *(patient(server, over, answered, lost) for _ in range(CONNECTIONS)))

    asyncio.run(load())
    assert server.stop() == 0, server.said
    # Lost are connections that the killed process had, and nobody who came after it.
    assert len(lost) <= CONNECTIONS
    assert max(lost, default=0.0) <= killed
    assert any("was killed by SIGKILL" in line for line in server.said)


async def under_load(
    server: Server, story: Callable[[], object], asking: float = 2.0
) -> list[tuple[int, str, str, float]]:
    """Ask at an even rate while something happens, and a moment before and after; return the answers."""
    answers: list[tuple[int, str, str, float]] = []
    until = time.monotonic() + SECONDS
    callers = [asyncio.create_task(caller(server, until, answers, asking)) for _ in range(CONNECTIONS)]
    # Nobody reads what it says meanwhile, and a full pipe would stop it.
    said, loop = server.process.stderr, asyncio.get_running_loop()
    assert said is not None
    loop.add_reader(said, lambda: server.said.extend(os.read(said.fileno(), 65_536).decode().splitlines()))
    while len(answers) < RATE / 4:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(story)
    await asyncio.gather(*callers)
    loop.remove_reader(said)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["tampered", "no number"])
def test_broken_deployment_goes_back_and_nobody_notices(yard: Yard, broken: str) -> None:
    first = yard.keep(times(1.0))
    yard.point(first)
    server = yard.serve(first, "--processes", "2")
    second = yard.keep(nothing() if broken == "no number" else times(5.0))
    if broken == "tampered":
        yard.spoil(second)

    def deploy() -> None:
        yard.point(second)
        until(lambda: yard.now("champion").model.digest == first.digest)

    answers = asyncio.run(under_load(server, deploy))
    assert server.stop() == 0, server.said
    assert {(status, version, value) for status, version, _, value in answers} == {(200, first.digest[:12], 2.0)}
    back = yard.now("champion")
    assert back.previous == second.digest
    assert back.reason.startswith("deployment taken back: ")
    assert ("[bundle-tampered]" if broken == "tampered" else "not a finite number") in back.reason
    # Both processes saw it, and one wrote it.
    moves = list(yard.store.ledger.events(kinds=("alias.moved",)))
    assert [event.actor for event in moves] == ["user:ana", "user:ana", "server"]
    assert any(f"champion {second.digest[:12]} does not go live" in line for line in server.said)


@pytest.mark.slow
def test_rollback_by_one_command_loses_nothing(yard: Yard) -> None:
    first, second = yard.keep(times(1.0)), yard.keep(times(5.0))
    for model in (first, second):
        yard.promote(model)
    server = yard.serve(second, "--processes", "2")

    def rollback() -> None:
        line = [sys.executable, "-m", "modelyard", "rollback", "--reason", "errors since noon"]
        done = subprocess.run(line, cwd=yard.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    answers = asyncio.run(under_load(server, rollback))
    assert server.stop() == 0, server.said
    assert {status for status, *_ in answers} == {200}
    assert {(version, value) for _, version, _, value in answers} == {
        (first.digest[:12], 2.0),
        (second.digest[:12], 10.0),
    }
    # Both processes answer with the version before, and go on with it; how soon says `benchmarks/swaps.py`.
    assert len(prefixes([name for _, _, name, _ in answers[-200:]])) == 2
    assert {version for _, version, *_ in answers[-200:]} == {first.digest[:12]}


@pytest.mark.slow
def test_promotion_into_a_stage_and_back_loses_nothing(yard: Yard) -> None:
    first, second = yard.keep(times(1.0)), yard.keep(times(5.0))
    (yard.root / "modelyard.yaml").write_text(STAGED)
    declare(yard.store, "hours", load(yard.root, files=False).deploy.stages, actor="user:ana")
    prod = named(stages_of(yard.store), "prod")

    def ready(model: ModelVersion) -> None:
        move(yard.store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")
        approve(yard.store, prod, model, actor="user:bob")

    def type_(*words: str) -> None:
        line = [sys.executable, "-m", "modelyard", *words]
        done = subprocess.run(line, cwd=yard.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    ready(first)
    type_("promote", "--to", "prod")
    ready(second)
    line = [sys.executable, "-P", "-m", "modelyard", "serve", "prod", "--port", "0", "--processes", "2"]
    server = started(yard.root, line, cwd=yard.root, **yard.tokens)

    def there_and_back() -> None:
        type_("promote", "--to", "prod")
        with server.client("analyst") as client:
            until(lambda: client.post("/predict", content=b'{"a": 1}').headers["x-model-version"] in second.digest)
            assert client.get("/v2/models/hours-prod").status_code == 200
            assert client.get("/v2/models/hours-dev").status_code == 404
        type_("rollback", "prod")

    answers = asyncio.run(under_load(server, there_and_back))
    assert server.stop() == 0, server.said
    assert {status for status, *_ in answers} == {200}
    assert {(version, value) for _, version, _, value in answers} == {
        (first.digest[:12], 2.0),
        (second.digest[:12], 10.0),
    }
    assert {version for _, version, *_ in answers[-200:]} == {first.digest[:12]}
    assert pointed(yard.store, "hours-dev").model == second


@pytest.mark.slow
def test_shadow_that_fails_and_lags_changes_no_answer(yard: Yard) -> None:
    first = yard.keep(times(1.0))
    yard.point(first)
    server = yard.serve(first, "--shadow")

    def shadow() -> None:
        yard.point(yard.keep(fails_beyond(20.0)), "challenger")
        with server.client("operator") as client:
            until(lambda: client.get("/stats").json().get("rollout", {}).get("challenger", {}).get("errors"))

    answers = asyncio.run(under_load(server, shadow, 50.0))
    assert server.stop() == 0, server.said
    assert {(status, version, value) for status, version, _, value in answers} == {(200, first.digest[:12], 50.0)}


@pytest.mark.slow
def test_canary_that_errs_is_taken_back_under_load(yard: Yard) -> None:
    first = yard.keep(times(1.0))
    yard.point(first)
    server = yard.serve(first, "--canary", "0.1")
    second = yard.keep(fails_beyond(20.0))

    def canary() -> None:
        yard.point(second, "challenger")
        until(lambda: yard.now("challenger").model.digest == first.digest)

    answers = asyncio.run(under_load(server, canary, 50.0))
    assert server.stop() == 0, server.said
    assert "not answered as they should" in yard.now("challenger").reason
    # Who was not answered had met the canary, and after it nobody was any more.
    failed = [at for at, (status, *_) in enumerate(answers) if status != 200]
    assert failed
    assert {version for status, version, *_ in answers if status == 200} == {first.digest[:12]}
    assert {status for status, *_ in answers[-200:]} == {200}


@pytest.mark.slow
def test_champion_that_errs_goes_back_under_load(yard: Yard) -> None:
    first, second = yard.keep(times(1.0)), yard.keep(fails_beyond(20.0))
    yard.point(first)
    server = yard.serve(first, "--processes", "2")

    def deploy() -> None:
        yard.point(second)
        until(lambda: yard.now("champion").model.digest == first.digest)

    answers = asyncio.run(under_load(server, deploy, 50.0))
    assert server.stop() == 0, server.said
    assert "not answered as they should" in yard.now("champion").reason
    assert any(status != 200 for status, *_ in answers)
    assert {version for status, version, *_ in answers if status == 200} == {first.digest[:12]}
    assert {status for status, *_ in answers[-200:]} == {200}


@pytest.mark.slow
def test_swaps_under_load_lose_nothing(yard: Yard) -> None:
    models = [yard.keep(times(float(factor))) for factor in range(1, 9)]
    says = {model.digest[:12]: 2.0 * factor for factor, model in enumerate(models, 1)}
    yard.point(models[0])
    server = yard.serve(models[0])
    answers: list[tuple[int, str, str, float]] = []

    async def swap(until: float) -> None:
        at = 0
        while time.monotonic() < until - 1:
            at += 1
            model = models[at % len(models)]
            await asyncio.to_thread(yard.point, model)
            while time.monotonic() < until and (not answers or answers[-1][1] != model.digest[:12]):
                await asyncio.sleep(0.01)

    async def load() -> None:
        until = time.monotonic() + SECONDS
        await asyncio.gather(swap(until), *(caller(server, until, answers) for _ in range(CONNECTIONS)))

    asyncio.run(load())
    assert server.stop() == 0, server.said
    assert Counter(status for status, *_ in answers) == {200: len(answers)}
    assert not [one for one in answers if says[one[1]] != one[3]]
    # Several versions answered, and what was answered is what was logged.
    assert len({version for _, version, *_ in answers}) >= 4
    with closing(sqlite3.connect(server.log)) as db:
        assert ids_of(db) == {one for _, _, one, _ in answers}
