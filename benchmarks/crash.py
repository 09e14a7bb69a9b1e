"""Kill `modelyard up` with -9 again and again under a stream of triggers, and count what was lost or done twice.

    python benchmarks/crash.py [KILLS] [SEED]        make bench NAME=crash ARGS="100 7"

Files are dropped, signed webhooks are posted, and cron comes due on a clock that runs 60 times as fast, while the tree
of processes is killed at random moments and started again. At the end what waits is run, and the ledger is judged,
beside what the steps themselves left behind.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from _bench import emit
from modelyard.automation.state import published
from modelyard.automation.triggers.signature import sign
from modelyard.records import Event, Fire
from modelyard.store import LocalStore

SECRET = "a secret that nobody shall guess"  # noqa: S105 - of this test alone
WHOLE = Counter(["begin", "middle", "apart", "end"])
# Simulated seconds in a real one: cron's minute passes every second.
PACE = 60.0

SPEC = """\
project: crash
schedule: {at: "* * * * *", zone: UTC, catch_up: all}
triggers:
  arrivals: {files: "in/*.csv", each: true, settle: 5s}
  push: {webhook: {secret: CRASH_SECRET}}
steps:
  begin: {function: "steps.py:begin"}
  middle: {function: "steps.py:middle", inputs: {x: begin}}
  apart: {function: "steps.py:apart", inputs: {x: begin}}
  end: {function: "steps.py:end", inputs: {x: middle, y: apart}}
"""

STEPS = """\
import os, random, time

def left(step, key):
    # One write of one line: what really ran, whatever the ledger says.
    fd = os.open("left.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{step} {key}\\n".encode())
    os.close(fd)
    time.sleep(random.Random(f"{step} {key}").uniform(0.005, 0.06))
    return key

def begin(fire):
    return left("begin", fire["id"])

def middle(x):
    return left("middle", x)

def apart(x):
    return left("apart", x)

def end(x, y):
    return left("end", x)
"""

DAEMON = """\
import sys, time
from pathlib import Path
from modelyard.automation.daemon import Daemon, Settings
root, port, began, pace = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
settings = Settings(files=(root / "modelyard.yaml",), serve=False, ui=False, hooks_port=port)
clock = lambda: began + (time.time() - began) * pace
say = lambda note: sys.stderr.write(f"{time.time():.3f} {note.text}\\n")
sys.exit(Daemon(settings, say, clock=clock, pace=pace).run())
"""


class Tree:
    """The daemon with all below it, started and killed."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port, self.began = root, port, time.time()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (root / "up.log").open("ab")

    def now(self) -> float:
        """Return the time by the simulated clock."""
        return self.began + (time.time() - self.began) * PACE

    def start(self) -> float:
        """Start it and return when."""
        at = time.time()
        words = [str(self.root), str(self.port), repr(self.began), repr(PACE)]
        env = {**os.environ, "CRASH_SECRET": SECRET}
        self.process = subprocess.Popen([sys.executable, "-c", DAEMON, *words], stderr=self.log, env=env)
        return at

    def kill(self, everything: bool) -> None:
        """Kill it with -9: the main process, whose end the others must not outlive, or all of them at once."""
        assert self.process is not None
        state = published(self.root)
        ours = state is not None and state.pid == self.process.pid
        below = [child.pid for child in state.children if child.pid] if state and ours else []
        self.process.kill()
        for pid in below if everything else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        end = time.monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in below):
            if time.monotonic() > end:
                raise SystemExit(f"a child outlived the daemon: {below}")
            time.sleep(0.001)

    def end(self) -> None:
        """Leave nothing behind, however the measurement went."""
        if self.process is not None and self.process.poll() is None:
            self.kill(everything=True)

    def stop(self) -> None:
        """Stop it politely."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        if code := self.process.wait(60):
            raise SystemExit(f"the daemon ended with {code}")


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Stream:
    """What happens outside: files come, somebody posts. A sender that hears nothing sends the same again."""

    def __init__(self, tree: Tree, seed: int) -> None:
        self.tree = tree
        self.random = random.Random(seed)  # noqa: S311 - to be repeated
        self.files: list[str] = []
        self.posts: list[str] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._drop), threading.Thread(target=self._post)]

    def start(self) -> None:
        """Begin."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End; a delivery that was not taken yet is none."""
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def _drop(self) -> None:
        while not self.ended.wait(self.random.uniform(0.3, 1.5)):
            name = f"{len(self.files):05d}.csv"
            part = self.tree.root / f"{name}.part"
            part.write_text(name)
            part.rename(self.tree.root / "in" / name)
            self.files.append(name)

    def _post(self) -> None:
        while not self.ended.wait(self.random.uniform(0.3, 1.5)):
            name = f"msg-{len(self.posts):05d}"
            while not self._taken(name):
                if self.ended.wait(0.05):
                    return
            self.posts.append(name)

    def _taken(self, name: str) -> bool:
        body = json.dumps({"name": name}).encode()
        headers = sign(SECRET, id=name, timestamp=int(self.tree.now()), body=body)
        address = f"http://127.0.0.1:{self.tree.port}/hooks/push"
        asked = urllib.request.Request(address, data=body, headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=2) as answer:  # noqa: S310 - our own address
                return bool(answer.status in (200, 202))
        except (urllib.error.URLError, OSError):
            return False


