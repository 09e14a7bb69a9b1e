"""What a model answered, as labels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.inference import picked, scores
from modelyard.inference.decode import decode, labels_of
from modelyard.records import Problem

BINARY = Problem(task="binary", target="y", classes=("0", "1"), positive="0")
MANY = Problem(task="multiclass", target="y", classes=("a", "b", "c"))
NUMBER = Problem(task="regression", target="y")


def test_the_positive_class_may_stand_first() -> None:
    output = np.array([[0.5, 0.5], [0.4, 0.6]], np.float32)
    assert scores(output, BINARY).tolist() == pytest.approx([0.5, 0.4])
    assert picked(output, BINARY).tolist() == [0, 1]
    assert picked(output, BINARY, threshold=0.3).tolist() == [0, 0]
    answers = decode(output, BINARY, labels_of(BINARY.classes, "Int64"))
    assert [a["prediction"] for a in answers] == [0, 1]
    assert answers[0]["probabilities"] == {"0": 0.5, "1": 0.5}


def test_many_classes_and_numbers() -> None:
    output = np.array([[0.2, 0.5, 0.3]], np.float32)
    assert decode(output, MANY)[0]["prediction"] == "b"
    assert scores(output, MANY).tolist() == [0.5]
    assert decode(np.array([[1.5]], np.float32), NUMBER) == [{"prediction": 1.5}]


@pytest.mark.parametrize(
    ("classes", "source", "labels"),
    [
        (("false", "true"), "Boolean", [False, True]),
        (("1", "2"), "Int64", [1, 2]),
        (("1", "2.5"), "Float64", [1.0, 2.5]),
        (("1", "2"), "String", ["1", "2"]),
    ],
)
def test_labels_have_the_type_of_the_target(classes: tuple[str, ...], source: str, labels: list[object]) -> None:
    found = labels_of(classes, source)
    assert found == labels
    assert [type(v) for v in found] == [type(v) for v in labels]
