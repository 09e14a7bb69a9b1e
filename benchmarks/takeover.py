"""Two daemons on one Postgres, the one at work killed with -9 again and again: how soon the other one goes on.

    python benchmarks/takeover.py [KILLS] [SEED]        make bench NAME=takeover ARGS="20 7"

Both watch one folder that files are dropped into. Needs Postgres on this machine; without it nothing is measured.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from _bench import emit
from modelyard.conformance.postgres import PostgresServer, programs
from modelyard.store import Store, open_store

# Seconds without word from a daemon after which the other one may go on, and between two of its words.
LEASE, BEAT = 2.0, 0.3

SPEC = """\
project: takeover
store: {address}
triggers:
  arrivals: {{files: "{folder}/in/*.csv", each: true, settle: 200ms, every: 1s}}
steps:
  begin: {{function: "steps.py:begin"}}
  end: {{function: "steps.py:end", inputs: {{x: begin}}}}
"""

STEPS = """\
import os, random, time

def left(step, key):
    fd = os.open("../left.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{step} {key}\\n".encode())
    os.close(fd)
    time.sleep(random.Random(key).uniform(0.05, 0.3))
    return key

def begin(fire):
    return left("begin", fire["id"])

def end(x):
    return left("end", x)
"""


class Box:
    """One machine: a folder of its own and a daemon."""

    def __init__(self, folder: Path, spec: str) -> None:
        folder.mkdir()
        (folder / "modelyard.yaml").write_text(spec)
        (folder / "steps.py").write_text(STEPS)
        self.folder = folder
        self.start()

    def start(self) -> None:
        """Start the daemon."""
        command = [sys.executable, "-m", "modelyard", "up", "--no-ui", "--no-serve"]
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def runs(self, pid: int) -> bool:
        """Say whether a process is below this daemon."""
        while pid > 1 and pid != self.process.pid:
            try:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                return False
        return pid == self.process.pid

    def kill(self) -> None:
        """Kill the daemon; what is below it dies with it."""
        self.process.kill()
        self.process.wait()


def takeover(folder: Path, address: str, kills: int, seed: int) -> dict[str, float]:
    """Kill whoever is at work so many times, and count."""
    draw = random.Random(seed)  # noqa: S311 - to be repeated
    (folder / "in").mkdir()
    url = f"{address}?schema=takeover&lease={LEASE:g}s&beat={BEAT:g}s&files={folder}/team"
    spec = SPEC.format(address=url, folder=folder)
    boxes = [Box(folder / "box-1", spec), Box(folder / "box-2", spec)]
    waits: list[float] = []
    dropped = 0
    with open_store(boxes[0].folder) as store:
        while not store.ledger.seen("arrivals"):
            time.sleep(0.02)
        for _ in range(kills):
            for _ in range(6):
                (folder / "in" / f"{dropped:05d}.csv").write_text("x")
                dropped += 1
            until = time.monotonic() + draw.uniform(0.3, 1.5)
            while time.monotonic() < until or (who := store.holder("run")) is None or "run" not in who:
                time.sleep(0.002)
            box = next((box for box in boxes if box.runs(int(who["pid"]))), None)
            if box is None:
                continue
            box.kill()
            at = time.time()
            waits.append(went_on(store, str(who["run"]), at))
            box.start()
        found = judge(store, dropped, (folder / "left.log"))
    for box in boxes:
        box.process.terminate()
        box.process.wait(60)
    return {"takeovers": len(waits), **found, "takeover_s_median": median(waits), "takeover_s_max": max(waits)}


def went_on(store: Store, run: str, at: float) -> float:
    """Return how long after the kill the next run began; 0 if the killed one had ended by itself."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        ended = store.ledger.run(run)
        if ended is not None and ended.status not in ("running", "interrupted"):
            return 0.0
        for event in store.ledger.events(kinds=("run.started",)):
            if event.time > at and event.run != run:
                return event.time - at
        time.sleep(0.02)
    raise SystemExit("nobody went on within 60 s")


def judge(store: Store, dropped: int, log: Path) -> dict[str, float]:
    """Wait until all files have run, and hold the ledger against what was dropped and what the steps left."""
    end = time.monotonic() + 300
    while len(store.ledger.fires(states=("succeeded",))) < dropped:
        if time.monotonic() > end:
            raise SystemExit("what waited did not run within 300 s")
        time.sleep(0.1)
    fires = store.ledger.fires()
    names = Counter(Path(item.name).name for fire in fires for item in fire.items)
    runs = {run.id: run for run in store.ledger.runs(limit=0)}
    succeeded = Counter(run.fire for run in runs.values() if run.status == "succeeded")
    begun: Counter[str] = Counter()
    finished: set[str] = set()
    again = 0
    for event in store.ledger.events(kinds=("step.started", "step.finished")):
        again += event.payload["key"] in finished
        if event.kind == "step.finished":
            finished.add(event.payload["key"])
        else:
            begun[f"{event.step} {runs[event.run].fire}"] += 1
    if faults := store.ledger.verify():
        raise SystemExit(f"the ledger does not hold: {faults}")
    return {
        "fires": len(fires),
        "lost_fires": dropped - len(names),
        "doubled_fires": sum(n - 1 for n in names.values()) + sum(n - 1 for n in succeeded.values()),
        "doubled_steps": again + sum(n > begun[line] for line, n in Counter(log.read_text().splitlines()).items()),
    }


def main() -> None:
    """Kill, count and print."""
    kills, seed = map(int, [*sys.argv[1:3], *["20", "1"][len(sys.argv) - 1 :]])
    if programs() is None:
        sys.stderr.write("no Postgres on this machine: apt-get install postgresql\n")
        return
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        found = takeover(Path(folder), server.address, kills, seed)
    # A lease ends at most so long after the last word; then the other one looks, starts and says so.
    limits = {"lost_fires": 0, "doubled_fires": 0, "doubled_steps": 0, "takeover_s_max": LEASE + 1.0}
    for name, value in found.items():
        unit = "s" if name.startswith("takeover_s") else "count"
        emit(name, value, unit, limits.get(name), f"seed {seed}, a lease of {LEASE:g} s")
    if any(found[name] for name in limits if name != "takeover_s_max"):
        raise SystemExit("something was lost, or done twice")


if __name__ == "__main__":
    main()
