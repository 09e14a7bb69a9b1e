"""The whole loop on Adult (32,561 rows, four families): from the file to a promoted model, and again fully cached.

Runs the project of `examples/income` in a fresh folder through the command line, as a user does. The data are read
from `$MODELYARD_DATA`, or from `shared/data` beside the checkout; without them the benchmark says so and ends.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from _bench import child, emit

ROOT = Path(__file__).resolve().parents[1]
CACHED_RUNS = 5


def main() -> int:
    """Measure and print."""
    data = Path(os.environ.get("MODELYARD_DATA", ROOT.parent / "shared" / "data")) / "adult" / "adult.data"
    if not data.is_file():
        print(f"skipped: no Adult data at {data}; set MODELYARD_DATA", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("modelyard.yaml", "features.py"):
            shutil.copy(ROOT / "examples" / "income" / name, folder)
        (Path(folder) / "data").mkdir()
        shutil.copy(data, Path(folder) / "data")
        first = child(["-m", "modelyard", "run"], cwd=folder)
        if first.code:
            raise SystemExit(f"the loop ended with {first.code}")
        emit("loop_s", first.wall_s, "s", 60, "nobody has the whole loop")
        cached = sorted(child(["-m", "modelyard", "run"], cwd=folder).wall_s for _ in range(CACHED_RUNS))
        emit("loop_cached_s", cached[CACHED_RUNS // 2], "s", 1.0, "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
