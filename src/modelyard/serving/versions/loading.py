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
from modelyard.records import Draft, Event, EventKind
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
        failed: It cannot be written into the ledger.
        over: It was answered.
        timer: Ends the waiting.
    """

    exchange: Exchange
    loaded: bool
    answer: bytes
    failed: bool = False
    over: bool = False
    timer: asyncio.TimerHandle | None = None


class Loading:
    """Loads and unloads an endpoint by requests.

    Args:
        models: The models at work.
        later: Has some work with the store done at the next look at the ledger, which is read before and after.

    Attributes:
        wanted: Whether it shall be loaded; only the thread that follows the ledger changes it.
        unready: No version can be made ready; the same holds.
    """

    def __init__(self, models: Models, later: Callable[[Callable[[Store], None]], None]) -> None:
        self._models = models
        self._later = later
        # What the ledger said last: to a server that began after that it may not apply, but to others it does.
        self._said = True
        # What stands in the ledger now, or cannot; the thread's own.
        self._done: list[_Wish] = []
        self.wanted = True
        self.unready = False

    def ask(self, exchange: Exchange, answer: bytes, *, loaded: bool) -> None:
        """Have the endpoint loaded or unloaded, and answer once that is so.

        Args:
            exchange: The request.
            answer: The body of its answer.
            loaded: What it wants.
        """
        wish = _Wish(exchange, loaded, answer)
        wish.timer = asyncio.get_running_loop().call_later(_SECONDS, self._give_up, wish)
        self._later(partial(self._write, wish))

    def settled(self, done: list[_Wish]) -> None:
        """Answer whoever waits for what the ledger said at a look. To be called in the loop."""
        for wish in done:
            if wish.over:
                continue
            if wish.loaded and not (wish.failed or self.unready or self._models.loaded):
                # It was on its way out when it was wanted again, and is made ready anew.
                self._done.append(wish)
                continue
            wish.over = True
            if wish.timer is not None:
                wish.timer.cancel()
            if wish.failed:
                wish.exchange.refuse(HttpError(503, "ledger-away", "the ledger cannot be written", headers=_LATER))
            elif wish.loaded and not self._models.loaded:
                text = "the model cannot be made ready; the server's own log says why"
                wish.exchange.refuse(HttpError(503, "model-not-loaded", text, headers=_LATER))
            else:
                wish.exchange.reply(200, wish.answer)

    # -- in the thread

    def hear(self, event: Event, since: float) -> None:
        """Take what the ledger says.

        Args:
            event: What it says.
            since: Number of the newest event when the server began, before which nothing is unloaded.
        """
        self._said = event.kind == "endpoint.loaded"
        self.wanted = self._said or event.seq <= since

    def taken(self) -> list[_Wish]:
        """Return, once, those whose wish stands in the ledger and was followed, and those whose cannot be written."""
        done, self._done = self._done, []
        return done

    def _write(self, wish: _Wish, store: Store) -> None:
        if wish.over:
            # Whoever asked was told that it could not be done.
            return
        if not self._said is self.wanted is wish.loaded:
            payload = {"endpoint": self._models.name, "caller": wish.exchange.caller}
            kind: EventKind = "endpoint.loaded" if wish.loaded else "endpoint.unloaded"
            try:
                store.ledger.append(Draft(kind=kind, actor="server", payload=payload), durable=True)
            except Busy:
                raise
            except Exception:
                wish.failed = True
                self._done.append(wish)
                raise
            # Who asks for the same in this look is answered with it.
            self._said = self.wanted = wish.loaded
        self._done.append(wish)

    # -- in the loop

    def _give_up(self, wish: _Wish) -> None:
        if not wish.over:
            wish.over = True
            text = "the ledger could not be reached in time; it may be done in a moment all the same"
            wish.exchange.refuse(HttpError(503, "ledger-away", text, headers=_LATER))
