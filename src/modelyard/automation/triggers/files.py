"""Fire when files come, change or go: the system wakes, and what is there is held against the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelyard.automation.triggers.folders import Pattern, patterns, same_file
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
        self._root = root
        # What an earlier declaration said, and its patterns.
        self._before: tuple[str, list[Pattern]] = ("", [])
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
        self._notifier = Notifier(
            folders,
            deep=any(pattern.deep for pattern in self._patterns),
            hidden=any(pattern.hidden for pattern in self._patterns),
            wake=wake,
            rest=lambda: self._took * (_SHARE - 1),
        )
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

    @property
    def _mark(self) -> str:
        return f"files {msgspec.json.encode(self.section.files).decode()}"

    def _meant(self, mark: str, name: str) -> bool:
        if mark != self._before[0]:
            given = msgspec.json.decode(mark.removeprefix("files "), type=tuple[str, ...])
            self._before = (mark, patterns(given, self._root))
        return any(pattern.means(name) for pattern in self._before[1])

    def _same(self, before: str, after: str) -> bool:
        return same_file(before, after)
