"""Models served by their own library: nothing that was not named is built from a file."""

from __future__ import annotations

import os

import numpy as np
import pytest

from modelyard._kit.errors import ModelError
from modelyard.inference.native import LightGBMPredictor, SkopsPredictor
from modelyard.models.graph import Graph


class Hostile:
    """What a poisoned file would like to be."""

    def __init__(self) -> None:
        self.run = os.getcwd


def through() -> bytes:
    graph = Graph()
    return graph.to_bytes(graph.add("Identity", [graph.input("numeric", 1)], "matrix"), 1)


def test_a_type_that_is_not_named_is_refused() -> None:
    from skops.io import dumps

    with pytest.raises(ModelError) as caught:
        SkopsPredictor(through(), dumps(Hostile()), task="binary")
    assert caught.value.code == "model-untrusted-type"


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        LightGBMPredictor(through(), b"not a model", task="binary")
    assert caught.value.code == "model-unreadable"
    with pytest.raises(ModelError) as caught:
        SkopsPredictor(through(), b"not a model", task="binary")
    assert caught.value.code == "model-unreadable"


def test_a_pickle_is_never_loaded() -> None:
    import pickle

    with pytest.raises(ModelError):
        SkopsPredictor(through(), pickle.dumps(np.ones(3)), task="regression")
