"""Take the numbers of tensors out of the JSON of a request before it is decoded, where that is compiled.

The decoder would look at each byte twice, and make an object of each number. What is unusual in any way stays where it
is, for those who can say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from modelyard.inference.kernels import compiled

__all__ = ["Lifted", "lifter"]


class Lifted(NamedTuple):
    """A request without lists of numbers.

    Attributes:
        text: All of it.
        less: The same with a whole number in the place of each list that was taken out, which counts them from 0.
        lists: Of each the bytes of its numbers (float64; a missing one is NaN), and where it stood.
    """

    text: bytes
    less: bytes
    lists: list[tuple[bytes, int, int]]

    def stands_for(self, data: bytes) -> tuple[bytes | memoryview, bytes | None]:
        """Return the values of a tensor as they were sent, and the bytes of its numbers if they were taken out.

        Args:
            data: Its values as they are decoded of `less`; empty if there are none.
        """
        if not data[:1].isdigit():
            return data, None
        numbers, begin, end = self.lists[int(data)]
        return memoryview(self.text)[begin:end], numbers


def lifter() -> Callable[[bytes], Lifted | None]:
    """Return what takes the lists of numbers out of a request.

    It returns none where nothing is compiled, or nothing is taken out.
    """
    kernels = compiled()
    if kernels is None:
        return lambda text: None
    lift = kernels.lift

    def lifted(text: bytes) -> Lifted | None:
        found = lift(text)
        return None if found is None else Lifted(text, *found)

    return lifted
