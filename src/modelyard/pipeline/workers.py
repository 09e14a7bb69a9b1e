"""The runner's end of one worker: start it under a guard, give it tasks, see what it uses, end it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from modelyard._kit.processes import born, family, resident
from modelyard.logs import logs_folder, logs_of
from modelyard.logs.capture import TAIL
from modelyard.logs.native import Native
from modelyard.logs.read import tail_of
from modelyard.pipeline import guard
from modelyard.pipeline.execute import Outcome, Task, about
from modelyard.pipeline.guard import Block
from modelyard.pipeline.limits import Cage
from modelyard.records import Usage
from modelyard.store.opening import HANDED

__all__ = ["THREAD_VARIABLES", "Worker"]

# What the libraries read, when they are loaded, to learn how many threads they may start.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # OpenMP: LightGBM, XGBoost, scikit-learn, torch; Arrow's CPU pool
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "ARROW_IO_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib: what `n_jobs=-1` means
)
# Seconds that a killed process may take to be gone.
_LAST_WAIT = 2.0
_decode = msgspec.json.Decoder(Outcome).decode


def _environment(threads: int, devices: tuple[str, ...] | None, store: str) -> dict[str, str]:
    """Return the variables of a worker: its share of threads (the user may have set less), its GPUs, its store."""
    variables = dict(os.environ)
    if store:
        variables[HANDED] = store
    for name in THREAD_VARIABLES:
        given = variables.get(name, "")
        variables[name] = str(min(threads, int(given))) if given.isdigit() and int(given) else str(threads)
    if devices is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return variables


class Worker:
    """A warm process.

    Args:
        root: Folder of the project.
        threads: How many threads its libraries may use.
        devices: GPUs that it sees; none: as the runner.
        cage: Its control group, if it has one.
        network: Whether its tasks may use the network; what was taken from a process it never gets back.
        store: Address of the project's store; left out, it is the one that is found from here.

    Attributes:
        task: What it does now.
        threads: See above.
        devices: See above.
        network: See above.
    """

    def __init__(
        self,
        root: Path,
        *,
        threads: int,
        devices: tuple[str, ...] | None = None,
        cage: Cage | None = None,
        network: bool = False,
        store: str = "",
    ) -> None:
        self.threads = threads
        self._cage = cage
        self._kills = 0
        self._caged = False
        self.devices = devices
        self.network = network
        self.task: Task | None = None
        self.given = 0.0
        self._step = 0
        shared = os.memfd_create("modelyard")
        os.ftruncate(shared, Block.SIZE)
        self._block = Block(shared)
        ours, theirs = socket.socketpair()
        self._control, control = socket.socketpair()
        self._life, life = os.pipe()
        self._root = root
        self._native = Native(logs_of(root))
        fds = [theirs.fileno(), control.fileno(), life, shared]
        # `-P`: the folder of the guard's file is no place to import from.
        command = [sys.executable, "-P", guard.__file__, *map(str, fds), str(os.getpid()), str(root.resolve())]
        with theirs, control:
            try:
                self._process = subprocess.Popen(
                    [*command, cage.tasks if cage else "", "network" if network else ""],
                    pass_fds=fds,
                    env=_environment(threads, devices, store),
                    stdin=subprocess.DEVNULL,
                    stdout=self._native.write,
                )
            finally:
                self._native.started()
                os.close(life)
                os.close(shared)
        self.pipe = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """Process id of the worker itself, 0 until its guard has made it."""
        return int(self._block.get("worker"))

    @property
    def guard(self) -> int:
        """Process id of its guard, which lives as long as anything of it does."""
        return self._process.pid

    @property
    def fds(self) -> tuple[int, int]:
        """File descriptors that become readable when it answers, and when nothing of it is left."""
        return self.pipe.fileno(), self._life

    @property
    def life(self) -> int:
        """A file descriptor that becomes readable when nothing of the worker is left."""
        return self._life

    @property
    def cause(self) -> str:
        """Why its guard ended it while it did the task of now: one of `guard.CAUSES`, empty if it did not."""
        if self._block.get("cause_step") != self._step:
            return ""
        return guard.CAUSES[int(self._block.get("cause"))]

    @property
    def caged(self) -> bool:
        """Whether it is in a control group, so that `starved` is exact."""
        return self._caged or bool(self._block.get("caged"))

    def starved(self) -> bool:
        """Say whether the kernel has killed a process of it since the last time, because memory ran out."""
        if self._cage is None:
            return False
        before, self._kills = self._kills, self._cage.kills()
        return self._kills > before

    @property
    def seconds(self) -> float:
        """Wall time since the task was given."""
        return time.monotonic() - self.given

    def give(self, task: Task, *, limit: int = 0, timeout: float = 0.0, grace: float = 3.0) -> None:
        """Hand it a task.

        Args:
            task: What to do.
            limit: Bytes that the guard holds the worker and its children to; 0: none.
            timeout: Seconds after which the guard ends it; 0: never.
            grace: Seconds between SIGTERM and SIGKILL.

        Raises:
            OSError: It died while it had nothing to do.
        """
        self._step += 1
        self.given = time.monotonic()
        self._block.set("limit", limit)
        if self._cage is not None:
            self._block.set("kernel", self._cage.limit(limit))
        self._block.set("grace", grace)
        self._block.set("deadline", self.given + timeout if timeout else 0.0)
        self._block.set("step", self._step)
        self._native.begin(about(task))
        self.pipe.send_bytes(msgspec.json.encode(task))
        self.task = task
        if limit or timeout or self._block.get("asleep"):
            self._control.send(b"w")

    def take(self) -> Outcome | None:
        """Return what it answers, and have it idle; none if it died, or is being ended, instead.

        Only when `pipe` is readable; after none, wait for `life`.
        """
        try:
            answer = self.pipe.recv_bytes()
        except (EOFError, OSError):
            return None
        # In this order: a guard that finds no step under way any more gives no cause.
        self._block.set("step", 0)
        if self.cause:
            return None
        outcome = _decode(answer)
        self.task = None
        log = (*outcome.log, *self._native.settle())[-TAIL:]
        return msgspec.structs.replace(outcome, usage=self._with_family(outcome), log=log)

    def last_lines(self) -> tuple[str, ...]:
        """Return what the task of now said last: for a worker that ended and cannot say it itself."""
        self._native.settle()
        return tail_of(logs_folder(self._root), about(self.task), most=TAIL) if self.task else ()

    def _with_family(self, outcome: Outcome) -> Usage:
        """Add to what the worker measured of itself what its guard saw of it and its children over the time."""
        usage, covered = outcome.usage, self._block.get("covered")
        if self._block.get("seen") != self._step or covered <= 0.0:
            return usage
        rest = max(0.0, outcome.seconds - covered)
        peak = max(usage.peak_bytes, int(self._block.get("peak")))
        held = self._block.get("held")
        return msgspec.structs.replace(usage, peak_bytes=peak, gb_seconds=(held + held / covered * rest) / 1e9)

    def used(self) -> Usage:
        """Return what the task of now has used, as its guard saw it last."""
        if self.task is None or self._block.get("seen") != self._step:
            return Usage()
        covered, held = self._block.get("covered"), self._block.get("held")
        rest = max(0.0, self.seconds - covered) if covered else 0.0
        return Usage(
            cpu_seconds=self._block.get("cpu"),
            gb_seconds=(held + held / covered * rest if covered else 0.0) / 1e9,
            peak_bytes=int(self._block.get("peak")),
            read_bytes=int(self._block.get("read")),
            written_bytes=int(self._block.get("written")),
        )

    def resident(self) -> int:
        """Return the bytes that the worker and its children hold now."""
        return resident([self.pid, *family(self.pid)]) if self.pid else 0

    def ask_to_stop(self) -> None:
        """Have the guard end it, SIGTERM first; returns at once."""
        with contextlib.suppress(OSError):
            self._control.send(guard.STOP)

    def gone(self, seconds: float) -> bool:
        """Wait until nothing of it is left, at most so many seconds, and say whether that is so."""
        poll = select.poll()
        poll.register(self._life)
        return bool(poll.poll(max(0, round(seconds * 1000))))

    def kill(self) -> None:
        """Have the guard kill it; returns at once."""
        # The end of the socket says so, here as when the runner dies.
        self._control.close()

    def end(self) -> int:
        """Kill what is left of it and return the exit status of the worker, negative for a signal."""
        self.kill()
        self.pipe.close()
        self._process.wait()
        if self._process.returncode and (pid := self.pid):
            # The guard itself was killed, and the worker with it; what they started is in the worker's group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            until = time.monotonic() + _LAST_WAIT
            while born(pid) and time.monotonic() < until:
                time.sleep(0.002)  # it is no child of ours that could be waited for
            status = -signal.SIGKILL if self._process.returncode < 0 else self._process.returncode
        else:
            status = int(self._block.get("status"))
        os.close(self._life)
        self._caged = self.caged
        self._block.close()
        if self._cage is not None:
            self._cage.remove()
        return status
