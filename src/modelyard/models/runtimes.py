"""Measure every runtime that a model can have: times, CPU, memory, size, and how far its answers are from the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import ModelError
from modelyard._kit.machine import cores, kind_of_machine
from modelyard.checks.runtimes import Cell
from modelyard.inference import Bundle
from modelyard.inference.encode import Feeds
from modelyard.models.export import compare
from modelyard.models.forms import Forms
from modelyard.models.timing import ROUNDS, Timed, time_runtime
from modelyard.records import Evidence, Problem, RuntimeName

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["BATCHES", "METHOD", "measure", "threads_of"]

# Rows of one prediction.
BATCHES = (1, 32, 1000)
METHOD = (
    "each runtime in a process of its own, from what the encoder made of the rows to the model's output, after a "
    f"warm-up; CPU a row is that of all threads, the middle of {ROUNDS} rounds; memory is what the process grew by; "
    "loss is the larger of the difference (of a probability, or of a prediction relative to their spread) that 99 of "
    "100 rows stay below and the share of rows with another label, against the answers that the model was released "
    "with, in the worst batch"
)


def threads_of(name: RuntimeName) -> tuple[int, ...]:
    """Return the numbers of threads that a runtime is measured with; our own form of trees knows only one."""
    return (1,) if name == "kernels" or cores() == 1 else (1, cores())


def measure(
    bundle: Bundle,
    forms: Forms,
    feeds: Feeds,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    truth: Array | None = None,
    about_rows: str = "",
    tell: Callable[[Cell], None] = lambda cell: None,
) -> tuple[list[Cell], Evidence]:
    """Measure the runtimes of a model.

    Args:
        bundle: The model, answered for as it was released.
        forms: What can be run of it; what does not run here is moved to what was left out.
        feeds: Real rows.
        batches: Rows of one prediction.
        seconds: How long each cell is timed.
        truth: The target of these rows; none: it is not known.
        about_rows: Where they come from.
        tell: Is told of each cell.

    Returns:
        The cells, and how they were measured.
    """
    problem = bundle.signature.problem
    if (busy := os.getloadavg()[0]) > cores():
        forms.notes.append(
            f"this machine was busy ({busy:.1f} wanted to run on {cores()} cores): p50 and p99 tell of that as well"
        )
    reference = bundle.predictor().predict(feeds)
    scores: dict[str, float] = {}
    cells: list[Cell] = []
    for name, files in list(forms.files.items()):
        for threads in threads_of(name):
            try:
                timed, answers = time_runtime(
                    name,
                    files,
                    feeds,
                    task=problem.task,
                    threads=threads,
                    batches=sorted(set(batches)),
                    seconds=seconds,
                )
            except ModelError as error:
                forms.left_out[name] = error.problem.message
                break
            far = _far(reference, answers, problem)
            for one in timed:
                cells.append(_cell(name, threads, sum(map(len, files.values())), one, far))
                tell(cells[-1])
            if truth is not None:
                scores.setdefault(name, _score(truth, answers[max(answers)], problem))
    details: dict[str, Any] = {
        "cells": [msgspec.to_builtins(cell) for cell in cells],
        "left_out": dict(forms.left_out),
        "notes": list(forms.notes),
        "machine": kind_of_machine(),
        "usual": bundle.runtime.name,
        "rows": about_rows,
    }
    if scores:
        from modelyard.models.scoring import metric_of

        details["metric"] = {"name": metric_of(problem).name, "released": _score(truth, reference, problem), **scores}
    count = len(next(iter(feeds.values())))
    method = f"{METHOD}; on {count:,} rows"
    evidence = Evidence(
        measure="cpu_per_row",
        value=None,
        unit="µs",
        n=0,
        method=method,
        model=bundle.version.digest,
        details=details,
        volatile=True,
    )
    return cells, evidence


def _far(reference: Array, answers: Mapping[int, Array], problem: Problem) -> tuple[float, float, float]:
    """Return loss, largest difference and share of equal labels in the batch where each is worst.

    What is quantised as the rows come has one scale for all rows of a batch: their answers depend on each other.
    """
    # Of a slow runtime there are answers to the first rows alone.
    found = [compare(reference[: len(one)], one, problem) for one in answers.values()]
    loss = max(max(one.p99, 1.0 - one.equal) for one in found)
    return loss, max(one.worst for one in found), min(one.equal for one in found)


def _cell(name: RuntimeName, threads: int, size: int, timed: Timed, far: tuple[float, float, float]) -> Cell:
    return Cell(
        runtime=name,
        threads=threads,
        batch=timed.batch,
        n=timed.n,
        p50_ms=timed.ms[0],
        p99_ms=timed.ms[1],
        cpu_us=sorted(timed.cpu_us)[len(timed.cpu_us) // 2],
        rounds=timed.cpu_us,
        memory=timed.memory,
        size=size,
        loss=far[0],
        worst=far[1],
        equal=far[2],
    )


def _score(truth: Array | None, output: Array, problem: Problem) -> float:
    from modelyard.models.scoring import metric_of, score

    assert truth is not None  # noqa: S101 - only asked where it is known
    return float(score(metric_of(problem), truth, output, problem))
