"""The guard of a worker: `python -P guard.py`, a small parent process that sees to it that nothing outlives its time.

It forks the worker and stays: it stops the worker at its time limit, watches the memory of the whole tree of
processes where no control group does, adds up what the tree uses, and when the worker or the runner is gone it ends
every process that is left, also those that ignore SIGTERM or went into a session of their own. It cannot be held up by
what a step does, since it shares no interpreter with it; to stay small it loads almost nothing.

Runner, guard and worker share a `Block` of memory; the socket `control` wakes the guard, and its end means that the
runner is gone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from modelyard._kit.processes import family, proportional, resident, spent

__all__ = ["CAUSES", "STOP", "Block", "Guard", "die_with_parent", "main"]

# Why a guard ended its worker, by the number in the block.
CAUSES = ("", "timeout", "memory", "stopped")
# Sent over the control socket: end the worker, gently first. Any other byte only wakes.
STOP = b"t"

_LAYOUT = {
    # Written by the runner.
    "step": "Q",  # number of the step under way; 0: none
    "deadline": "d",  # on the monotonic clock; 0: none
    "limit": "Q",  # bytes that the guard holds the tree to; 0: none
    "grace": "d",  # seconds between SIGTERM and SIGKILL
    "kernel": "Q",  # the control group has the same limit
    # Written by the guard.
    "asleep": "Q",  # it waits to be woken
    "worker": "Q",  # process id
    "caged": "Q",  # the worker is in its control group
    "cause": "Q",  # see CAUSES
    "cause_step": "Q",  # the step under way at that moment
    "status": "q",  # exit status of the worker, negative for a signal
    "seen": "Q",  # the step that the rest is about
    "cpu": "d",  # CPU seconds of the tree since the step began
    "held": "d",  # bytes times seconds
    "covered": "d",  # seconds that `held` is about
    "peak": "Q",  # highest resident bytes that were seen
    "read": "Q",
    "written": "Q",
}
_SIZE = 8 * len(_LAYOUT)
_PLACES = {name: (struct.Struct(kind), 8 * i) for i, (name, kind) in enumerate(_LAYOUT.items())}

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Seconds between two looks: at memory that must be held to a limit, at a young step, at one that takes its time.
_WATCH, _YOUNG, _OLD = 0.004, 0.1, 0.25
_YOUTH = 2.0
# Seconds between two rounds of SIGKILL, and until what survives them is left alone.
_AGAIN, _PATIENCE = 0.01, 10.0
# `getrusage` counts blocks of this size, whatever the disk's are.
_BLOCK_BYTES = 512
# Looks at the memory between two looks at which processes there are.
_FAMILY_EVERY = 8


class Block:
    """Memory that runner and guard share: each field has one writer.

    Args:
        fd: An open file of at least `Block.SIZE` bytes.
    """

    SIZE = _SIZE

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SIZE)

    def get(self, name: str) -> float:
        """Return a field."""
        form, place = _PLACES[name]
        value: float = form.unpack_from(self._map, place)[0]
        return value

    def set(self, name: str, value: float) -> None:
        """Set a field."""
        form, place = _PLACES[name]
        form.pack_into(self._map, place, value)

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()


def die_with_parent(number: int) -> None:
    """Ask the kernel for a signal when the parent dies, where it can."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Guard:
    """What the guard does once the worker is there.

    Args:
        block: The shared memory.
        worker: Process id of the worker.
        control: Socket to the runner.
        signals: Pipe on which the numbers of arriving signals are read.

    Attributes:
        orphaned: The runner is gone: nobody else tidies up.
    """

    def __init__(self, block: Block, worker: int, control: int, signals: int) -> None:
        self._block = block
        self._worker = worker
        self._control = control
        self._signals = signals
        self.orphaned = False
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(signals, select.POLLIN)
        self._alive = True
        self._kill_at = self._give_up_at = 0.0
        self._step = 0
        self._family: list[int] = []
        self._looks = 0
        self._began = self._last = self._full = 0.0
        self._base = (0.0, 0, 0)

    def run(self) -> None:
        """Return once neither the worker nor anything it started is left."""
        while True:
            step = int(self._block.get("step"))
            if step != self._step:
                self._begin(step)
            pause = self._pause()
            self._block.set("asleep", pause is None)
            if pause is None and self._block.get("step"):
                continue
            ready = self._poll.poll(None if pause is None else max(0, round(pause * 1000)))
            self._block.set("asleep", 0)
            for fd, _ in ready:
                self._hear(fd)
            if self._reap():
                return
            self._look()

    def _pause(self) -> float | None:
        """Return the seconds until the next look; none: until somebody wakes us."""
        now = time.monotonic()
        times = []
        if self._kill_at:
            times.append(self._kill_at)
        if self._step and self._alive:
            times.append(self._last + self._every(now))
            if (deadline := self._block.get("deadline")) and not self._kill_at:
                times.append(deadline)
        return max(0.0, min(times) - now) if times else None

    def _every(self, now: float) -> float:
        if self._limit():
            return _WATCH
        return _YOUNG if now - self._began < _YOUTH else _OLD

    def _limit(self) -> int:
        """Return the bytes that we hold the tree to; none where the kernel does."""
        if self._block.get("kernel") and self._block.get("caged"):
            return 0
        return int(self._block.get("limit"))

    def _hear(self, fd: int) -> None:
        if fd == self._signals:
            if signal.SIGTERM in os.read(fd, 4096):
                # The runner died, or somebody wants us gone: work that nobody will record must not go on.
                self.orphaned = True
                self._kill_all()
            return
        try:
            said = os.read(fd, 4096)
        except ConnectionResetError:
            said = b""
        if not said:
            self.orphaned = True
            self._poll.unregister(fd)
            self._kill_all()
        elif STOP in said:
            self._stop(CAUSES.index("stopped"))

    def _begin(self, step: int) -> None:
        self._step = step
        self._began = self._last = self._full = time.monotonic()
        if not step:
            return
        self._family = [self._worker, *family(self._worker)]
        self._base = self._spent()
        for name in ("cpu", "held", "covered", "peak", "read", "written"):
            self._block.set(name, 0)
        self._block.set("seen", step)

    def _look(self) -> None:
        now = time.monotonic()
        if self._kill_at and now >= self._kill_at:
            self._kill_all()
        if not self._step or not self._alive:
            return
        deadline = self._block.get("deadline")
        if deadline and now >= deadline and self._block.get("step") == self._step:
            self._stop(CAUSES.index("timeout"))
        if now - self._last >= self._every(now) * 0.9:
            self._sample(now)

    def _sample(self, now: float) -> None:
        limit = self._limit()
        if self._looks % _FAMILY_EVERY == 0 or not limit:
            self._family = [self._worker, *family(self._worker)]
        self._looks += 1
        held = resident(self._family)
        if limit and held > limit and len(self._family) > 1:
            held = proportional(self._family) or held
        past = now - self._last
        self._last = now
        self._block.set("held", self._block.get("held") + held * past)
        self._block.set("covered", now - self._began)
        self._block.set("peak", max(held, int(self._block.get("peak"))))
        if limit and held > limit and self._block.get("step") == self._step:
            self._cause(CAUSES.index("memory"))
            self._kill_all()
        elif now - self._full >= _YOUNG * 0.9:
            self._full = now
            self._count()

    def _count(self) -> None:
        for name, value, base in zip(("cpu", "read", "written"), self._spent(), self._base, strict=True):
            self._block.set(name, max(0.0, value - base) if name == "cpu" else max(0, int(value - base)))

    def _spent(self) -> tuple[float, int, int]:
        """Return what everything below us has used since it was started: what has ended, and what is alive."""
        past = getrusage(RUSAGE_CHILDREN)
        cpu, read, written = spent(family(os.getpid()))
        return (
            past.ru_utime + past.ru_stime + cpu,
            past.ru_inblock * _BLOCK_BYTES + read,
            past.ru_oublock * _BLOCK_BYTES + written,
        )

    def _cause(self, cause: int) -> None:
        self._block.set("cause_step", self._step)
        self._block.set("cause", cause)

    def _stop(self, cause: int) -> None:
        if self._kill_at:
            return
        self._cause(cause)
        self._kill_at = time.monotonic() + self._block.get("grace")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._worker, signal.SIGTERM)

    def _kill_all(self) -> None:
        now = time.monotonic()
        # What was killed hands its children up to us, so that a second look finds those that slipped through.
        self._kill_at = now + _AGAIN
        self._give_up_at = self._give_up_at or now + _PATIENCE
        for pid in family(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> bool:
        """Take in what has ended; say whether nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                # What another user's rights protect cannot be ended by us.
                return 0.0 < self._give_up_at < time.monotonic()
            if pid == self._worker:
                self._alive = False
                self._block.set("status", os.waitstatus_to_exitcode(status))
                if self._step:
                    self._count()
                if not self._kill_at:
                    self._kill_all()


def main(arguments: list[str]) -> int:
    """Fork a worker and guard it.

    Args:
        arguments: File descriptors of the worker's socket, the control socket, a pipe that only the guard keeps open
            and the block; process id of the runner; folder of the project; the control group's file that takes
            process ids, or nothing; `network` if the worker has one.
    """
    pipe, control, life, block_fd, runner = map(int, arguments[:5])
    root, cage, network = arguments[5:]
    block = Block(block_fd)
    os.close(block_fd)
    for fd in (pipe, control, life):
        os.set_inheritable(fd, False)  # what a step starts must not keep them open
    # Processes that lose their parent come to us, wherever they are below.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Ctrl-C reaches the whole group of a terminal; the runner decides what happens to its workers.
    os.setpgid(0, 0)
    signals, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    die_with_parent(signal.SIGTERM)
    if os.getppid() != runner:
        return 1  # it died before we asked to hear of it
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for fd in (control, life, signals, wake):
            os.close(fd)
        return _work(block, pipe, guard, root, cage, network=bool(network))
    os.close(pipe)
    block.set("worker", worker)
    with contextlib.suppress(OSError):  # the worker does the same: whoever comes first
        os.setpgid(worker, worker)
    watch = Guard(block, worker, control, signals)
    watch.run()
    if cage and watch.orphaned:
        with contextlib.suppress(OSError):
            Path(cage).parent.rmdir()
    # Its end closes `life`: the runner knows that nothing is left.
    os._exit(0)


def _work(block: Block, pipe: int, guard: int, root: str, cage: str, *, network: bool) -> int:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != guard:
        return 1
    if cage:
        with contextlib.suppress(OSError):
            Path(cage).write_text(str(os.getpid()))
            block.set("caged", 1)
    block.close()
    from modelyard.pipeline import worker

    return worker.main(pipe, Path(root), network=network)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
