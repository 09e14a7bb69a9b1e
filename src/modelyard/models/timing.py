"""Time one runtime of a model in a process of its own: `python -m modelyard.models.timing FOLDER`.

In a process of its own, since what a runtime adds to the memory of a server is seen only where nothing of it was there
before, and since libraries fight over threads within one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import ModelError
from modelyard._kit.memory import give_back
from modelyard._kit.processes import resident
from modelyard.inference.encode import Feeds
from modelyard.inference.runtimes import load
from modelyard.records import RuntimeName, Task

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["ROUNDS", "Timed", "main", "time_runtime"]

# Costs are taken in rounds, so that one in which the machine was busy with something else is not what is told.
ROUNDS = 3
# Predictions timed in a round at least: with all rounds, enough to know the slowest of a hundred.
_FEWEST = 34
# Predictions timed at most; and so many times the seconds of a cell, whatever is missing then.
_MOST, _PATIENCE = 30_000, 20
# Predictions that only warm up, and seconds of them that are enough.
_WARM_UP, _WARM = 20, 1.0
_ORDER, _ROWS, _ANSWERS = "order.json", "rows.msgpack", "answers-{}.npy"


class _Order(msgspec.Struct, frozen=True):
    """What a process is told to time."""

    runtime: RuntimeName
    names: list[str]
    task: Task
    threads: int
    batches: list[int]
    seconds: float


class Timed(msgspec.Struct, frozen=True):
    """What it took to answer so many rows at once.

    Attributes:
        batch: Rows of one prediction.
        ms: Milliseconds at which half, and 99 of 100, were done.
        cpu_us: CPU a row in each round, in microseconds.
        n: Predictions timed.
        memory: Resident bytes more than before the model was read.
    """

    batch: int
    ms: tuple[float, float]
    cpu_us: tuple[float, ...]
    n: int
    memory: int


def time_runtime(
    runtime: RuntimeName,
    files: Mapping[str, bytes],
    feeds: Feeds,
    *,
    task: Task,
    threads: int,
    batches: Sequence[int],
    seconds: float,
) -> tuple[list[Timed], dict[int, Array]]:
    """Time a runtime in a fresh process.

    Args:
        runtime: Which.
        files: The files that it reads.
        feeds: Real rows.
        task: What is answered.
        threads: Threads of one prediction.
        batches: Rows of one prediction, from few to many.
        seconds: How long each of them is timed.

    Returns:
        The timings, and by the rows of one prediction the answers to all rows.

    Raises:
        ModelError: It does not run here (`runtime-failed`).
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="modelyard-runtime-") as folder:
        place = Path(folder)
        for name, data in files.items():
            (place / name).write_bytes(data)
        (place / _ROWS).write_bytes(_packed(feeds))
        order = _Order(runtime, list(files), task, threads, list(batches), seconds)
        (place / _ORDER).write_bytes(msgspec.json.encode(order))
        command = [sys.executable, "-P", "-m", "modelyard.models.timing", folder]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise ModelError(
                "runtime-failed",
                f"`{runtime}` ended with {done.returncode}: {last[0][:300] if last else 'it said nothing'}",
                hint="the other runtimes are measured without it",
            )
        timed = msgspec.json.decode(done.stdout, type=list[Timed])
        return timed, {batch: np.load(place / _ANSWERS.format(batch)) for batch in batches}


def _packed(feeds: Feeds) -> bytes:
    # Plain data, so that the process need not load what reads tables.
    numeric, texts = feeds.get("numeric"), feeds.get("categorical")
    return msgspec.msgpack.encode(
        {
            "numeric": None if numeric is None else [list(numeric.shape), numeric.astype("<f4").tobytes()],
            "categorical": None if texts is None else texts.tolist(),
        }
    )


def _unpacked(data: bytes) -> Feeds:
    import numpy as np

    found = msgspec.msgpack.decode(data)
    feeds: Feeds = {}
    if found["numeric"] is not None:
        shape, numbers = found["numeric"]
        feeds["numeric"] = np.frombuffer(numbers, "<f4").reshape(shape).copy()
    if found["categorical"] is not None:
        feeds["categorical"] = np.array(found["categorical"], object)
    return feeds


def main(arguments: list[str]) -> int:
    """Time what the folder orders, write the answers into it and the timings to standard output, as JSON.

    Args:
        arguments: The folder.
    """
    import numpy as np

    place = Path(arguments[0])
    order = msgspec.json.decode((place / _ORDER).read_bytes(), type=_Order)
    feeds = _unpacked((place / _ROWS).read_bytes())
    rows = len(next(iter(feeds.values())))
    turns = {batch: _turns(feeds, rows, batch) for batch in order.batches}
    give_back()
    own = [os.getpid()]
    before = resident(own)
    read: Callable[[str], bytes] = lambda name: (place / name).read_bytes()  # noqa: E731 - it is one line
    predictor = load(order.runtime, order.names, read, task=order.task, threads=order.threads)
    found = []
    for batch in order.batches:
        timed = _timed(predictor.predict, turns[batch], batch, order.seconds)
        found.append(msgspec.structs.replace(timed, memory=max(0, resident(own) - before)))
    for batch in order.batches:
        whole = _answers(predictor.predict, turns[batch], _PATIENCE * order.seconds)
        if len(whole) == len(turns[batch]):
            # The last turn is as long as the others, and begins among the rows of the one before it.
            begun = batch * (len(whole) - 1)
            whole[-1] = whole[-1][:rows] if rows < batch else whole[-1][batch - (rows - begun) :]
        answers = np.concatenate(whole)
        np.save(place / _ANSWERS.format(batch), answers)
    sys.stdout.write(msgspec.json.encode(found).decode())
    return 0


def _turns(feeds: Feeds, rows: int, batch: int) -> list[Feeds]:
    """Return all rows in parts of so many; of fewer rows than that the first come again."""
    import numpy as np

    if rows < batch:
        return [{name: np.resize(value, (batch, value.shape[1])) for name, value in feeds.items()}]
    starts = [min(at, rows - batch) for at in range(0, rows, batch)]
    return [{name: value[at : at + batch].copy() for name, value in feeds.items()} for at in starts]


def _answers(predict: Callable[[Feeds], Any], turns: list[Feeds], seconds: float) -> list[Any]:
    """Return what is answered to the turns; of a slow runtime to the first of them that are done in so many seconds."""
    until = time.monotonic() + seconds
    found = []
    for part in turns:
        found.append(predict(part))
        if len(found) >= _FEWEST and time.monotonic() > until:
            break
    return found


def _timed(predict: Callable[[Feeds], Any], turns: list[Feeds], batch: int, seconds: float) -> Timed:
    import numpy as np

    clock, cpu = time.perf_counter, time.process_time
    began = clock()
    for at in range(_WARM_UP):
        predict(turns[at % len(turns)])
        if clock() - began > _WARM:
            break
    took: list[float] = []
    costs: list[float] = []
    last = clock() + _PATIENCE * seconds
    for _ in range(ROUNDS):
        until = clock() + seconds / ROUNDS
        first, spent = len(took), cpu()
        while True:
            start = clock()
            predict(turns[len(took) % len(turns)])
            now = clock()
            took.append(now - start)
            done = len(took) - first
            if (done >= _FEWEST and now > until) or done >= _MOST // ROUNDS or now > last:
                break
        costs.append((cpu() - spent) / (len(took) - first) / batch * 1e6)
    p50, p99 = (float(value) * 1e3 for value in np.quantile(took, [0.5, 0.99]))
    return Timed(batch, (p50, p99), tuple(costs), len(took), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
