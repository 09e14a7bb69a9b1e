"""Rows that are kept by column read as if each had been written down by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.store.packed import Packed
from modelyard.store.requests import Block, Turn, connect, encode, ids_of, newest, write_block


@pytest.mark.parametrize("wide", [False, True])
def test_rows_come_back_as_they_were(wide: bool) -> None:
    values = np.array([[1.5, np.nan], [0.1, -3e38]], "<f8" if wide else "<f4")
    packed = Packed(2, ["a", "b"], values.tobytes(), wide, {"city": ["rome", None]})
    assert packed.rows() == [
        {"a": 1.5, "b": None, "city": "rome"},
        {"a": float(values[1, 0]), "b": float(values[1, 1]), "city": None},
    ]
    assert len(packed) == 2


def test_without_numbers_and_beneath_a_key() -> None:
    assert Packed(2, [], b"", False, {"x": [False, 0]}).rows() == [{"x": False}, {"x": 0}]
    data = np.array([[0.25, 0.75]], "<f4").tobytes()
    packed = Packed(1, ["no", "yes"], data, False, {"prediction": [True]}, "probabilities")
    assert packed.rows() == [{"probabilities": {"no": 0.25, "yes": 0.75}, "prediction": True}]


def test_a_log_gives_lists_whichever_way_they_were_written(tmp_path: Path) -> None:
    packed = Packed(3, ["a"], np.arange(3, dtype="<f4").tobytes(), False, {})
    one = Turn(1.0, "m", "", ["big"], ["me"], [0.5], [3], [packed], [packed])
    two = Turn(2.0, "m", "", ["small"], ["me"], [0.5], [1], [b'[{"a":1.0}]'], [[{"prediction": 2.0}]])
    db = connect(tmp_path / "log.db")
    write_block(db, Block(1.0, 2.0, 4, [encode(one), encode(two)]))
    small, big = newest(db)
    assert (small.inputs, small.outputs) == ([{"a": 1.0}], [{"prediction": 2.0}])
    assert big.inputs == big.outputs == [{"a": 0.0}, {"a": 1.0}, {"a": 2.0}]
    assert big.row_id(2) == "big/2"
    assert ids_of(db) == {"small", "big/0", "big/1", "big/2"}
    db.close()


def test_answers_to_several_requests_are_dealt_out(tmp_path: Path) -> None:
    answers = Packed(3, ["prediction"], np.array([1, 2, 3], "<f4").tobytes(), False, {})
    sent = [b'[{"a":1}]', b'[{"a":2},{"a":null}]']
    turn = Turn(5.0, "m", "t", ["x", "y"], ["me", "you"], [0.5, 0.25], [1, 2], sent, answers)
    db = connect(tmp_path / "log.db")
    write_block(db, Block(5.0, 5.0, 3, [encode(turn)]))
    last, first = newest(db)
    assert first == ("x", 5.0, "m", "me", 0.5, "t", [{"a": 1}], [{"prediction": 1.0}])
    assert last == (
        "y",
        5.0,
        "m",
        "you",
        0.25,
        "t",
        [{"a": 2}, {"a": None}],
        [{"prediction": 2.0}, {"prediction": 3.0}],
    )
    assert ids_of(db) == {"x", "y/0", "y/1"}
    db.close()
