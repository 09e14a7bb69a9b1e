"""Fire when files come, change or go: the system wakes, and what is there is held against the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from modelyard.automation.triggers.folders import patterns, same_file
from modelyard.automation.triggers.notify import Notifier
from modelyard.automation.triggers.watched import Watched
from modelyard.records import TriggerKind
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import Store

__all__ = ["FilesTrigger"]

# Of the time, looking through a folder in which something changes all the time may take one part in so many.
_SHARE = 5
# How often is looked where the system cannot tell of changes, seconds.
_UNTOLD = 5.0


class FilesTrigger(Watched):
    """Watches files.

    Args:
        name: Its name in the file.
        section: What the file says of it.
        root: Folder of the project.
        store: Where its fires are written down.
    """

    kind: TriggerKind = "files"
    default_settle = 2.0

    def __init__(self, name: str, section: OwnTrigger, root: Path, store: Store) -> None:
        super().__init__(name, section, store, " ".join(section.files))
        self._patterns = patterns(section.files, root, follow=section.follow)
        self._notifier: Notifier | None = None
        self._took = 0.0

    @property
    def every(self) -> float:
        """Seconds between two looks that nothing wakes."""
        if self.section.every is None and self._notifier is not None and not self._notifier.listens:
            return _UNTOLD
        return super().every

    def start(self, wake: Callable[[], None]) -> None:
        """Let the system tell of changes; one that it does not tell is found by the next look."""
        super().start(wake)
        folders = [pattern.folder for pattern in self._patterns]
        deep = any(pattern.deep for pattern in self._patterns)
        self._notifier = Notifier(folders, deep=deep, wake=wake, rest=lambda: self._took * (_SHARE - 1))
        self._notifier.start()

    def close(self) -> None:
        """Stop listening."""
        super().close()
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = None

    def _snapshot(self) -> dict[str, str]:
        began = time.monotonic()
        found: dict[str, str] = {}
        for pattern in self._patterns:
            found |= pattern.scan()
        self._took = time.monotonic() - began
        return found

    def _same(self, before: str, after: str) -> bool:
        return same_file(before, after)
