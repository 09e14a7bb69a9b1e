"""What runs cost, kept between two looks: the ledger is folded again only when there is something new in it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from modelyard.pipeline.cost import Costs, costs
from modelyard.store import Store

__all__ = ["Costing"]

# Spans that are kept, and how many times as long as a fold took its result is good enough to be shown again.
_KEPT, _PATIENCE = 8, 20.0
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
        """Return the costs of the runs that began in a span of time; of a long ledger they may be some seconds old.

        Args:
            since: First moment, seconds since 1970 UTC.
            until: The moment after the last one.
        """
        with self._lock:
            head, known = self._store.ledger.head()[0], self._known.get((since, until))
            if known is not None:
                fresh = known.took > _QUICK and time.monotonic() - known.made < _PATIENCE * known.took
                if known.head == head or fresh:
                    return known.value
            began = time.monotonic()
            value = costs(self._store, since=since, until=until)
            now = time.monotonic()
            self._known.pop((since, until), None)
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[since, until] = _Known(head, now, now - began, value)
            return value
