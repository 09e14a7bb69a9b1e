"""Test what an endpoint holds: start a server of it or take one at an address, find the knee, soak, record."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard._kit.errors import ModelyardError, UserError
from modelyard.automation.trial import served
from modelyard.checks.capacity import capacity
from modelyard.checks.slope import growth
from modelyard.deploy.section import Deploy
from modelyard.pipeline.machine import cores
from modelyard.records import CheckResult, Deployment, Draft, Evidence, plain
from modelyard.serving.load.client import Client
from modelyard.serving.load.knee import Knee, find, idle, starting_rate
from modelyard.serving.load.measured import Measured
from modelyard.serving.load.probe import probe
from modelyard.serving.load.requests import encoded
from modelyard.serving.load.watched import Watched
from modelyard.store.base import Store

__all__ = ["Order", "Tested", "last_of", "measure", "record", "told", "why_not_compared"]

# Without a limit for the slowest of a hundred: so many times what it is while nearly nothing is asked, at least this.
_TIMES, _LEAST_P99 = 5, 0.01
# Share of the knee that a soak holds.
_SOAK = 0.6
# Before a soak that no search went before: so many times its rate for some seconds, and as many requests for each
# connection at once.
_WARM_TIMES, _WARM_SECONDS, _AT_ONCE = 10, 5.0, 2
_METHOD = "open-loop Poisson arrivals, latency from the planned arrival; doubled at a glance, then bisected"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be tested, and how.

    Attributes:
        host: Host of a server that runs; empty: one is started.
        port: Its port.
        token: Token for it.
        p99: Seconds for 99 of 100 answers; 0: of the last test, or from an idle server.
        errors: Share of the requests that may stay without a 200.
        at_least: Requests a second that it has to hold.
        share: Share of the last knee that it has to hold.
        seconds: Time for the search.
        most: Highest rate.
        rate: The only rate; 0: the knee is searched.
        soak: Seconds for which a rate is held then.
        batch: Rows a request.
        connections: Connections at most.
        processes: Processes of a server that is started.
        seed: Seed of the arrivals.
        as_caller: A server at an address may keep the requests as those of a caller.
    """

    host: str = ""
    port: int = 0
    token: str = ""
    p99: float = 0.0
    errors: float = 0.01
    at_least: float | None = None
    share: float | None = None
    seconds: float = 60.0
    most: float = 100_000.0
    rate: float = 0.0
    soak: float = 0.0
    batch: int = 1
    connections: int = 64
    processes: int = 1
    seed: int = 0
    as_caller: bool = False

    def like(self) -> dict[str, Any]:
        """Return what has to be the same for two knees to be compared, but for the limit that counted."""
        return {
            "machine": platform.node(),
            "cores": cores(),
            "target": f"{self.host}:{self.port}" if self.host else "own server",
            "errors": self.errors,
            "batch": self.batch,
            "processes": self.processes,
            "connections": self.connections,
        }


@dataclass(frozen=True, slots=True)
class Tested:
    """What came out.

    Attributes:
        knee: The knee and the steps to it; of a single rate that rate.
        p99: Seconds for 99 of 100 answers that counted.
        results: The same as results of checks.
    """

    knee: Knee
    p99: float
    results: Sequence[CheckResult]


class _Asked:
    """A server that is asked, and its processes where they are known."""

    def __init__(self, client: Client, watched: Watched | None, seed: int, tell: Callable[[Measured], None]) -> None:
        self._client = client
        self._seed = seed
        self._tell = tell
        self.watched = watched

    async def offer(self, rate: float, seconds: float) -> Measured:
        """Offer a rate, and add what CPU the server took."""
        self._seed += 1
        before = self.watched.cpu() if self.watched else 0.0
        found = await self._client.offer(rate, seconds, seed=self._seed)
        if self.watched and found.sent:
            cpu = (self.watched.cpu() - before) / found.sent * 1e6
            found = msgspec.structs.replace(found, cpu_us=cpu)
        self._tell(found)
        return found


