"""End the run that is under way from outside, cleanly: by a person, or because its machine goes down."""

from __future__ import annotations

import os
import signal
import socket
import time

from modelyard._kit.errors import Busy, NotFound
from modelyard.records import Run, RunStatus
from modelyard.store import Store

__all__ = ["CutOff", "ask", "cancel", "ending"]

_PAUSE = 0.05
# Seconds after which a process that was asked to end its run is asked again, more firmly.
_ASK_AGAIN = 2.0


class CutOff(KeyboardInterrupt):
    """The process must go although its run is not at fault: the run is interrupted, and its fire is queued again."""


def ask(run: str) -> str:
    """Return the name that whoever wants a run to end holds until it has ended."""
    return f"cancel:{run}"


def ending(stop: KeyboardInterrupt, run: str, store: Store) -> tuple[RunStatus, str]:
    """Return how a run ends that was told to stop, and why."""
    if isinstance(stop, CutOff):
        return "interrupted", str(stop) or "its process was stopped"
    asked = store.holder(ask(run))
    return (
        "cancelled",
        f"cancelled by {asked['actor']}" if asked and "actor" in asked else f"stopped by {str(stop) or 'Ctrl-C'}",
    )


def cancel(store: Store, *, actor: str, run: str = "", seconds: float = 30.0) -> Run:
    """End a run that is under way, and wait until it has ended; its finished steps are kept.

    A run on this machine is told by a signal. One on another machine is ended by its daemon, which looks for who asks.

    Args:
        store: The project's store.
        actor: Who asks, for the record.
        run: Id of the run; whichever is under way if left out.
        seconds: How long to wait for its end.

    Returns:
        The run as it ended, by our asking or before.

    Raises:
        NotFound: No run is under way, or there is no such run.
        Busy: It did not end in time.
    """
    who = store.holder("run") or {}
    run = run or who.get("run", "")
    if not run:
        raise NotFound("run-not-under-way", "no run is under way", hint="`modelyard runs` lists those that were")
    if store.ledger.run(run) is None and who.get("run") != run:
        raise NotFound.of("run", run, (r.id for r in store.ledger.runs()))
    with store.hold(ask(run), who={"actor": actor}):
        until, told = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < until:
            who = store.holder("run") or {}
            if who.get("run") != run:
                return _ended(run, store)
            if now - told >= _ASK_AGAIN and who.get("host", "") == socket.gethostname():
                # A shell lets what it runs in the background ignore the one; the other is heard by everybody.
                _tell(int(who["pid"]), signal.SIGTERM if told else signal.SIGINT)
                told = now
            time.sleep(_PAUSE)
    place = f"process {who.get('pid')} on {who.get('host', 'this machine')}"
    raise Busy(
        "run-not-ended",
        f"run `{run}` did not end within {seconds:.0f} s ({place})",
        hint="a step may be inside a library that cannot be interrupted: wait, or kill the process",
    )


def _ended(run: str, store: Store) -> Run:
    found = store.ledger.run(run)
    if found is None or found.status == "running":
        raise NotFound(
            "run-not-under-way", f"run `{run}` is not under way: its process died", hint="the next run settles it"
        )
    return found


def _tell(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # It has just ended by itself; the next look at the holder says so.
        return
    except PermissionError:
        raise Busy(
            "run-not-ours", f"process {pid} belongs to another user", hint="ask its owner to cancel it"
        ) from None
