"""`python -m modelyard.serving.load.spoiled FILE ARGUMENTS`: a server that is spoiled as a file says, for drills.

Whoever writes into the file has the wall clock of all its processes jump at once, or its model take longer. Only
`time.time` is off, which all of our own code asks; what native code asks the system for (SQLite, TLS) is not, nor is
the monotonic clock, which never jumps. A time namespace (`unshare -T`) would be no help: it moves all clocks but this.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from modelyard.inference import Bundle, Feeds, Predictor

__all__ = ["Spoiled", "main"]

_FIELDS = struct.Struct("dd")
# Rounds of a hash that take some ten microseconds.
_ROUNDS = 20


class Spoiled:
    """The file, shared by those who have it open.

    Args:
        path: Where it is; made, with nothing spoiled, if missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_FIELDS.pack(0.0, 0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FIELDS.size)

    @property
    def clock(self) -> float:
        """Seconds by which the clock is off; above 0 is ahead."""
        return float(_FIELDS.unpack_from(self._map)[0])

    @clock.setter
    def clock(self, by: float) -> None:
        _FIELDS.pack_into(self._map, 0, by, self.burden)

    @property
    def burden(self) -> float:
        """Seconds of CPU that a row costs on top."""
        return float(_FIELDS.unpack_from(self._map)[1])

    @burden.setter
    def burden(self, seconds: float) -> None:
        _FIELDS.pack_into(self._map, 0, self.clock, seconds)


class _Burdened:
    """A model that takes longer than it does."""

    def __init__(self, predictor: Predictor, spoiled: Spoiled) -> None:
        self._predictor = predictor
        self._spoiled = spoiled

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Answer, and use CPU for each row as native code does: without the interpreter."""
        if burden := self._spoiled.burden:
            until = time.thread_time() + burden * len(next(iter(feeds.values())))
            while time.thread_time() < until:
                hashlib.pbkdf2_hmac("sha256", b"", b"", _ROUNDS)
        return self._predictor.predict(feeds)


def main(path: Path, arguments: list[str]) -> int:
    """Serve, spoiled, and return the exit code."""
    spoiled, right = Spoiled(path), time.time

    def shifted() -> float:
        return right() + spoiled.clock

    # Before anything takes the clock for an argument's default.
    if "modelyard._kit.clock" in sys.modules:
        raise RuntimeError("somebody has taken the clock already")
    time.time = shifted
    from modelyard.inference import Bundle
    from modelyard.serving.__main__ import main as serve

    usual = Bundle.predictor

    def burdened(bundle: Bundle, threads: int = 1) -> Predictor:
        return _Burdened(usual(bundle, threads), spoiled)

    Bundle.predictor = burdened  # type: ignore[assignment,method-assign]
    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