async def measure(
    order: Order,
    store: Store,
    deployment: Deployment,
    rows: Sequence[Mapping[str, Any]],
    *,
    declared: Deploy | None = None,
    tell: Callable[[Measured], None] = lambda found: None,
) -> Tested:
    """Find the knee of an endpoint, then hold a rate below it.

    Args:
        order: What is to be tested, and how.
        store: Store that holds the bundle, and what was measured before.
        deployment: What is served.
        rows: Rows to send, in turns.
        declared: The section of the file.
        tell: Is told of each step.

    Raises:
        ModelyardError: Nothing is answered (`loadtest-unanswered`), or the server does not start.
        UserError: A server at an address would keep the requests as those of a caller (`loadtest-as-caller`).
    """
    last, last_p99 = last_of(store, deployment.endpoint, order)
    async with _asked(order, store, deployment, rows, declared, tell) as asked:
        calm = await idle(asked.offer)
        if calm.p50 is None or calm.p99 is None:
            raise _unanswered(", ".join(calm.errors))
        p99 = order.p99 or last_p99 or max(_TIMES * calm.p99, _LEAST_P99)
        if order.rate:
            only = await asked.offer(order.rate, order.seconds)
            good = only.holds(p99, order.errors)
            short = not good and only.short_of_connections(calm.served or 0.0)
            limited = "connections" if short else "most"
            knee = Knee(at=only if good else None, beyond=None, limited=limited, steps=(only,))
        else:
            first = starting_rate(calm.p50)
            knee = await find(
                asked.offer, first=first, p99=p99, errors=order.errors, seconds=order.seconds, most=order.most
            )
        results = [_judged(order, knee, p99, last)]
        if order.soak and knee.at is not None:
            if order.rate:
                await _warm(asked, order)
            results.append(await _soak(asked, order.rate or _SOAK * knee.at.rate, order.soak))
    model = deployment.model.digest
    stamped = (msgspec.structs.replace(r.evidence, model=model) for r in results)
    return Tested(knee, p99, [msgspec.structs.replace(r, evidence=e) for r, e in zip(results, stamped, strict=True)])


def told(deployment: Deployment, order: Order, tested: Tested) -> dict[str, Any]:
    """Return what came out as plain JSON."""
    return {
        "endpoint": deployment.endpoint,
        "model": deployment.model.digest,
        "like": {**order.like(), "p99": tested.p99},
        "results": [plain(result) for result in tested.results],
    }


def record(store: Store, payload: dict[str, Any], *, actor: str) -> None:
    """Write what came out to the ledger."""
    store.ledger.append(Draft(kind="loadtest.finished", actor=actor, payload=payload))


def last_of(store: Store, endpoint: str, order: Order) -> tuple[float | None, float]:
    """Return the last knee that may be compared and its limit; none, and the last limit or 0, where there is none."""
    like = order.like()
    for event in reversed(list(store.ledger.events(kinds=("loadtest.finished",)))):
        payload = event.payload
        then = dict(payload["like"])
        limit = then.pop("p99")
        if payload["endpoint"] != endpoint or then != like or (order.p99 and limit != order.p99):
            continue
        for result in payload["results"]:
            found = result["evidence"]
            if found["measure"] == "knee" and found["value"] is not None:
                return found["value"], limit
    return None, 0.0


def why_not_compared(store: Store, endpoint: str, order: Order) -> str:
    """Return why no earlier test of an endpoint may be compared with one by this order; empty where one may."""
    if last_of(store, endpoint, order)[0] is not None:
        return ""
    before = [e.payload for e in store.ledger.events(kinds=("loadtest.finished",)) if e.payload["endpoint"] == endpoint]
    found = [p["like"] for p in before if any(r["evidence"]["measure"] == "knee" for r in p["results"])]
    if not found:
        return f"there is nothing to compare with yet: no test of `{endpoint}` has searched for the knee before"
    then, now = found[-1], order.like()
    other = [f"{name} {then.get(name)} (now {value})" for name, value in now.items() if then.get(name) != value]
    if order.p99 and then["p99"] != order.p99:
        other.append(f"p99 {then['p99']:g} s (now {order.p99:g} s)")
    what = f"had another {', another '.join(other)}" if other else "held no rate"
    return f"there is nothing to compare with yet: the last test of `{endpoint}` {what}"


