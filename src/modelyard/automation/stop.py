"""Stop the daemon of a project on this machine, from another process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from modelyard._kit.errors import Busy
from modelyard._kit.processes import born
from modelyard.automation.state import HELD, local_lock
from modelyard.store.locks import Locks

__all__ = ["stop"]

_PAUSE = 0.05
# Seconds that a daemon has to end that was told to end at once: its children get some to answer what is under way.
_AT_ONCE = 30.0
# Seconds between its letting go of everything and its end, at most.
_LAST_MOMENTS = 2.0


def stop(root: Path, *, now: bool = False) -> int | None:
    """Stop the daemon and wait until it has ended; a polite stop takes as long as its grace.

    Args:
        root: Folder of the project.
        now: Cut the run under way off at once.

    Returns:
        Its process; none if there is no daemon.

    Raises:
        Busy: systemd would start it again (`daemon-of-systemd`), it is another user's (`daemon-not-ours`), or it did
            not end at once as it was told (`daemon-not-ended`).
    """
    locks = Locks(local_lock(root))
    who = locks.holder(HELD)
    if who is None or "pid" not in who:
        return None
    pid = int(who["pid"])
    if unit := who.get("unit"):
        raise Busy(
            "daemon-of-systemd",
            f"process {pid} is run by systemd, which starts it again",
            hint=f"systemctl --user stop {unit}",
        )
    try:
        os.kill(pid, signal.SIGQUIT if now else signal.SIGTERM)
    except ProcessLookupError:
        return None
    except PermissionError:
        raise Busy(
            "daemon-not-ours", f"process {pid} belongs to another user", hint="ask its owner to stop it"
        ) from None
    until = time.monotonic() + _AT_ONCE
    while (who := locks.holder(HELD)) is not None and who.get("pid") == pid:
        if now and time.monotonic() > until:
            raise Busy(
                "daemon-not-ended",
                f"process {pid} did not end within {_AT_ONCE:.0f} s",
                hint=f"kill -9 {pid}; nothing finished is lost",
            )
        time.sleep(_PAUSE)
    _wait_for_end(pid)
    return pid


def _wait_for_end(pid: int) -> None:
    """Wait for the last moments of a process that holds nothing any more."""
    until = time.monotonic() + _LAST_MOMENTS
    # In a container nobody may clear its entry away once it is dead: that is not waited for.
    while born(pid) and time.monotonic() < until:
        time.sleep(_PAUSE)
