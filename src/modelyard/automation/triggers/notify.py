"""Let the system wake a trigger when something changes in a folder; what changed is found by looking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from modelyard.automation.triggers.common import log

__all__ = ["Notifier"]

# How long changes are gathered before they wake: a burst of files is one look.
_GATHER_MS = 400
# How often is seen whether the folders are still those that are listened to.
_CHECK_MS = 1000
_JOIN_SECONDS = 5.0


class Notifier:
    """A thread that listens to folders.

    Args:
        folders: The folders.
        deep: Whether the folders in them count too.
        hidden: Whether hidden files count too.
        wake: Called when something changed, and once when it began to listen.
        rest: How many seconds it sleeps after a wake-up, so that a folder where something changes all the time does not
            keep the machine busy with looking.

    Attributes:
        listens: Whether the system tells of changes now; otherwise only looking finds them.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        deep: bool,
        hidden: bool,
        wake: Callable[[], None],
        rest: Callable[[], float],
    ) -> None:
        self._folders = folders
        self._deep = deep
        self._hidden = hidden
        self._wake = wake
        self._rest = rest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="modelyard-files", daemon=True)
        self.listens = False

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def _listen(self) -> None:
        while not self._stop.is_set():
            there = _identities(self._folders)
            if None in there:
                # A folder is gone; when it is back, it is another one for the system.
                self.listens = False
                self._stop.wait(_CHECK_MS / 1000)
                continue
            try:
                self._watch(there)
            except (OSError, RuntimeError) as error:
                # Most often the user's number of watches is used up (`fs.inotify.max_user_watches`).
                self.listens = False
                log.warning("the system does not tell of changes, so they are looked for: %s", error)
                self._stop.wait(30.0)

    def _watch(self, there: list[tuple[int, int] | None]) -> None:
        """Wake on every change until one of the folders is another one."""
        import watchfiles

        changes = watchfiles.watch(
            *self._folders,
            watch_filter=None if self._hidden else self.hears,
            debounce=_GATHER_MS,
            stop_event=self._stop,
            rust_timeout=_CHECK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=False,
            recursive=self._deep,
            ignore_permission_denied=True,
        )
        for found in changes:
            if self._stop.is_set():
                return
            # What happened before it listened was not told, hence the first wake-up.
            if found or not self.listens:
                self.listens = True
                self._wake()
                self._stop.wait(self._rest())
            # A folder that is made anew may get the number of the one that went.
            gone = any(change == watchfiles.Change.deleted and Path(path) in self._folders for change, path in found)
            if gone or _identities(self._folders) != there:
                self.listens = False
                self._wake()
                return

    def hears(self, change: object, path: str) -> bool:
        """Say whether a change may matter: our own records, for one, change all the time, and are hidden."""
        for folder in self._folders:
            if path.startswith(str(folder)):
                return "/." not in path[len(str(folder)) :]
        return True


def _identities(folders: Sequence[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for folder in folders:
        identity = None
        with suppress(OSError):
            stat = folder.stat()
            identity = (stat.st_dev, stat.st_ino)
        found.append(identity)
    return found
