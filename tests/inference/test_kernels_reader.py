"""The compiled reader says what the form in Python says of a body, or leaves it to that."""

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

from modelyard.inference.kernels import compiled

KERNELS: Any = compiled()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="there was no compiler when this was installed")

NUMBER = (("x", False, False),)


def double(text: str) -> bytes | None:
    """Return the bits that are read of a number: the same at the end of a body and where words can be read of it."""
    at_end, before = (KERNELS.Reader(NUMBER).read(b'{"x":%s%s}' % (text.encode(), b" " * more)) for more in (0, 30))
    assert at_end == before
    return None if before is None else before[1]


class TestNumbers:
    @given(st.floats(1e-27, 1e27) | st.floats(-1e27, -1e-27) | st.integers(-(10**19) + 1, 10**19 - 1))
    def test_what_python_writes_is_read_back(self, number: float) -> None:
        text = repr(number)
        if text.lstrip("-").replace(".", "").replace("e", "").isdigit() and len(text) < 20:
            assert double(text) == struct.pack("d", float(number)), text
        else:
            assert double(text) in (None, struct.pack("d", float(number)))

    @settings(max_examples=examples(2000))
    @given(st.text("0123456789", max_size=21), st.text("0123456789", min_size=1, max_size=21), st.booleans())
    def test_decimals_of_every_length(self, whole: str, behind: str, minus: bool) -> None:
        whole = whole.lstrip("0") or "0"
        for text in (whole, f"{whole}.{behind}"):
            text = "-" * minus + text
            wanted = None if text == "-0" else struct.pack("d", float(text))
            short = len(text.replace(".", "").lstrip("-0")) < 20 and len(text.partition(".")[2]) < 20
            assert double(text) == wanted if short else double(text) in (None, wanted), text

    @settings(max_examples=examples(2000))
    @given(st.text("0019.-+eE", max_size=12))
    def test_what_looks_like_a_number_is_read_only_if_it_is_one(self, text: str) -> None:
        found = double(text)
        try:
            wanted = struct.pack("d", float(json.loads(text)))
        except (json.JSONDecodeError, OverflowError):
            wanted = None
        assert found in (None, wanted), text

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
        [
            "",
            "-",
            "+1",
            "01",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "Infinity",
            "1_0",
            "1 0",
            "null",
            "--1",
            "01.5",
            "-01.25",
            "00.5",
            "-.5",
            "-1.",
            "1.e3",
            "1.-5",
        ],
    )
    def test_what_is_no_number_is_left_alone(self, text: str) -> None:
        assert double(text) is None

    @pytest.mark.parametrize("text", ["1e400", "1e-400", "-0", "1" * 400, "0." + "3" * 400, "1e99999999999999999999"])
    def test_what_is_seldom_is_left_to_python(self, text: str) -> None:
        assert double(text) is None


NAMES = st.text(st.sampled_from("ab1"), min_size=1, max_size=3) | st.text(
    st.sampled_from("xü€"), min_size=11, max_size=20
)
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
            b'{"rows":[{"a":1,"a":1,"text":"t","\xc3\xbc b":2}]}',
            b'{"rows":[{"a":1,"text":"t","a":2,"c":""}]}',
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

    def test_bodies_of_one_row_each_are_read_together(self) -> None:
        reader = KERNELS.Reader(FIELDS)
        first, second = (
            b'{"a":1,"text":"t","\xc3\xbc b":null,"c":"x"}',
            b'{"rows":[{"c":"","text":null,"a":-2,"\xc3\xbc b":5}]}',
        )
        count, numbers, texts = reader.read_alone([first, second, first])
        assert count == 3
        each = [reader.read(body) for body in (first, second, first)]
        assert numbers == b"".join(said for _, said, _ in each)
        assert texts == [text for _, _, said in each for text in said] == ["t", "x", "", "", "t", "x"]
        assert reader.read_alone([]) == (0, b"", [])

    @pytest.mark.parametrize("wrong", [b"", b"{}", b'{"rows":[]}', b"rows of two"])
    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_where_one_of_them_is_no_row_all_are_left_to_python(self, wrong: bytes, at: int) -> None:
        row = b'{"a":1,"text":"t","\xc3\xbc b":2,"c":""}'
        bodies = [row, row]
        bodies.insert(at, b'{"rows":[%s,%s]}' % (row, row) if wrong == b"rows of two" else wrong)
        assert KERNELS.Reader(FIELDS).read_alone(bodies) is None

    @pytest.mark.parametrize("wrong", [None, (), b"", [None], ["{}"]])
    def test_what_is_no_list_of_bodies_is_refused(self, wrong: Any) -> None:
        with pytest.raises(TypeError):
            KERNELS.Reader(FIELDS).read_alone(wrong)

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

    @settings(max_examples=examples(300))
    @given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.integers(1, 4), st.randoms(), st.booleans())
    def test_names_of_every_length_in_any_order(self, names: list[str], count: int, random: Any, tight: bool) -> None:
        """Names that are alike but for the last letter among them, and rows that are in order up to some field."""
        reader = KERNELS.Reader(tuple((name, False, True) for name in names))
        rows = [{name: random.choice((None, 1, -2.5, 0.1)) for name in names} for _ in range(count)]
        sent = [dict(random.sample([*row.items()], len(row))) if random.random() < 0.5 else row for row in rows]
        separators = (",", ":") if tight else (random.choice((",", " , ")), random.choice((": ", "\n:\t")))
        body = json.dumps({"rows": sent}, ensure_ascii=False, separators=separators).encode()
        given = [np.nan if row[name] is None else row[name] for row in rows for name in names]
        assert reader.read(body) == (count, np.array(given, float).tobytes(), [])
        # One letter more, less or changed is another name.
        name = random.choice(names).encode()
        for other in (name + b"1", name[:-1], name[:-1] + b"2"):
            assert reader.read(body.replace(b'"%s"' % name, b'"%s"' % other, 1)) is None or other.decode() in names

    def test_a_body_that_is_no_bytes(self) -> None:
        with pytest.raises(TypeError):
            self.read("{}")  # type: ignore[arg-type]

    def test_nothing_is_kept_of_what_was_read(self) -> None:
        reader = KERNELS.Reader(FIELDS)
        whole = json.dumps(
            {"rows": [{"a": 1, "text": "some", "ü b": 2, "c": "text"}] * 50}, ensure_ascii=False
        ).encode()

        # Not in the order of the fields: what has come is remembered then.
        other = json.dumps({"c": "text", "ü b": 2, "text": "some", "a": 1}, ensure_ascii=False).encode()

        def some() -> None:
            for _ in range(200):
                assert reader.read(whole) is not None
                assert reader.read(whole[:-3]) is None
                assert reader.read(whole.replace(b"text", b"\xfftxt", 5)) is None
                assert reader.read_alone([other] * 9) is not None
                assert reader.read_alone([other, whole]) is None

        some()
        tracemalloc.start()
        try:
            some()
            assert tracemalloc.get_traced_memory()[0] < 20_000
        finally:
            tracemalloc.stop()
