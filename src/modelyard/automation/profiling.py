"""Ask running processes of a project what they do, all at once, and put it together."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import ModelyardError, NotFound
from modelyard._kit.hearing import folder_of, reached

__all__ = ["Frame", "Grown", "Looked", "Process", "chosen", "look", "processes", "speedscope", "top"]

# Seconds until a process answers at all, and beyond the time that was asked for.
_HELLO, _BEYOND = 5.0, 60.0
_PART = 1 << 16


@dataclass(frozen=True, slots=True)
class Process:
    """A process that may be asked.

    Attributes:
        pid: Its id.
        what: What it is, in words; empty: a worker that has nothing to do.
        path: Its socket.
    """

    pid: int
    what: str
    path: Path


class Frame(msgspec.Struct, frozen=True):
    """A line of code."""

    name: str
    file: str
    line: int


class Sample(msgspec.Struct, frozen=True):
    """One stack, by positions of its frames, the outermost first; CPU seconds and seconds."""

    thread: str
    stack: tuple[int, ...]
    cpu: float
    wall: float


class Looked(msgspec.Struct, frozen=True):
    """Where a process has spent its time.

    Attributes:
        pid: Its id.
        what: What it is.
        seconds: How long one looked.
        looks: How often.
        cost: Share of a core that the looking took.
        cpu: CPU seconds that all its threads took, without that.
        unseen: CPU seconds of those that no stack is known of: threads of native code.
        frames: Lines of code.
        samples: Stacks.
    """

    pid: int
    what: str
    seconds: float
    looks: int
    cost: float
    cpu: float
    unseen: float
    frames: tuple[Frame, ...]
    samples: tuple[Sample, ...]


class Grown(msgspec.Struct, frozen=True):
    """What of a process's memory has come meanwhile and is still there.

    Attributes:
        pid: Its id.
        what: What it is.
        seconds: How long one looked.
        resident: Bytes that it held before and after.
        overhead: Bytes of the books that were kept of it.
        grew: Bytes that Python has made on balance.
        places: Where, the largest first: `bytes`, `count` of blocks, `stack` of `FILE:LINE`, the outermost first.
    """

    pid: int
    what: str
    seconds: float
    resident: tuple[int, int]
    overhead: int
    grew: int
    places: tuple[dict[str, Any], ...]


def processes(root: Path) -> list[Process]:
    """Return the processes of a project that may be asked; sockets of those that are dead are removed."""
    found = []
    for path in sorted(folder_of(root).glob("*.sock"), key=lambda path: path.name):
        try:
            with _ordered(path, {"kind": "hello", "seconds": 0, "rate": 1}) as asked:
                told = _heard(asked, _HELLO)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except (OSError, ValueError):
            # It is being looked into, or ends.
            found.append(Process(int(path.stem), "busy", path))
        else:
            found.append(Process(told["pid"], told["what"], path))
    return found


def chosen(root: Path, wanted: str) -> list[Process]:
    """Return the processes that are meant.

    Args:
        root: Folder of the project.
        wanted: Number of a process, name of an endpoint or of a step; empty: the servers, or else the steps under way.

    Raises:
        NotFound: There is none (`profile-nothing`).
    """
    every = [one for one in processes(root) if one.what]
    if not wanted:
        servers = [one for one in every if one.what.startswith("server ")]
        found = servers or every
    elif wanted.isdecimal():
        found = [one for one in every if one.pid == int(wanted)]
    else:
        found = [one for one in every if one.what == f"step {wanted}" or wanted in _served(one)]
    if not found:
        there = ", ".join(sorted({f"{one.pid} ({one.what})" for one in every}))
        hint = f"there is: {there}" if there else "`modelyard serve` or a step of `modelyard run` has to be under way"
        what = f"`{wanted}` is no process of this project" if wanted else "nothing of this project runs"
        raise NotFound("profile-nothing", what, hint=hint)
    return found


def _served(one: Process) -> list[str]:
    """Return the endpoints that a process serves."""
    kind, _, names = one.what.partition(" of ")
    return names.split(", ") if kind == "server" else []


def look(
    of: Sequence[Process], *, seconds: float, rate: float = 100.0, memory: bool = False, wall: bool = False
) -> list[dict[str, Any]]:
    """Look into processes for some seconds, all at once, and return what each has told.

    Raises:
        ModelyardError: One of them does not answer (`profile-unanswered`).
    """
    order = {"kind": "memory" if memory else "time", "seconds": seconds, "rate": rate, "wall": wall}
    with ExitStack() as held:
        # Who stops us hangs up, and with that they stop.
        asking = [(one, held.enter_context(_connected(one, order))) for one in of]
        return [_told(one, asked, seconds + _BEYOND) for one, asked in asking]


def _connected(one: Process, order: dict[str, Any]) -> socket.socket:
    try:
        return _ordered(one.path, order)
    except OSError as error:
        raise _unanswered(one, error) from error


def _told(one: Process, asked: socket.socket, seconds: float) -> dict[str, Any]:
    try:
        return _heard(asked, seconds)
    except (OSError, ValueError) as error:
        raise _unanswered(one, error) from error


def _unanswered(one: Process, error: Exception) -> ModelyardError:
    why = str(error) or type(error).__name__
    hint = "it may have ended, or somebody else looks into it"
    return ModelyardError("profile-unanswered", f"process {one.pid} ({one.what}) has not answered: {why}", hint=hint)


def _ordered(path: Path, order: dict[str, Any]) -> socket.socket:
    """Return a connection on which something was ordered."""
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        asking.settimeout(_HELLO)
        with reached(path) as address:
            asking.connect(address)
        asking.sendall(json.dumps(order).encode() + b"\n")
    except BaseException:
        asking.close()
        raise
    return asking


def _heard(asked: socket.socket, seconds: float) -> dict[str, Any]:
    asked.settimeout(seconds)
    parts = []
    while part := asked.recv(_PART):
        parts.append(part)
    found: dict[str, Any] = json.loads(b"".join(parts))
    return found


def top(looked: Sequence[Looked], *, wall: bool = False) -> list[tuple[str, str, float, float]]:
    """Return functions with the seconds that they took themselves and with all that they called, the dearest first.

    Returns:
        Name, place, seconds of its own, seconds with what it called.
    """
    own: dict[tuple[str, str], float] = {}
    whole: dict[tuple[str, str], float] = {}
    for one in looked:
        for sample in one.samples:
            cost = sample.wall if wall else sample.cpu
            names = [(one.frames[at].name, one.frames[at].file) for at in sample.stack]
            if names:
                own[names[-1]] = own.get(names[-1], 0.0) + cost
            # A function that calls itself counts once.
            for name in set(names):
                whole[name] = whole.get(name, 0.0) + cost
    ranked = sorted(whole, key=lambda name: (-own.get(name, 0.0), -whole[name], name))
    return [(*name, own.get(name, 0.0), whole[name]) for name in ranked]


def speedscope(looked: Sequence[Looked], *, wall: bool = False) -> dict[str, Any]:
    """Return a file for https://www.speedscope.app: a profile for each thread of each process."""
    frames: dict[Frame, int] = {}
    profiles = []
    for one in looked:
        for thread in dict.fromkeys(sample.thread for sample in one.samples):
            mine = [sample for sample in one.samples if sample.thread == thread]
            weights = [sample.wall if wall else sample.cpu for sample in mine]
            profiles.append(
                {
                    "type": "sampled",
                    "name": f"{one.what} {one.pid}: {thread}",
                    "unit": "seconds",
                    "startValue": 0,
                    "endValue": sum(weights),
                    "samples": [
                        [frames.setdefault(one.frames[at], len(frames)) for at in sample.stack] for sample in mine
                    ],
                    "weights": weights,
                }
            )
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "modelyard profile",
        "shared": {"frames": [{"name": f.name, "file": f.file, "line": f.line} for f in frames]},
        "profiles": profiles,
        "activeProfileIndex": 0,
    }
