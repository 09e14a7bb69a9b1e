"""What a shared ledger costs: appends and recorded steps on a Postgres of its own, over its Unix socket.

The server waits for the disk at every commit, as it does unless somebody tells it otherwise. Client CPU is that of this
process; the server's is its own. Without Postgres on the machine the benchmark says so and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import modelyard
from _bench import emit
from modelyard.conformance.ledger import finished
from modelyard.conformance.postgres import PostgresServer, programs
from modelyard.records import Draft
from modelyard.store.opening import VARIABLE
from modelyard.store.postgres import PostgresStore

APPENDS = 2000
STEPS = 50
RUNS = 9


def noop(x: int) -> int:
    """Return what was given."""
    return x


def chain(start: int) -> modelyard.Flow:
    """Return a chain of no-op steps; another start makes other keys, so that nothing is cached."""
    flow = modelyard.Flow("bench")
    last = flow.step(noop, name="step-0", x=start)
    for i in range(1, STEPS):
        last = flow.step(noop, name=f"step-{i}", x=last)
    return flow


def timed(start: int, project: str) -> tuple[float, float]:
    """Run the chain once and return wall and CPU seconds a step."""
    flow = chain(start)
    wall, cpu = time.perf_counter(), time.process_time()
    modelyard.run(flow, project=project)
    return (time.perf_counter() - wall) / STEPS, (time.process_time() - cpu) / STEPS


def append(project: str, address: str, who: str) -> tuple[float, float]:
    """Append the end of a step again and again; return the seconds that all took, and those of CPU."""
    with PostgresStore(Path(project), address) as store:
        store.ledger.append(Draft(kind="watch.finished"))
        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(APPENDS):
            store.ledger.append(finished("run", "step", f"{who}-{number}"))
        return time.perf_counter() - wall, time.process_time() - cpu


def together(project: str, address: str, processes: int) -> float:
    """Return how many appends several processes make in a second."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(append, [(project, address, f"warm-{n}") for n in range(processes)])
        began = time.perf_counter()
        pool.starmap(append, [(project, address, f"timed-{n}") for n in range(processes)])
        return processes * APPENDS / (time.perf_counter() - began)


def main() -> int:
    """Measure and print."""
    if programs() is None:
        print("skipped: no Postgres here; apt-get install postgresql", file=sys.stderr)
        return 0
    with PostgresServer(settings={"fsync": "on"}) as server, tempfile.TemporaryDirectory() as project:
        address = f"{server.socket_address}&schema=bench"
        wall, cpu = append(project, address, "one")
        emit("append_postgres_ms", wall / APPENDS * 1000, "ms", None, "")
        emit("append_postgres_cpu_ms", cpu / APPENDS * 1000, "ms", None, "client only")
        emit("appends_postgres_per_s", APPENDS / wall, "1/s", None, "one process")
        emit("appends_postgres_two_per_s", together(project, address, 2), "1/s", None, "two processes")
        with PostgresStore(Path(project), address) as store:
            events, began = store.ledger.head()[0], time.perf_counter()
            if store.ledger.verify():
                raise SystemExit("the ledger does not hold")
            emit("verify_postgres_us", (time.perf_counter() - began) / events * 1e6, "us", None, "an event")
        os.environ[VARIABLE] = f"{server.socket_address}&schema=steps"
        timed(0, project)  # the first run imports and makes the schema
        fresh = [timed(i, project) for i in range(1, RUNS + 1)]
        cached = sorted(timed(1, project)[0] for _ in range(RUNS))
        emit("step_postgres_ms", sorted(w for w, _ in fresh)[RUNS // 2] * 1000, "ms", None, "SQLite 0.3")
        emit("step_postgres_cpu_ms", sorted(c for _, c in fresh)[RUNS // 2] * 1000, "ms", None, "DBOS 1.5")
        emit("step_postgres_cached_ms", cached[RUNS // 2] * 1000, "ms", None, "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
