from collections.abc import Sequence
from typing import Any

VERSION: int

def narrow(values: Any, low: Any, high: Any, out: Any, /) -> bool: ...
def lift(text: bytes, /) -> tuple[bytes, list[tuple[bytes, int, int]]] | None: ...
def letters(
    form: tuple[bytes, bytes, bytes, bytes, bytes, tuple[bytes, ...], bytes],
    ids: list[str],
    labels: list[bytes],
    numbers: bytes,
    /,
) -> list[bytes]: ...

class Reader:
    def __new__(cls, fields: tuple[tuple[str, bool, bool], ...]) -> Reader: ...
    def read(self, body: bytes, /) -> tuple[int, bytes, list[str]] | None: ...

class Forest:
    def __new__(
        cls,
        table: Any,
        knots: Any,
        sizes: Sequence[int],
        starts: Sequence[int],
        missing: Sequence[int],
        numbers: Sequence[int],
        values: Any,
        leaves: int,
        parts: Sequence[int],
        base: Any,
    ) -> Forest: ...
    def sums(self, matrix: Any, out: Any, /) -> None: ...

class Tails:
    def __new__(cls, knots: Any, sizes: Sequence[int], said: Any) -> Tails: ...
    def largest(self, matrix: Any, more: Any | None, /) -> tuple[float, float]: ...
