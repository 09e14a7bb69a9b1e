"""Make a model several times, each in a fresh process, and note what came out: `python -m modelyard.models.repeating`.

A fresh process has its own random hash seed, its own memory and its own libraries' state, so that what hangs on any
of them shows. The check `repeatable` compares the notes and names the first fact that differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import digest_bytes, digest_of
from modelyard._kit.errors import ModelError
from modelyard.inference import Bundle
from modelyard.models.dataset import collected, encode_target
from modelyard.models.export import LIMIT
from modelyard.records import Candidate, Evidence, Problem

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from modelyard.models.dataset import Frame

    Array = np.ndarray[Any, Any]

__all__ = ["main", "repeat"]

# Predictions kept as numbers, so that a difference has a size.
_VALUES = 1000
# The file that holds what was learned, by format.
_WEIGHTS = {"onnx": "model.onnx", "lightgbm": "model.txt", "skops": "model.skops"}


class _Order(msgspec.Struct, frozen=True):
    """What a process is told to make."""

    winner: Candidate
    problem: Problem
    name: str
    drop: list[str]
    seed: int
    limit: float


def repeat(
    table: Frame,
    holdout: Frame,
    winner: Candidate,
    problem: Problem,
    *,
    name: str,
    runs: int = 3,
    drop: Collection[str] = (),
    seed: int = 0,
    limit: float = LIMIT,
    fitted: Bundle | None = None,
    variables: Sequence[Mapping[str, str]] = (),
) -> Evidence:
    """Make the model `runs` times.

    Args:
        table: Training rows.
        holdout: Rows that each model answers.
        winner: Family and settings.
        problem: What is learned.
        name: Name of the model.
        runs: How often.
        drop: Columns that are not features.
        seed: Seed of the estimator.
        limit: Largest difference of the export from the trained model, as it was when the model was made.
        fitted: The model that was made; the repetitions are compared with it too.
        variables: Environment variables of each run beside those of this process; the same for all if empty.

    Raises:
        ModelError: A process failed (`model-repeat-failed`).
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="modelyard-repeat-") as folder:
        place = Path(folder)
        collected(table).write_ipc(place / "train.arrow")
        collected(holdout).write_ipc(place / "holdout.arrow")
        order = _Order(winner, problem, name, sorted(drop), seed, limit)
        (place / "order.json").write_bytes(msgspec.json.encode(order))
        for run in range(runs):
            extra = variables[run % len(variables)] if variables else {}
            found.append(_one(place, run, extra))
    if fitted is not None:
        found.insert(0, _of_fitted(fitted, collected(holdout), problem, found[0]))
    first = found[0]["values"]
    for facts in found:
        facts["max_difference"] = max(map(abs, _differences(facts["values"], first)), default=0.0)
        # Kept to be compared; as evidence the distance says it all.
        facts["values"] = facts["values"][:20]
    return Evidence(
        measure="repeats",
        value=float(len({facts["weights"] for facts in found})),
        n=len(found),
        seed=seed,
        method=(
            f"the model made again {runs} times in fresh processes of one environment"
            f"{' and compared with the one that was made' if fitted is not None else ''}; value is how many different "
            "models came"
        ),
        details={"runs": found},
    )


def _of_fitted(fitted: Bundle, holdout: pl.DataFrame, problem: Problem, repeated: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of the model that was made.

    Its rows are those of the repetitions, the step has them from the same input; its threads nobody noted.
    """
    recipe = fitted.json("recipe.json")
    return {
        "environment": fitted.version.environment,
        "threads": repeated["threads"],
        "seed": recipe["seed"],
        "data": repeated["data"],
        "features": recipe["features"],
        **_results(fitted, holdout, encode_target(holdout, problem), problem),
    }


def _results(bundle: Bundle, holdout: pl.DataFrame, truth: Array, problem: Problem) -> dict[str, Any]:
    from modelyard.models.making import answers
    from modelyard.models.scoring import metric_of, score

    output, metric, version = answers(bundle, holdout), metric_of(problem), bundle.version
    return {
        "params": digest_of(version.params),
        "weights": digest_bytes(bundle.read(_WEIGHTS[version.format])),
        "model": version.digest,
        "predictions": digest_bytes(output.tobytes()),
        "metrics": {metric.name: score(metric, truth, output, problem)},
        "values": [float(value) for value in output[:_VALUES].ravel()],
    }


def _differences(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _one(place: Path, run: int, extra: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "modelyard.models.repeating", str(place)]
    done = subprocess.run(
        command, env={**os.environ, **extra}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ModelError(
            "model-repeat-failed",
            f"repetition {run + 1} ended with {done.returncode}: {last[0][:300] if last else 'it said nothing'}",
            hint="fit the model once more with `modelyard run`; if that works, look for memory that ran out",
        )
    return dict(msgspec.json.decode(done.stdout))


def main(arguments: list[str]) -> int:
    """Make the model that the folder orders and write what came out to standard output, as JSON.

    Args:
        arguments: The folder.
    """
    import polars as pl

    from modelyard.models.facts import environment_facts, thread_facts
    from modelyard.models.making import make

    place = Path(arguments[0])
    order = msgspec.json.decode((place / "order.json").read_bytes(), type=_Order)
    table, holdout = pl.read_ipc(place / "train.arrow"), pl.read_ipc(place / "holdout.arrow")
    threads = thread_facts()
    made = make(
        table,
        holdout,
        order.winner,
        order.problem,
        name=order.name,
        drop=order.drop,
        seed=order.seed,
        limit=order.limit,
    )
    facts = {
        "environment": digest_of(environment_facts()),
        "threads": {**threads, **thread_facts()},
        "seed": order.seed,
        "data": digest_bytes((place / "train.arrow").read_bytes()),
        "features": made.train.digest,
        **_results(made.draft.bundle(), holdout, made.holdout.target, order.problem),
    }
    sys.stdout.write(msgspec.json.encode(facts).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
