"""Callers that copy the model stand out among those that use it, whether or not columns depend on each other."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from modelyard._kit.errors import ServeError
from modelyard.checks.profile import profile
from modelyard.checks.usual import WINDOW, usual
from modelyard.inference import BundleDraft, Encoder
from modelyard.records import Feature, Problem, Signature
from modelyard.serving.guards.extraction import FEWEST, Likeness
from modelyard.serving.lane import Lane

from .conftest import MIXED, lay, mixed_bundle  # noqa: TID252 - the suite is not installed
from .inprocess import Endpoint  # noqa: TID252

NUMBERS = ("age", "hours", "gain", "years", "weight")
TEXTS = ("work", "marital", "sex")
SIGNATURE = Signature(
    features=(
        *(Feature(name=name, type="number", source="Int64") for name in NUMBERS),
        *(Feature(name=name, type="category", source="String") for name in TEXTS),
    ),
    problem=Problem(task="binary", target="y", classes=("no", "yes"), positive="yes", metric="roc_auc"),
)
Rows = tuple[Any, Any]


def measured(columns: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """Return the profile as a bundle has it."""
    found = profile(columns, signature)
    return {**found, "usual": usual(found, signature, [Encoder(signature)(columns)])}


def people(rng: Any, n: int = WINDOW) -> Rows:
    """Rows with the skews, the ties and the dependences of a census."""
    age = np.clip(rng.gamma(6, 6.5, n) + 17, 17, 90).round()
    years = np.clip(rng.normal(10, 2.5, n) + (age > 30), 1, 16).round()
    hours = np.where(rng.random(n) < 0.5, 40, np.clip(rng.normal(40, 12, n), 1, 99).round())
    gain = np.where(rng.random(n) < 0.92, 0, rng.lognormal(8, 1, n).round())
    weight = rng.lognormal(12, 0.5, n).round()
    work = rng.choice(["private", "state", "own"], n, p=[0.75, 0.15, 0.1])
    single = rng.choice(["never", "divorced"], n, p=[0.7, 0.3])
    marital = np.where((age > 28) & (rng.random(n) < 0.7), "married", single)
    sex = rng.choice(["m", "f"], n, p=[0.67, 0.33])
    return np.column_stack([age, hours, gain, years, weight]), np.column_stack([work, marital, sex]).astype(object)


SEEN = people(np.random.default_rng(0), 20_000)


# --- those who use the model


def older(rng: Any) -> Rows:
    numbers, texts = people(rng, 6000)
    some = (numbers[:, 0] > 45) & (texts[:, 0] == "private")
    return numbers[some][:WINDOW], texts[some][:WINDOW]


def again(rng: Any) -> Rows:
    """Many rows come twice or more often."""
    numbers, texts = people(rng)
    at = rng.integers(0, WINDOW, WINDOW)
    return numbers[at], texts[at]


# --- those who copy it


def everywhere(rng: Any) -> Rows:
    """Random rows out of the ranges (Tramer et al. 2016)."""
    numbers, texts = SEEN
    drawn = rng.uniform(numbers.min(axis=0), numbers.max(axis=0), (WINDOW, len(NUMBERS))).round()
    return drawn, np.column_stack([rng.choice(np.unique(texts[:, at]), WINDOW) for at in range(3)]).astype(object)


def boundary(rng: Any) -> Rows:
    """Bisection between two people, for a point where the answer changes."""
    rows, texts = [], []
    for _ in range(WINDOW // 16):
        pair, kinds = people(rng, 2)
        low, high = pair
        for _ in range(16):
            rows.append((low + high) / 2)
            texts.append(kinds[0])
            low, high = (rows[-1], high) if rng.random() < 0.5 else (low, rows[-1])
    return np.array(rows), np.array(texts, object)


def steps(rng: Any) -> Rows:
    """Each round takes a fixed step from all rows so far (Papernot et al. 2017)."""
    numbers, texts = people(rng, 16)
    while len(numbers) < WINDOW:
        step = 0.1 * SEEN[0].std(axis=0) * rng.choice([-1, 1], (len(numbers), len(NUMBERS)))
        numbers, texts = np.vstack([numbers, numbers + step]), np.vstack([texts, texts])
    return numbers, texts


def hidden(rng: Any) -> Rows:
    """Every second row is as anybody's."""
    (numbers, texts), (others, kinds) = people(rng), boundary(rng)
    numbers[::2], texts[::2] = others[::2], kinds[::2]
    return numbers, texts


