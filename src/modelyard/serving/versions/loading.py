"""Whether an endpoint is loaded, as its operators want it by a request, and who waits until that is so.

What a request wants is an event in the ledger, which every process of every server of the endpoint follows: a balancer
sends the next request to any of them. It holds as long as the server runs; one that starts anew has everything loaded
that it is told to serve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from modelyard._kit.errors import Busy
from modelyard.records import Draft, EventKind
from modelyard.serving.errors import HttpError
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models
from modelyard.store.base import Store

__all__ = ["KINDS", "Loading"]

# What says so in the ledger.
KINDS: tuple[EventKind, ...] = ("endpoint.loaded", "endpoint.unloaded")
# Seconds that a request waits until it is so.
_SECONDS = 30.0
_LATER = ((b"retry-after", b"5"),)


@dataclass(eq=False)
class _Wish:
    """What somebody waits for.

    Attributes:
        exchange: Whose request it is.
        loaded: What it wants.
        answer: The body of its answer.
        written: It stands in the ledger.
        failed: It cannot be written there.
    """

    exchange: Exchange
    loaded: bool
    answer: bytes
    written: bool = False
    failed: bool = False


class Loading:
    """Loads and unloads an endpoint by requests.

    Args:
        models: The models at work.
        later: Has some work with the store done at the next look at the ledger.

    Attributes:
        wanted: Whether it shall be loaded; only the thread that follows the ledger changes it.
    """

    def __init__(self, models: Models, later: Callable[[Callable[[Store], None]], None]) -> None:
        self._models = models
        self._later = later
        self._wishes: list[_Wish] = []
        self.wanted = True

    def ask(self, exchange: Exchange, answer: bytes, *, loaded: bool) -> None:
        """Have the endpoint loaded or unloaded, and answer once that is so.

        Args:
            exchange: The request.
            answer: The body of its answer.
            loaded: What it wants.
        """
        wish = _Wish(exchange, loaded, answer)
        self._wishes.append(wish)
        self._later(partial(self._write, wish))
        asyncio.get_running_loop().call_later(_SECONDS, self._give_up, wish)

    def settled(self) -> None:
        """Answer whoever waits for what the ledger said at the last look. To be called in the loop."""
        done = [wish for wish in self._wishes if wish.written or wish.failed]
        self._wishes = [wish for wish in self._wishes if wish not in done]
        for wish in done:
            if wish.failed:
                wish.exchange.refuse(HttpError(503, "ledger-away", "the ledger cannot be written", headers=_LATER))
            elif wish.loaded and not self._models.loaded:
                text = "the model cannot be made ready; the server's own log says why"
                wish.exchange.refuse(HttpError(503, "model-not-loaded", text, headers=_LATER))
            else:
                wish.exchange.reply(200, wish.answer)

    @property
    def waits(self) -> bool:
        """Whether somebody waits for what the ledger says."""
        return any(wish.written or wish.failed for wish in self._wishes)

    def _write(self, wish: _Wish, store: Store) -> None:
        payload = {"endpoint": self._models.name, "caller": wish.exchange.caller}
        kind: EventKind = "endpoint.loaded" if wish.loaded else "endpoint.unloaded"
        try:
            store.ledger.append(Draft(kind=kind, actor="server", payload=payload), durable=True)
        except Busy:
            raise
        except Exception:
            wish.failed = True
            raise
        wish.written = True

    def _give_up(self, wish: _Wish) -> None:
        if wish in self._wishes:
            self._wishes.remove(wish)
            text = "the ledger could not be reached in time; it may be done later all the same"
            wish.exchange.refuse(HttpError(503, "ledger-away", text, headers=_LATER))
