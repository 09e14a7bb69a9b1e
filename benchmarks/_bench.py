"""What every benchmark shares: one JSON object a line, and children measured by the system's own accounting."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass


def emit(name: str, value: float, unit: str, limit: float | None, against: str = "") -> None:
    """Print one figure as one line of JSON."""
    print(json.dumps({"name": name, "value": round(value, 5), "unit": unit, "limit": limit, "against": against}))


def median_of(measure: Callable[[], float], runs: int) -> float:
    """Return the median of several measurements."""
    return statistics.median(measure() for _ in range(runs))


@dataclass
class Child:
    """What the system says of a finished process."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    code: int


def child(arguments: list[str], *, cwd: str | None = None) -> Child:
    """Run a Python process and return its wall time, its own CPU time and its peak memory."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.stderr.write(said.read())
    return Child(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode)
