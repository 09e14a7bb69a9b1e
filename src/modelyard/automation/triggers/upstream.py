"""Fire when a run of another project has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard._kit.digest import digest_of
from modelyard.automation.triggers.followed import Followed
from modelyard.records import Event, Item, TriggerKind, identity, read_value
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import Store
from modelyard.store.peek import Peek, peek

__all__ = ["UpstreamTrigger"]

# What the file says -> how a run ended. One whose process died is gone on with, and ends again.
_ENDS = {
    "success": ("succeeded",),
    "failure": ("failed", "stopped"),
    "any": ("succeeded", "failed", "stopped", "cancelled", "skipped"),
}


class UpstreamTrigger(Followed):
    """Follows the runs of another project, without writing anything there.

    Args:
        name: Its name in the file.
        section: What the file says of it.
        root: Folder of the project.
        store: Where its fires are written down.
    """

    kind: TriggerKind = "upstream"

    def __init__(self, name: str, section: OwnTrigger, root: Path, store: Store) -> None:
        self._project = str(section.after)
        super().__init__(name, section, store, f"{self._project} {' '.join(section.on) or 'success'}")
        self._root = root
        self._ends = {end for word in section.on or ("success",) for end in _ENDS.get(word, ())}
        self._source: Peek | None = None

    def _peek(self) -> Peek:
        if self._source is None:
            self._source = peek(self._project, self._root)
        return self._source

    def _head(self) -> tuple[int, str]:
        return self._peek().head()

    def _hash_at(self, seq: int) -> str:
        return self._peek().hash_at(seq)

    def _events(self, after: int) -> list[Event]:
        found = self._peek().events(after=after, kinds=("run.finished",))
        return [event for event in found if event.payload.get("status") in self._ends]

    def _key(self, event: Event) -> str:
        return event.run

    def _item(self, event: Event) -> Item:
        return Item(name=event.run, change="created", version=str(event.payload.get("result", "")) or str(event.seq))

    def _payload(self, event: Event) -> Any:
        """Return the run with the digest of everything that it made or found."""
        about: dict[str, Any] = {"run": event.run, "status": event.payload["status"], "outputs": {}}
        about["result"] = event.payload.get("result", "")
        for told in self._peek().events(run=event.run, kinds=("run.started", "step.finished", "step.cached")):
            if told.kind == "run.started":
                about["project"] = told.payload.get("project", "")
            else:
                about["outputs"][told.step] = {
                    n: _digest(value) for n, value in told.payload.get("outputs", {}).items()
                }
        return about


def _digest(value: Any) -> str:
    try:
        return identity(read_value(value))
    except (ValueError, TypeError):
        # A record of another version of Modelyard: what stands there is told from another state all the same.
        return digest_of(value)
