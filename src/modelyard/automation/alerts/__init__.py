"""Who is told what: from the ledger to mail, chats and web addresses, through a queue that loses nothing.

`rules`, `runs` and `stuck` say what is worth telling, `routes` whom and when, `text` in which words; `outbox` writes
each message down once, in the ledger; `sender` hands over what is due, each target in a thread of its own, and notes
what came of it. Runs know nothing of all that: they write their events, and one process for a project (`python -m
modelyard.automation.alerts`) reads them. `nudge` starts it where no daemon does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from modelyard._kit.errors import ModelyardError

if TYPE_CHECKING:
    from modelyard.spec import Spec
    from modelyard.store import Store

__all__ = ["IDLE", "nudge", "sending"]

# Seconds without work after which a sender ends that was started by a run.
IDLE = 60.0

_started: list[int] = []


@contextlib.contextmanager
def sending(spec: Spec, store: Store, say: Callable[[str], object] = lambda _: None) -> Iterator[None]:
    """See to it that what a run inside the context does is told; the run never waits for it.

    Args:
        spec: The declaration.
        store: The project's store.
        say: Takes a note where a target cannot be reached as things are.
    """
    for note in nudge(spec, store):
        say(note)
    try:
        yield
    finally:
        nudge(spec, store)


def nudge(spec: Spec, store: Store) -> list[str]:
    """See to it that somebody sends this project's alerts, without waiting for it and without ever failing.

    To be called before a run begins, so that its start is told, and after it has ended.

    Args:
        spec: The declaration.
        store: The project's store.

    Returns:
        What stands in the way, for notes to the user.
    """
    if not spec.alerts:
        return []
    from modelyard.automation.alerts.outbox import begin
    from modelyard.automation.alerts.routes import targets, unset

    try:
        begin(store, targets(spec))
        if store.holder("alerts") is None:
            _start([sys.executable, "-P", "-m", __name__, str(spec.path), "--idle", str(IDLE)])
    except (ModelyardError, OSError) as error:
        return [f"note: alerts are not sent now: {error}"]
    return [f"note: alerts for `{name}` wait: {what}" for name, what in unset(spec)]


def _start(command: list[str]) -> None:
    """Start a process in a session of its own, that outlives this one; it is never waited for."""
    for pid in list(_started):
        # Those that have ended are taken off the system's table.
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _started.remove(pid)
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    _started.append(os.posix_spawn(command[0], command, os.environ, file_actions=nowhere, setsid=True))
