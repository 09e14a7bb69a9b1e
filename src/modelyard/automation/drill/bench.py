"""The server that is broken: its own folder, port, token, request log, ledger and clock."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import ModelyardError
from modelyard._kit.hearing import folder_of
from modelyard._kit.places import log_path
from modelyard._kit.processes import born, family
from modelyard.automation.drill.traffic import Traffic
from modelyard.automation.trial import Started, place
from modelyard.deploy.aliases import bundle_folder
from modelyard.deploy.local import command, telling
from modelyard.deploy.section import Deploy, Requests
from modelyard.pipeline.machine import cores
from modelyard.records import Deployment, Draft, plain
from modelyard.serving.load.probe import ask
from modelyard.serving.load.requests import encoded
from modelyard.serving.load.spoiled import Spoiled
from modelyard.store.base import Store
from modelyard.store.local import FOLDER, LocalStore
from modelyard.store.requests import ids_of, turns_in

__all__ = ["Bench", "Order", "bench"]

# Fresh connections by which one sees whether all processes answer: one may miss a process, so many hardly do.
_LOOKS = 8
# Requests that are sent in turns: the right answer to each is asked for before.
_REQUESTS = 64
# Seconds between two looks, and within which answered rows have to be in the log.
_EVERY, _WRITTEN = 0.02, 15.0
_READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: drill\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Order:
    """How a server is broken.

    Attributes:
        only: Names of the faults; empty: all.
        processes: Processes of the server, two or more.
        rate: Requests a second meanwhile.
        hold: Seconds that a fault lasts.
        search: Seconds in which the rate that it holds is looked for, before it is asked ten times that.
        deadline: Seconds within which a served answer has to come then.
        connections: Connections of the spike.
        seed: Seed of rows and arrivals.
    """

    only: tuple[str, ...] = ()
    processes: int = 2
    rate: float = 100.0
    hold: float = 3.0
    search: float = 10.0
    deadline: float = 0.25
    connections: int = 1500
    seed: int = 0

    def like(self) -> dict[str, Any]:
        """Return what has to be the same for two drills to be compared."""
        return {
            "machine": platform.node(),
            "cores": cores(),
            "processes": self.processes,
            "rate": self.rate,
            "hold": self.hold,
            "deadline": self.deadline,
        }


class Bench:
    """A server that may be broken.

    Args:
        order: How.
        root: Its folder.
        token: Token of its only caller.
        endpoint: Name of the endpoint.
        line: How it is started.
        rows: Rows to send, in turns.

    Attributes:
        store: Its own store: the ledger that it follows.
        spoiled: By what its clock is off, and how slow its model is.
        log: Its request log.
        port: Its port.
    """

    def __init__(
        self,
        order: Order,
        root: Path,
        token: str,
        endpoint: str,
        line: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        self.order = order
        self.endpoint = endpoint
        self.root = root
        self.store = LocalStore(root)
        self.spoiled = Spoiled(root / "spoiled")
        self.log = log_path(root, endpoint)
        self.port = 0
        self._token = token
        self._line = list(line)
        self._rows = rows
        self._server: Started | None = None

    @property
    def pid(self) -> int:
        """The process that the others are forked from."""
        assert self._server is not None  # noqa: S101 - it was started
        return self._server.pid

    @property
    def workers(self) -> list[int]:
        """The processes that answer."""
        return [pid for pid in family(self.pid) if born(pid)]

    async def start(self) -> None:
        """Start it, and once more at the port that it had."""
        self._server = await Started.begin([*self._line, "--port", str(self.port)], self.root)
        self.port = self._server.port

    async def stop(self) -> None:
        """End it."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.end()

    def gone(self) -> Started:
        """Return what was started, and know nothing of it any more: somebody kills it."""
        assert self._server is not None  # noqa: S101 - it was started
        server, self._server = self._server, None
        return server

    async def traffic(self, *, batch: int = 1, connections: int = 64) -> Traffic:
        """Return traffic whose right answers are known: what the server says now, while nothing is wrong.

        Raises:
            ModelyardError: None of the rows is answered (`drill-unanswered`).
        """
        asked = encoded(self._rows[: _REQUESTS * batch], host=f"127.0.0.1:{self.port}", token=self._token, batch=batch)
        requests, expected, said = [], [], {0}
        for one in asked:
            status, _, body = await ask(self.port, one)
            said.add(status)
            # A guard may refuse a row that was drawn: that is its good right.
            if status == 200:
                requests.append(one)
                expected.append(msgspec.json.decode(body))
        if not requests:
            codes = ", ".join(map(str, sorted(said - {0}))) or "no connection"
            raise ModelyardError(
                "drill-unanswered",
                f"nothing was answered with 200: {codes}",
                hint="422: the guards refuse every row that was drawn; give others with --rows TABLE",
            )
        return Traffic(self.port, requests, expected, connections=connections, seed=self.order.seed)

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
        """Return after how many seconds something holds; none: not within so many."""
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            if await holds():
                return now
            await asyncio.sleep(_EVERY)
        return None

    async def ready(self) -> bool:
        """Whether every process that one meets is ready."""
        found = await asyncio.gather(*(ask(self.port, _READY, seconds=1.0) for _ in range(_LOOKS)))
        return all(one.status == 200 for one in found)

    async def whole(self) -> bool:
        """Whether there are as many processes as there should be, and all are ready."""
        workers = self.workers
        # One that has just been forked has no socket yet: that comes once its model is there.
        there = all((folder_of(self.root) / f"{pid}.sock").exists() for pid in workers)
        return there and len(workers) >= self.order.processes and await self.ready()

    async def lost(self, answered: set[str]) -> set[str]:
        """Return which of the answered requests are not in the log, also not within some seconds."""
        until = time.monotonic() + _WRITTEN
        while left := answered - await asyncio.to_thread(self.logged):
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        return left

    def torn(self) -> int:
        """Return how much of the log cannot be read."""
        with closing(sqlite3.connect(self.log)) as db:
            faults: int = sum(text != "ok" for (text,) in db.execute("PRAGMA integrity_check"))
            for (data,) in db.execute("SELECT data FROM blocks"):
                try:
                    turns_in(data)
                except msgspec.MsgspecError:
                    faults += 1
        return faults

    def latest(self) -> tuple[float, float]:
        """Return the earliest and the latest time that a logged block bears."""
        with closing(sqlite3.connect(self.log)) as db:
            first, last = db.execute("SELECT min(first), max(last) FROM blocks").fetchone()
        return first or 0.0, last or 0.0

    def logged(self) -> set[str]:
        """Return the ids of the requests in its log."""
        found: set[str] = set()
        for path in (self.log, self.log.with_suffix(".quarantine.db")):
            if path.exists():
                with closing(sqlite3.connect(path)) as db:
                    # Of several rows each has the id of its request before a stroke.
                    found |= {name.partition("/")[0] for name in ids_of(db)}
        return found