USERS, COPIERS = (people, older, again), (everywhere, boundary, steps, hidden)


@pytest.fixture(scope="module")
def likeness() -> Likeness:
    numbers, texts = SEEN
    columns = {name: numbers[:, at] for at, name in enumerate(NUMBERS)}
    columns |= {name: texts[:, at].tolist() for at, name in enumerate(TEXTS)}
    return Likeness(measured(columns, SIGNATURE), SIGNATURE)


def scores(likeness: Likeness, makers: tuple[Callable[[Any], Rows], ...], each: int = 5) -> list[float]:
    return [
        max(likeness.score(*make(np.random.default_rng(1000 * at + seed))).values())
        for at, make in enumerate(makers)
        for seed in range(each)
    ]


def test_copiers_are_told_from_users(likeness: Likeness) -> None:
    users, copiers = scores(likeness, USERS), scores(likeness, COPIERS)
    assert roc_auc_score([0] * len(users) + [1] * len(copiers), users + copiers) >= 0.99
    # At the usual limit nobody is suspected who is none, and hardly one gets by.
    assert max(users) < 0.3
    assert np.mean([score > 0.3 for score in copiers]) >= 0.95


def test_rows_that_come_again_teach_nothing(likeness: Likeness) -> None:
    numbers, texts = people(np.random.default_rng(3), FEWEST - 1)
    assert likeness.score(np.tile(numbers, (5, 1)), np.tile(texts, (5, 1))) == {}


def test_missing_values_are_no_sign(likeness: Likeness) -> None:
    rng = np.random.default_rng(4)
    numbers, texts = people(rng)
    numbers[rng.random(numbers.shape) < 0.05] = np.nan
    texts[rng.random(texts.shape) < 0.05] = ""
    found = likeness.score(numbers, texts)
    assert max(found.values()) < 0.3, found


# --- data whose columns depend on each other


