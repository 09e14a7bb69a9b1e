"""What runs cost, kept between two looks: the ledger is folded again only when there is something new in it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from modelyard.pipeline.cost import Costs, costs
from modelyard.store import Store

__all__ = ["Costing"]

# Spans that are kept, and for how many times as long as a fold took none is begun again.
_KEPT, _PATIENCE = 8, 5.0
# A fold that took less seconds is done again at once.
_QUICK = 0.2


@dataclass(frozen=True, slots=True)
class _Known:
    head: int
    made: float
    took: float
    value: Costs


class Costing:
    """Costs of spans of time.

    Args:
        store: Whose ledger is read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[tuple[float, float], _Known] = {}

    def of(self, since: float, until: float = float("inf")) -> Costs:
        """Return the costs of the runs that began in a span of time.

        Of a long ledger they may be those of the last look: they are folded again while the page is shown.

        Args:
            since: First moment, seconds since 1970 UTC.
            until: The moment after the last one.
        """
        head, known = self._store.ledger.head()[0], self._known.get((since, until))
        if known is None or (known.head != head and known.took <= _QUICK):
            return self._fold(since, until)
        rested = time.monotonic() - known.made > _PATIENCE * known.took
        if known.head != head and rested and not self._lock.locked():
            threading.Thread(target=self._fold, args=(since, until), daemon=True).start()
        return known.value

    def _fold(self, since: float, until: float) -> Costs:
        with self._lock:
            head, began = self._store.ledger.head()[0], time.monotonic()
            known = self._known.get((since, until))
            if known is not None and known.head == head:
                return known.value
            value = costs(self._store, since=since, until=until)
            now = time.monotonic()
            self._known.pop((since, until), None)
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[since, until] = _Known(head, now, now - began, value)
            return value
