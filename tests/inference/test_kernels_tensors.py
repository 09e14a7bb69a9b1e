"""What is taken out of a request of tensors is what the request says; anything unusual stays there."""

from __future__ import annotations

import json
import math
import re
import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard.inference.kernels import compiled

KERNELS: Any = compiled()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="there was no compiler when this was installed")

FLOATS = msgspec.json.Decoder(list[float | None]).decode
VALUES = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e6, 1e6) | st.integers(-(10**20), 10**20)
LISTS = st.lists(VALUES | st.none(), max_size=6)
NESTED = st.lists(LISTS, max_size=4)
SPACE = st.sampled_from(["", " ", "\n", "\t\r "])


def request(data: str, more: str = "") -> bytes:
    return f'{{"inputs":[{{"name":"x","data":{data}{more}}}]}}'.encode()


def numbers(data: str) -> list[float] | None:
    """Return what is taken out of a request for its one list; none if that stays where it is."""
    text = request(data)
    found = KERNELS.lift(text)
    if found is None:
        return None
    less, [(given, begin, end)] = found
    assert text[begin:end].decode() == data.strip()
    assert less == text[:begin] + b"0" + text[end:]
    return [*struct.unpack(f"{len(given) // 8}d", given)]


def same(one: float, other: float | None) -> bool:
    """Say whether both are the same to the bit, or missing."""
    return math.isnan(one) if other is None else struct.pack("d", one) == struct.pack("d", other)


class TestNumbers:
    @settings(max_examples=examples(2000))
    @given(LISTS, SPACE, SPACE)
    def test_a_list_says_what_the_decoder_reads_of_it(self, values: list[Any], before: str, after: str) -> None:
        text = f"[{before}" + f"{after},{before}".join(map(json.dumps, values)) + f"{after}]"
        found = numbers(text)
        wanted = FLOATS(text)
        assert found is None or (len(found) == len(wanted) and all(map(same, found, wanted))), text
        usual = all(v is None or (v and abs(v) < 1e15 and len(repr(v)) < 18 and "e" not in repr(v)) for v in values)
        assert found is not None or not usual or not values

    @settings(max_examples=examples(500))
    @given(NESTED)
    def test_rows_say_what_stands_in_them_one_after_the_other(self, rows: list[list[Any]]) -> None:
        found = numbers(json.dumps(rows))
        wanted = [value for row in rows for value in row]
        if found is not None:
            assert all(rows)
            assert len(found) == len(wanted)
            assert all(map(same, found, [None if v is None else float(v) for v in wanted]))

    @settings(max_examples=examples(3000))
    @given(st.text("01234567890123456789.-+eEnul,[] \x00", max_size=40))
    def test_what_looks_like_a_list_is_read_only_if_it_is_one(self, inside: str) -> None:
        text = f"[{inside}]"
        found = numbers(text) if "]" not in inside and "[" not in inside else None
        if found is not None:
            assert len(found) == len(FLOATS(text))
            assert all(map(same, found, FLOATS(text)))

    @pytest.mark.parametrize(
        "data",
        [
            *("[]", "[[]]", "[[1],[]]", "[1,]", "[,1]", "[1 2]", "[1,[2]]", "[[1],2]", "[[[1]]]", "[[1]", "[1"),
            *("[01]", "[+1]", "[.5]", "[1.]", "[1e]", "[0x1]", "[NaN]", "[Infinity]", "[nul]", "[nulll]", "[true]"),
            *('["1"]', "[{}]", "[1\x00]", "[1e309]", "[-0]", "[1e-400]", "[123456789012345678901]", "[\x0b1]"),
        ],
    )
    def test_what_is_unusual_or_wrong_stays_where_it_is(self, data: str) -> None:
        assert KERNELS.lift(request(data)) is None

    def test_more_numbers_than_any_room_that_was_made_for_them(self) -> None:
        for count in (1, 63, 64, 65, 1000, 100_001):
            assert numbers(json.dumps([0.5 * at for at in range(count)])) == [0.5 * at for at in range(count)]