def copied_by_search(rng: Any, seen: Any) -> Any:
    """Bisection between two rows, sixteen times."""
    rows = []
    for _ in range(WINDOW // 16):
        low, high = seen[rng.integers(len(seen), size=2)]
        for _ in range(16):
            rows.append((low + high) / 2)
            low, high = (rows[-1], high) if rng.random() < 0.5 else (low, rows[-1])
    return np.array(rows)


def copied_by_sweep(rng: Any, seen: Any) -> Any:
    return rng.uniform(seen.min(axis=0), seen.max(axis=0), (WINDOW, seen.shape[1]))


def copied_among_others(rng: Any, seen: Any) -> Any:
    """Every second row is as anybody's."""
    rows = copied_by_sweep(rng, seen)
    rows[::2] = seen[rng.permutation(len(seen))[: len(rows[::2])]]
    return rows


def copied_by_neighbours(rng: Any, seen: Any) -> Any:
    """Sixteen rows, each asked sixteen times and a little changed."""
    rows = np.repeat(seen[rng.integers(len(seen), size=WINDOW // 16)], 16, axis=0)
    return rows + 0.01 * seen.std(axis=0) * rng.normal(size=rows.shape)


def correlated(correlation: float) -> tuple[Any, Any]:
    """Return rows of thirty numbers of which any two have this correlation: for training, and fresh ones."""
    rng = np.random.default_rng(7)
    shared, own = rng.normal(size=(10_000, 1)), rng.normal(size=(10_000, 30))
    rows = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return rows[:6000], rows[6000:]


def shipped(name: str) -> tuple[Any, Any]:
    """Return a half of a data set of scikit-learn for training, and the other half."""
    from sklearn import datasets

    rows = getattr(datasets, f"load_{name}")().data
    rows = rows[np.random.default_rng(8).permutation(len(rows))]
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


@pytest.mark.parametrize(
    "data", [0.5, *(pytest.param(data, marks=pytest.mark.thorough) for data in (0.3, 0.8, "breast_cancer", "digits"))]
)
def test_usual_callers_are_no_copiers_where_columns_depend_on_each_other(data: float | str) -> None:
    seen, fresh = shipped(data) if isinstance(data, str) else correlated(data)
    names = [f"f{at}" for at in range(seen.shape[1])]
    features = tuple(Feature(name=name, type="number", source="Float64") for name in names)
    signature = Signature(features=features, problem=SIGNATURE.problem)
    likeness = Likeness(measured(dict(zip(names, seen.T, strict=True)), signature), signature)
    rng = np.random.default_rng(9)
    windows = [fresh[rng.permutation(len(fresh))[:WINDOW]] for _ in range(20)]
    users = [max(likeness.score(rows, None).values()) for rows in windows]
    assert max(users) < 0.15, users
    attacks = [(copied_by_search, 0.7), (copied_by_sweep, 0.3), (copied_by_neighbours, 0.7)]
    if not isinstance(data, str):
        # Rows of many columns that do not go together are far from all others, so that a half of them is seen.
        attacks += [(copied_by_sweep, 0.7), (copied_among_others, 0.3)]
    for attack, least in attacks:
        copiers = [max(likeness.score(attack(rng, seen), None).values()) for _ in range(5)]
        assert roc_auc_score([0] * len(users) + [1] * len(copiers), users + copiers) >= 0.99
        assert min(copiers) > least, (attack.__name__, copiers)


def test_a_profile_without_distances_tells_rows_all_over_the_ranges_only(likeness: Likeness) -> None:
    numbers, texts = SEEN
    columns = {name: numbers[:, at] for at, name in enumerate(NUMBERS)}
    columns |= {name: texts[:, at].tolist() for at, name in enumerate(TEXTS)}
    old = Likeness(profile(columns, SIGNATURE), SIGNATURE)
    rows = everywhere(np.random.default_rng(0))
    assert likeness.whole
    assert not old.whole
    assert old.score(*rows) == {"coverage": likeness.score(*rows)["coverage"]}


def test_a_profile_that_does_not_say_what_is_far_is_read(likeness: Likeness) -> None:
    numbers, texts = SEEN
    columns = {name: numbers[:, at] for at, name in enumerate(NUMBERS)}
    columns |= {name: texts[:, at].tolist() for at, name in enumerate(TEXTS)}
    made = measured(columns, SIGNATURE)
    del made["usual"]["window"]["far"]
    rows = everywhere(np.random.default_rng(0))
    whole = likeness.score(*rows)
    assert Likeness(made, SIGNATURE).score(*rows) == {name: whole[name] for name in ("coverage", "shape", "near")}


def profiled(rows: int = 5000) -> BundleDraft:
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.normal(45, 12, rows).clip(18, 90).tolist(),
        "income": rng.gamma(2, 900, rows).clip(0, 9000).tolist(),
        "city": rng.choice(["paris", "rome"], rows).tolist(),
    }
    made = mixed_bundle()
    files = {**made.files, "profile.json": json.dumps(measured(columns, MIXED)).encode()}
    files.pop("model.json")
    return BundleDraft.of(made.version, files)


def asked(rng: Any) -> dict[str, Any]:
    age, income = np.clip(rng.normal(45, 12), 18, 90), np.clip(rng.gamma(2, 900), 0, 9000)
    return {"age": float(age), "income": float(income), "city": str(rng.choice(["paris", "rome"]))}


def searched(rng: Any, at: int) -> dict[str, Any]:
    return {"age": 40 + 0.001 * at + float(rng.normal(0, 1e-4)), "income": 3000.0 + 0.01 * at, "city": "paris"}


@pytest.mark.parametrize(("do", "status"), [("warn", 200), ("limit", 429)])
def test_who_copies_is_limited_and_who_does_not_is_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], do: str, status: int
) -> None:
    rng = np.random.default_rng(5)

    def looked(endpoint: Endpoint) -> None:
        asking = endpoint.service.gate.asking  # type: ignore[union-attr]
        asking.look(asking.take())  # type: ignore[union-attr]

    with Endpoint(tmp_path, profiled(), {"extraction": {"do": do}}) as endpoint:
        for _ in range(4):
            assert {code for code, _ in endpoint.ask(*[asked(rng) for _ in range(60)])} == {200}
            looked(endpoint)
        assert endpoint.ask(asked(rng))[0][0] == 200
        assert not endpoint.service.tally.decided
        for at in range(6):
            endpoint.ask(*[searched(rng, 60 * at + one) for one in range(60)])
            looked(endpoint)
        ((found, body),) = endpoint.ask(asked(rng))
        assert found == status
        if status == 429:
            assert body["error"]["code"] == "caller-limited"
        assert endpoint.service.tally.decided["extraction", do] == 1
    assert capfd.readouterr().err.count("asks as if to copy the model") == 1


def test_the_server_looks_by_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)

    async def look(endpoint: Endpoint) -> None:
        endpoint.app.look()
        await asyncio.get_running_loop().shutdown_default_executor()

    with Endpoint(tmp_path, profiled(), {"extraction": {"do": "limit"}}) as endpoint:
        for at in range(4):
            endpoint.ask({"rows": [searched(rng, 64 * at + one) for one in range(64)]})
        asyncio.run(look(endpoint))
        assert endpoint.ask(asked(rng))[0][0] == 429


