"""A project whose store holds three released models, as runs would have left them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.typed import typed

from modelyard.inference import BundleDraft
from modelyard.records import Draft, Feature, ModelVersion, Problem, Signature, plain
from modelyard.security.keys import signing_key
from modelyard.security.seal import seal
from modelyard.store import LocalStore, open_store

SIGNATURE = Signature(
    features=(Feature(name="x", type="number", source="Float64", nullable=False),),
    problem=Problem(task="regression", target="y", metric="rmse"),
)


def times(factor: float) -> bytes:
    """A model that answers its input times a factor."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LinearRegression

    x = np.array([[0.0], [1.0]], np.float32)
    fitted = LinearRegression().fit(x, factor * x[:, 0])
    made = to_onnx(fitted, initial_types=[("numeric", FloatTensorType([None, 1]))], target_opset=17)
    return bytes(made.SerializeToString())


def keep(
    store: LocalStore, factor: float, *, released: bool = True, card: bytes = b"{}", name: str = "hours"
) -> ModelVersion:
    """Seal and store a model, and record the step that made it."""
    version = ModelVersion(
        name=name,
        digest="",
        family="linear",
        params={"factor": factor},
        format="onnx",
        signature=SIGNATURE,
        trained_on=(),
        environment="",
        released=released,
    )
    draft = BundleDraft.of(version, {"model.onnx": times(factor), **({"card.json": card} if released else {})})
    files = seal(draft.files, signing_key(store.root))
    from modelyard._kit.digest import digest_bytes

    address = digest_bytes(files["manifest.json"])
    store.blobs.put_folder(address, files)
    made = msgspec.structs.replace(draft.version, address=address)
    payload: dict[str, Any] = {"key": address, "outputs": {"release": plain(made)}, "seconds": 0.0}
    store.ledger.append(Draft(kind="step.finished", run="run-1", step="package", payload=payload))
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with open_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def models(store: LocalStore) -> list[ModelVersion]:
    return [keep(store, factor) for factor in (1.0, 2.0, 3.0)]


@pytest.fixture
def yard(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Type a command in the project's folder."""

    return partial(typed, tmp_path)


@pytest.fixture
def make(store: LocalStore) -> Callable[..., ModelVersion]:
    """Make one more model."""
    return lambda factor, **settings: keep(store, factor, **settings)