class TestRequests:
    def test_each_list_of_several_tensors_is_taken_out(self) -> None:
        text = (
            b'{"id":"data","inputs":[{"data":[1,2],"name":"a"},{"name":"b","data" : [["x,]","\\""],["data"]]},'
            b'{"parameters":{"data":[3]},"data":\n[[null],[-4.5]] }],"outputs":[{"data":[7]}],"parameters":{"data":[]}}'
        )
        less, lists = KERNELS.lift(text)
        assert less == (
            b'{"id":"data","inputs":[{"data":0,"name":"a"},{"name":"b","data" : [["x,]","\\""],["data"]]},'
            b'{"parameters":{"data":[3]},"data":\n1 }],"outputs":[{"data":[7]}],"parameters":{"data":[]}}'
        )
        assert [text[begin:end] for _, begin, end in lists] == [b"[1,2]", b"[[null],[-4.5]]"]
        assert [len(given) // 8 for given, _, _ in lists] == [2, 2]

    @pytest.mark.parametrize(
        "more",
        [',"data":0', ',"data":"0"', ',"data":null', ',"data":{}', ',"d\\u0061ta":0', ',"\\n":1'],
    )
    def test_where_a_number_might_be_taken_for_a_list_nothing_is_taken_out(self, more: str) -> None:
        assert KERNELS.lift(request("[1]")) is not None
        assert KERNELS.lift(request("[1]", more)) is None

    @pytest.mark.parametrize(
        "text",
        [
            *(b"", b"{}", b"[]", b'"', b'"\\', b'"\\"', b"\x00", b'{"inputs"', b'{"inputs":', b'{"inputs":[{"data"'),
            *(b'{"inputs":[{"data":', b'{"inputs":[{"data":[', b'{"inputs":[{"data":[1', b'{"inputs":[{"data":[1,'),
            *(b'{"other":[{"data":[1]}]}', b'{"data":[1]}', b'[{"data":[1]}]', b'{"inputs":{"a":{"b":{"data":[1]}}}}'),
            *(b"{" * 100_000, b"[" * 100_000, b"}" * 100, b'{"i\\u006eputs":[{"data":[1]}]}'),
        ],
    )
    def test_what_has_no_such_list(self, text: bytes) -> None:
        assert KERNELS.lift(text) is None

    def test_of_more_lists_than_a_thousand_the_rest_stay(self) -> None:
        text = b'{"inputs":[%s]}' % b",".join([b'{"data":[1]}'] * 1002)
        less, lists = KERNELS.lift(text)
        assert len(lists) == 1000
        assert less.endswith(b'{"data":999},{"data":[1]},{"data":[1]}]}')

    def test_every_beginning_of_a_request(self) -> None:
        text = b'{"inputs":[{"name":"\xc3\xbc","data":[[1.5,null],[2e1,-3]]},{"data":[4]}]}'
        for end in range(len(text) + 1):
            found = KERNELS.lift(text[:end])
            assert found is None or end > text.index(b"]]") + 1
        assert found is not None

    @settings(max_examples=examples(1000))
    @given(st.data())
    def test_what_is_left_is_the_request_with_numbers_in_it(self, data: Any) -> None:
        names = st.sampled_from(["data", "inputs", "name", "ü", "[{", '"', "\\data"])
        inner = st.dictionaries(names, st.one_of(LISTS, NESTED, st.text(max_size=5)), max_size=3)
        whole = {
            data.draw(names): data.draw(LISTS),
            "inputs": data.draw(st.lists(inner, max_size=4)),
            "outputs": data.draw(st.lists(inner, max_size=2)),
        }
        indent = data.draw(st.sampled_from([None, 1]))
        text = json.dumps(whole, ensure_ascii=data.draw(st.booleans()), indent=indent).encode()
        found = KERNELS.lift(text)
        if found is None:
            return
        less, lists = found
        assert lists
        for read, begin, end in lists:
            assert len(read) == 8 * len(re.findall(rb"[^\[\],\s]+", text[begin:end]))
        # With each list in the place of its number again it is what it was.
        back = iter(text[begin:end] for _, begin, end in lists)
        assert re.sub(rb'"data":( ?)\d+', lambda match: b'"data":%s%s' % (match[1], next(back)), less) == text

    def test_what_is_no_bytes(self) -> None:
        with pytest.raises(TypeError):
            KERNELS.lift("{}")

    def test_nothing_is_kept_of_what_was_read(self) -> None:
        whole = request(json.dumps([0.25] * 5000))

        def some() -> None:
            for _ in range(100):
                assert KERNELS.lift(whole) is not None
                assert KERNELS.lift(whole[:-5]) is None
                assert KERNELS.lift(whole.replace(b'"data"', b'"data":0,"data"')) is None
                assert KERNELS.lift(whole + b',"x":"') is None

        some()
        tracemalloc.start()
        try:
            some()
            assert tracemalloc.get_traced_memory()[0] < 20_000
        finally:
            tracemalloc.stop()
