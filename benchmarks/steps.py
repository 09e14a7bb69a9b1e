"""What a recorded step costs: in process, in a warm process of its own, cached, and in a fresh interpreter.

Two shapes of no-op steps through the public API: a chain of N, and a fan-out of N with a join. Each step is recorded in
the ledger with its key, its inputs and its outputs. Wall time and CPU time of this process a step; medians of several
runs, since the machine may be shared.

To time another tool beside it, write its `add` and hand it to `chain` and `fan_out`: the shapes are the same then.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import modelyard
from _bench import child, emit, median_of

SMALL, LARGE, VERY_LARGE = 50, 1_000, 10_000
RUNS = 9

# In a file of its own, as a user's steps are: workers import it.
MODULE = '''
def noop(x: int) -> int:
    """Return what was given."""
    return x

def join(parts: list) -> int:
    """Return how many there are."""
    return len(parts)
'''


class Add(Protocol):
    """Adds one step to a plan of whatever tool and returns what later steps take as its output."""

    def __call__(self, function: str, name: str, value: Any) -> Any:
        """Add a step.

        Args:
            function: `noop` or `join`.
            name: Its name.
            value: Its argument: a number, an output, or for `join` a list of outputs.
        """
        ...


def chain(add: Add, count: int, start: int) -> Any:
    """Add `count` steps, each of which takes what the one before returned."""
    last: Any = start
    for i in range(count):
        last = add("noop", f"step-{i}", last)
    return last


def fan_out(add: Add, count: int, start: int) -> Any:
    """Add one step, `count` steps that each take what it returned, and one that takes all of theirs."""
    first = add("noop", "first", start)
    return add("join", "join", [add("noop", f"step-{i}", first) for i in range(count)])


Shape = Callable[[Add, int, int], Any]


class Bench:
    """The shapes as flows of Modelyard, in one project that keeps its ledger between the runs.

    Args:
        project: Folder of the project.
    """

    def __init__(self, project: Path) -> None:
        (project / "bench_steps.py").write_text(MODULE)
        sys.path.insert(0, str(project))
        self.project = project
        self.steps = importlib.import_module("bench_steps")
        self.starts = iter(range(1_000_000))

    def flow(self, shape: Shape, count: int, start: int, *, own_process: bool = False) -> modelyard.Flow:
        """Return a shape; another start makes other keys, so that nothing is cached."""
        flow = modelyard.Flow("bench")

        def add(function: str, name: str, value: Any) -> Any:
            given = {"parts" if function == "join" else "x": value}
            return flow.step(getattr(self.steps, function), name=name, own_process=own_process, **given)

        shape(add, count, start)
        return flow

    def timed(self, shape: Shape, count: int, *, start: int | None = None) -> tuple[float, float]:
        """Run a shape once in process and return wall and CPU milliseconds a step."""
        flow = self.flow(shape, count, next(self.starts) if start is None else start)
        wall, cpu = time.perf_counter(), time.process_time()
        modelyard.run(flow, project=self.project)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        return seconds[0] / count * 1000, seconds[1] / count * 1000

    def medians(self, shape: Shape, count: int) -> tuple[float, float]:
        """Return the medians of both over several runs."""
        runs = [self.timed(shape, count) for _ in range(RUNS)]
        return statistics.median(wall for wall, _ in runs), statistics.median(cpu for _, cpu in runs)

    def warm(self, shape: Shape, count: int) -> float:
        """Return wall milliseconds a step in warm worker processes: those of one executor, started before."""
        from modelyard.pipeline import run
        from modelyard.pipeline.executors import LocalExecutor
        from modelyard.store import open_store

        store = open_store(self.project)
        executor = LocalExecutor(store)
        walls = []
        try:
            for size in (4, *[count] * 5):
                flow = self.flow(shape, size, next(self.starts), own_process=True)
                began = time.perf_counter()
                run(flow.plan(), store, executor=executor, functions=flow.functions)
                walls.append((time.perf_counter() - began) / size * 1000)
        finally:
            executor.close()
        return statistics.median(walls[1:])

    def growth(self) -> float:
        """Return CPU time of the last thousand of ten thousand steps over that of the first thousand."""
        marks: list[float] = []

        def note(event: Any) -> None:
            if event.kind == "step.finished":
                marks.append(time.process_time())

        flow = self.flow(chain, VERY_LARGE, next(self.starts))
        modelyard.run(flow, project=self.project, observe=note)
        return (marks[-1] - marks[-LARGE]) / (marks[LARGE - 1] - marks[0])


COLD = """
import sys, modelyard
def noop(x): return x
flow = modelyard.Flow("cold")
flow.step(noop, x=int(sys.argv[2]))
modelyard.run(flow, project=sys.argv[1])
"""


def main() -> None:
    """Measure and print."""
    # First: a child's peak memory, as the system tells it, is never less than its parent's was when it started it.
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "cold.py"
        script.write_text(COLD)
        runs = [child([str(script), folder, str(i)]) for i in range(RUNS)]
        if any(r.code for r in runs):
            raise SystemExit("the cold run failed")
        emit("cold_start_s", sorted(r.wall_s for r in runs)[RUNS // 2], "s", 0.25, "Kedro 0.37, Metaflow 0.90")
        emit("peak_mib", max(r.peak_mib for r in runs), "MiB", 40, "Kedro 54, Prefect 370")
    bare = median_of(lambda: child(["-c", "pass"]).cpu_s, RUNS)
    loaded = median_of(lambda: child(["-c", "import modelyard"]).cpu_s, RUNS)
    emit("import_cpu_s", loaded - bare, "s", 0.06, "Kedro 0.18")
    with tempfile.TemporaryDirectory() as folder:
        # Nobody else's leases, and nobody else's wait for ours.
        os.environ["MODELYARD_MACHINE"] = folder
        bench = Bench(Path(folder))
        bench.timed(chain, SMALL)  # the first run imports and makes the store
        against = "DBOS 1.5 CPU, Kedro 3.1 (stores nothing), Metaflow 240"
        for count, suffix in ((SMALL, ""), (LARGE, f"_{LARGE}")):
            wall, cpu = bench.medians(chain, count)
            emit(f"step_ms{suffix}", wall, "ms", 1.0, against)
            emit(f"step_cpu_ms{suffix}", cpu, "ms", 0.3, against)
            wall, cpu = bench.medians(fan_out, count)
            emit(f"fanout_ms{suffix}", wall, "ms", 1.0, against)
            emit(f"fanout_cpu_ms{suffix}", cpu, "ms", 0.3, against)
        own = "Metaflow 240, Dagster's default about 1,800"
        emit("step_process_ms", bench.warm(chain, SMALL), "ms", 5.0, own)
        emit("fanout_process_ms", bench.warm(fan_out, SMALL), "ms", 5.0, own)
        emit(f"fanout_process_ms_{LARGE}", bench.warm(fan_out, LARGE), "ms", 5.0, own)
        start = next(bench.starts)
        bench.timed(chain, SMALL, start=start)
        cached = median_of(lambda: bench.timed(chain, SMALL, start=start)[0], RUNS)
        emit("step_cached_ms", cached, "ms", 0.5, "ZenML 47 CPU")
        emit("growth_10000", median_of(bench.growth, 3), "ratio", 1.2, "last thousand steps over the first")


if __name__ == "__main__":
    main()
