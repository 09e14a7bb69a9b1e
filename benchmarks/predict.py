"""What answering a table costs over ONNX Runtime alone: `modelyard predict` on a model of 100 trees on 30 numbers.

The model is that of `serving.py`. ONNX Runtime alone answers the same rows from arrays that are ready, on as many
threads as there are cores; the whole reads Parquet (or CSV), answers and writes. Both run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from _bench import child, emit
from _serving import FEATURES, bundle

ROWS = 400_000
CORES = len(os.sched_getaffinity(0))


def tables(project: str) -> None:
    """Write the rows."""
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({name: rng.normal(size=ROWS) for name in FEATURES})
    frame.write_parquet(Path(project) / "rows.parquet", row_group_size=1 << 17)
    frame[: ROWS // 4].write_parquet(Path(project) / "small.parquet", row_group_size=1 << 17)
    frame[: ROWS // 4].write_csv(Path(project) / "rows.csv")


def alone(model: str, table: str) -> None:
    """Answer every row with ONNX Runtime, and print the seconds."""
    import onnxruntime

    matrix = pl.read_parquet(table).select(FEATURES).to_numpy().astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    began = time.perf_counter()
    for at in range(0, len(matrix), 65_536):
        session.run(None, {"numeric": matrix[at : at + 65_536]})
    print(time.perf_counter() - began, file=sys.stderr)


def whole(folder: str, table: str, output: str) -> None:
    """Read, answer and write, as the verb does."""
    from modelyard.inference import open_bundle
    from modelyard.pipeline.scoring import open_rows, score
    from modelyard.pipeline.scoring.parts import kind_of

    model = open_bundle(Path(folder))
    rows = open_rows(table, model.signature)
    began = time.perf_counter()
    score(rows, model, Path(output), kind_of(output), workers=CORES, observe=lambda done, of: None)
    Path(f"{output}.seconds").write_text(str(time.perf_counter() - began))


def measured(*arguments: str) -> tuple[float, float]:
    """Return wall seconds and peak MiB of a process that does one of the two."""
    done = child([__file__, *arguments])
    return done.wall_s, done.peak_mib


def main() -> None:
    """Measure and print."""
    if len(sys.argv) > 1:
        {"tables": tables, "alone": alone, "whole": whole}[sys.argv[1]](*sys.argv[2:])
        return
    with tempfile.TemporaryDirectory() as made:
        project = Path(made)
        folder, model, _ = bundle(project)
        table, text, small = project / "rows.parquet", project / "rows.csv", project / "small.parquet"
        # Not here: the system counts what this process held as the peak of those that it starts.
        child([__file__, "tables", str(project)])

        def ort(table: Path) -> float:
            said = subprocess.run(
                [sys.executable, __file__, "alone", str(model), str(table)], capture_output=True, text=True, check=True
            )
            return float(said.stderr)

        figures = []
        for turn in range(3):
            output = project / f"out{turn}.parquet"
            base = ort(table)
            wall, peak = measured("whole", str(folder), str(table), str(output))
            figures.append((float(Path(f"{output}.seconds").read_text()), base, wall, peak))
        best = sorted(figures, key=lambda one: one[0] / one[1])[1]
        emit("predict_rows_s", ROWS / best[0], "1/s", None, f"{ROWS:,} rows, Parquet to Parquet, {CORES} cores")
        emit("predict_over_ort", best[0] / best[1], "x", 1.3, "ONNX Runtime on arrays, as many threads")
        emit("predict_peak_mib", max(one[3] for one in figures), "MiB", 400, f"{ROWS:,} rows of 31 columns")
        output = project / "out.csv"
        base = ort(small)
        _, peak = measured("whole", str(folder), str(text), str(output))
        seconds = float(Path(f"{output}.seconds").read_text())
        emit("predict_csv_over_ort", seconds / base, "x", None, f"{ROWS // 4:,} rows, CSV to CSV")
        emit("predict_csv_peak_mib", peak, "MiB", None)
        _, peak = measured("whole", str(folder), str(small), str(project / "small-out.parquet"))
        emit("predict_small_peak_mib", peak, "MiB", None, f"{ROWS // 4:,} rows: memory hardly grows with the table")


if __name__ == "__main__":
    main()
