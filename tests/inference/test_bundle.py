"""The bundle: opened only when every byte is what was sealed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelyard._kit.errors import ModelError, Tampered
from modelyard.inference import BundleDraft, digest_of_model, open_bundle
from modelyard.models.graph import Graph
from modelyard.records import Feature, ModelVersion, Problem, Signature
from modelyard.security.seal import seal

SIGNATURE = Signature(
    features=(Feature(name="a", type="number", source="Int64"), Feature(name="b", type="number", source="Int64")),
    problem=Problem(task="regression", target="y", metric="rmse"),
)


def doubling() -> bytes:
    """A model that answers twice its first number."""
    graph = Graph()
    numeric = graph.input("numeric", 2)
    weights = graph.constant("w", np.array([[2], [0]], np.float32))
    return graph.to_bytes(graph.add("MatMul", [numeric, weights], "prediction"), 1)


@pytest.fixture
def draft() -> BundleDraft:
    version = ModelVersion(
        name="twice",
        digest="",
        family="linear",
        params={},
        format="onnx",
        signature=SIGNATURE,
        trained_on=(),
        environment="e" * 64,
    )
    return BundleDraft.of(version, {"model.onnx": doubling(), "profile.json": b'{"rows":3}'})


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_sealed_bundle_answers(draft: BundleDraft, key: Ed25519PrivateKey, tmp_path: Path) -> None:
    folder = write(tmp_path, seal(draft.files, key))
    stored = msgspec.structs.replace(draft.version, address="x" * 64)
    bundle = open_bundle(folder, trusted=[key.public_key().public_bytes_raw()], version=stored)
    assert bundle.version == stored
    assert bundle.profile == {"rows": 3}
    assert bundle.labels == ()
    assert bundle.json("card.json") is None
    assert bundle.predictor().predict(bundle.encode({"a": [4, 5], "b": [0, 1]})).tolist() == [[8], [10]]
    assert bundle.predictor() is bundle.predictor()
    assert bundle.predictor(2) is not bundle.predictor()


def test_a_byte_that_was_changed_is_found_with_and_without_a_seal(
    draft: BundleDraft, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    trusted = [key.public_key().public_bytes_raw()]
    folder = write(tmp_path, seal(draft.files, key))
    (folder / "model.onnx").write_bytes(doubling().replace(b"prediction", b"predicti0n"))
    for keys in (trusted, None):
        with pytest.raises(Tampered):
            open_bundle(folder, trusted=keys)


def test_another_model_than_the_ledger_says_is_refused(draft: BundleDraft, tmp_path: Path) -> None:
    folder = write(tmp_path, draft.files)
    assert open_bundle(folder).version == draft.version
    with pytest.raises(Tampered) as caught:
        open_bundle(folder, version=msgspec.structs.replace(draft.version, digest="0" * 64))
    assert caught.value.code == "bundle-tampered"


def test_a_folder_without_a_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_bundle(tmp_path)
    assert caught.value.code == "bundle-unreadable"
    (tmp_path / "model.json").write_bytes(b"{}")
    with pytest.raises(ModelError):
        open_bundle(tmp_path)


def test_the_digest_is_of_the_model_alone(draft: BundleDraft) -> None:
    digest = draft.version.digest
    assert digest_of_model(draft.files) == digest
    assert digest_of_model({**draft.files, "card.json": b"{}", "manifest.json": b"{}", "manifest.sig": b""}) == digest
    assert draft.trained_on(["t" * 64]).version.digest == digest
    assert digest_of_model(draft.trained_on(["t" * 64]).files) == digest
    assert digest_of_model({**draft.files, "model.onnx": b"other"}) != digest
    assert digest_of_model({**draft.files, "extra.bin": b""}) != digest
    renamed = BundleDraft.of(msgspec.structs.replace(draft.version, name="thrice"), draft.files)
    assert renamed.version.digest != digest


def test_a_model_that_cannot_be_read_is_said(draft: BundleDraft) -> None:
    broken = BundleDraft.of(draft.version, {"model.onnx": b"not a model"})
    with pytest.raises(ModelError) as caught:
        broken.bundle().predictor()
    assert caught.value.code == "model-unreadable"
