"""Ask a server all the time, and compare each answer with the one that it gave while nothing was wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from modelyard.serving.load.client import Client
from modelyard.serving.load.measured import Measured

__all__ = ["Traffic", "alike"]

# Numbers of one row differ by so much with the rows that are answered beside it: sums of floats have an order.
_NEAR = 1e-4
_ID, _AFTER = b"x-request-id: ", b"retry-after: "


def alike(one: Any, other: Any) -> bool:
    """Say whether two answers are the same, but for their id and the last digits of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() - {"id"}
        return keys == other.keys() - {"id"} and all(alike(one[key], other[key]) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=_NEAR, abs_tol=_NEAR)
    return bool(one == other)


class Traffic:
    """Requests at a rate, each answer looked at.

    Args:
        port: Port of the server.
        requests: Whole requests as bytes, sent in turns.
        expected: The answer to each.
        connections: At most.
        seed: Seed of the arrivals.

    Attributes:
        answered: Id of each answered request, and when its answer came, on the monotonic clock.
        wrong: Answers that are not the expected ones.
        hintless: Refusals (429) that do not say when to come back.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], expected: Sequence[Any], *, connections: int, seed: int
    ) -> None:
        self.client = Client("127.0.0.1", port, requests, connections=connections, keep=self._keep)
        self._expected = expected
        # A right answer to each request, without its id.
        self._usual: dict[int, bytes] = {}
        self._seed = seed
        self.answered: list[tuple[str, float]] = []
        self.wrong = self.hintless = 0

    async def offer(self, rate: float, seconds: float) -> Measured:
        """Offer a rate for some seconds."""
        self._seed += 1
        return await self.client.offer(rate, seconds, seed=self._seed)

    def _keep(self, which: int, status: int, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        if status == 200:
            name = head.partition(_ID)[2].partition(b"\r\n")[0]
            self.answered.append((name.decode("latin-1"), time.monotonic()))
            # Nearly all are the same to the byte, and to see that costs a spike nothing.
            if body.replace(name, b"", 1) != self._usual.get(which):
                self.wrong += not self._right(which, name, body)
        elif status == 429:
            self.hintless += not head.partition(_AFTER)[2][:1].isdigit()

    def _right(self, which: int, name: bytes, body: bytes) -> bool:
        """Say whether an answer is the expected one, and know it by its bytes from then on."""
        try:
            right = alike(msgspec.json.decode(body), self._expected[which])
        except msgspec.DecodeError:
            return False
        if right:
            self._usual[which] = body.replace(name, b"", 1)
        return right
