"""Several processes on one port: start them, say when all answer, start again what dies, end them all together.

Each process has a listening socket of its own with SO_REUSEPORT, so that the system spreads connections over them. The
sockets are made here and outlive it: one that is killed takes nothing with it but what it was answering, and who waits
at its socket is taken by the others, or by the next one. They are forked from this process, which imports what they
need, takes no connection, runs no thread and has no loop: a fork costs milliseconds, and what was imported is shared.
A child dies with its parent, even if that is killed with -9.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from modelyard._kit.errors import ModelyardError, ServeError
from modelyard._kit.ports import refuse
from modelyard.serving.told import say

__all__ = ["MOST", "Supervisor", "checked"]

# Processes at most: each holds the model.
MOST = 64
_PR_SET_PDEATHSIG = 1
# Seconds until one that died is started again, by how many died young in a row; a first death costs nothing.
_PAUSES = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
# One that lived so long did not die of how it was started.
_CALM = 10.0
# What tells us to end.
_ENDS = (signal.SIGTERM, signal.SIGINT)


def checked(processes: int) -> int:
    """Return a number of processes.

    Raises:
        ServeError: It is none (`processes-number`), or this system cannot share a port (`processes-unsupported`).
    """
    if not 1 <= processes <= MOST:
        raise ServeError("processes-number", f"`{processes}` processes cannot serve", hint=f"give 1 to {MOST}")
    if processes > 1 and not hasattr(socket, "SO_REUSEPORT"):
        raise ServeError("processes-unsupported", "this system cannot share a port", hint="leave --processes out")
    return processes


class Supervisor:
    """Keeps processes running.

    Args:
        work: What each does: is called in it with its place and with what it has to call, once it answers, with what
            it has to say of each endpoint (without spaces), and returns its exit code.
        places: For each process the sockets that it listens on.
        ready: Is called once, here, when all of them answer, with what the last of them told.
        patience: Seconds after which one that was told to end and does not is killed.
    """

    def __init__(
        self,
        work: Callable[[int, Callable[[Sequence[str]], object]], int],
        places: Sequence[Sequence[socket.socket]],
        ready: Callable[[Sequence[str]], object],
        *,
        patience: float,
    ) -> None:
        self._work = work
        self._places = places
        self._ready = ready
        self._patience = patience
        # Number of a place -> process in it, and when it began.
        self._running: dict[int, tuple[int, float]] = {}
        # Number of a place -> when a process is to be started in it.
        self._due = dict.fromkeys(range(len(places)), 0.0)
        self._young = dict.fromkeys(range(len(places)), 0)
        # Process -> what it said, and those that have said all.
        self._heard: dict[int, list[str]] = {}
        self._answering: set[int] = set()
        self._all_said = False
        self._told = False
        # The signal that told us to end.
        self._by = 0
        self._code = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, then until all have ended; return the highest of their exit codes.

        Where it came before all of them answered it is 130 for SIGINT and 143 for SIGTERM, as of one process.
        """
        hear, self._said = os.pipe()
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        before = {one: signal.signal(one, self._tell) for one in _ENDS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(woken)
        try:
            while not self._told:
                self._start()
                self._wait(hear, wake)
                self._bury()
            self._end(wake)
        finally:
            signal.set_wakeup_fd(-1)
            for pid, _ in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)
            for fd in (hear, self._said, wake, woken):
                os.close(fd)
        return self._code or (128 + self._by if self._by and not self._all_said else 0)

    def _tell(self, number: int, frame: object) -> None:
        self._told, self._by = True, self._by or number

    def _start(self) -> None:
        now = time.monotonic()
        for place, due in list(self._due.items()):
            if due > now:
                continue
            del self._due[place]
            parent = os.getpid()
            # One that is told to end before it is itself would take that for its parent's, and go on.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
            try:
                pid = os.fork()
                if pid == 0:
                    self._become(place, parent)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            self._running[place] = (pid, now)

    def _become(self, place: int, parent: int) -> None:
        """Be one of the processes, and never come back."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for one in (*_ENDS, signal.SIGCHLD):
                signal.signal(one, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                code = self._work(place, self._say_answering)
        except ModelyardError as error:
            sys.stderr.write(f"error{error}\n")
            code = error.exit_code
        except BaseException:  # noqa: BLE001 - what goes on above belongs to the parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _say_answering(self, said: Sequence[str]) -> None:
        # Lines so short are written in one piece each, and an empty one comes last.
        for one in (*said, ""):
            os.write(self._said, f"{os.getpid()},{one}\n".encode())

    def _wait(self, hear: int, wake: int) -> None:
        """Wait until one answers, one dies, somebody tells us to end, or one is due."""
        due = min(self._due.values(), default=None)
        seconds = None if due is None else max(0.0, due - time.monotonic())
        found, _, _ = select.select([hear, wake], [], [], seconds)
        if wake in found:
            os.read(wake, 4096)
        if hear in found:
            for line in os.read(hear, 65_536).decode().split():
                process, _, said = line.partition(",")
                pid = int(process)
                if said:
                    self._heard.setdefault(pid, []).append(said)
                else:
                    self._answering.add(pid)
            alive = {pid for pid, _ in self._running.values()}
            if not self._all_said and not self._due and alive <= self._answering:
                self._all_said = True
                self._ready(self._heard[pid])

    def _bury(self) -> None:
        for place, (pid, began) in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._running[place]
            code = os.waitstatus_to_exitcode(status)
            if self._told:
                # One that was still on its way to its place has answered nothing.
                idle = code == -signal.SIGTERM if self._all_said else self._by and -code in _ENDS
                self._code = max(self._code, 0 if idle else code if code >= 0 else 1)
                continue
            if not self._all_said:
                # What keeps one from its start keeps all of them; a Ctrl-C is for all of them.
                self._told, self._by = True, signal.SIGINT if code == -signal.SIGINT else 0
                self._code = 0 if self._by else code if code > 0 else 1
                continue
            lived = time.monotonic() - began
            self._young[place] = 0 if lived >= _CALM else self._young[place] + 1
            pause = _PAUSES[min(max(self._young[place] - 1, 0), len(_PAUSES) - 1)]
            self._due[place] = time.monotonic() + pause
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            say(f"process {pid} {how}, another starts in {pause:g} s", level="error")
            if pause and not any(one in self._answering for one, _ in self._running.values()):
                self._refuse()

    def _refuse(self) -> None:
        """Have callers go elsewhere where none answers, and it may be long until one does: that one listens again."""
        for place in self._due:
            for sock in self._places[place]:
                refuse(sock)

    def _tell_to_end(self, number: signal.Signals) -> None:
        for pid, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, wake: int) -> None:
        """Have all of them answer what waits and is under way, and kill those that do not end."""
        # With the last of them that has closed its own, callers are refused.
        for sock in (one for place in self._places for one in place):
            sock.close()
        self._tell_to_end(signal.SIGTERM)
        until = time.monotonic() + self._patience
        while self._running and time.monotonic() < until:
            found, _, _ = select.select([wake], [], [], min(0.5, max(0.0, until - time.monotonic())))
            # After a second Ctrl-C they do not wait for what is under way.
            if found and signal.SIGINT in os.read(wake, 4096):
                self._tell_to_end(signal.SIGINT)
            self._bury()
        for pid, _ in self._running.values():
            self._code = max(self._code, 1)
            say(f"process {pid} does not end and is killed: what it answered last may not be logged", level="error")
