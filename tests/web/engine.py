"""A project that runs by itself, with everything that can happen to it. `python tests/web/engine.py DIR` writes it."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard.automation.base import Wanted
from modelyard.automation.board import pause
from modelyard.automation.fires import ask, drop
from modelyard.automation.state import ChildState, DaemonState, TriggerState, publish
from modelyard.logs import logs_folder
from modelyard.logs.files import LogFiles
from modelyard.logs.line import Line
from modelyard.pipeline.capsule import keep
from modelyard.pipeline.execute import Failure, Task
from modelyard.records import Draft, Fire, Item, Plan, Resources, Step, Usage, plain
from modelyard.store.local import LocalStore

BEGAN = 1_794_880_000.0  # 2026-11-16
PRICES = {"currency": "EUR", "cpu_hour": 0.04, "gb_hour": 0.005, "gpu_hour": 2.5, "gb_read": 0.01, "gb_written": 0.01}
# A secret as a careless sender puts it into a delivery.
SECRET = "hunter2-very-secret"
BAD = "<script>alert(1)</script>"

DECLARED = """\
project: orders
purpose: Order parcels by how likely they come late.
owners:
  - {team: logistics}
data:
  parcels:
    from: data/*.csv
    contract:
      id: {type: int}
model:
  target: late
schedule:
  - {name: nightly, at: "0 3 * * *", zone: UTC, prices: prices.csv, finish_by: 8h, takes: 20m}
  - {name: weekly, at: "0 6 * * 1", zone: UTC, owner: finance}
triggers:
  arrivals: {files: data/in/*.csv, owner: warehouse}
  shop: {webhook: {secret: HOOK_SECRET}}
  stock: {sql: "sqlite:///stock.db", table: parcels, watch: rows, every: 1m}
  drifted: {drift: true}
cost:
  currency: EUR
  prices: {cpu_hour: 0.04, gb_hour: 0.005, gpu_hour: 2.5, gb_read: 0.01, gb_written: 0.01}
  per_run: 0.6
  per_month: 2.4
"""
TRACE = """\
Traceback (most recent call last):
  File "steps.py", line 31, in fit
    frame = fetch(url)
ConnectionError: connection refused
"""
# Step -> seconds, cores that it keeps busy, bytes that it holds.
STEPS = {
    "freshness": (0.2, 0.2, 40e6),
    "load.parcels": (14.0, 0.4, 410e6),
    "load.weather": (3.0, 0.3, 120e6),
    "join": (22.0, 0.9, 1.9e9),
    "fit": (610.0, 3.7, 3.4e9),
    "score": (18.0, 1.0, 900e6),
    "report": (4.0, 0.8, 200e6),
}


class Ticker:
    """A clock that moves only when it is told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Engine:
    """What was written.

    Attributes:
        store: The store.
        clock: Its clock, at the end of the story.
        runs: Name in the story -> id of the run.
        fires: Name in the story -> id of the fire.
    """

    store: LocalStore
    clock: Ticker
    runs: dict[str, str] = field(default_factory=dict)
    fires: dict[str, str] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Let go of what is held, and close the store."""
        self.held.close()
        self.store.close()


def plan() -> Plan:
    """Return the plan of every run."""
    asked = {"fit": Resources(cpus=4, memory=6_000_000_000), "join": Resources(memory=12_000_000_000, own_process=True)}
    needs = {
        "load.parcels": ("freshness",),
        "load.weather": ("freshness",),
        "join": ("load.parcels", "load.weather"),
        "fit": ("join",),
        "score": ("fit",),
        "report": ("score", "join"),
    }
    about = {"fit": "steps.py:fit", "join": "steps.py:join", "freshness": "are the sources there and new enough?"}
    steps = [
        Step(
            name=name,
            verb="modelyard.pipeline.own:call",
            after=needs.get(name, ()),
            resources=asked.get(name, Resources()),
            about=about.get(name, ""),
        )
        for name in STEPS
    ]
    return Plan(project="orders", steps=tuple(steps))


class Story:
    """Writes what triggers, runner, daemon and alerts write."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / "modelyard.yaml").write_text(DECLARED)
        (root / "prices.csv").write_text("time,EUR/kWh\n00:00,0.31\n02:00,0.12\n05:00,0.19\n07:00,0.42\n")
        self.clock = Ticker(BEGAN)
        self.store = LocalStore(root, clock=self.clock)
        self.engine = Engine(self.store, self.clock)
        self.random = Random(3)  # noqa: S311 - the same story every time
        self.plan = plan()
        self.count = 0

    def write(self, kind: Any, run: str = "", step: str = "", actor: str = "runner", **payload: Any) -> None:
        self.store.ledger.append(Draft(kind=kind, run=run, step=step, actor=actor, payload=payload))

    def fire(self, name: str, trigger: str, kind: Any, *, actor: str = "", why: str = "", **wanted: Any) -> Fire:
        """Write down a fire as a trigger does."""
        self.count += 1
        asked = Wanted(key=f"{name}-{self.count}", due=wanted.pop("due", self.clock()), **wanted)
        made = ask(trigger, kind, asked, self.store, actor=actor or f"trigger:{trigger}", drop=why)
        assert made is not None
        self.engine.fires[name] = made.id
        return made

    def begin(self, name: str, fire: Fire | None = None, *, priced: bool = True) -> str:
        """Start a run."""
        run = f"run-{len(self.engine.runs) + 10:02d}{name}"
        digest = self.store.blobs.put(msgspec.json.encode(self.plan))
        body: dict[str, Any] = {"project": "orders", "plan": digest, "trace": fire.trace if fire else "a" * 32}
        if fire:
            body["fire"] = fire.id
        if priced:
            body["prices"] = PRICES
        self.write("run.started", run, actor=fire.actor if fire else "user:ada", **body)
        self.engine.runs[name] = run
        return run

    def usage(self, step: str, seconds: float) -> Usage:
        _, cores, memory = STEPS[step]
        return Usage(
            cpu_seconds=seconds * cores,
            gb_seconds=seconds * memory / 1e9,
            peak_bytes=int(memory),
            read_bytes=410_000_000 if step == "load.parcels" else 0,
            written_bytes=36_000_000 if step in ("join", "score") else 0,
        )

    def key(self, run: str, step: str) -> dict[str, Any]:
        return {"key": digest_of([run, step])}

    def done(self, run: str, step: str, *, times: float = 1.0, wait: float = 0.0, notes: tuple[str, ...] = ()) -> None:
        """Run a step: after `wait` seconds in the queue."""
        seconds = STEPS[step][0] * times * (0.96 + 0.08 * self.random.random())
        self.clock.now += wait
        self.write("step.started", run, step, **self.key(run, step))
        self.clock.now += seconds
        used = self.usage(step, seconds)
        more = {"notes": list(notes)} if notes else {}
        self.write(
            "step.finished",
            run,
            step,
            **self.key(run, step),
            seconds=seconds,
            cpu_seconds=used.cpu_seconds,
            usage=plain(used),
            asked_cpus=self.plan.step(step).resources.cpus,
            outputs={"value": self.count},
            made_of={"code": digest_of(step), "inputs": digest_of(run)},
            **more,
        )

    def retried(self, run: str, step: str, attempt: int, waits: float, code: str, message: str) -> None:
        self.clock.now += 9.0
        error = {"code": code, "message": message, "where": "steps.py:31", "hint": "", "trace": TRACE}
        used = plain(self.usage(step, 9.0))
        body = {"attempt": attempt, "waits": waits, "seconds": 9.0, "usage": used, "error": error}
        self.write("step.retried", run, step, **self.key(run, step), **body)
        self.clock.now += waits

    def failed(self, run: str, step: str) -> None:
        """Fail for good, with a capsule and a log."""
        self.clock.now += 9.0
        failure = Failure(
            code="step-failed",
            message=f"`steps.py:fit` raised ConnectionError: connection refused by `https://feed.example/{BAD}`",
            where="steps.py:31",
            hint="see its trace",
            trace=TRACE,
        )
        log = [f"INFO steps: try {n} of the feed" for n in range(1, 5)] + [f"WARNING steps: password={SECRET}"]
        task = Task(step=self.plan.step(step), key=self.key(run, step)["key"], code="", run=run, attempt=3)
        made_of = {"code": digest_of("another"), "inputs": digest_of(run)}
        capsule = keep(self.store, task, failure, environment="", made_of=made_of, log=tuple(log))
        files = LogFiles(logs_folder(self.store.root), clock=self.clock)
        for n, message in enumerate(log):
            files.append(Line(time=self.clock() - 5 + n, logger="stdout", message=message, run=run, step=step))
        files.close()
        used = plain(self.usage(step, 9.0))
        body = {"seconds": 9.0, "usage": used, "error": plain(failure), "made_of": made_of, "capsule": capsule}
        self.write("step.failed", run, step, **self.key(run, step), **body)

    def end(self, run: str, status: str, reason: str = "", **more: Any) -> None:
        self.write("run.finished", run, status=status, reason=reason, **more)

    def whole(self, name: str, fire: Fire | None = None, *, times: float = 1.0, priced: bool = True) -> str:
        """Run everything once."""
        run = self.begin(name, fire, priced=priced)
        for step in STEPS:
            self.done(run, step, times=times if step == "fit" else 1.0, wait=6.0 if step == "fit" else 0.05)
        self.end(run, "succeeded")
        return run

    def alert(self, name: str, run: str, on: str, title: str, *, target: str = "team", due: float = 0.0) -> str:
        body = {
            "id": f"alert-{name}",
            "target": target,
            "on": on,
            "urgency": "high" if on in ("failure", "budget") else "normal",
            "key": f"{on}:{name}",
            "open": on in ("failure", "stale", "budget"),
            "cause": 1,
            "at": self.clock(),
            "due": due or self.clock(),
            "digest": False,
            "title": title,
            "text": title,
            "facts": [],
            "escalates": "",
            "trace": "",
        }
        self.write("alert.queued", run, actor="alerts", **body)
        return f"alert-{name}"


def _choice(start: float) -> dict[str, Any]:
    why = "waits 2 h: where it is cheapest"
    return {"start": start, "takes": 1200.0, "why": why, "cost": 0.04, "cost_now": 0.103, "saved": 0.063, "unit": "EUR"}


def seed(root: Path) -> Engine:
    """Write the story into a project folder."""
    story = Story(root)
    clock = story.clock
    for day in range(6):
        due = clock()
        fire = story.fire(f"night{day}", "nightly", "schedule", due=due, not_before=due + 7200, payload=_choice(due))
        clock.now += 7200
        story.whole(f"night{day}", fire, times=1.0 + 0.02 * day)
        clock.now = BEGAN + 43_200 * (day + 1)
    items = (Item(name="data/in/parcels-17.csv", change="created", version="18231-1795"),)
    retried = story.begin("retried", story.fire("files", "arrivals", "files", items=items))
    for step in ("freshness", "load.parcels", "load.weather", "join"):
        story.done(retried, step)
    story.write("step.started", retried, "fit", **story.key(retried, "fit"))
    story.retried(retried, "fit", 1, 2.5, "step-failed", "`steps.py:fit` raised ConnectionError: connection refused")
    story.retried(retried, "fit", 2, 12.0, "out-of-memory", "it held 6 GB and asked for 6 GB")
    story.done(retried, "fit", times=2.6, notes=("asked for 1 GPU and ran on the CPU: there is none",))
    for step in ("score", "report"):
        story.done(retried, step)
    story.end(retried, "succeeded")
    clock.now += 3600
    payload = {"order": 17, "note": BAD, "password": SECRET}
    failed = story.begin("failed", story.fire("hook", "shop", "webhook", payload=payload))
    for step in ("freshness", "load.parcels", "load.weather", "join"):
        story.done(failed, step)
    story.write("step.started", failed, "fit", **story.key(failed, "fit"))
    story.retried(failed, "fit", 1, 2.5, "step-failed", "`steps.py:fit` raised ConnectionError: connection refused")
    story.failed(failed, "fit")
    story.end(failed, "failed", "`steps.py:fit` raised ConnectionError: connection refused")
    clock.now += 3600
    stale = story.begin("stale", story.fire("stale", "weekly", "schedule"))
    reason = "parcels is 3 days old, at most 1 day is fresh"
    story.done(stale, "freshness")
    for step in list(STEPS)[1:]:
        story.write("step.skipped", stale, step, reason=reason, saved=plain(story.usage(step, STEPS[step][0])))
    story.end(stale, "skipped", reason)
    clock.now += 3600
    stopped = story.begin("stopped", story.fire("dear", "nightly", "schedule"))
    for step in ("freshness", "load.parcels", "load.weather", "join"):
        story.done(stopped, step)
    story.write("step.started", stopped, "fit", **story.key(stopped, "fit"))
    clock.now += 3000
    cut = {"fit": plain(story.usage("fit", 3000.0))}
    story.end(stopped, "stopped", "the run has cost 0.61 EUR; its budget is 0.6", cut=cut)
    clock.now += 3600
    _now(story, failed, stale, stopped, retried)
    return story.engine


def _now(story: Story, failed: str, stale: str, stopped: str, retried: str) -> None:
    clock, store = story.clock, story.store
    missed = "missed while nothing ran: 3 times; `catch_up` is `latest`"
    story.fire("missed", "weekly", "schedule", why=missed)
    pause("shop", store, reason="the shop moves house", actor="user:ada")
    story.fire("paused", "shop", "webhook", why="paused: the shop moves house (user:ada)")
    bad = story.fire("bad", "arrivals", "files", items=(Item(name=f"data/in/{BAD}.csv", change="deleted"),))
    drop(bad, f"the file {BAD} is gone again", store)
    items = tuple(Item(name=f"data/in/parcels-{n}.csv", change="created", version=f"{n}") for n in range(18, 30))
    story.fire("waits", "arrivals", "files", items=items)
    due = clock()
    story.fire("later", "nightly", "schedule", due=due, not_before=due + 5400, payload=_choice(due + 5400))
    story.fire("hand", "manual", "manual", actor="user:grace")
    sent = story.alert("1", failed, "failure", f"orders: fit failed {BAD}")
    story.write("alert.sent", actor="alerts", ids=[sent], target="team", note="")
    lost = story.alert("2", stale, "stale", "orders: parcels is stale", target="pager")
    gone = {"ids": [lost], "target": "pager", "attempt": 6, "error": "no answer within 10 s", "next": 0}
    story.write("alert.failed", actor="alerts", **gone)
    again = story.alert("3", stopped, "budget", "orders: the budget of the run is spent")
    more = {"ids": [again], "target": "team", "attempt": 2, "error": f"refused: token={SECRET}"}
    story.write("alert.failed", actor="alerts", **more, next=clock() + 240)
    story.alert("4", retried, "success", "orders: run succeeded", due=clock() + 20_000)
    began = {"version": "0.1", "pid": 4711}
    story.write("daemon.started", actor="daemon", id="daemon-far", host="rack-2", **began)
    story.write("daemon.started", actor="daemon", id="daemon-here", host=socket.gethostname(), **began)
    children = (
        ChildState(name="runner", state="running", pid=4712, since=clock() - 7200, said=("ready",)),
        ChildState(name="serve", state="running", pid=4713, since=clock() - 600, restarts=1, ended="exited with 1"),
        ChildState(name="alerts", state="waiting", since=clock(), restarts=4, failures=4, next=clock() + 8),
    )
    state = DaemonState(
        id="daemon-here",
        host=socket.gethostname(),
        pid=4711,
        since=clock() - 7200,
        version="0.1",
        ready=True,
        children=children,
        triggers=(
            *(TriggerState(name=name, kind="schedule", looked=clock()) for name in ("nightly", "weekly")),
            TriggerState(name="shop", kind="webhook", looked=clock()),
            TriggerState(name="arrivals", kind="files", looked=clock()),
            TriggerState(name="stock", kind="sql", failing=clock() - 900, error="no such table: `parcels`"),
        ),
        hooks="http://127.0.0.1:8400/hooks/",
        holds={story.engine.fires["waits"]: "waits for an idle machine: its load is 0.93 a core"},
    )
    publish(store.root, state)
    os.utime(store.root / ".modelyard" / "daemon" / "state.json", (clock(), clock()))
    # The one here lives; the one far away died without a word.
    story.engine.held.enter_context(store.hold("daemon:daemon-here", who={"id": "daemon-here"}))


if __name__ == "__main__":
    made = seed(Path(sys.argv[1]))
    print(*made.runs.values(), *made.fires.values(), sep="\n")
    made.close()