class Watcher(threading.Thread):
    """Remembers each event as soon as it is there, so that one that vanished is missed."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.seen: dict[int, str] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Read on."""
        with LocalStore(self.root) as store:
            while not self.ended.wait(0.02):
                for event in store.ledger.events(after=max(self.seen, default=0)):
                    self.seen[event.seq] = event.hash


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def project() -> Iterator[Path]:
    """Make a project."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        (root / "modelyard.yaml").write_text(SPEC)
        (root / "steps.py").write_text(STEPS)
        yield root


def cut_off(store: LocalStore) -> Fire | None:
    """Return the fire whose run is cut off now."""
    started = store.ledger.fires(states=("started",))
    return started[0] if started else None


def resumed(store: LocalStore, fire: Fire, after: int) -> Event | None:
    """Return the event with which the next run of a fire began."""
    for event in store.ledger.events(after=after, kinds=("run.started",)):
        if event.payload.get("fire") == fire.id:
            return event
    return None


def crash(root: Path, kills: int, seed: int) -> dict[str, float]:
    """Kill it so many times, let it end, and count."""
    draw = random.Random(seed)  # noqa: S311 - to be repeated
    tree = Tree(root, free_port())
    waits: list[float] = []
    with LocalStore(root) as store:
        watcher, stream = Watcher(root), Stream(tree, seed)
        watcher.start()
        at, fire, head = tree.start(), None, 0
        # The first look is over once the file trigger has said what was there.
        while not store.ledger.seen("arrivals"):
            time.sleep(0.01)
        stream.start()
        try:
            for number in range(kills):
                until = time.monotonic() + draw.uniform(0.05, 2.0)
                # Most of the time it may go on with what was cut off; some are killed once more before they could.
                patient = draw.random() < 0.8
                while time.monotonic() < until or (fire is not None and patient):
                    if fire is not None and (event := resumed(store, fire, head)) is not None:
                        waits.append(event.time - at)
                        fire = None
                    if time.time() - at > 60:
                        raise SystemExit(f"{fire} was not resumed within 60 s")
                    time.sleep(0.002)
                tree.kill(everything=bool(number % 2))
                fire, head = cut_off(store), store.ledger.head()[0]
                at = tree.start()
            stream.stop()
            drain(store)
            tree.stop()
        finally:
            stream.ended.set()
            watcher.ended.set()
            tree.end()
        watcher.join()
        found = judge(store, stream, watcher.seen)
    middle = median(waits) if waits else 0.0
    return {
        "kills": kills,
        "cut_off": len(waits),
        **found,
        "resume_s_median": middle,
        "resume_s_max": max(waits, default=0.0),
    }


def drain(store: LocalStore) -> None:
    """Wait until everything that was seen has run. Cron goes on all the time, so only what was there by then counts."""
    time.sleep(2.0)
    waiting = {fire.id for fire in store.ledger.fires(states=("queued", "started"))}
    end = time.monotonic() + 300
    while waiting & {fire.id for fire in store.ledger.fires(states=("queued", "started"))}:
        if time.monotonic() > end:
            raise SystemExit("what waited did not run within 300 s")
        time.sleep(0.05)


def judge(store: LocalStore, stream: Stream, seen: dict[int, str]) -> dict[str, float]:
    """Hold the ledger, and what the steps left behind, against what happened outside."""
    events = list(store.ledger.events())
    fire_of_run = {e.run: e.payload["fire"] for e in events if e.kind == "run.started"}
    succeeded = Counter(
        fire_of_run[e.run] for e in events if e.kind == "run.finished" and e.payload["status"] == "succeeded"
    )
    lost, doubled = fires_lost_and_doubled(store.ledger.fires(), succeeded, stream)
    hashes = {e.seq: e.hash for e in events}
    vanished = sum(hashes.get(seq) != digest for seq, digest in seen.items())
    incomplete = sum(
        Counter(e.step for e in events if e.run == run and e.kind in ("step.finished", "step.cached")) != WHOLE
        for run, fire in fire_of_run.items()
        if succeeded[fire] and run == next(f.run for f in store.ledger.fires() if f.id == fire)
    )
    if faults := store.ledger.verify():
        raise SystemExit(f"the ledger does not hold: {faults}")
    return {
        "fires": len(succeeded),
        "lost_fires": lost,
        "doubled_fires": doubled,
        "lost_steps": vanished + incomplete,
        "doubled_steps": steps_doubled(events, fire_of_run, (store.root / "left.log").read_text().splitlines()),
    }


def fires_lost_and_doubled(fires: list[Fire], succeeded: Counter[str], stream: Stream) -> tuple[int, int]:
    """Count what happened outside and has no fire that ended well, and what has several, or one that ran twice."""
    named: dict[str, list[Fire]] = {}
    for fire in fires:
        for name in [Path(item.name).name for item in fire.items] or [fire.key]:
            named.setdefault(name, []).append(fire)
    expected = [*stream.files, *(f"push/{name}" for name in stream.posts)]
    lost = sum(not any(succeeded[fire.id] for fire in named.get(name, ())) for name in expected)
    dues = sorted(fire.due for fire in fires if fire.trigger == "schedule")
    minutes = round((dues[-1] - dues[0]) / 60) + 1 if dues else 0
    lost += minutes - len(set(dues))
    lost += sum(fire.state not in ("succeeded", "queued") for fire in fires)
    doubled = sum(count - 1 for count in succeeded.values()) + len(dues) - len(set(dues))
    return lost, doubled + sum(len(named.get(name, ())) > 1 for name in expected)


def steps_doubled(events: list[Event], fire_of_run: dict[str, str], left: list[str]) -> int:
    """Count the steps that ran again after they were finished, by the ledger and by what they left behind."""
    finished: set[str] = set()
    begun: Counter[str] = Counter()
    again = 0
    for event in events:
        if event.kind == "step.started":
            again += event.payload["key"] in finished
            begun[f"{event.step} {fire_of_run[event.run]}"] += 1
        elif event.kind == "step.finished":
            again += event.payload["key"] in finished
            finished.add(event.payload["key"])
    return again + sum(count > begun[line] for line, count in Counter(left).items())


def main() -> None:
    """Kill, count and print."""
    kills, seed = map(int, [*sys.argv[1:3], *["100", "1"][len(sys.argv) - 1 :]])
    with project() as root:
        found = crash(root, kills, seed)
    limits = {"lost_steps": 0, "doubled_steps": 0, "lost_fires": 0, "doubled_fires": 0, "resume_s_max": 1}
    for name, value in found.items():
        emit(name, value, "s" if name.startswith("resume") else "count", limits.get(name), f"seed {seed}")
    if any(found[name] for name in limits if name != "resume_s_max"):
        raise SystemExit("something was lost, or done twice")


if __name__ == "__main__":
    main()
