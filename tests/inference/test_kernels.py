"""The compiled kernels have the bits of their form in Python, and take nothing that they cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples
from tests.inference.test_trees import grown, predictor
from tests.kernels import FORMS, made

from modelyard.inference.kernels import VERSION, compiled

KERNELS: Any = compiled()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="there was no compiler when this was installed")


@pytest.fixture(params=[False, True], ids=["plain", "wide"], scope="class")
def registers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let tests run with each kind of registers that this processor has."""
    if KERNELS.widen(request.param) != request.param:
        pytest.skip("this processor has no wide registers")
    yield
    KERNELS.widen(True)


@pytest.mark.usefixtures("registers")
class TestForest:
    @settings(max_examples=examples(60), deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([2, 12, 15, 16, 31, 63]), st.integers(1, 3), st.integers(1, 300))
    def test_sums_have_the_bits_of_numpy(self, seed: int, leaves: int, outputs: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        knots = np.concatenate([rng.normal(size=40).astype(np.float32), [np.float32(0), np.inf]])
        trees = [grown(rng, 4, int(rng.integers(2, leaves + 1)), knots, first=at % outputs) for at in range(count)]
        matrix = rng.choice(np.append(rng.normal(size=60), [np.nan, np.inf, -np.inf, -0.0, *knots]), (9, 4))
        link = "identity" if outputs < 3 else "softmax"
        both = [made(form, lambda: predictor(trees, 4, outputs, link)) for form in ("python", "compiled")]
        rows = matrix.astype(np.float32)
        one, other = [of.predict({"numeric": rows}) for of in both]
        assert one.tobytes() == other.tobytes()
        # Of a matrix that lies in memory in another way, too.
        assert both[1].predict({"numeric": np.asfortranarray(rows)}).tobytes() == other.tobytes()
        assert both[1].predict({"numeric": rows[::2]}).tobytes() == other[::2].tobytes()

    @pytest.mark.parametrize("distinct", [15, 16, 17, 255, 256, 257, 5000])
    def test_columns_with_few_and_many_thresholds(self, distinct: int) -> None:
        """A search takes one step for up to 15 of them, two up to 255, three and four beyond."""
        rng = np.random.default_rng(distinct)
        knots = np.sort(rng.normal(size=distinct)).astype(np.float32)
        # Each of them at least once; and one column that has one only.
        trees = [grown(rng, 1, 31, knots) for _ in range(max(1, distinct // 15))]
        inner = np.concatenate([tree.threshold[~tree.leaf] for tree in trees])
        inner[:distinct] = knots[: len(inner)]
        for tree in trees:
            many = int((~tree.leaf).sum())
            tree.threshold[~tree.leaf], inner = inner[:many], inner[many:]
        beside = [np.nextafter(knots, np.float32(way)) for way in (-np.inf, np.inf)]
        rows = np.concatenate([knots, *beside, np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0])])[:, None]
        one, other = [made(form, lambda: predictor(trees, 1)).predict({"numeric": rows}) for form in FORMS]
        assert one.tobytes() == other.tobytes()

    @pytest.mark.thorough
    @pytest.mark.parametrize("leaves", [8, 15, 31, 63])
    def test_many_rows_have_the_bits_of_numpy(self, leaves: int) -> None:
        rng = np.random.default_rng(leaves)
        for count in (1, 5, 16, 17, 33, 70, 100, 129):
            knots = np.concatenate([rng.normal(size=100).astype(np.float32), np.float32([0, 1e-45, 3e38])])
            trees = [grown(rng, 12, int(rng.integers(2, leaves + 1)), knots) for _ in range(count)]
            pool = np.concatenate([rng.normal(size=100), knots, [np.nan, np.inf, -np.inf, -0.0]]).astype(np.float32)
            rows = rng.choice(pool, (20_000, 12))
            both = [made(form, partial(predictor, trees, 12)) for form in FORMS]
            one, other = [of.predict({"numeric": rows}) for of in both]
            assert one.tobytes() == other.tobytes()
            for at in range(0, 300, 3):
                assert both[1].predict({"numeric": rows[at : at + 3]}).tobytes() == other[at : at + 3].tobytes()

    @pytest.mark.parametrize("count", [1, 7, 8, 130])
    def test_a_sum_of_nothing_but_zeros_below_zero_is_that_of_numpy(self, count: int) -> None:
        """As those of a target that is zero throughout."""
        rng = np.random.default_rng(0)
        trees = [grown(rng, 2, 3, np.float32([0, 1])) for _ in range(count)]
        for tree in trees:
            tree.weight[:] = -0.0
        rows = rng.normal(size=(3, 2)).astype(np.float32)
        answers = [made(form, lambda: predictor(trees, 2)).predict({"numeric": rows}).tobytes() for form in FORMS]
        assert answers[0] == answers[1]

    def forest(self, **change: Any) -> Any:
        given: dict[str, Any] = {
            "table": np.full((3, 2), -1, np.int32),
            "knots": np.zeros(1, np.float32),
            "sizes": [1],
            "starts": [0],
            "missing": [2],
            "numbers": [0],
            "values": np.arange(4, dtype=np.float32),
            "leaves": 2,
            "parts": [0, 2],
            "base": np.zeros(1, np.float32),
        }
        return KERNELS.Forest(**{**given, **change})

    @pytest.mark.parametrize(
        "change",
        [
            {"table": np.full((3, 2), -1, np.int8)},
            {"table": np.full(6, -1, np.int32)},
            {"table": np.zeros((3, 0), np.int32)},
            {"table": np.full((2, 2), -1, np.int32)},
            {"knots": np.zeros(2, np.float32)},
            {"knots": np.zeros(1)},
            {"sizes": [2]},
            {"sizes": [-1]},
            {"sizes": []},
            {"sizes": 1},
            {"starts": [2]},
            {"starts": [2**40]},
            {"missing": [3]},
            {"missing": []},
            {"numbers": [-1]},
            {"numbers": [0, 1]},
            {"numbers": [2**70]},
            {"values": np.zeros(5, np.float32)},
            {"leaves": 0},
            {"leaves": 2**62},
            # Their product is no more than 64 bits can say: 0.
            {"table": np.full((3, 4), -1, np.int32), "parts": [0, 4], "leaves": 2**62, "values": np.zeros(0, "f4")},
            {"parts": [0, 1]},
            {"parts": [1, 2]},
            {"parts": [0, 2, 1, 2]},
            {"parts": []},
            {"base": np.zeros(2, np.float32)},
        ],
        ids=str,
    )
    def test_parts_that_do_not_fit_together_are_refused(self, change: dict[str, Any]) -> None:
        self.forest()
        with pytest.raises((TypeError, ValueError)):
            self.forest(**change)

    @pytest.mark.parametrize("word", [np.int16, np.int32, np.int64])
    def test_a_word_without_the_last_leaf_is_refused(self, word: Any) -> None:
        """As only a damaged table has it: then a row could end in no leaf of a tree."""
        for tree in range(2):
            table = np.full((3, 2), 2, word)
            self.forest(table=table)
            table[1, tree] = ~np.array(2, word)
            with pytest.raises(ValueError, match="nowhere"):
                self.forest(table=table)

    @pytest.mark.parametrize(("word", "most"), [(np.int16, 15), (np.int32, 31), (np.int64, 63)])
    def test_more_leaves_than_a_word_has_bits_are_refused(self, word: Any, most: int) -> None:
        table = np.full((3, 2), -1, word)
        out = np.empty((1, 1), np.float32)
        self.forest(table=table, leaves=most, values=np.zeros(2 * most, np.float32)).sums(np.zeros((1, 1), "f4"), out)
        for leaves in (most + 1, 64, 65):
            with pytest.raises(ValueError, match="nowhere"):
                self.forest(table=table, leaves=leaves, values=np.zeros(2 * leaves, np.float32))

    @pytest.mark.parametrize("word", [np.int16, np.int32, np.int64])
    def test_each_leaf_has_its_value(self, word: Any) -> None:
        leaves = 8 * np.dtype(word).itemsize - 1
        values = np.arange(2 * leaves, dtype=np.float32)
        out = np.empty((1, 1), np.float32)
        for leaf in range(leaves):
            table = np.full((3, 2), (1 << (leaves - 1)) | (1 << leaf), word)
            self.forest(table=table, leaves=leaves, values=values).sums(np.zeros((1, 1), np.float32), out)
            assert out[0, 0] == leaf + leaves + leaf

    @pytest.mark.parametrize(
        ("matrix", "out"),
        [
            (np.zeros((2, 0), np.float32), np.empty((2, 1), np.float32)),
            (np.zeros((2, 1), np.float32), np.empty((1, 1), np.float32)),
            (np.zeros((2, 1)), np.empty((2, 1), np.float32)),
            (np.zeros(2, np.float32), np.empty((2, 1), np.float32)),
            (np.zeros((2, 1), np.float32), np.empty((2, 1))),
            (np.zeros((2, 1), np.float32), bytes(8)),
            ([[0.0]], np.empty((1, 1), np.float32)),
        ],
    )
    def test_matrices_of_other_shapes_are_refused(self, matrix: Any, out: Any) -> None:
        with pytest.raises((TypeError, ValueError, BufferError)):
            self.forest().sums(matrix, out)

    def test_more_rows_than_can_be_counted_in_bytes_are_refused(self) -> None:
        four = self.forest(parts=[0, 1, 1, 1, 2], base=np.zeros(4, np.float32))
        with pytest.raises(ValueError, match="shapes"):
            four.sums(np.broadcast_to(np.float32([[0]]), (2**60, 1)), np.empty((0, 4), np.float32))

    def test_arguments_are_counted(self) -> None:
        for args in ((), (np.zeros((1, 1), np.float32),), (np.zeros((1, 1), np.float32),) * 3):
            with pytest.raises(TypeError, match="arguments"):
                self.forest().sums(*args)

    def test_no_row(self) -> None:
        self.forest().sums(np.zeros((0, 1), np.float32), np.empty((0, 1), np.float32))


@pytest.mark.usefixtures("registers")
class TestRows:
    @given(st.lists(st.lists(st.floats(width=64), min_size=2, max_size=2), max_size=40))
    def test_bounds_are_those_of_numpy(self, rows: list[list[float]]) -> None:
        values, low, high = np.array(rows, float).reshape(-1, 2), np.array([-1.0, -np.inf]), np.array([1e300, 0.0])
        out = np.empty(values.shape, np.float32)
        with np.errstate(over="ignore"):
            narrowed = values.astype(np.float32)
        assert KERNELS.narrow(values.tobytes(), low, high, out) == bool(((values >= low) & (values <= high)).all())
        assert np.array_equal(out, narrowed, equal_nan=True)

    @pytest.mark.parametrize(
        "change", [{"values": bytes(7)}, {"values": bytes(24)}, {"low": np.zeros(1)}, {"out": np.zeros(3)}]
    )
    def test_rows_of_other_shapes_are_refused(self, change: dict[str, Any]) -> None:
        given = {"values": bytes(16), "low": np.zeros(2), "high": np.zeros(2), "out": np.empty(2, np.float32), **change}
        with pytest.raises((TypeError, ValueError)):
            KERNELS.narrow(*given.values())

    @given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), max_size=40))
    def test_probabilities_by_sums_are_those_of_numpy(self, rows: list[list[float]]) -> None:
        sums = np.array(rows, np.float32).reshape(-1, 2)[:, :1].copy()
        far, one = np.float32(88), np.float32(1)
        wanted = np.negative(np.minimum(np.maximum(sums, -far), far))
        KERNELS.exponents(sums, far)
        assert np.array_equal(sums, wanted, equal_nan=True)
        with np.errstate(over="ignore", divide="ignore"):
            odds = np.abs(np.array(rows, np.float32).reshape(-1, 2)[:, 1:].copy())
            yes = np.reciprocal(odds + one)
        output = np.empty((len(odds), 2), np.float32)
        KERNELS.shares(odds, output)
        assert np.array_equal(output, np.concatenate([one - yes, yes], axis=1), equal_nan=True)

    @given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=40), st.integers(0, 1))
    def test_the_span_of_a_column_is_that_of_numpy(self, rows: list[list[float]], column: int) -> None:
        output = np.array(rows, np.float32)
        for matrix in (output, np.asfortranarray(output), output[::2]):
            wanted = np.minimum.reduce(matrix[:, column]), np.maximum.reduce(matrix[:, column])
            assert np.array_equal(KERNELS.span(matrix, column), wanted, equal_nan=True)

    def test_what_does_not_fit_is_refused(self) -> None:
        narrow, wide = np.zeros((3, 1), np.float32), np.zeros((3, 1))
        fixed = np.zeros((3, 2), np.float32)
        fixed.flags.writeable = False
        for call in (
            lambda: KERNELS.exponents(fixed, 1.0),
            lambda: KERNELS.shares(narrow, fixed),
            lambda: KERNELS.span(narrow, 1),
            lambda: KERNELS.span(narrow, -1),
            lambda: KERNELS.span(wide, 0),
            lambda: KERNELS.span(narrow[0], 0),
            lambda: KERNELS.exponents(wide, 1.0),
            lambda: KERNELS.exponents(narrow, "far"),
            lambda: KERNELS.exponents(narrow),
            lambda: KERNELS.shares(narrow, narrow),
            lambda: KERNELS.shares(narrow, np.zeros((4, 2), np.float32)),
            lambda: KERNELS.shares(narrow, np.zeros((3, 2))),
            lambda: KERNELS.shares(wide, np.zeros((3, 2), np.float32)),
        ):
            with pytest.raises((TypeError, ValueError, IndexError)):
                call()

    def test_nothing_is_held_of_what_is_looked_at(self) -> None:
        one, two = memoryview(bytearray(12)).cast("f", (3, 1)), memoryview(bytearray(24)).cast("f", (3, 2))
        KERNELS.bounds(two)
        KERNELS.span(two, 0)
        KERNELS.exponents(one, 1.0)
        KERNELS.shares(one, two)
        for call in (lambda: KERNELS.span(two, 2), lambda: KERNELS.shares(one, one), lambda: KERNELS.shares(one, 1)):
            with pytest.raises((TypeError, ValueError, IndexError)):
                call()
        # Whoever still held them would keep them from it.
        one.release()
        two.release()

    def test_the_largest_of_a_profile(self) -> None:
        tails = KERNELS.Tails(np.array([0, 1, 5], np.float32), [2, 1], np.arange(10.0))
        # Below the first knot, on it, between two, on the last, above it; of the second column: below, on, above, none.
        for row, said in ([-1, 4], 0 + 6), ([0, 5], 1 + 7), ([0.5, 6], 2 + 8), ([1, np.nan], 3), ([2, np.nan], 4):
            assert tails.largest(np.array([row], np.float32), None)[0] == said
        assert tails.largest(np.array([[2, 5], [0, 6]], np.float32), np.array([[1.0, 9.0]])) == (18, 9)
        assert tails.largest(np.zeros((0, 2), np.float32), None) == (0, 0)
        for matrix, more in ((np.zeros((1, 3), np.float32), None), (np.zeros((2, 2), np.float32), np.zeros(3))):
            with pytest.raises(ValueError, match="columns"):
                tails.largest(matrix, more)
        for wrong in ({"sizes": [2, 2]}, {"said": np.zeros(9)}, {"knots": np.zeros(3)}):
            with pytest.raises((TypeError, ValueError)):
                KERNELS.Tails(**{"knots": np.zeros(3, np.float32), "sizes": [2, 1], "said": np.zeros(10), **wrong})

    @pytest.mark.parametrize("rows", [1, 3, 40])
    def test_tails_have_the_bits_of_numpy(self, rows: int) -> None:
        rng = np.random.default_rng(rows)
        sizes = [0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 257, 4096, 4400]
        for _ in range(30):
            # Of a list of values, so that some stand there twice.
            values = np.concatenate([rng.normal(size=3000), [0.0, 1e-45, 3e38]]).astype(np.float32)
            knots = [np.sort(rng.choice(values, size)) for size in sizes]
            said = [rng.random((size + 1, 2)) for size in sizes]
            for of in said:
                of[-1, 1] = 0
            matrix = rng.choice(np.append(values, np.float32([np.nan, np.inf, -np.inf, -0.0])), (rows, len(sizes)))
            more = rng.random((2, rows))
            sums, one = np.zeros(rows), more.max()
            for column, of, says in zip(matrix.T, knots, said, strict=True):
                place = np.searchsorted(of, np.where(np.isnan(column), -np.inf, column))
                on = np.append(of, np.float32(np.nan))[place] == column
                found = np.where(np.isnan(column), 0, says[place, on.astype(int)])
                sums, one = sums + found, max(one, found.max())
            tails = KERNELS.Tails(np.concatenate(knots), sizes, np.concatenate(said).ravel())
            for lying in (matrix, np.asfortranarray(matrix)):
                assert tails.largest(lying, more) == ((sums + more[0] + more[1]).max(), one)


def test_other_sources_than_these_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KERNELS.VERSION == VERSION
    monkeypatch.setattr(KERNELS, "VERSION", VERSION + 1)
    assert compiled() is None
