"""The load: arrivals that nothing changes, a knee that is where it is known to be, a leak that is found."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.checks.profile import profile
from modelyard.checks.slope import growth, slope
from modelyard.serving.load.client import Client, arrivals
from modelyard.serving.load.knee import find, idle, starting_rate
from modelyard.serving.load.measured import Measured, quantiles
from modelyard.serving.load.requests import drawn, encoded
from modelyard.serving.load.watched import Watched

from .conftest import MIXED, mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name

REQUEST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


def test_arrivals_are_a_poisson_process() -> None:
    moments = arrivals(1000.0, 20.0, seed=1)
    assert moments == arrivals(1000.0, 20.0, seed=1)
    assert moments != arrivals(1000.0, 20.0, seed=2)
    # Five standard deviations.
    assert abs(len(moments) - 20_000) < 5 * 20_000**0.5
    assert moments[0] > 0
    assert moments[-1] < 20
    gaps = np.diff(moments)
    assert gaps.min() >= 0
    # Of an exponential distribution, mean and deviation are the same.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_rows_are_drawn_as_the_columns_were() -> None:
    rng = random.Random(3)  # noqa: S311 - rows, no secret
    cities = ["paris"] * 90 + ["rome"] * 9 + [None]
    table: dict[str, list[Any]] = {
        "age": [rng.choice([20, 30, 40]) for _ in range(100)],
        "city": cities,
        "income": [rng.uniform(100, 900) if at % 4 else None for at in range(100)],
    }
    rows = drawn(MIXED, profile(table, MIXED), 4000, seed=1)
    assert rows == drawn(MIXED, profile(table, MIXED), 4000, seed=1)
    assert {row["age"] for row in rows} == {20, 30, 40}
    assert all(type(row["age"]) is int for row in rows)
    counted = Counter(row["city"] for row in rows)
    assert counted["paris"] / 4000 == pytest.approx(0.9, abs=0.05)
    assert sum(row["income"] is None for row in rows) / 4000 == pytest.approx(0.25, abs=0.05)
    assert all(100 <= row["income"] <= 900 for row in rows if row["income"] is not None)


def test_rows_without_a_profile_come_from_the_signature() -> None:
    rows = drawn(mixed_bundle().version.signature, {}, 500, seed=1)
    assert {row["city"] for row in rows} == {"paris", "rome"}
    ages = [row["age"] for row in rows]
    assert min(ages) >= 18
    assert max(ages) <= 90
    assert len(set(ages)) > 50


def test_requests_hold_rows_and_token() -> None:
    made = encoded([{"a": 1}, {"a": 2}, {"a": 3}], host="h:1", token="secret", batch=2)
    head, body = made[0].split(b"\r\n\r\n")
    assert b"authorization: Bearer secret" in head
    assert b"content-length: %d" % len(body) in head
    # By this the server tells them from the requests of callers.
    assert b"x-load-test: " in head
    assert [json.loads(one.split(b"\r\n\r\n")[1]) for one in made] == [
        {"rows": [{"a": 1}, {"a": 2}]},
        {"rows": [{"a": 3}]},
    ]


async def with_server(
    answer: Callable[[asyncio.StreamWriter, int], Awaitable[None]], work: Any, **settings: Any
) -> Any:
    """Serve what answers request number n, and give the work a client of it."""
    count = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while await reader.readuntil(b"{}"):
                count += 1
                await answer(writer, count)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    client = Client("127.0.0.1", server.sockets[0].getsockname()[1], [REQUEST], **settings)
    try:
        return await work(client)
    finally:
        client.close()
        server.close()
        await asyncio.sleep(0)


async def ok(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


def test_every_request_is_accounted_for() -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number % 10 == 0:
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n")
        elif number % 10 == 5:
            writer.close()
        else:
            await ok(writer, number)

    kept: list[tuple[int, int, bytes]] = []

    async def work(client: Client) -> Measured:
        return await client.offer(500.0, 0.4, seed=1)

    found = asyncio.run(with_server(answer, work, keep=lambda *one: kept.append(one)))
    assert found.sent == len(arrivals(500.0, 0.4, seed=1))
    assert found.answered + sum(found.errors.values()) == found.sent
    assert set(found.errors) == {"429", "connection"}
    assert found.errors["429"] == sum(status == 429 for _, status, _ in kept)
    assert all(b"retry-after: 1" in raw for _, status, raw in kept if status == 429)


def test_server_that_stalls_cannot_hide_it() -> None:
    """One answer in the middle takes 0.3 s: all that were due meanwhile waited as well, and the figures say so."""

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 50:
            await asyncio.sleep(0.3)
        await ok(writer, number)

    async def work(client: Client) -> Measured:
        return await client.offer(200.0, 1.0, seed=2)

    found = asyncio.run(with_server(answer, work, connections=1))
    assert found.errors == {}
    # A closed loop would see one slow answer of two hundred, which no p90 shows.
    assert found.p90 > 0.1
    assert found.slowest >= 0.3


def test_what_is_never_answered_is_an_error_and_no_latency() -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number % 2:
            await ok(writer, number)

    async def work(client: Client) -> tuple[Measured, Measured]:
        return await client.offer(100.0, 0.2, seed=1), await client.offer(100.0, 0.2, seed=1)

    for found in asyncio.run(with_server(answer, work, patience=0.1)):
        assert found.errors["timeout"] >= found.sent // 4
        assert found.answered + found.errors["timeout"] == found.sent


@pytest.mark.parametrize("turns", range(6))
def test_who_is_stopped_in_the_moment_of_the_last_answer_stops(turns: int) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        pass

    async def work(client: Client) -> bool:
        asking = asyncio.create_task(client.offer(100.0, 0.2, seed=1))
        await asyncio.sleep(0.05)
        client._ended.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return asking.cancelled() or not cancelled

    assert asyncio.run(with_server(answer, work, patience=5.0))


def test_nobody_listens() -> None:
    async def work() -> Measured:
        client = Client("127.0.0.1", 1, [REQUEST])
        return await client.offer(100.0, 0.1, seed=1)

    found = asyncio.run(work())
    assert found.errors == {"connection": found.sent}
    assert found.p99 is None


def server_of(capacity: float, tried: list[float]) -> Any:
    """A server whose slowest of a hundred takes ever longer up to its capacity, and beyond it for ever."""

    async def offer(rate: float, seconds: float) -> Measured:
        tried.append(rate)
        share = rate / capacity
        p99 = 0.001 / (1 - share) if share < 1 else 10.0
        return Measured(rate=rate, seconds=seconds, sent=100, answered=100, errors={}, p50=p99 / 2, p99=p99)

    return offer


@pytest.mark.parametrize("capacity", [7.0, 130.0, 90_000.0])
def test_knee_is_found(capacity: float) -> None:
    tried: list[float] = []
    knee = asyncio.run(find(server_of(capacity, tried), first=100, p99=0.02, errors=0.01, seconds=60))
    # There 99 of 100 take 20 ms.
    assert knee.at is not None
    assert knee.at.rate == pytest.approx(0.95 * capacity, rel=0.05)
    assert knee.at.rate <= 0.95 * capacity < knee.beyond
    assert not knee.limited
    assert [step.rate for step in knee.steps] == tried


class Slow:
    """A server that takes so many seconds for each answer, one after the other, and a clock that its steps move on.

    Args:
        takes: Seconds an answer.
        hiccups: Numbers of the steps in which something else makes a few answers late.
    """

    def __init__(self, takes: float, hiccups: Collection[int] = ()) -> None:
        self.now = 0.0
        self.tried: list[tuple[float, float]] = []
        self._takes = takes
        self._hiccups = hiccups

    def clock(self) -> float:
        return self.now

    async def offer(self, rate: float, seconds: float) -> Measured:
        self.now += seconds
        sent = round(rate * seconds)
        share = rate * self._takes
        # M/D/1 for what the queue is on average; beyond its capacity it grows until the end of the step.
        queue = share / 2 / (1 - share) if share < 0.99 else 50.0
        each = self._takes * (1 + np.random.default_rng(len(self.tried)).exponential(queue, sent))
        each += max(0.0, share - 1) * np.linspace(0, seconds, sent)
        if len(self.tried) in self._hiccups:
            each[: 1 + sent // 20] += 1.0
        self.tried.append((rate, seconds))
        found = quantiles(array("d", each))
        return Measured(rate=rate, seconds=seconds, sent=sent, answered=sent, errors={}, **found)


@pytest.mark.parametrize(
    ("takes", "least"), [(0.005, 0.75), (0.01, 0.75), (0.02, 0.5), (0.05, 0.5)], ids=["5ms", "10ms", "20ms", "50ms"]
)
@pytest.mark.parametrize("hiccups", [(), (1, 4), (0,)], ids=["calm", "hiccups", "hiccup-first"])
def test_knee_of_a_slow_server_is_not_missed_for_want_of_time(
    takes: float, least: float, hiccups: tuple[int, ...]
) -> None:
    slow = Slow(takes, hiccups)
    limit = max(10 * takes, 0.01)
    first = starting_rate(1.1 * takes)
    knee = asyncio.run(find(slow.offer, first=first, p99=limit, errors=0.01, seconds=60, clock=slow.clock))
    assert knee.at is not None
    assert knee.at.rate * takes >= least
    # It is no guess: so many requests were asked at the rate that is told.
    assert knee.at.sent >= 200 or knee.at.seconds >= 10
    assert knee.beyond is not None
    assert knee.beyond * takes <= 1.5
    assert slow.now <= 75


@pytest.mark.parametrize("takes", [0.0002, 0.005, 0.05, 0.3])
def test_little_is_asked_of_a_server_that_should_be_idle(takes: float) -> None:
    """What it takes then is what limits are made from: it must not be the time for which requests waited."""
    slow = Slow(takes)
    found = asyncio.run(idle(slow.offer))
    assert found.rate * takes <= 0.5
    assert found.rate <= 50
    assert found.sent >= 8
    assert found.p50 == pytest.approx(takes, rel=0.5)
    assert slow.now <= 10


@pytest.mark.parametrize("seconds", [5, 20])
def test_search_that_has_little_time_says_what_held(seconds: int) -> None:
    """Nine times to be doubled, and a limit that takes a while to be broken: there is time for a last word still."""
    slow = Slow(0.00005)
    knee = asyncio.run(find(slow.offer, first=30, p99=0.3, errors=0.01, seconds=seconds, clock=slow.clock))
    assert knee.at is not None
    assert 0.2 < knee.at.rate * 0.00005 < 1
    assert slow.now <= 1.5 * seconds


def test_a_glance_decides_nothing() -> None:
    """What holds for a moment only is no knee: beyond 100 a second nothing does for longer than a second."""

    async def offer(rate: float, seconds: float) -> Measured:
        late = rate > 800 or (rate > 100 and seconds > 1)
        p99 = 1.0 if late else 0.001
        sent = round(rate * seconds)
        return Measured(rate=rate, seconds=seconds, sent=sent, answered=sent, errors={}, p50=p99, p90=p99, p99=p99)

    knee = asyncio.run(find(offer, first=10, p99=0.02, errors=0.01, seconds=60))
    assert knee.at is not None
    assert knee.at.rate == pytest.approx(100, rel=0.05)
    assert knee.at.sent >= 200


def test_highest_rate_and_busy_client_end_the_search() -> None:
    knee = asyncio.run(find(server_of(1e9, []), first=100, p99=0.02, errors=0.01, seconds=60, most=5000))
    assert knee.at.rate == 5000
    assert knee.limited == "most"

    async def offer(rate: float, seconds: float) -> Measured:
        p99 = 0.001 if rate < 1000 else 1.0
        client = min(1.0, rate / 1000)
        return Measured(rate=rate, seconds=seconds, sent=9, answered=9, errors={}, p50=0.001, p99=p99, client=client)

    knee = asyncio.run(find(offer, first=100, p99=0.02, errors=0.01, seconds=60))
    assert knee.limited == "client"


@pytest.mark.parametrize(("parallel", "limited"), [(True, "connections"), (False, "")])
def test_knee_of_the_connections_is_not_that_of_the_server(parallel: bool, limited: str) -> None:
    """On 8 connections at most 80 a second get an answer that takes 100 ms, however many the server could give."""

    async def offer(rate: float, seconds: float) -> Measured:
        over = rate > 75
        # A server that does one after the other lets those that it has wait for each other.
        served = 0.1 if parallel or not over else 0.8
        p99 = 1.0 if over else 0.12
        waited = 500 if over else 0
        return Measured(
            rate=rate,
            seconds=seconds,
            sent=999,
            answered=999,
            errors={},
            p50=0.1,
            p99=p99,
            served=served,
            waited=waited,
        )

    knee = asyncio.run(find(offer, first=5, p99=0.2, errors=0.01, seconds=60))
    assert knee.at is not None
    assert knee.at.rate == pytest.approx(75, rel=0.05)
    assert knee.limited == limited


@pytest.mark.parametrize("parallel", [True, False])
def test_waiting_for_a_connection_is_told_from_waiting_for_the_server(parallel: bool) -> None:
    one = asyncio.Lock()

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if parallel:
            await asyncio.sleep(0.02)
        else:
            async with one:
                await asyncio.sleep(0.02)
        await ok(writer, number)

    async def work(client: Client) -> tuple[Measured, Measured]:
        return await client.offer(10.0, 0.3, seed=1), await client.offer(1000.0, 0.2, seed=1)

    idle, found = asyncio.run(with_server(answer, work, connections=4, patience=0.2))
    assert idle.waited == 0
    assert found.waited > found.sent / 2
    assert found.short_of_connections(idle.served) is parallel
    assert not idle.short_of_connections(idle.served)


def test_one_bad_moment_decides_nothing() -> None:
    again = iter([True, False] * 200)

    async def offer(rate: float, seconds: float) -> Measured:
        p99 = 1.0 if next(again) or rate > 1000 else 0.001
        return Measured(rate=rate, seconds=seconds, sent=9, answered=9, errors={}, p50=0.001, p99=p99)

    knee = asyncio.run(find(offer, first=100, p99=0.02, errors=0.01, seconds=60))
    assert knee.at.rate > 900


def test_rate_that_errs_does_not_hold() -> None:
    found = Measured(rate=1, seconds=1, sent=100, answered=98, errors={"500": 2}, p99=0.001)
    assert found.holds(0.01, 0.02)
    assert not found.holds(0.01, 0.01)
    assert not found.holds(0.0001, 0.02)
    assert not Measured(rate=1, seconds=1, sent=0, answered=0, errors={}).holds(1, 1)


def test_slope_is_that_of_the_line_whatever_some_points_do() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(60.0)
    values = 3.0 * times + rng.normal(size=60)
    values[::6] += 500
    value, interval = slope(times, values)
    assert value == pytest.approx(3.0, abs=0.1)
    assert interval.low < value < interval.high


TIMES = np.arange(0, 60, 0.25)


def wandering(rng: np.random.Generator, size: float) -> np.ndarray:
    """Memory that comes and goes: a random walk without a drift, `size` its deviation at the end."""
    return np.cumsum(rng.normal(0, size / len(TIMES) ** 0.5, len(TIMES)))


def stepping(rng: np.random.Generator, count: int) -> np.ndarray:
    """Memory that an allocator takes late: steps of 256 to 512 kB after the caches are full."""
    sizes = np.zeros(len(TIMES))
    for _ in range(count):
        sizes[rng.integers(len(TIMES) // 5, len(TIMES)) :] += rng.uniform(256e3, 512e3)
    return sizes


def leaking(mib: float) -> np.ndarray:
    """Memory that grows by so much in the part of the time that is looked at."""
    return mib * 2**20 * TIMES / (0.8 * TIMES[-1])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("leaks", "passes", "make"),
    [
        ((0, 0), (100, 100), lambda rng: 0.0),
        ((0, 0), (100, 100), lambda rng: wandering(rng, 0.3e6)),
        ((0, 3), (20, 60), lambda rng: wandering(rng, 1.3e6)),
        ((0, 0), (100, 100), lambda rng: stepping(rng, 1)),
        ((0, 0), (0, 5), lambda rng: stepping(rng, 4)),
        ((0, 0), (100, 100), lambda rng: leaking(1)),
        ((99, 100), (0, 0), lambda rng: leaking(2.2)),
        ((99, 100), (0, 0), lambda rng: np.floor(leaking(3) / 2**18) * 2**18),
        ((80, 100), (0, 1), lambda rng: leaking(6) + wandering(rng, 1.3e6)),
        ((5, 50), (0, 3), lambda rng: leaking(3) + wandering(rng, 1.3e6)),
    ],
    ids=["flat", "walk", "long-walk", "step", "steps", "less", "leak", "in-steps", "in-walk", "slow-in-walk"],
)
def test_of_a_hundred_runs_so_many_leak_and_pass(
    leaks: tuple[int, int], passes: tuple[int, int], make: Callable[[Any], Any]
) -> None:
    """What `growth` says of itself: false alarms, the smallest leak that it finds, and that it lets none pass."""
    found: Counter[str] = Counter()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sizes = 8e7 + make(rng) + rng.normal(0, 20_000, len(TIMES))
        found[growth(TIMES, sizes).status] += 1
    assert leaks[0] <= found["failed"] <= leaks[1], found
    assert passes[0] <= found["passed"] <= passes[1], found
    assert set(found) <= {"failed", "passed", "insufficient"}


@pytest.mark.parametrize("noise", [0.0, 20_000.0, 200_000.0])
@pytest.mark.parametrize("walk", [0.0, 0.3e6, 1.3e6])
def test_noise_is_not_told_as_growth(noise: float, walk: float) -> None:
    """Memory that wanders without a drift: the interval of its slope holds zero as often as it says."""
    holds = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sizes = 8e7 + wandering(rng, walk) + rng.normal(0, noise, len(TIMES))
        between = growth(TIMES, sizes).evidence.interval
        assert between is not None
        holds += between.low <= 0 <= between.high
    # Of 95 in 100, three standard deviations less.
    assert holds >= 34


@pytest.mark.parametrize("seed", range(5))
def test_memory_that_grows_is_a_leak(seed: int) -> None:
    rng = np.random.default_rng(seed)
    result = growth(TIMES, 8e7 + 100_000 * TIMES + rng.normal(0, 50_000, len(TIMES)), requests=30_000)
    assert result.status == "failed"
    assert result.evidence.value == pytest.approx(6000, rel=0.1)
    assert re.match(r"memory leaks: it grows by [56],\d{3} kB a minute", result.reason)
    details = result.evidence.details
    # In the middle of the first span after the caches are full, and of the last.
    assert details["begins_bytes"] == pytest.approx(8e7 + 100_000 * 13.1, abs=70_000)
    assert details["ends_bytes"] == pytest.approx(8e7 + 100_000 * 58.8, abs=70_000)


def test_growth_that_is_no_leak_is_told_by_how_much() -> None:
    noise = np.random.default_rng(1).normal(0, 20_000, len(TIMES))
    grown = growth(TIMES, 8e7 + leaking(1) + noise)
    assert (grown.status, "memory grows by 1,3" in grown.reason) == ("passed", True), grown.reason
    flat = growth(TIMES, 8e7 + noise)
    assert flat.status == "passed"
    assert flat.reason.startswith("memory does not grow: ")
    assert flat.reason.endswith("which is zero within its noise")
    shrunk = growth(TIMES, 8e7 - leaking(8) + noise)
    assert (shrunk.status, shrunk.reason.startswith("memory does not grow: -")) == ("passed", True)
    # A leak of a byte a request is less than one of anything that a request could leave behind.
    assert growth(TIMES, 8e7 + leaking(8) + noise, requests=10_000_000).status == "passed"


def test_what_cannot_be_told_is_not_passed() -> None:
    """No leak is shown, and none is excluded: whoever wants to know has to look for longer."""
    noise = np.random.default_rng(1).normal(0, 20_000, len(TIMES))
    once = growth(TIMES, 8e7 + leaking(8).clip(0, leaking(8)[170]) + noise)
    assert (once.status, "not in both halves of the time" in once.reason) == ("insufficient", True), once.reason
    rng = np.random.default_rng(3)
    wild = growth(TIMES, 8e7 + wandering(rng, 5e6) + noise)
    assert wild.status == "insufficient", wild.reason
    assert re.search(r"between -[\d,]+ and [\d,]+ kB a minute.*look for longer", wild.reason), wild.reason


def test_a_server_that_was_warmed_up_is_judged_from_the_first_sample_on() -> None:
    sizes = np.full(len(TIMES), 8e7)
    sizes[: len(TIMES) // 5] -= 10e6
    assert growth(TIMES, sizes).evidence.value == 0
    whole = growth(TIMES, sizes, settle=0.0)
    assert whole.evidence.details["begins_bytes"] == 7e7
    assert whole.status != "passed"


def test_few_samples_tell_nothing() -> None:
    assert growth([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]).status == "insufficient"


@pytest.fixture
def stub() -> Iterator[Callable[[float, int], tuple[int, int]]]:
    """Start a stub, and return its port and its process."""
    started: list[subprocess.Popen[str]] = []

    def make(seconds: float, leak: int = 0) -> tuple[int, int]:
        command = [sys.executable, str(Path(__file__).with_name("stub.py")), str(seconds), str(leak)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        return int(started[-1].stdout.readline()), started[-1].pid

    yield make
    for process in started:
        process.kill()
        process.communicate(timeout=120)


@pytest.mark.slow
def test_known_capacity_is_found(stub: Callable[..., tuple[int, int]]) -> None:
    port, _ = stub(0.00125)

    async def work() -> Any:
        client = Client("127.0.0.1", port, [REQUEST], connections=256)
        try:
            return await find(client.offer, first=100, p99=0.1, errors=0.01, seconds=40)
        finally:
            client.close()

    knee = asyncio.run(work())
    # 800 a second, of which a p99 of 100 ms leaves 97 of 100.
    assert knee.at is not None
    assert knee.at.rate == pytest.approx(800, rel=0.15)


def soaked(port: int, pid: int) -> str:
    async def work() -> Any:
        client = Client("127.0.0.1", port, [REQUEST])
        sampling = asyncio.create_task(Watched(pid).sample(6.0, 0.05))
        try:
            await client.offer(400.0, 6.0, seed=1)
            return await sampling
        finally:
            client.close()

    return growth(*asyncio.run(work())).status


@pytest.mark.slow
def test_planted_leak_is_caught(stub: Callable[..., tuple[int, int]]) -> None:
    assert soaked(*stub(0.0001, 4096)) == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("time", range(5))
def test_server_that_keeps_nothing_passes(stub: Callable[..., tuple[int, int]], time: int) -> None:
    assert soaked(*stub(0.0001)) == "passed"
