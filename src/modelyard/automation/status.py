"""How a project stands: its daemons, what is served, the runs, what waits, what comes next and what failed."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.processes import born, family, proportional, resident, spent
from modelyard.automation.board import Row, board, remembered
from modelyard.automation.served import Served, served
from modelyard.automation.state import Seen, daemons
from modelyard.deploy.promotion import Standing, standing
from modelyard.deploy.running import running
from modelyard.deploy.switch import Off, Unloaded, switched_off, unloaded
from modelyard.records import Fire, Plan, Run
from modelyard.spec import Spec
from modelyard.store import Store
from modelyard.store.local import settle

__all__ = ["Load", "Now", "Status", "load_of", "loads", "status"]

_FAILURES = 3
_RUNS = 5
_FIRST = 10


class Load(msgspec.Struct, frozen=True):
    """What a process and those below it use.

    Attributes:
        memory: Bytes, with shared pages counted in part to each who shares them where the system tells, else in whole.
        cpu_seconds: CPU time since they began.
        processes: How many there are.
    """

    memory: int
    cpu_seconds: float
    processes: int


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """The run that is under way.

    Attributes:
        run: Its id.
        started: When it began, seconds since 1970 UTC.
        actor: Who asked for it.
        trigger: Name of the trigger; empty: a person ran it.
        steps: Names of the steps under way.
        done: Steps that have ended.
        total: Steps of its plan; 0: not known.
        host: Machine that it runs on.
        pid: Process there.
    """

    run: str
    started: float = 0.0
    actor: str = ""
    trigger: str = ""
    steps: tuple[str, ...] = ()
    done: int = 0
    total: int = 0
    host: str = ""
    pid: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a project stands.

    Attributes:
        project: Its name.
        time: Of this look, seconds since 1970 UTC.
        daemons: The daemons on its store, on whichever machine; `lost` if the process died.
        served: Where the aliases of its endpoints point.
        stages: The stages that are declared, what answers there and what waits to enter.
        servers: Endpoint -> processes on this machine that serve it beside the daemons, e.g. of `modelyard serve`.
        run: The run under way.
        runs: The newest runs, newest first, whatever came of them.
        queued: How many fires wait.
        queue: The first of them.
        next: Triggers whose next fire is known, soonest first.
        off: Endpoints that are switched off.
        unloaded: Endpoints whose model is unloaded.
        failing: Triggers whose looks fail.
        failures: The newest runs that failed, newest first.
        problem: Why the declaration cannot be read; empty: it can.
    """

    project: str
    time: float
    daemons: tuple[Seen, ...] = ()
    served: tuple[Served, ...] = ()
    stages: tuple[Standing, ...] = ()
    servers: dict[str, tuple[int, ...]] = {}
    run: Now | None = None
    runs: tuple[Run, ...] = ()
    queued: int = 0
    queue: tuple[Fire, ...] = ()
    next: tuple[Row, ...] = ()
    off: tuple[Off, ...] = ()
    unloaded: tuple[Unloaded, ...] = ()
    failing: tuple[Row, ...] = ()
    failures: tuple[Run, ...] = ()
    problem: str = ""


def status(spec: Spec | None, store: Store, *, problem: str = "", clock: Clock = system_clock) -> Status:
    """Return how a project stands, as anybody can see it from outside its daemons.

    Args:
        spec: The declaration; none where it cannot be read, and what the ledger knows has to do.
        store: Its store.
        problem: Why the declaration cannot be read.
        clock: Source of the time.
    """
    now = clock()
    rows = board(spec, store, clock=clock) if spec else remembered(store, clock=clock)
    newest = store.ledger.runs(limit=1)
    waiting = store.ledger.fires(states=("queued",))
    runs = [settle(run, store) for run in store.ledger.runs()]
    ups = tuple(daemons(store, time.time()))
    models = tuple(served(store))
    return Status(
        project=spec.project if spec else (newest[0].project if newest else store.root.name),
        problem=problem,
        time=now,
        daemons=ups,
        served=models,
        stages=standing(store),
        servers=_servers(store, models, {seen.pid for seen in ups}),
        run=_now(store),
        runs=tuple(runs[:_RUNS]),
        queued=len(waiting),
        queue=tuple(waiting[:_FIRST]),
        next=tuple(sorted((row for row in rows if row.next), key=lambda row: row.next)),
        off=switched_off(store),
        unloaded=unloaded(store),
        failing=tuple(row for row in rows if row.error),
        failures=tuple(run for run in runs if run.status in ("failed", "interrupted"))[:_FAILURES],
    )


def loads(seen: Seen) -> dict[str, Load]:
    """Return what the processes of a daemon in this folder use: `daemon` for all of it, and each child by its name."""
    if seen.here is None or seen.status == "lost":
        return {}
    pids = {"daemon": seen.pid, **{child.name: child.pid for child in seen.here.children if child.pid}}
    return {name: load_of(pid) for name, pid in pids.items() if born(pid)}


def load_of(pid: int) -> Load:
    """Return what a process and all below it use."""
    tree = [pid, *family(pid)]
    return Load(proportional(tree) or resident(tree), spent(tree)[0], len(tree))


def _servers(store: Store, models: Iterable[Served], daemons: Collection[int]) -> dict[str, tuple[int, ...]]:
    found = {to.endpoint: [pid for pid in running(store.root, to.endpoint) if pid not in daemons] for to in models}
    return {endpoint: tuple(pids) for endpoint, pids in found.items() if pids}


def _now(store: Store) -> Now | None:
    who = store.holder("run")
    if who is None or "run" not in who:
        return None
    place: dict[str, Any] = {"host": who.get("host", ""), "pid": who.get("pid", 0)}
    run = store.ledger.run(who["run"])
    if run is None:
        return Now(run=who["run"], started=who.get("since", 0.0), **place)
    fire = store.ledger.fire(run.fire) if run.fire else None
    return Now(
        run=run.id,
        started=run.started,
        actor=run.actor,
        trigger=fire.trigger if fire else "",
        steps=tuple(step.name for step in run.steps if step.status == "running"),
        done=sum(step.status != "running" for step in run.steps),
        total=_total(run, store),
        **place,
    )


def _total(run: Run, store: Store) -> int:
    if not run.plan:
        return 0
    return len(msgspec.json.decode(store.blobs.get(run.plan), type=Plan).steps)
