"""Names that one process holds at a time, freed by the system when it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.errors import Busy
from modelyard.store.base import Held
from modelyard.store.disk import explained

__all__ = ["Locks", "held_by"]

# Whoever asks for the holder takes the lock for a moment, so one refusal does not mean that it is held.
_TRIES = 10
_PAUSE = 0.01

# Files locked by this process. A forked worker inherits them, and would keep the name held after its parent died.
_locked: set[int] = set()


def _let_go_in_child() -> None:
    for fd in _locked:
        os.close(fd)
    _locked.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


class _Kept:
    """A lock of the system: it cannot be lost."""

    seconds = 0.0

    def check(self) -> None:
        """It is held."""


_KEPT = _Kept()


class Locks:
    """One lock file a name; its content says who holds it.

    Args:
        folder: Where the files are.
        clock: Source of `since`.
    """

    def __init__(self, folder: Path, *, clock: Clock = system_clock) -> None:
        self._folder = folder
        self._clock = clock

    @contextmanager
    def hold(self, name: str, *, who: dict[str, Any]) -> Iterator[Held]:
        """Hold `name` while the context is open.

        Args:
            name: What is held, e.g. `run`.
            who: Plain JSON for those who find it held, e.g. `{"run": "run-..."}`; pid and time are added.

        Raises:
            Busy: Somebody holds it.
        """
        with self._locked(name) as fd:
            if fd is None:
                raise held_by(name, self.holder(name) or {})
            with explained(self._path(name)):
                os.ftruncate(fd, 0)
                os.pwrite(fd, msgspec.json.encode({"pid": os.getpid(), "since": self._clock(), **who}), 0)
            try:
                yield _KEPT
            finally:
                if fd in _locked:
                    os.ftruncate(fd, 0)

    @contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """Hold `name` while the context is open, after waiting for whoever has it."""
        with self._locked(name, wait=True):
            yield

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return what the one who holds `name` says of itself, or none if nobody alive holds it."""
        try:
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            for _ in range(_TRIES):
                if _take(fd, fcntl.LOCK_SH):
                    return None
                if text := os.pread(fd, 1 << 16, 0):
                    found: dict[str, Any] = msgspec.json.decode(text)
                    return found
                # The holder has the lock and is about to say who it is.
                time.sleep(_PAUSE)
            return {"name": name}
        finally:
            os.close(fd)

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.lock"

    @contextmanager
    def _locked(self, name: str, *, wait: bool = False) -> Iterator[int | None]:
        path = self._path(name)
        with explained(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _locked.add(fd)
        try:
            if wait:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield fd
            else:
                yield fd if _take_soon(fd) else None
        finally:
            # In a forked child the file is closed already, and its number may be another file's.
            if fd in _locked:
                _locked.discard(fd)
                os.close(fd)


def _take(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_soon(fd: int) -> bool:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE)
        if _take(fd, fcntl.LOCK_EX):
            return True
    return False


def held_by(name: str, who: dict[str, Any]) -> Busy:
    """Return the error that says who holds a name: its run, command, process, machine, since when, and how it ends."""
    pid, command, there = who.get("pid", "unknown"), who.get("command", ""), " there" if "host" in who else ""
    process = f"process {pid} on {who['host']}" if "host" in who else f"process {pid}"
    whose = ", ".join(
        [*([f"run {who['run']}"] if "run" in who else []), *([f"`{command}`"] if command else []), process]
    )
    since = f" since {as_text(who['since'])}" if "since" in who else ""
    if "run" not in who:
        hint = f"it is held for moments only: try again, or stop it{there} cleanly with `kill {pid}`"
    elif command == "modelyard up":
        hint = "wait for it, or end it: `modelyard cancel` this run, `modelyard down` the whole daemon"
    else:
        hint = "wait for it, or end it with `modelyard cancel`"
    kept = "; its finished steps are kept" if "run" in who else ""
    return Busy("store-held", f"`{name}` is held by {whose}{since}", hint=f"{hint}{kept}")
