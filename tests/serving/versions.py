"""Projects whose ledger points at versions that can be told apart by what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper

from modelyard._kit.digest import digest_bytes
from modelyard.deploy.aliases import move
from modelyard.inference import BundleDraft
from modelyard.records import Deployment, Draft, Feature, ModelVersion, Problem, Signature, plain
from modelyard.security.keys import signing_key
from modelyard.security.roles import ROLES
from modelyard.security.seal import seal
from modelyard.security.tokens import add_token
from modelyard.store import Store, open_store

from .conftest import (  # noqa: TID252 - the suite is not installed, so there is no absolute name
    Server,
    draft,
    graph,
    start,
    value_info,
)

ENDPOINT = "hours"
SIGNATURE = Signature(
    features=(Feature(name="a", type="number", source="Float64", low=0, high=10),),
    problem=Problem(task="regression", target="y", metric="rmse"),
)


def times(factor: float, nodes: list[Any] | None = None, constants: dict[str, Any] | None = None) -> BundleDraft:
    """A model that answers its input times a factor, or what other nodes make of it."""
    made = graph(
        nodes or [helper.make_node("Mul", ["numeric", "w"], ["prediction"])],
        [value_info("numeric", TensorProto.FLOAT, 1)],
        [value_info("prediction", TensorProto.FLOAT, 1)],
        {"w": np.array([factor], np.float32), **(constants or {})},
    )
    return draft(ENDPOINT, SIGNATURE, made)


def nothing() -> BundleDraft:
    """A model that answers NaN."""
    return times(
        1.0,
        [helper.make_node("Div", ["zero", "zero"], ["n"]), helper.make_node("Add", ["numeric", "n"], ["prediction"])],
        {"zero": np.zeros(1, np.float32)},
    )


def fails_beyond(limit: float) -> BundleDraft:
    """A model that answers its input, and fails for one beyond a limit: there is nothing to gather there."""
    nodes = [
        helper.make_node("ReduceMax", ["numeric"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "limit"], ["over"]),
        helper.make_node("Cast", ["over"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "at"], ["one"], axis=0),
        helper.make_node("Mul", ["numeric", "one"], ["prediction"]),
    ]
    return times(1.0, nodes, {"limit": np.array(limit, np.float32)})


def no_number_beyond(limit: float) -> BundleDraft:
    """A model that answers its input, and NaN for one beyond a limit: there is no root of what is left."""
    nodes = [
        helper.make_node("Sub", ["limit", "numeric"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["none"]),
        helper.make_node("Add", ["numeric", "none"], ["prediction"]),
    ]
    return times(1.0, nodes, {"limit": np.array(limit, np.float32), "zero": np.zeros(1, np.float32)})


class Yard:
    """A project with a ledger, whose versions answer their input times a factor."""

    def __init__(self, root: Path, address: str = "") -> None:
        self.root = root
        self.store: Store = open_store(root, address)
        self.tokens = {role: add_token(root, role, role) for role in ROLES}
        self.revisions = 0

    def keep(self, made: BundleDraft, key: Any = None) -> ModelVersion:
        files = seal(made.files, key or signing_key(self.root))
        address = digest_bytes(files["manifest.json"])
        self.store.blobs.put_folder(address, files)
        return msgspec.structs.replace(made.version, address=address)

    def point(self, model: ModelVersion, alias: Any = "champion") -> Deployment:
        self.revisions += 1
        to = Deployment(endpoint=ENDPOINT, alias=alias, model=model, revision=self.revisions, reason="test")
        self.store.ledger.append(Draft(kind="alias.moved", actor="user:ana", payload={"deployment": plain(to)}))
        return to

    def folder(self, model: ModelVersion) -> Path:
        return self.store.blobs.folder(model.address)

    def promote(self, model: ModelVersion) -> Deployment:
        """Point the champion at a model as a person does."""
        return move(self.store, ENDPOINT, "champion", model, reason="test", actor="user:ana")

    def now(self, alias: Any) -> Deployment:
        """Return where an alias points."""
        found = self.store.ledger.alias(ENDPOINT, alias)
        assert found is not None
        return found

    def spoil(self, model: ModelVersion) -> None:
        """Change one bit of a stored model."""
        path = self.folder(model) / "model.onnx"
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def serve(self, model: ModelVersion, *arguments: str) -> Server:
        line = ("--endpoint", ENDPOINT, "--follow", "champion", *arguments)
        return start(self.root, self.folder(model), *line, **self.tokens)


def until(holds: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait until something holds, and return it."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came so far")
