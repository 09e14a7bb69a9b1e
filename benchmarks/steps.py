"""What a recorded step costs: in process, cached, and in a fresh process.

A chain of 50 no-op steps through the public API with user-defined functions; each step is recorded in the ledger
with its key, its inputs and its outputs. Medians of several runs; CPU is that of this process.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import modelyard
from _bench import child, emit, median_of

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


COLD = """
import sys, modelyard
def noop(x): return x
flow = modelyard.Flow("cold")
flow.step(noop, x=int(sys.argv[2]))
modelyard.run(flow, project=sys.argv[1])
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as project:
        timed(0, project)  # the first run imports and makes the store
        fresh = [timed(i, project) for i in range(1, RUNS + 1)]
        cached = [timed(1, project)[0] for _ in range(RUNS)]
        against = "DBOS 1.5 CPU, Kedro 3.1 (stores nothing), Metaflow 240"
        emit("step_ms", sorted(w for w, _ in fresh)[RUNS // 2] * 1000, "ms", 1.0, against)
        emit("step_cpu_ms", sorted(c for _, c in fresh)[RUNS // 2] * 1000, "ms", 0.3, against)
        emit("step_cached_ms", sorted(cached)[RUNS // 2] * 1000, "ms", 0.5, "ZenML 47 CPU")
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


if __name__ == "__main__":
    main()
