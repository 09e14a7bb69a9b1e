"""Ten thousand requests through the guards, under every combination of what can be declared: the right answer to each.

What is right is worked out here, from the declaration and the row, without the server's code except for the score of
outliers, which has tests of its own.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.checks.profile import profile
from modelyard.checks.strange import Strange
from modelyard.inference import Bundle, BundleDraft, open_bundle
from modelyard.security.keys import trusted_keys

from .conftest import MIXED, lay, mixed_answer, mixed_bundle  # noqa: TID252 - the suite is not installed
from .inprocess import Endpoint  # noqa: TID252

SCORE, SURE = 0.99, 0.8
COMBINATIONS = list(
    itertools.product(
        ("warn", "reject"),
        ("warn", "reject", "clip"),
        ("accept", "warn", "reject"),
        (None, "warn", "reject", "quarantine"),
        (None, "abstain", "fallback"),
        ((), ("age",)),
        (None, "abstain", "warn"),
    )
)
EACH = -(-10_000 // len(COMBINATIONS))
VALUES: dict[str, list[Any]] = {
    "age": [18, 30, 45.5, 60, 90, 200, -5, "42", "many", None, True, [], 1e39],
    "income": [0.0, 10, 1000, 4000.5, 9000, 6e4, -1, None, None, "10", {}],
    "city": ["paris", "paris", "rome", "rome", "oslo", "", None, 5, "x" * 3000],
}
BROKEN = [b"", b"{", b"[]", b"null", b'{"rows": []}', b'{"rows": 3}', b"\xff\xfe", b'{"age": NaN}', b"[" * 5000]


def made() -> tuple[BundleDraft, dict[str, Any]]:
    rng = np.random.default_rng(0)
    seen = profile(
        {
            "age": rng.integers(18, 91, 3000).tolist(),
            "income": rng.uniform(0, 9000, 3000).tolist(),
            "city": rng.choice(["paris", "rome"], 3000, p=[0.995, 0.005]).tolist(),
        },
        MIXED,
    )
    draft = mixed_bundle()
    files = {**draft.files, "profile.json": json.dumps(seen).encode()}
    files.pop("model.json")
    return BundleDraft.of(draft.version, files), seen


def draw(rng: random.Random) -> Any:
    """Return a row, or something that is none."""
    if rng.random() < 0.05:
        return rng.choice(BROKEN)
    usual = {"age": 30, "income": 1000.0, "city": "paris"}
    row = {name: rng.choice(values) if rng.random() < 0.4 else usual[name] for name, values in VALUES.items()}
    if rng.random() < 0.03:
        row["agee"] = 1
    if rng.random() < 0.03:
        del row["income"]
    return row


def number(value: Any, *, coerced: bool) -> float | None:
    """Return a number as the model should see it; none where it cannot."""
    if coerced and value == "42":
        return 42.0
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 3.4e38:
        return None
    return float(value)


def right(row: Any, guards: dict[str, Any], strange: Strange) -> tuple[int, Any]:
    """Return the status that a row should be answered with, and the code of the refusal or what is answered."""
    if isinstance(row, bytes) or set(row) != {"age", "income", "city"}:
        return 400, None
    age = number(row["age"], coerced="age" in guards["coerce"])
    income = float("nan") if row["income"] is None else number(row["income"], coerced=False)
    if age is None or income is None or not (row["city"] is None or isinstance(row["city"], str)):
        return 400, None
    city = row["city"] or ""
    outside = not 18 <= age <= 90 or not (np.isnan(income) or 0 <= income <= 9000)
    if outside and guards["out_of_range"] == "reject":
        return 422, "value-out-of-range"
    if city not in ("", "paris", "rome") and guards["unseen"] == "reject":
        return 422, "value-unseen"
    if (city == "" or np.isnan(income)) and guards["missing"] == "reject":
        return 422, "value-missing"
    if guards["out_of_range"] == "clip":
        age, income = min(max(age, 18), 90), income if np.isnan(income) else min(max(income, 0), 9000)
    numbers, texts = np.array([[age, income]], np.float32), np.array([[city]], object)
    held = "outlier" in guards and bool(strange.outliers(numbers, texts)[0])
    if held and guards["outlier"]["do"] == "reject":
        return 422, "row-outlier"
    yes = mixed_answer(age, None if np.isnan(income) else income, city)
    if abs(yes - 0.5) < 1e-6:
        # The model reckons with 32 bits: there it may be either.
        return 200, "either"
    label = "yes" if yes >= 0.5 else "no"
    if held and guards["outlier"]["do"] == "quarantine":
        return 200, ("no", "outlier")
    if any(check["do"] == "abstain" for check in guards["checks"]) and label == "no":
        return 200, (None, "labels")
    if "confidence" in guards and max(yes, 1 - yes) < SURE:
        return 200, ("no" if guards["confidence"]["else"] == "fallback" else None, "confidence")
    return 200, (label, None)


def declared(combination: tuple[Any, ...]) -> dict[str, Any]:
    unseen, out_of_range, missing, outlier, otherwise, coerce, check = combination
    guards: dict[str, Any] = {"unseen": unseen, "out_of_range": out_of_range, "missing": missing, "fallback": "no"}
    guards |= {"coerce": coerce, "checks": []}
    if outlier:
        guards["outlier"] = {"score": SCORE, "do": outlier}
    if otherwise:
        guards["confidence"] = {"at_least": SURE, "else": otherwise}
    if check:
        guards["checks"] = [{"use": "labels", "params": {"allowed": ["yes"]}, "do": check}]
    return guards


@pytest.mark.parametrize("step", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_the_right_answer_under_every_combination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """By default under every 31st of them, which has each choice many times; `--slow`: under all."""
    draft, seen = made()
    folder = lay(tmp_path, draft)
    strange = Strange(seen, ("age", "income"), ("city",), SCORE)
    # One session of the model for all: opening it takes longer than asking.
    predictor = open_bundle(folder, trusted=trusted_keys(tmp_path)).predictor()
    monkeypatch.setattr(Bundle, "predictor", lambda self: predictor)
    rng = random.Random(0)  # noqa: S311 - drawn again each time
    found: dict[Any, int] = {}
    for combination in COMBINATIONS[::step]:
        guards = declared(combination)
        rows = [draw(rng) for _ in range(EACH if step == 1 else 4 * EACH)]
        with Endpoint(tmp_path, draft, guards, folder=folder) as endpoint:
            answers = endpoint.ask(*rows)
        for row, (status, body) in zip(rows, answers, strict=True):
            wanted, what = right(row, guards, strange)
            assert status == wanted, (guards, row, body)
            if status == 200 and what != "either":
                (answer,) = body["predictions"]
                assert (answer["label"], answer.get("withheld")) == what, (guards, row, body)
            elif status == 422:
                assert body["error"]["code"] == what, (guards, row, body)
            found[what] = found.get(what, 0) + 1
    assert sum(found.values()) >= (10_000 if step == 1 else 1_000)
    # Each outcome that there is was met.
    assert {*found} - {"either"} == {
        None, "value-out-of-range", "value-unseen", "value-missing", "row-outlier", ("yes", None), ("no", None),
        ("no", "outlier"), ("no", "confidence"), (None, "confidence"), (None, "labels"),
    }  # fmt: skip
