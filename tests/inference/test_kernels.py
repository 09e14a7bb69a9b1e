"""The compiled kernels have the bits of their form in Python, and take nothing that they cannot hold."""

from __future__ import annotations

import json
import struct
import tracemalloc
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

NUMBER = (("x", False, False),)


def double(text: str) -> bytes | None:
    """Return the bits that are read of a number."""
    found = KERNELS.Reader(NUMBER).read(b'{"x":%s}' % text.encode())
    return None if found is None else found[1]


class TestNumbers:
    @given(st.floats(1e-27, 1e27) | st.floats(-1e27, -1e-27) | st.integers(-(10**19) + 1, 10**19 - 1))
    def test_what_python_writes_is_read_back(self, number: float) -> None:
        text = repr(number)
        if text.lstrip("-").replace(".", "").replace("e", "").isdigit() and len(text) < 20:
            assert double(text) == struct.pack("d", float(number)), text
        else:
            assert double(text) in (None, struct.pack("d", float(number)))

    @settings(max_examples=examples(2000))
    @given(st.integers(0, 10**19 - 1), st.integers(-45, 30), st.integers(0, 3), st.booleans())
    def test_every_decimal_is_rounded_to_the_nearest(self, digits: int, power: int, places: int, minus: bool) -> None:
        text = f"{'-' if minus else ''}{digits / 1:.0f}" if places == 3 else f"{'-' if minus else ''}{digits}"
        text += ("", ".0", f"e{power}", f".25E{power:+}")[places]
        found = double(text)
        assert found is None or found == struct.pack("d", float(text)), text

    def test_halfway_between_two_doubles_the_even_one_is_taken(self) -> None:
        """2^53 + 1 and its like: one digit more decides."""
        for text in ("9007199254740993", "9007199254740993.0", "9007199254740993.001", "9007199254740995"):
            assert double(text) == struct.pack("d", float(text)), text
        # Halves of units in the last place, written out: 5 followed by nothing.
        for base in (1.0, 1.5, 1023.0):
            half = (base + np.spacing(base)).as_integer_ratio()
            middle = (int(base * half[1]) + half[0], 2 * half[1])
            text = f"{middle[0] * 10**18 // middle[1]}e-18"
            found = double(text)
            assert found is None or found == struct.pack("d", float(text)), text

    @pytest.mark.parametrize(
        "text",
        ["", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x1", "NaN", "Infinity", "1_0", "1 0", "null", "--1"],
    )
    def test_what_is_no_number_is_left_alone(self, text: str) -> None:
        assert double(text) is None

    @pytest.mark.parametrize("text", ["1e400", "1e-400", "-0", "1" * 400, "0." + "3" * 400, "1e99999999999999999999"])
    def test_what_is_seldom_is_left_to_python(self, text: str) -> None:
        assert double(text) is None


FIELDS = (("a", False, False), ("text", True, True), ("ü b", False, True), ("c", True, False))


class TestReader:
    def read(self, body: bytes) -> Any:
        return KERNELS.Reader(FIELDS).read(body)

    def test_rows_in_any_order_with_any_space(self) -> None:
        body = (
            ' {\n"rows" :\t[ {"c":"x","text" : null, "ü b":null,"a": 1} ,{"a":2e0,"text":"","ü b":-0.5,"c":"€"}\r\n] } '
        )
        count, numbers, texts = self.read(body.encode())
        assert count == 2
        assert np.array_equal(np.frombuffer(numbers).reshape(2, 2), [[1, np.nan], [2, -0.5]], equal_nan=True)
        assert texts == ["", "x", "", "€"]

    def test_one_row(self) -> None:
        assert self.read(b'{"a":1,"text":"t","\xc3\xbc b":2,"c":"]"}') == (1, struct.pack("2d", 1, 2), ["t", "]"])

    def test_a_field_may_be_called_rows(self) -> None:
        reader = KERNELS.Reader((("rows", False, False), ("b", False, False)))
        assert reader.read(b'{"b":1,"rows":2}') == (1, struct.pack("2d", 2, 1), [])
        assert reader.read(b'{"rows":2,"b":1}') is None
        assert reader.read(b'{"rows":[{"b":1,"rows":2}]}') == (1, struct.pack("2d", 2, 1), [])

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"[]",
            b'{"rows":[]}',
            b'{"rows":[{}]}',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2}]}',
            b'{"rows":[{"a":1,"a":1,"text":"t","\xc3\xbc b":2,"c":""}]}',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2,"c":"","d":1}]}',
            b'{"rows":[{"a":null,"text":"t","\xc3\xbc b":2,"c":""}]}',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2,"c":null}]}',
            b'{"rows":[{"a":1,"text":"\\u0041","\xc3\xbc b":2,"c":""}]}',
            b'{"rows":[{"\\u0061":1,"text":"","\xc3\xbc b":2,"c":""}]}',
            b'{"rows":[{"a":1,"text":"\xff","\xc3\xbc b":2,"c":""}]}',
            b'{"rows":[{"a":1,"text":"\n","\xc3\xbc b":2,"c":""}]}',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2,"c":""}]}x',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2,"c":""}],"rows":[]}',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2,"c":""},]}',
            b'{"rows":[{"a":1,"text":"t","\xc3\xbc b":2,"c":"}]}',
            b'{"rows":[{"a":true,"text":"t","\xc3\xbc b":2,"c":""}]}',
            b'{"a":1,"text":"t","\xc3\xbc b":2,"c":""}\x00',
        ],
    )
    def test_what_is_unusual_or_wrong_is_left_to_python(self, body: bytes) -> None:
        assert self.read(body) is None

    def test_every_beginning_of_a_body_is_left_to_python(self) -> None:
        body = b'{"rows":[{"a":1.5e0,"text":"t","\xc3\xbc b":null,"c":"x"}]}'
        assert self.read(body) is not None
        for end in range(len(body)):
            assert self.read(body[:end]) is None

    @pytest.mark.parametrize("name", ['"', "\\", "\n", "\x00", "a\x1fb"])
    def test_a_name_that_does_not_stand_in_json_as_it_is(self, name: str) -> None:
        with pytest.raises(ValueError, match="does not stand in JSON"):
            KERNELS.Reader(((name, False, False),))

    @pytest.mark.parametrize("fields", [(), (1,), (("a", False),), ((1, False, False),), [("a", False, False)]])
    def test_fields_that_are_none(self, fields: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            KERNELS.Reader(fields)

    def test_a_body_that_is_no_bytes(self) -> None:
        with pytest.raises(TypeError):
            self.read("{}")  # type: ignore[arg-type]

    def test_nothing_is_kept_of_what_was_read(self) -> None:
        reader = KERNELS.Reader(FIELDS)
        whole = json.dumps(
            {"rows": [{"a": 1, "text": "some", "ü b": 2, "c": "text"}] * 50}, ensure_ascii=False
        ).encode()

        def some() -> None:
            for _ in range(200):
                assert reader.read(whole) is not None
                assert reader.read(whole[:-3]) is None
                assert reader.read(whole.replace(b"text", b"\xfftxt", 5)) is None

        some()
        tracemalloc.start()
        try:
            some()
            assert tracemalloc.get_traced_memory()[0] < 20_000
        finally:
            tracemalloc.stop()


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

    def test_a_row_that_no_leaf_is_left_to_stays_within_its_tree(self) -> None:
        """As only a damaged table has one."""
        out = np.empty((1, 1), np.float32)
        for word in (0, 1 << 30):
            self.forest(table=np.full((3, 2), word, np.int32)).sums(np.zeros((1, 1), np.float32), out)
            assert out[0, 0] == 1 + 3

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

    def test_no_row(self) -> None:
        self.forest().sums(np.zeros((0, 1), np.float32), np.empty((0, 1), np.float32))


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


def test_other_sources_than_these_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KERNELS.VERSION == VERSION
    monkeypatch.setattr(KERNELS, "VERSION", VERSION + 1)
    assert compiled() is None
