"""A group that is cleared at a glance is answered, counted, logged and noted as if each answer were looked at."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.checks.profile import profile
from modelyard.checks.usual import WINDOW, usual
from modelyard.inference import BundleDraft, Encoder
from modelyard.inference.decode import decode_rows
from modelyard.records import Feature, Problem, Signature
from modelyard.serving.guards.asking import Asking
from modelyard.serving.guards.base import Batch
from modelyard.serving.guards.gate import Gate
from modelyard.serving.guards.glance import Ruled
from modelyard.serving.guards.policy import Extraction
from modelyard.serving.guards.rules import built_in
from modelyard.serving.http.connection import Connection
from modelyard.serving.parsed import Parsed
from modelyard.serving.validate import Validator

from .conftest import MIXED, mixed_bundle, regression_bundle  # noqa: TID252 - the suite is not installed
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint, _first, logged  # noqa: TID252

CITIES = ("paris", "rome", "oslo", "", None)


def profiled(made: BundleDraft, columns: dict[str, Any], answers: Any) -> BundleDraft:
    signature = made.version.signature
    seen = profile(columns, signature, answers)
    whole = {**seen, "usual": usual(seen, signature, [Encoder(signature)(columns)])}
    files = {**made.files, "profile.json": json.dumps(whole).encode()}
    files.pop("model.json")
    return BundleDraft.of(made.version, files)


def mixed() -> BundleDraft:
    rng = np.random.default_rng(0)
    yes = rng.uniform(0.3, 1, 2000)
    columns = {
        "age": rng.integers(18, 91, 2000).tolist(),
        "income": rng.uniform(0, 9000, 2000).tolist(),
        "city": rng.choice(["paris", "rome"], 2000).tolist(),
    }
    return profiled(mixed_bundle(), columns, np.column_stack([1 - yes, yes]))


def regression() -> BundleDraft:
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=2000), "b": rng.normal(size=2000)}
    return profiled(regression_bundle(), columns, (2 * columns["a"] + columns["b"]).reshape(-1, 1))


def mixed_row(rng: Any) -> dict[str, Any]:
    income = None if rng.random() < 0.1 else float(rng.uniform(0, 9500))
    return {"age": int(rng.integers(18, 95)), "income": income, "city": CITIES[rng.integers(0, len(CITIES))]}


def regression_row(rng: Any) -> dict[str, Any]:
    return {"a": float(rng.integers(-4, 5)), "b": float(rng.normal())}


KINDS = {
    "mixed": (
        mixed,
        mixed_row,
        [
            [{"use": "labels", "params": {"allowed": ["no", "yes"]}}],
            [{"use": "labels", "params": {"allowed": ["yes"]}, "do": "warn"}],
            [{"use": "blocklist", "params": {"terms": ["never"]}}],
            [{"use": "blocklist", "params": {"terms": ["NO"], "patterns": ["q+"]}, "do": "fallback"}],
            [{"use": "blocklist", "params": {"patterns": ["^os"], "columns": ["city"]}}],
            [{"use": "unusual", "params": {"score": 0.9}}, {"use": "blocklist", "params": {"terms": ["oslo"]}}],
        ],
    ),
    "regression": (
        regression,
        regression_row,
        [
            [{"use": "blocklist", "params": {"terms": ["word"]}}],
            [{"use": "blocklist", "params": {"terms": ["-3"]}}],
            [{"use": "blocklist", "params": {"patterns": ["^1"]}}],
            # What one of two clears the other may mark.
            [{"use": "blocklist", "params": {"terms": ["-3"]}}, {"use": "blocklist", "params": {"patterns": ["^1"]}}],
            [{"use": "unusual", "params": {"score": 0.9}}],
        ],
    ),
}


async def together(endpoint: Endpoint, bodies: list[Any]) -> list[Any]:
    """Ask on as many connections in one turn, so that there is one group."""
    asked = []
    for body in bodies:
        wire, connection = Wire(), Connection(endpoint.app)
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.data_received(endpoint.request(body))
        asked.append((wire, connection))
    found = []
    for wire, connection in asked:
        while (answer := _first(wire.sent, 0)) is None:
            await asyncio.sleep(0)
        connection.connection_lost(None)
        found.append(answer[:2])
    return found


def told(endpoint: Endpoint, groups: list[list[Any]]) -> tuple[Any, ...]:
    """Return all that can be seen of groups: answers, counts, what extraction noted, and the log."""

    async def ask() -> list[Any]:
        return [await together(endpoint, group) for group in groups]

    answers = asyncio.run(ask())
    for _, body in itertools.chain.from_iterable(answers):
        for told_apart in (body, body.get("error", {})):
            told_apart.pop("id", None)
    asking = endpoint.service.gate.asking  # type: ignore[union-attr]
    noted = [
        # As text: a missing number is not the same as itself.
        sorted((str(numbers.tolist()), texts) for numbers, texts in one.requests)
        for one in asking.take().values()  # type: ignore[union-attr]
    ]
    decided, rows = dict(endpoint.service.tally.decided), endpoint.service.rows
    assert endpoint.service.in_flight == 0
    # Whichever of a turn are answered together, and so first.
    return answers, decided, rows, noted, sorted(logged(endpoint), key=lambda one: json.dumps(one, sort_keys=True))


@pytest.mark.parametrize(
    ("kind", "at"), [(kind, at) for kind, (*_, checks) in KINDS.items() for at in range(len(checks))]
)
def test_a_glance_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at: int) -> None:
    make, row, checks = KINDS[kind]
    made = make()
    rng = np.random.default_rng(at)
    # Some groups hold nothing that is marked, some hold a request that is refused.
    groups: list[list[Any]] = [
        [{"rows": [row(rng) for _ in range(rng.integers(1, 4))]} for _ in range(rng.integers(1, 5))] for _ in range(30)
    ]
    groups += [[row(rng)] for _ in range(40)] + [[{"rows": [row(rng) for _ in range(300)]}]]
    guards: dict[str, Any] = {"checks": checks[at], "extraction": {}, "fallback": "no" if kind == "mixed" else "1"}
    guards |= {"unseen": "reject"} if at % 2 else {}
    (tmp_path / "fast").mkdir()
    (tmp_path / "slow").mkdir()
    passed: list[bool] = []

    def passing(real: Callable[..., bool]) -> Callable[..., bool]:
        return lambda *given: passed.append(real(*given)) or passed[-1]  # type: ignore[func-returns-value]

    with monkeypatch.context() as fast:
        fast.setattr(Gate, "lets_pass", passing(Gate.lets_pass))
        found = told(Endpoint(tmp_path / "fast", made, guards), groups)
    assert any(passed)
    real = Ruled.__init__

    def never_idle(self: Ruled, *given: Any) -> None:
        real(self, *given)
        self.idle = False

    monkeypatch.setattr(Ruled, "__init__", never_idle)
    monkeypatch.setattr(Ruled, "clears", lambda *_: False)
    monkeypatch.setattr(Gate, "lets_pass", lambda *_: False)
    slowly = told(Endpoint(tmp_path / "slow", made, guards), groups)
    assert found == slowly


def opened(kind: str, count: int = 3) -> Any:
    """Return what a check asks of a bundle."""
    classes = () if kind == "regression" else tuple("abcdef"[:count])
    positive = "b" if kind == "binary" else None
    problem = Problem(task=kind, target="y", classes=classes, positive=positive, metric="x")  # type: ignore[arg-type]
    features = (
        Feature(name="n", type="number", source="Float64"),
        *(Feature(name=name, type="category", source="String") for name in ("s", "t")),
    )
    signature = Signature(features=features, problem=problem)
    rng = np.random.default_rng(1)
    answers = rng.normal(size=(3000, 1)) if not classes else rng.dirichlet(np.ones(len(classes)), 3000)
    columns = {"n": rng.normal(size=3000), "s": ["u"] * 3000, "t": ["v"] * 3000}
    seen = profile(columns, signature, answers.astype(np.float32))
    return SimpleNamespace(signature=signature, labels=(), profile=seen)


@pytest.mark.parametrize(("kind", "count"), [("binary", 2), ("multiclass", 4), ("regression", 0)])
def test_what_is_cleared_is_marked_by_no_check(kind: str, count: int) -> None:
    bundle = opened(kind, count)
    problem = bundle.signature.problem
    declared: list[tuple[str, dict[str, Any]]] = [
        ("blocklist", {"terms": ["b"]}),
        ("blocklist", {"terms": ["x"], "columns": ["t"]}),
        ("blocklist", {"patterns": ["y$", "^c"], "columns": ["t", "s"]}),
        ("blocklist", {"terms": ["2"]}),
        ("unusual", {"score": 0.99}),
        ("unusual", {"score": 0.999}),
    ]
    if count:
        declared += [("labels", {"allowed": list(problem.classes[:keep])}) for keep in range(1, count + 1)]
    checks = [built_in(name, params).made(bundle) for name, params in declared]
    rng = np.random.default_rng(2)
    cleared = [0] * len(checks)
    for _ in range(300):
        rows = int(rng.integers(1, 6))
        drawn = rng.dirichlet(np.full(count, 0.7), rows) if count else rng.normal(size=(rows, 1)).round(2)
        output = drawn.astype(np.float32 if rng.random() < 0.7 else np.float64)
        texts = rng.choice(["u", "v", "x", "y", ""], (rows, 2), p=[0.4, 0.4, 0.05, 0.05, 0.1]).astype(object)
        cut = int(rng.integers(0, rows + 1))
        group = [Parsed(len(some), None, some) for some in (texts[:cut], texts[cut:]) if len(some)]
        inputs = {name: [text or None for text in texts[:, at].tolist()] for at, name in enumerate(("s", "t"))}
        batch = Batch(decode_rows(output.tolist(), problem), partial(dict, inputs))
        for at, check in enumerate(checks):
            marked = any(check(batch))
            if check.clears(output, group):
                assert not marked, (declared[at], output, texts)
                cleared[at] += 1
            elif declared[at][0] == "labels":
                assert marked, "of classes alone a glance says all"
            assert not (check.idle and marked)
    assert all(found > 3 for found in cleared), cleared


@pytest.mark.parametrize(("kind", "count"), [("binary", 2), ("multiclass", 3), ("regression", 0)])
def test_of_usual_scores_none_is_strange(kind: str, count: int) -> None:
    """On the knots of the profile and next to them, where ranges end."""
    bundle = opened(kind, count)
    problem = bundle.signature.problem
    knots = np.array(bundle.profile["predictions"]["score"]["knots"], np.float32)
    near = np.concatenate(
        [knots, np.nextafter(knots, -np.inf), np.nextafter(knots, np.inf), (knots[:-1] + knots[1:]) / 2]
    )
    for score in (0.5, 0.9, 0.97, 0.99, 0.999999):
        check = built_in("unusual", {"score": score}).made(bundle)
        cleared = 0
        for value in near.tolist():
            if not count:
                output = np.array([[value]], np.float32)
            elif kind == "binary":
                output = np.array([[1 - value, value]], np.float32)
            else:
                output = np.array([[value, *[(1 - value) / 2] * 2]], np.float32)
            if check.clears(output, []):
                assert check(Batch(decode_rows(output.tolist(), problem), dict)) == [False], (score, value)
                cleared += 1
        assert cleared, score


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("numbers", [True, False])
def test_what_is_noted_of_a_group_is_what_is_noted_of_each(tmp_path: Path, numbers: bool, texts: bool) -> None:
    if not numbers and not texts:
        return
    kinds: list[Any] = [("n", "number"), ("m", "number")] * numbers + [("s", "category"), ("t", "category")] * texts
    features = tuple(
        Feature(name=name, type=kind, source="Float64" if kind == "number" else "String") for name, kind in kinds
    )
    signature = Signature(features=features, problem=MIXED.problem)
    columns = {name: [1.0, 2.0] * 50 if kind == "number" else ["u", "v"] * 50 for name, kind in kinds}
    bundle: Any = SimpleNamespace(signature=signature, profile=profile(columns, signature))
    rng = np.random.default_rng(3)
    for turn in range(60):
        one, whole = (Asking(bundle, Validator(signature), Extraction(), lambda *_: None) for _ in range(2))
        wanted: dict[str, list[tuple[list[Any], list[Any]]]] = {}
        for _ in range(int(rng.integers(1, 12))):
            group = []
            for _ in range(int(rng.integers(1, 40))):
                large = rng.random() < 0.03
                parsed = drawn(rng, int(rng.integers(1, 700) if large else rng.integers(1, 3)), numbers, texts)
                caller = "a" if turn % 3 else str(rng.choice(["a", "b", "c"]))
                group.append(
                    SimpleNamespace(parsed=parsed, exchange=SimpleNamespace(head=SimpleNamespace(caller=caller)))
                )
                if rng.random() < 0.05 and len(group) > 1:
                    parsed.error = ValueError("refused")  # type: ignore[assignment]
                    continue
                one.note(caller, parsed)
                wanted.setdefault(caller, []).append(by_itself(parsed, numbers, texts))
            fitting = sum(asked.parsed.count for asked in group if asked.parsed.error is None)
            whole.note_all(group, fitting)  # type: ignore[arg-type]
        found, singly = ({name: noted(of) for name, of in asking.take().items()} for asking in (whole, one))
        assert found == singly
        assert found == {name: newest(requests) for name, requests in wanted.items()}


def drawn(rng: Any, count: int, numbers: bool, texts: bool) -> Parsed:
    given = rng.normal(size=(count, 2))
    given[rng.random((count, 2)) < 0.1] = 7.5
    words = np.empty((count, 2), object)
    for at in range(count):
        words[at] = ["x" * int(rng.integers(0, 5)), "y" * (300 if rng.random() < 0.02 else 3)]
    packed = numbers and rng.random() < 0.5
    rows = None if packed or not numbers else given.astype(np.float32)
    return Parsed(count, given.tobytes() if packed else None, words if texts else None, b"", rows)


def by_itself(parsed: Parsed, numbers: bool, texts: bool) -> tuple[list[Any], list[Any]]:
    """Return what should be kept of a request."""
    step = max(1, -(-parsed.count // 64))
    given: Any = np.empty((parsed.count, 0))
    if numbers:
        given = np.frombuffer(parsed.packed).reshape(-1, 2) if parsed.packed is not None else parsed.numbers
    words = parsed.categories.tolist() if parsed.categories is not None else [[]] * parsed.count
    short = [[text if len(text) <= 200 else f"{len(text)} {hash(text)}" for text in row] for row in words[::step]]
    return given[::step].astype(np.float64).tolist(), short


def newest(requests: list[tuple[list[Any], list[Any]]]) -> list[tuple[list[Any], list[Any]]]:
    kept, rows = 0, 0
    for _, texts in reversed(requests):
        if rows >= WINDOW:
            break
        kept, rows = kept + 1, rows + len(texts)
    return requests[len(requests) - kept :]


def noted(of: Any) -> list[tuple[list[Any], list[Any]]]:
    assert of.count == sum(len(texts) for _, texts in of.requests)
    assert all(numbers.base is None for numbers, _ in of.requests)
    return [(numbers.tolist(), texts) for numbers, texts in of.requests]