def test_who_copies_in_a_hurry_is_not_waited_for(tmp_path: Path) -> None:
    """A second is long: nobody has told the server to look, and the first full window is looked at nonetheless."""
    rng = np.random.default_rng(11)
    with Endpoint(tmp_path, profiled(), {"extraction": {"do": "limit"}}) as endpoint:
        for at in range(4):
            users = [endpoint.ask({"rows": [asked(rng) for _ in range(64)]}) for _ in range(4)]
            assert {status for ((status, _),) in users} == {200}, at
        # After a look it rests for a while, twenty times as long as the look took.
        asking = (endpoint.ask({"rows": [searched(rng, 64 * at + one) for one in range(64)]})[0][0] for at in count())
        until = time.monotonic() + 30
        found = list(takewhile(lambda status: status == 200 and time.monotonic() < until, asking))
        assert found
        assert next(asking) == 429


@pytest.mark.parametrize("lane", [True, False], ids=["together", "alone"])
def test_who_asks_is_answered_where_no_thread_is_to_be_had_for_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lane: bool
) -> None:
    rng = np.random.default_rng(5)
    tried: list[Any] = []

    def none(*given: Any) -> None:
        tried.append(given)
        raise RuntimeError("can't start new thread")

    async def work(endpoint: Endpoint) -> None:
        asyncio.get_running_loop().run_in_executor = none  # type: ignore[method-assign, assignment]
        requests = [endpoint.request({"rows": [asked(rng)]}) for _ in range(WINDOW + 2)]
        async with asyncio.timeout(10):
            assert {status for status, _ in await endpoint._ask(requests)} == {200}

    if not lane:
        monkeypatch.setattr(Lane, "opens", lambda *_: False)

    with Endpoint(tmp_path, profiled(), {"extraction": {"do": "limit"}}) as endpoint:
        asyncio.run(work(endpoint))
        asking = endpoint.service.gate.asking  # type: ignore[union-attr]
        assert len(tried) == 1
        # It is tried again before long.
        assert asking._sooner < asking._clock() + 60  # type: ignore[union-attr]


def test_nobody_is_limited_by_half_of_the_signs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of 255 rows no window of 256 can be made, as in a bundle of before there were any."""
    few = profiled(255)
    folder = lay(tmp_path, few)
    with pytest.raises(ServeError, match=r"(?s)guard-unusable.*train again"):
        Endpoint(tmp_path, few, {"extraction": {"do": "limit"}}, folder=folder)
    with Endpoint(tmp_path, few, {"extraction": {"do": "warn"}}, folder=folder) as endpoint:
        assert endpoint.ask(asked(np.random.default_rng(0)))[0][0] == 200
    assert "only sees rows all over the ranges" in capfd.readouterr().err


def test_of_a_large_request_only_what_is_looked_at_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    rows = [{**asked(rng), "city": "x" * 3000} for _ in range(300)]
    with Endpoint(tmp_path, profiled(), {"extraction": {"do": "warn"}}) as endpoint:
        assert {code for code, _ in endpoint.ask(*[{"rows": rows} for _ in range(8)])} == {200}
        (noted,) = endpoint.service.gate.asking.take().values()  # type: ignore[union-attr]
    assert WINDOW <= noted.count < WINDOW + 64
    assert noted.count == sum(len(numbers) for numbers, _ in noted.requests)
    for numbers, texts in noted.requests:
        assert numbers.base is None
        assert max(len(text) for row in texts for text in row) <= 200
