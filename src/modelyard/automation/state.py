"""What a daemon publishes about itself beside the project, and how the daemons of a store stand."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard.records import Draft
from modelyard.store import Store

__all__ = [
    "HELD",
    "ChildState",
    "DaemonState",
    "Seen",
    "TriggerState",
    "announce",
    "beat",
    "daemons",
    "forget",
    "local_lock",
    "log_file",
    "publish",
    "published",
]

# Held in the project's folder by the one daemon that runs on this machine.
HELD = "daemon"
_FILE = Path(".modelyard") / "daemon" / "state.json"
# Seconds without a heartbeat after which a daemon that lives is called stuck.
_STUCK = 30.0


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """How a child stands.

    Attributes:
        name: `runner`, `serve`, `ui` or `alerts`.
        state: `running`; `waiting` to be started again; `stopped`.
        pid: Its process; 0 while there is none.
        since: When it came into this state, seconds since 1970 UTC.
        restarts: How often it was started again after it had died.
        failures: How often it has died in a row, each time soon after its start.
        next: When it is started again, seconds since 1970 UTC.
        ended: How it ended the last time.
        said: Its last lines.
    """

    name: str
    state: str
    pid: int = 0
    since: float = 0.0
    restarts: int = 0
    failures: int = 0
    next: float = 0.0
    ended: str = ""
    said: tuple[str, ...] = ()


class TriggerState(msgspec.Struct, frozen=True, kw_only=True):
    """How a trigger stands in the daemon that looks after it.

    Attributes:
        name: Its name.
        kind: Its kind.
        looked: When it looked last, seconds since 1970 UTC; 0: not yet.
        again: When it looks again; 0: only when it is woken.
        error: Why the last look failed; empty: it did not.
        failing: Since when looks fail; 0: they do not.
    """

    name: str
    kind: str
    looked: float = 0.0
    again: float = 0.0
    error: str = ""
    failing: float = 0.0


class DaemonState(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon says of itself and one project.

    Attributes:
        id: Its id.
        host: Name of the machine.
        pid: Its process.
        since: When it began.
        version: Of Modelyard.
        ready: Whether everything was started.
        beat: When it said so last; filled in when it is read.
        children: Its child processes.
        triggers: The triggers it looks after.
        fire: Id of the fire that it runs.
        run: Id of the run.
        queued: How many fires wait.
        problem: Why nothing can run or the declaration was not taken over; empty: all is well.
        hooks: Address where webhooks are received; empty: nowhere.
        holds: Fire that waits -> why its trigger does not let it start yet.
    """

    id: str
    host: str
    pid: int
    since: float
    version: str
    ready: bool = False
    beat: float = 0.0
    children: tuple[ChildState, ...] = ()
    triggers: tuple[TriggerState, ...] = ()
    fire: str = ""
    run: str = ""
    queued: int = 0
    problem: str = ""
    hooks: str = ""
    holds: dict[str, str] = {}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon as others see it.

    Attributes:
        id: Its id.
        host: Name of its machine.
        pid: Its process there.
        since: When it began.
        status: `running`, `stuck` (it lives and does nothing) or `lost` (its process died).
        here: What it publishes, where it runs in this very folder.
    """

    id: str
    host: str
    pid: int
    since: float
    status: str
    here: DaemonState | None = None


def local_lock(root: Path) -> Path:
    """Return the folder of the locks that are of this machine, whatever store the project has."""
    return root / ".modelyard" / "locks"


def log_file(root: Path) -> Path:
    """Return the file that a daemon in the background writes to."""
    return root / _FILE.with_name("up.log")


def publish(root: Path, state: DaemonState) -> None:
    """Write the state; after a power cut it is worth nothing, so nobody waits for the disk."""
    path = root / _FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(msgspec.json.encode(state))
    part.replace(path)


def beat(root: Path) -> None:
    """Say that the daemon lives."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(root / _FILE)


def published(root: Path) -> DaemonState | None:
    """Return what was published last, by whichever daemon, alive or not."""
    path = root / _FILE
    try:
        state = msgspec.json.decode(path.read_bytes(), type=DaemonState)
        return msgspec.structs.replace(state, beat=path.stat().st_mtime)
    except (OSError, msgspec.MsgspecError):
        return None


def announce(store: Store, state: DaemonState) -> None:
    """Write that a daemon began, and which before it are no more."""
    lost = [seen.id for seen in daemons(store, time.time()) if seen.status == "lost"]
    gone = [
        Draft(kind="daemon.stopped", actor="daemon", payload={"id": name, "reason": "its process died"})
        for name in lost
    ]
    body = {"id": state.id, "host": state.host, "pid": state.pid, "version": state.version}
    store.ledger.append(*gone, Draft(kind="daemon.started", actor="daemon", payload=body))
    for name in lost:
        forget(store.root, name)


def forget(root: Path, name: str) -> None:
    """Remove the lock file of a daemon that is no more: nobody will ever hold its name again."""
    (local_lock(root) / f"{quote(f'daemon:{name}', safe='')}.lock").unlink(missing_ok=True)


def daemons(store: Store, now: float) -> list[Seen]:
    """Return the daemons that began on this store and did not end, on whichever machine, oldest first.

    Args:
        store: The project's store.
        now: Seconds since 1970 UTC.
    """
    open_: dict[str, dict[str, Any]] = {}
    for event in store.ledger.events(kinds=("daemon.started", "daemon.stopped")):
        if event.kind == "daemon.started":
            open_[event.payload["id"]] = {**event.payload, "since": event.time}
        else:
            open_.pop(event.payload["id"], None)
    here = published(store.root)
    found = []
    for name, body in open_.items():
        mine = here if here is not None and here.id == name and here.host == socket.gethostname() else None
        status = "running" if store.holder(f"daemon:{name}") is not None else "lost"
        if status == "running" and mine is not None and now - mine.beat > _STUCK:
            status = "stuck"
        found.append(Seen(id=name, host=body["host"], pid=body["pid"], since=body["since"], status=status, here=mine))
    return found