@asynccontextmanager
async def _asked(
    order: Order,
    store: Store,
    deployment: Deployment,
    rows: Sequence[Mapping[str, Any]],
    declared: Deploy | None,
    tell: Callable[[Measured], None],
) -> AsyncIterator[_Asked]:
    """Give the server that is asked: a new one, or the one at the address."""
    async with AsyncExitStack() as held:
        host, port, token, watched = order.host, order.port, order.token, None
        if not host:
            trial = await held.enter_async_context(
                served(store, deployment, declared=declared, processes=order.processes)
            )
            host, port, token, watched = "127.0.0.1", trial.port, trial.token, Watched(trial.pid)
        requests = encoded(rows, host=f"{host}:{port}", token=token, batch=order.batch)
        if watched is None:
            await _check_told_apart(order, requests[0])
        client = Client(host, port, requests, connections=order.connections)
        held.callback(client.close)
        yield _Asked(client, watched, order.seed, tell)


async def _check_told_apart(order: Order, request: bytes) -> None:
    """See, before it is loaded, whether a server keeps the requests as those of a load test."""
    status, told_apart = await probe(order.host, order.port, request)
    if status != 200:
        raise _unanswered(str(status) if status else "connection")
    if not told_apart and not order.as_caller:
        raise UserError(
            "loadtest-as-caller",
            f"`{order.host}:{order.port}` keeps these requests as those of a caller, and `modelyard watch` would count "
            "them",
            hint="put an operator's token into MODELYARD_TOKEN, or say that it may: --as-caller",
        )


def _unanswered(codes: str) -> ModelyardError:
    return ModelyardError(
        "loadtest-unanswered",
        f"nothing was answered with 200: {codes}",
        hint="401, 403: MODELYARD_TOKEN holds no token that may ask; 422: other rows with --rows; "
        "connection: nobody listens",
    )


def _judged(order: Order, knee: Knee, p99: float, last: float | None) -> CheckResult:
    details: dict[str, Any] = msgspec.to_builtins(knee)
    evidence = Evidence(
        # A rate that was not searched is no knee, and nothing is compared with it.
        measure="rate" if order.rate else "knee",
        value=knee.at.rate if knee.at else None,
        unit="1/s",
        n=sum(step.sent for step in knee.steps),
        seed=order.seed,
        method=_METHOD,
        details={**details, "p99_limit": p99, "errors_limit": order.errors},
        volatile=True,
    )
    if order.rate:
        return capacity(evidence, at_least=order.at_least, name="load.rate")
    return capacity(evidence, at_least=order.at_least, share=order.share, last=last)


async def _warm(asked: _Asked, order: Order) -> None:
    """Ask as a search does: what a server takes for a crowd, and for its log, the first time is no leak."""
    await asked.offer(_WARM_TIMES * order.rate, _WARM_SECONDS)
    moment = 0.001
    await asked.offer(_AT_ONCE * order.connections / moment, moment)


async def _soak(asked: _Asked, rate: float, seconds: float) -> CheckResult:
    """Hold a rate while the memory of the server is looked at."""
    assert asked.watched is not None  # noqa: S101 - whoever gives an address may not ask for it
    sampling = asyncio.create_task(asked.watched.sample(seconds))
    try:
        held = await asked.offer(rate, seconds)
        times, sizes = await sampling
    finally:
        sampling.cancel()
    return growth(times, sizes, requests=held.answered)
