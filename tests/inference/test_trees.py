"""Bit vectors answer as a walk down the trees does, for every number that a float32 can be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples
from tests.kernels import kernels

from modelyard._kit.errors import ModelError
from modelyard.inference.trees import Trees, TreesPredictor
from modelyard.models.boosted import Boosted
from modelyard.models.prepare import Preparation, Style
from modelyard.models.trees import Tree

NATIVE = Style(scale=False, missing="native", categories="ordinal", most=250)
__all__ = ["kernels"]
pytestmark = pytest.mark.usefixtures("kernels")
LARGEST = float(np.finfo(np.float32).max)


def preparation(numbers: int, known: tuple[tuple[str, ...], ...] = ()) -> Preparation:
    nothing = np.full(numbers, np.nan, np.float32)
    return Preparation(NATIVE, nothing, nothing, nothing, (), known)


def grown(random: np.random.Generator, columns: int, leaves: int, thresholds: Any, first: int = 0) -> Tree:
    """Return a tree of any shape; node 0 is its root."""
    nodes: list[list[Any]] = [[0, 0.0, 0, 0, False, True]]
    for _ in range(leaves - 1):
        at = random.choice([i for i, node in enumerate(nodes) if node[5]])
        children = len(nodes)
        nodes[at] = [
            int(random.integers(columns)),
            float(random.choice(thresholds)),
            children,
            children + 1,
            bool(random.integers(2)),
            False,
        ]
        nodes += [[0, 0.0, 0, 0, False, True], [0, 0.0, 0, 0, False, True]]
    feature, threshold, left, right, missing_left, leaf = (np.array(one) for one in zip(*nodes, strict=True))
    weight = random.normal(size=(len(nodes), 1)).astype(np.float32)
    return Tree(feature, threshold, left, right, missing_left, leaf, weight, first)


def walked(trees: list[Tree], matrix: np.ndarray[Any, Any], outputs: int) -> np.ndarray[Any, Any]:
    """Return the sums as everybody would make them."""
    sums = np.zeros((len(matrix), outputs))
    for at, row in enumerate(matrix.astype(np.float64)):
        for tree in trees:
            node = 0
            while not tree.leaf[node]:
                value = row[tree.feature[node]]
                left = tree.missing_left[node] if np.isnan(value) else value <= tree.threshold[node]
                node = int(tree.left[node] if left else tree.right[node])
            sums[at, tree.first] += tree.weight[node, 0]
    return sums


def predictor(trees: list[Tree], columns: int, outputs: int = 1, link: Any = "identity") -> TreesPredictor:
    vectors = Boosted(trees, outputs, link).vectors(preparation(columns))
    assert vectors is not None
    return TreesPredictor(msgspec.msgpack.encode(vectors))


SPANS = {
    "usual": lambda r: r.normal(size=40),
    "few": lambda r: np.array([0.0, 1.0]),
    "skewed": lambda r: np.concatenate([r.random(60), [1e30]]),
    "wide": lambda r: np.array([-LARGEST, -1e38, -1.0, 0.0, 1e-45, 1.0, 3e38, LARGEST / 2]),
    "narrow": lambda r: np.array([0.0, 1e-45, 3e-45, 1e-44]),
    "far": lambda r: 2.0**25 + 4 * np.arange(30),
    "endless": lambda r: np.array([np.inf, -0.5, 0.5]),
    "only endless": lambda r: np.array([np.inf]),
}


@settings(max_examples=examples(60), deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    leaves=st.sampled_from([2, 3, 15, 16, 31, 32, 63]),
    span=st.sampled_from(sorted(SPANS)),
    outputs=st.sampled_from([1, 3]),
)
def test_every_row_ends_in_the_leaf_that_a_walk_ends_in(seed: int, leaves: int, span: str, outputs: int) -> None:
    random = np.random.default_rng(seed)
    thresholds = SPANS[span](random)
    trees = [grown(random, 4, int(random.integers(2, leaves + 1)), thresholds, n % outputs) for n in range(6)]
    trees.append(grown(random, 4, leaves, thresholds))
    on = thresholds[np.isfinite(thresholds)].astype(np.float32) if np.isfinite(thresholds).any() else np.zeros(1)
    on = np.clip(on, -LARGEST, LARGEST).astype(np.float32)
    with np.errstate(over="ignore"):
        beside = [np.nextafter(on, np.float32(way)) for way in (-np.inf, np.inf)]
    pool = np.concatenate([on, *beside, random.normal(size=20), [np.nan, 0.0, -0.0, LARGEST, -LARGEST]])
    pool = pool[~np.isinf(pool)].astype(np.float32)
    matrix = random.choice(pool, (120, 4))
    found = predictor(trees, 4, outputs).predict({"numeric": matrix})
    assert found.dtype == np.float32
    assert np.allclose(found, walked(trees, matrix, outputs), rtol=1e-5, atol=1e-5)


def test_a_row_has_the_same_answer_alone_and_among_others() -> None:
    random = np.random.default_rng(3)
    trees = [grown(random, 5, 31, random.normal(size=200), n % 3) for n in range(99)]
    model = predictor(trees, 5, 3, "softmax")
    matrix = random.normal(size=(1500, 5)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    whole = model.predict({"numeric": matrix})
    assert whole.sum(axis=1) == pytest.approx(np.ones(1500), abs=1e-6)
    for size in (1, 7, 96, 97, 300):
        parts = [model.predict({"numeric": matrix[at : at + size]}) for at in range(0, 600, size)]
        assert (np.concatenate(parts)[:600] == whole[:600]).all(), size


def test_several_threads_have_the_answers_of_one() -> None:
    random = np.random.default_rng(4)
    model = predictor([grown(random, 20, 31, random.normal(size=200)) for _ in range(100)], 20)
    parts = [random.normal(size=(size, 20)).astype(np.float32) for size in (300, 200, 100) * 40]
    alone = [model.predict({"numeric": part}) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda part: model.predict({"numeric": part}), parts))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_two_classes_have_probabilities_however_sure_the_trees_are() -> None:
    tree = Tree(
        feature=np.array([0, 0, 0]),
        threshold=np.zeros(3),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        missing_left=np.zeros(3, bool),
        leaf=np.array([False, True, True]),
        weight=np.array([[0], [-1e9], [1e9]], np.float32),
    )
    found = predictor([tree], 1, link="logistic").predict({"numeric": np.array([[-1], [1]], np.float32)})
    assert found == pytest.approx(np.array([[1, 0], [0, 1]]), abs=1e-30)


def test_categories_have_the_codes_of_training_and_all_others_share_one() -> None:
    # Goes left up to code 0: `red`; the column between is left out of the matrix.
    tree = Tree(
        feature=np.array([2, 0, 0]),
        threshold=np.array([0.5, 0, 0]),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        missing_left=np.zeros(3, bool),
        leaf=np.array([False, True, True]),
        weight=np.array([[0], [-1], [1]], np.float32),
    )
    vectors = Boosted([tree], 1, "identity").vectors(preparation(1, (("a", "b"), (), ("red", ""))))
    assert vectors is not None
    model = TreesPredictor(msgspec.msgpack.encode(vectors))
    texts = np.array([["a", "x", "red"], ["a", "x", ""], ["a", "x", "never seen"]], object)
    found = model.predict({"numeric": np.zeros((3, 1), np.float32), "categorical": texts})
    assert found.ravel().tolist() == [-1, 1, 1]


def test_a_missing_value_is_filled_where_training_filled_it() -> None:
    tree = Tree(
        feature=np.array([1, 0, 0, 0, 0]),
        threshold=np.array([0.5, 0.5, 0, 0, 0]),
        left=np.array([1, 3, 0, 0, 0]),
        right=np.array([2, 4, 0, 0, 0]),
        missing_left=np.ones(5, bool),
        leaf=np.array([False, False, True, True, True]),
        weight=np.array([[0], [0], [4], [1], [2]], np.float32),
    )
    fill = np.array([0.75, np.nan], np.float32)
    vectors = Boosted([tree], 1, "identity").vectors(Preparation(NATIVE, fill, fill, fill, (), ()))
    assert vectors is not None
    rows = np.array([[np.nan, 0.0], [0.0, 0.0], [0.0, np.nan], [np.nan, 0.75]], np.float32)
    found = TreesPredictor(msgspec.msgpack.encode(vectors)).predict({"numeric": rows})
    assert found.ravel().tolist() == [2, 1, 1, 4]


@pytest.mark.parametrize("leaves", [1, 64])
def test_what_has_no_word_is_left_to_a_runtime(leaves: int) -> None:
    random = np.random.default_rng(0)
    assert Boosted([grown(random, 3, leaves, [0.0])], 1, "identity").vectors(preparation(3)) is None


def test_so_many_columns_are_left_to_a_runtime() -> None:
    random = np.random.default_rng(0)
    trees = [grown(random, 200, 63, random.normal(size=50)) for _ in range(20)]
    assert Boosted(trees, 1, "identity").vectors(preparation(200)) is None


@pytest.mark.parametrize(
    "style",
    [replace(NATIVE, scale=True), replace(NATIVE, missing="fill"), replace(NATIVE, categories="onehot")],
)
def test_numbers_that_are_changed_before_the_trees_are_left_to_a_runtime(style: Style) -> None:
    random = np.random.default_rng(0)
    made = replace(preparation(2), style=style)
    assert Boosted([grown(random, 2, 3, [0.0])], 1, "identity").vectors(made) is None


def test_tables_that_are_too_large_are_left_to_a_runtime() -> None:
    random = np.random.default_rng(0)
    trees = [grown(random, 4, 63, random.normal(size=10_000)) for _ in range(300)]
    assert Boosted(trees, 1, "identity").vectors(preparation(4)) is None


def test_a_file_of_another_format_is_refused_as_such() -> None:
    good = Boosted([grown(np.random.default_rng(0), 2, 3, [0.0, 1.0])], 1, "identity").vectors(preparation(2))
    assert good is not None
    plain = msgspec.structs.asdict(good)
    assert plain["format"] == 1
    with pytest.raises(ModelError, match="format 2") as raised:
        TreesPredictor(msgspec.msgpack.encode({**plain, "format": 2, "more": b""}))
    assert raised.value.code == "model-unreadable"
    assert "environment.json" in str(raised.value)


@pytest.mark.parametrize("columns", [1, 20_000])
def test_a_small_file_that_asks_for_much_memory_is_refused(columns: int) -> None:
    """Of 700 kB: the table of a column would take 800 MB, that of many columns three times as much."""
    nodes = 20_000
    one, index = np.ones(nodes, np.uint8).tobytes(), np.arange(nodes)
    asking = Trees(
        fill=np.full(columns, np.nan, "<f4").tobytes(),
        known=[],
        outputs=1,
        link="identity",
        base=[0.0],
        targets=[0] * nodes,
        leaves=np.zeros((nodes, 2), "<f4").tobytes(),
        tree=index.astype("<u4").tobytes(),
        column=(index % columns).astype("<u4").tobytes(),
        threshold=index.astype("<f4").tobytes(),
        first=bytes(nodes),
        last=one,
        missing_left=one,
    )
    with pytest.raises(ModelError, match="ever written"):
        TreesPredictor(msgspec.msgpack.encode(asking))


@pytest.mark.parametrize(
    "change",
    [
        {"tree": np.full(2, 7, "<u4").tobytes()},
        {"column": np.full(2, 9, "<u4").tobytes()},
        {"last": b"\xff\xff"},
        {"last": b"\x03\x03"},  # its last leaf is left of something
        {"first": b"\x00"},
        {"threshold": np.full(2, np.nan, "<f4").tobytes()},
        {"targets": [1]},
        {"targets": []},
        {"leaves": b"abc"},
        {"base": []},
        {"outputs": 0},
        {"link": "other"},
        {"fill": b""},
        {"more": 1},
    ],
)
def test_damaged_trees_are_refused(change: dict[str, Any]) -> None:
    good = Boosted([grown(np.random.default_rng(0), 2, 3, [0.0, 1.0])], 1, "identity").vectors(preparation(2))
    assert isinstance(good, Trees)
    TreesPredictor(msgspec.msgpack.encode(good))
    bad = {**msgspec.structs.asdict(good), **change}
    with pytest.raises(ModelError) as raised:
        TreesPredictor(msgspec.msgpack.encode(bad))
    assert raised.value.code == "model-unreadable"
