"""Look into this process from a thread beside the others: what they do, or what memory is made of.

CPU is what the system says that each thread has used within a moment, and goes to the stack that the thread has at its
end; all stacks of a thread together are made up to what it has used. Native code is seen as the line of Python that
called it; a thread that native code started is not seen, but what it used is told. A look needs the interpreter: while
native code keeps that for itself nobody looks.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["answer"]

_END = b"\n"
# Bytes of an order, and frames of a stack at most.
_ORDER, _DEEP = 4096, 200
# Seconds within which one sees who uses CPU.
_MOMENT = 1e-4
# Seconds after which a thread that runs gives way to the one that looks.
_SWITCH = 2e-5
# Places that memory grew at, and frames that are kept of each.
_PLACES, _FRAMES = 100, 12


def answer(asked: socket.socket, what: str) -> None:
    """Do what a line of JSON orders, and answer with another one; who hangs up ends it.

    Raises:
        OSError: Who asked has gone.
        ValueError: It is no order.
    """
    asked.settimeout(5.0)
    said = b""
    while not said.endswith(_END) and len(said) < _ORDER and (part := asked.recv(_ORDER)):
        said += part
    order = json.loads(said)
    found: dict[str, Any] = {"pid": os.getpid(), "what": what}
    seconds, rate = min(float(order["seconds"]), 3600.0), min(max(float(order["rate"]), 1.0), 1000.0)
    if order["kind"] == "memory":
        found |= _memory(asked, seconds)
    elif order["kind"] == "time":
        usual = sys.getswitchinterval()
        # Who looks has to get the interpreter at once: a thread that gives it back by itself waits for something.
        sys.setswitchinterval(_SWITCH)
        try:
            found |= _time(asked, seconds, 1 / rate, waiting=bool(order.get("wall")))
        finally:
            sys.setswitchinterval(usual)
    asked.settimeout(30.0)
    asked.sendall(json.dumps(found).encode() + _END)


def _gone(asked: socket.socket, seconds: float) -> bool:
    """Wait, and say whether who asked has hung up."""
    return bool(select.select([asked], [], [], max(0.0, seconds))[0])


class _Threads:
    """CPU that the threads of this process have used."""

    def __init__(self) -> None:
        self._files: dict[int, Any] = {}
        self._first = threading.main_thread().ident

    def used(self) -> dict[int, float]:
        """Return the CPU seconds of each thread that Python knows, by its ident."""
        found = {}
        for thread in threading.enumerate():
            # A fork has left the first thread with the number of its parent's.
            native = os.getpid() if thread.ident == self._first else thread.native_id
            if thread.ident is not None and native is not None:
                found[thread.ident] = self._read(native)
        return found

    def _read(self, native: int) -> float:
        try:
            if native not in self._files:
                self._files[native] = Path(f"/proc/self/task/{native}/schedstat").open("rb", buffering=0)  # noqa: SIM115
            return int(os.pread(self._files[native].fileno(), 64, 0).split()[0]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def _time(asked: socket.socket, seconds: float, every: float, *, waiting: bool) -> dict[str, Any]:
    """Return stacks with the CPU seconds and the seconds of each; where waiting is not asked for, of those with CPU."""
    me, threads = threading.get_ident(), _Threads()
    stacks: dict[tuple[int, tuple[Any, ...]], list[float]] = {}
    own, began, used = time.thread_time(), time.monotonic(), time.process_time()
    at_first = at_last = threads.used()
    names: dict[int, str] = {}
    looks, last = 0, began
    try:
        while (now := time.monotonic()) < began + seconds:
            before = threads.used()
            # What is used within a moment goes to the stack at its end; within all the time between two looks, much
            # of it would go to a thread that waits again.
            time.sleep(_MOMENT)
            at_last = threads.used()
            for ident, frame in sys._current_frames().items():
                cpu = at_last.get(ident, 0.0) - before.get(ident, 0.0)
                if ident != me and (cpu > 0 or waiting):
                    entry = stacks.setdefault((ident, _stack(frame)), [0.0, 0.0])
                    entry[0] += max(cpu, 0.0)
                    entry[1] += now - last if looks else 0.0
            names |= {thread.ident: thread.name for thread in threading.enumerate() if thread.ident is not None}
            looks, last = looks + 1, now
            del frame
            if _gone(asked, now + every - time.monotonic()):
                break
    finally:
        threads.close()
    took, cost = time.monotonic() - began, time.thread_time() - own
    every_thread = time.process_time() - used - cost
    seen = _scale(stacks, {ident: cpu - at_first.get(ident, 0.0) for ident, cpu in at_last.items()})
    places: dict[tuple[str, str, int], int] = {}
    samples = [
        {
            "thread": names.get(ident, f"thread {ident}"),
            "stack": [places.setdefault(_place(*one), len(places)) for one in stack],
            "cpu": c,
            "wall": w,
        }
        for (ident, stack), (c, w) in stacks.items()
    ]
    return {
        "seconds": took,
        "looks": looks,
        "cost": cost / took if took else 0.0,
        "cpu": max(0.0, every_thread),
        "unseen": max(0.0, every_thread - seen),
        "frames": [{"name": name, "file": file, "line": line} for name, file, line in places],
        "samples": samples,
    }


def _scale(stacks: dict[tuple[int, tuple[Any, ...]], list[float]], used: dict[int, float]) -> float:
    """Have the stacks of each thread make up all that it used, and return that."""
    sums: dict[int, float] = {}
    for (ident, _), (cpu, _) in stacks.items():
        sums[ident] = sums.get(ident, 0.0) + cpu
    for (ident, _), entry in stacks.items():
        if sums[ident]:
            entry[0] *= max(0.0, used.get(ident, 0.0)) / sums[ident]
    return sum(entry[0] for entry in stacks.values())


def _stack(frame: FrameType | None) -> tuple[Any, ...]:
    """Return code and line of each frame, the outermost first."""
    found: list[Any] = []
    while frame is not None and len(found) < _DEEP:
        found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(reversed(found))


def _place(code: Any, line: int) -> tuple[str, str, int]:
    return code.co_qualname if hasattr(code, "co_qualname") else code.co_name, code.co_filename, line


def _memory(asked: socket.socket, seconds: float) -> dict[str, Any]:
    """Return what was made meanwhile and is still there, by the place that made it."""
    began, before = time.monotonic(), _resident()
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start(_FRAMES)
    try:
        first = tracemalloc.take_snapshot()
        _gone(asked, seconds)
        gc.collect()
        last = tracemalloc.take_snapshot()
        overhead = tracemalloc.get_tracemalloc_memory()
    finally:
        if not running:
            tracemalloc.stop()
    ours = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__))
    grown = last.filter_traces(ours).compare_to(first.filter_traces(ours), "traceback")
    kept = [one for one in grown if one.size_diff > 0]
    return {
        "seconds": time.monotonic() - began,
        "resident": [before, _resident()],
        "overhead": overhead,
        "grew": sum(one.size_diff for one in grown),
        "places": [
            {
                "bytes": one.size_diff,
                "count": one.count_diff,
                "stack": [f"{frame.filename}:{frame.lineno}" for frame in one.traceback],
            }
            for one in sorted(kept, key=lambda one: -one.size_diff)[:_PLACES]
        ],
    }


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
