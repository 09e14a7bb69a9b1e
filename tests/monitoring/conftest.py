"""A log of requests, written by the server's own writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard._kit.places import log_path
from modelyard.checks.profile import profile
from modelyard.records import Feature, Problem, Signature
from modelyard.serving.observability.log import RequestLog
from modelyard.store.requests import Turn

MODEL = "m" * 64
PROBLEM = Problem(task="binary", target="paid", classes=("no", "yes"), positive="yes", metric="roc_auc")
SIGNATURE = Signature(
    features=(
        Feature(name="age", type="number", source="Int64"),
        Feature(name="income", type="number", source="Float64"),
        Feature(name="city", type="category", source="String"),
    ),
    problem=PROBLEM,
)

Rows = list[tuple[dict[str, Any], dict[str, Any]]]


def draw(seed: int, n: int, *, shift: float = 0.0) -> tuple[Rows, list[str]]:
    """Return rows with their answers, and the outcome of each; `shift` moves the income, and so the answers."""
    rng = np.random.default_rng(seed)
    income = rng.normal(30 + 10 * shift, 10, n)
    age = rng.integers(18, 80, n)
    city = rng.choice(["A", "B", "C"], n, p=[0.6, 0.3, 0.1])
    score = 1 / (1 + np.exp(-(income - 30) / 8))
    rows = [
        (
            {"age": int(a), "income": float(i), "city": str(c)},
            {"prediction": "yes" if s >= 0.5 else "no", "probabilities": {"no": float(1 - s), "yes": float(s)}},
        )
        for a, i, c, s in zip(age, income, city, score, strict=True)
    ]
    return rows, np.where(rng.random(n) < score, "yes", "no").tolist()


@pytest.fixture
def requests() -> Callable[..., tuple[Rows, list[str]]]:
    return draw


@pytest.fixture
def signature() -> Signature:
    return SIGNATURE


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    rows, _ = draw(12345, 5000)
    columns = {name: [inputs[name] for inputs, _ in rows] for name in ("age", "income", "city")}
    output = np.array([[o["probabilities"]["no"], o["probabilities"]["yes"]] for _, o in rows])
    return profile(columns, SIGNATURE, output)


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to the log of `endpoint`, ten seconds apart from time 1000 on, with ids r0, r1 and so on."""
    written = 0

    def made(rows: Rows, *, model: str = MODEL, endpoint: str = "loans", prefix: str = "r") -> Path:
        nonlocal written
        path = log_path(tmp_path, endpoint)
        writer = RequestLog(path)
        for inputs, output in rows:
            sent = [msgspec.json.encode([inputs])]
            turn = Turn(
                1000.0 + 10 * written, model, "", [f"{prefix}{written}"], ["test"], [0.5], [1], sent, [[output]]
            )
            writer.put(turn, 1)
            written += 1
        assert writer.close() == 0
        return path

    return made
