"""What a model's output is held against says the same in both forms, whatever the model said."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from modelyard.serving.outputs import measure
from tests.kernels import made


def bits(numbers: tuple[float, ...]) -> list[bytes]:
    """Return numbers as bytes: those that are none are alike, and zero has no sign, as in every comparison."""
    return [b"none" if number != number else struct.pack("d", number + 0.0) for number in numbers]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (31, 2), (64, 1), (300, 2), (7, 5), (40, 26)])
def test_compiled_or_not_an_output_has_the_same_bounds(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    plain, compiled = made("python", measure), made("compiled", measure)
    odd = [np.nan, np.inf, -np.inf, -0.0, 0.0, 3.4e38, -3.4e38, 1e-45]
    for attempt in range(300):
        output = rng.normal(0, 1, shape).astype(np.float32)
        for _ in range(attempt % 4):
            output[rng.integers(shape[0]), rng.integers(shape[1])] = rng.choice(odd)
        lying = np.ascontiguousarray(output.T).T
        with np.errstate(all="ignore"):
            assert bits(plain(output)) == bits(compiled(output)) == bits(compiled(lying)), output


@pytest.mark.parametrize("form", ["python", "compiled"])
def test_bounds_of_an_output(form: str) -> None:
    bounds = made(form, measure)
    assert bounds(np.array([[0.25, 0.75], [0.5, 0.25]], np.float32)) == (0.25, 0.5, 0.75, 1.0)
    assert bounds(np.array([[0.25, 0.75], [0.5, 0.25]], np.float64)) == (0.25, 0.5, 0.75, 1.0)
    assert all(one != one for one in bounds(np.array([[0.5, 0.5], [0.5, np.nan]], np.float32))[2:])