@asynccontextmanager
async def bench(
    order: Order,
    store: Store,
    deployment: Deployment,
    rows: Sequence[Mapping[str, Any]],
    declared: Deploy | None,
) -> AsyncIterator[Bench]:
    """Start a server to break, beside everything that serves the deployment already, and leave nothing of it behind."""
    with place(store, declared) as (root, token):
        if declared is not None:
            # What is kept only in part could not be told from what was lost.
            declared = msgspec.structs.replace(declared, requests=Requests())
        line = command(telling(store, deployment, declared=declared, apart=root), processes=order.processes)
        at = line.index("modelyard.serving")
        line[at : at + 1] = ["modelyard.serving.load.spoiled", str(root / "spoiled")]
        made = Bench(order, root, token, deployment.endpoint, [*line, "--follow", "champion"], rows)
        try:
            _lead(made.store, store, deployment)
            await made.start()
            yield made
        finally:
            try:
                await made.stop()
            finally:
                made.store.close()


def _lead(own: LocalStore, store: Store, deployment: Deployment) -> None:
    """Point a champion of an own ledger at the bundle of the project, which is only read."""
    there = bundle_folder(store, deployment)
    link = own.root / FOLDER / "blobs" / "folders" / there.parent.name / there.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(there.resolve(), target_is_directory=True)
    champion = msgspec.structs.replace(deployment, alias="champion")
    own.ledger.append(Draft(kind="alias.moved", actor="drill", payload={"deployment": plain(champion)}))
