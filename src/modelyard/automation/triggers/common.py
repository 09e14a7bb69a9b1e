"""What the triggers of the file have in common: name, owner, and what of the world the ledger says was fired for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from modelyard.automation.base import Look, Wanted
from modelyard.records import Item, TriggerKind
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import Store

__all__ = ["MARK", "PAUSED", "Common", "log"]

log = logging.getLogger("modelyard.triggers")

# The item of `Ledger.seen` that says what a trigger looked at, so that a trigger that was given another source begins
# anew with it. No file, object or table has an empty name.
MARK = ""
PAUSED = "the trigger is paused in modelyard.yaml"
# Key of a fire for several items: the number of such fires, so that of two daemons that see different parts of one
# change only one writes it down.
_NUMBERED = re.compile(r"#(\d+)\Z")
_PAGE = 50


class Common:
    """A trigger of the file; each kind looks in its own way.

    Args:
        name: Its name in the file.
        section: What the file says of it.
        store: Where its fires are written down.
        about: What it looks at, without any secret.

    Attributes:
        name: Its name in the file.
        section: What the file says of it.
        about: What it looks at, without any secret.
    """

    kind: TriggerKind
    default_every = 30.0

    def __init__(self, name: str, section: OwnTrigger, store: Store, about: str) -> None:
        self.name = name
        self.section = section
        self.about = about
        self._store = store
        self._wake: Callable[[], None] = _nobody
        self._seen_at: tuple[int, dict[str, str]] = (-1, {})
        self._number_at: tuple[int, int] = (-1, 0)
        self._asked: set[str] = set()

    @property
    def owner(self) -> str:
        """Who answers for it."""
        return self.section.owner

    @property
    def paused(self) -> bool:
        """Whether the file says that it is paused; `fires.is_paused` knows of pauses by hand."""
        return self.section.paused

    @property
    def every(self) -> float:
        """Seconds between two looks that nothing wakes."""
        return self.section.every or self.default_every

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to listen; here only the wake-up is kept."""
        self._wake = wake

    def close(self) -> None:
        """Stop listening."""
        self._wake = _nobody

    def look(self, now: float) -> Look:
        """Look now; see `Trigger.look`."""
        raise NotImplementedError

    # -- what the ledger says

    def _seen(self) -> dict[str, str]:
        """Return what was fired for; read again only when something was written since."""
        # The head first: what is written between the two is read twice rather than not at all.
        head = self._store.ledger.head()[0]
        if head != self._seen_at[0]:
            self._seen_at = (head, self._store.ledger.seen(self.name))
        return dict(self._seen_at[1])

    def _number(self) -> int:
        """Return the number of the newest fire that stands for several items; ask before `_seen`.

        A daemon that wrote something down in between then has the next number already, and ours is refused.
        """
        head = self._store.ledger.head()[0]
        if head != self._number_at[0]:
            # The newest fire most often has it; those that were asked for by hand have none.
            found = (next(_numbers(self._keys(page)), None) for page in (1, _PAGE, 0))
            self._number_at = (head, next((number for number in found if number is not None), 0))
        return self._number_at[1]

    def _keys(self, limit: int) -> list[str]:
        fires = self._store.ledger.fires(trigger=self.name, newest=True, limit=limit)
        return [fire.key.removeprefix(f"{self.name}/") for fire in fires]

    def _done(self, wanted: Iterable[Wanted]) -> set[str]:
        """Return the keys that were written down although what they stand for does not count as seen.

        That is so after another daemon, late, wrote down what it saw before; asking again would never end.
        """
        keys = {w.key for w in wanted}
        again, self._asked = keys & self._asked, keys
        return again & set(self._keys(0)) if again else set()

    # -- what is wanted

    def _wanted(
        self,
        key: str,
        now: float,
        *,
        items: Iterable[Item] = (),
        seen: Mapping[str, str] | None = None,
        payload: Any = None,
        not_before: float = 0.0,
    ) -> Wanted:
        return Wanted(
            key=key,
            due=now,
            not_before=not_before,
            items=tuple(items),
            seen=seen or {},
            payload=payload,
            drop=PAUSED if self.paused else "",
        )


def _numbers(keys: Iterable[str]) -> Iterator[int]:
    return (int(found[1]) for found in map(_NUMBERED.fullmatch, keys) if found)


def _nobody() -> None:
    """Wake nobody: nothing has begun to listen."""
