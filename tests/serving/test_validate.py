"""The compiled validator: what it takes quickly, what it explains, and that it encodes as training did."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.inference import Encoder
from modelyard.records import Feature, Problem, Signature
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.policy import Requests
from modelyard.serving.observability.keeping import Keeper
from modelyard.serving.validate import Validator
from tests.examples import examples
from tests.kernels import FORMS, made

SIGNATURE = Signature(
    features=(
        Feature(name="rows", type="category", source="String"),
        Feature(name="n", type="number", source="Int64", low=0, high=10),
        Feature(name="code", type="category", source="Categorical", categories=("1", "2")),
        Feature(name="b", type="number", source="Boolean"),
        Feature(name="odd name ü", type="number", source="Float32"),
    ),
    problem=Problem(task="regression", target="y"),
)
VALIDATOR = Validator(SIGNATURE)
NUMERIC = Signature(
    features=(
        Feature(name="n", type="number", source="Int64", low=0, high=10, nullable=False),
        Feature(name="b", type="number", source="Float64", low=-1, high=1),
    ),
    problem=Problem(task="regression", target="y"),
)
ENCODER = Encoder(SIGNATURE)

TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=("Cs",)), max_size=5))
NUMBERS = st.one_of(
    st.none(),
    st.integers(-(10**15), 10**15),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(-1e30, 1e30),
)
ROWS = st.fixed_dictionaries(
    {
        "rows": TEXTS,
        "n": NUMBERS,
        "code": st.one_of(st.none(), st.sampled_from(["1", "2", "3"])),
        "b": st.one_of(st.none(), st.booleans(), st.sampled_from([0, 1])),
        "odd name ü": NUMBERS,
    }
)


class Fitted:
    """Rows that were read and held against the signature."""

    def __init__(self, validator: Validator, body: bytes) -> None:
        parsed = validator.parse(body)
        self.feeds = validator.fit([parsed])
        if parsed.error is not None:
            raise parsed.error
        self.warnings = parsed.warnings
        self.parsed = parsed


def fitted(validator: Validator, body: bytes) -> Fitted:
    return Fitted(validator, body)


def same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name in one:
        if name == "numeric":
            np.testing.assert_array_equal(one[name], other[name])
        else:
            assert one[name].tolist() == other[name].tolist()


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_every_form_encodes_as_training_did(rows: list[dict[str, Any]]) -> None:
    expected = ENCODER(rows)
    by_rows = fitted(VALIDATOR, json.dumps({"rows": rows}).encode())
    same(by_rows.feeds, expected)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    by_columns = fitted(VALIDATOR, json.dumps({"columns": columns}).encode())
    same(by_columns.feeds, expected)
    same(fitted(VALIDATOR, json.dumps(rows[0], ensure_ascii=False).encode()).feeds, ENCODER(rows[:1]))
    assert by_rows.parsed.count == len(rows)
    # What is logged encodes to the same again.
    logged = json.loads(Keeper(VALIDATOR, Requests()).rows_of(by_rows.parsed))
    same(ENCODER(logged), expected)
    same(ENCODER(json.loads(Keeper(VALIDATOR, Requests()).rows_of(by_columns.parsed))), expected)


def refusal(body: bytes) -> int:
    """Status of the refusal, 0 if there is none; any other error than a refusal is a mistake."""
    try:
        fitted(VALIDATOR, body)
    except HttpError as error:
        return error.status
    return 0


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(body: bytes) -> None:
    assert refusal(body) in (0, 400)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["rows", "columns", "n", "code", "b", "odd name ü"]), inner, max_size=7),
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_answered_or_refused(value: Any) -> None:
    assert refusal(json.dumps(value).encode()) in (0, 400)


def test_a_name_with_quotes_is_read_slowly_and_well() -> None:
    odd = 'a "quoted\\ name\n'
    problem = Problem(task="regression", target="y")
    validator = Validator(Signature(features=(Feature(name=odd, type="number", source="Float64"),), problem=problem))
    parsed = fitted(validator, json.dumps({"rows": [{odd: 1.5}, {odd: None}]}).encode())
    assert parsed.feeds["numeric"][0, 0] == 1.5
    assert json.loads(Keeper(validator, Requests()).rows_of(parsed.parsed))[0] == {odd: 1.5}


def test_a_column_may_be_called_rows() -> None:
    row = {"rows": "a", "n": 1, "code": "1", "b": False, "odd name ü": 0.5}
    assert fitted(VALIDATOR, json.dumps(row).encode()).feeds["categorical"].tolist() == [["a", "1"]]


def test_warnings_count_rows_and_tell_no_limits() -> None:
    rows = [
        {"rows": "a", "n": n, "code": code, "b": 0, "odd name ü": 0} for n, code in [(11, "3"), (5, "1"), (-1, "1")]
    ]
    warnings = fitted(VALIDATOR, json.dumps({"rows": rows}).encode()).warnings
    assert warnings == [
        {"kind": "out_of_range", "column": "n", "rows": 2, "message": "`n` is outside the range seen in training"},
        {
            "kind": "unseen",
            "column": "code",
            "rows": 1,
            "message": "`code` holds a value that was not seen in training",
        },
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"code": 1}, "column-type"),
        ({"code": True}, "column-type"),
        ({"b": "true"}, "column-type"),
        ({"n": True}, "column-type"),
    ],
)
def test_nothing_is_coerced_that_training_did_not(change: dict[str, Any], code: str) -> None:
    row = {"rows": "a", "n": 1, "code": "1", "b": False, "odd name ü": 0.5, **change}
    with pytest.raises(HttpError) as caught:
        fitted(VALIDATOR, json.dumps(row).encode())
    assert caught.value.code == code


def test_one_kind_of_column_only() -> None:
    problem = Problem(task="regression", target="y")
    texts = Validator(Signature(features=(Feature(name="t", type="category", source="String"),), problem=problem))
    assert fitted(texts, b'{"rows": [{"t": "a"}, {"t": null}]}').feeds["categorical"].tolist() == [["a"], [""]]
    assert Keeper(texts, Requests()).rows_of(texts.parse(b'{"t": null}')) == b'[{"t": null}]'
    numbers = Validator(Signature(features=(Feature(name="t", type="number", source="Float64"),), problem=problem))
    assert list(fitted(numbers, b'{"t": 1}').feeds) == ["numeric"]


def said(validator: Validator, body: bytes) -> Any:
    """Return all that is made of a body."""
    try:
        read = Fitted(validator, body)
    except HttpError as error:
        return error.status, error.code, error.message
    feeds = {name: values.tolist() for name, values in read.feeds.items()}
    return (
        read.parsed.count,
        repr(feeds),
        list(read.warnings),
        validator.numbers_of(read.parsed).tobytes(),
        # What is logged, of all columns and of some.
        [Keeper(validator, Requests(redact=names)).rows_of(read.parsed) for names in ((), ("b",))],
    )


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """Return a usual body, and mostly another one that is near to it."""
    rows = draw(st.lists(ROWS | st.fixed_dictionaries({"n": NUMBERS, "b": NUMBERS}), min_size=1, max_size=3))
    spaces: Any = draw(st.sampled_from([None, (",", ":"), (" ,\n", ":\t")]))
    body = json.dumps(
        draw(st.sampled_from([{"rows": rows}, rows[0]])), separators=spaces, ensure_ascii=draw(st.booleans())
    )
    data = bytearray(body.encode())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b"", b'"', b",", b"}", b"1", b"null", b" ", b"\xff"])
        )
    return bytes(data)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", [" " * 70 + "{", "{" + " " * 70])
def test_rows_behind_much_space_are_logged_as_rows(form: str, before: str) -> None:
    row = {"rows": "a", "n": 1, "code": "1", "b": 0, "odd name ü": 0.5}
    validator = made(form, lambda: Validator(SIGNATURE))
    parsed = fitted(validator, (before + '"rows":' + json.dumps([row], ensure_ascii=False) + "}").encode()).parsed
    logged: Any = Keeper(validator, Requests()).rows_of(parsed)
    assert json.loads(logged) == [row]


@settings(max_examples=examples(300))
@given(changed(), st.sampled_from([SIGNATURE, NUMERIC]))
def test_compiled_or_not_a_body_has_the_same_rows_or_the_same_refusal(body: bytes, signature: Signature) -> None:
    one, other = [said(made(form, lambda: Validator(signature, rows=2)), body) for form in FORMS]
    assert one == other


def test_true_and_false_are_taken_as_texts_where_that_is_declared() -> None:
    columns, taking = Validator(SIGNATURE).columns, Validator(SIGNATURE).columns
    taking.coerce = frozenset({"b", "n"})
    truth, number = (next(f for f in SIGNATURE.numbers if f.name == name) for name in ("b", "n"))
    assert taking.number(truth, ["true", " False ", True, 0, "1", None]).tolist()[:5] == [1.0, 0.0, 1.0, 0.0, 1.0]
    with pytest.raises(HttpError, match="row 0: `b` is true or false and was given a text"):
        columns.number(truth, ["true"])
    # A number column knows no truth.
    with pytest.raises(HttpError, match="`n` is a number and was given a text"):
        taking.number(number, ["true"])
