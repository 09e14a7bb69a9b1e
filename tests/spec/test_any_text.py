"""Whatever stands in the file, the answer is a declaration or a list of mistakes; and what we write can be read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.errors import SpecError
from modelyard.spec import load, paths
from modelyard.spec.read import Listing, Mapping, Node, Scalar, read
from modelyard.spec.report import Report
from modelyard.spec.sample import inline

WORDS = [
    *sorted({word for path in paths() for word in path.split(".")}),
    "t",
    "a",
    "y",
    "linear",
    "random",
    "20%",
    "2d",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
sections = st.dictionaries(st.sampled_from([w for w in WORDS if "." not in w]), values, max_size=6)


def judged(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "modelyard.yaml"
        file.write_bytes(data)
        problems = []
        try:
            load(file)
        except SpecError as error:
            problems = list(error.problems)

        for problem in problems:
            assert problem.code.startswith(("spec-", "data-source-", "store-address"))
            assert problem.message
            assert problem.hint
            assert problem.where.startswith(os.fspath(file))


@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"? ")
@example(b"a: &a [*a]")
@example(b"<<: 1")
@settings(max_examples=examples(150), deadline=None)
def test_any_bytes(data: bytes) -> None:
    judged(data)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@\n \t?,0", max_size=60))
@settings(max_examples=examples(300), deadline=None)
def test_any_yaml_like_text(text: str) -> None:
    judged(text.encode())


@given(sections)
@example({"store": "NAME"})
@settings(max_examples=examples(200), deadline=None)
def test_any_fields(data: dict[str, Any]) -> None:
    judged(inline({"project": "p", "data": {"t": {"from": "a.csv"}}, "model": {"target": "y"}, **data}).encode())


def plain(node: Node) -> Any:
    match node:
        case Mapping(entries=entries):
            return {key: plain(entry.value) for key, entry in entries.items()}
        case Listing(items=items):
            return [plain(item) for item in items]
        case Scalar(value=value):
            return value
    raise AssertionError(node)


tame = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(tame)
@example("<<")
@example("1e5")
@example("0x1F")
@example("~")
@example("2026-01-01")
@settings(max_examples=examples(300), deadline=None)
def test_what_we_write_is_read_back(value: Any) -> None:
    report = Report("f")
    assert plain(read(inline({"a": value}).encode("utf-8", "surrogatepass"), report)) == {"a": value}
