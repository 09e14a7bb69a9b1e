"""A server answers by the runtime that was decided for a version, from its start and from each swap on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelyard._kit.digest import digest_bytes
from modelyard._kit.machine import kind_of_machine
from modelyard.deploy.local import telling
from modelyard.inference.runtimes import INT8, about
from modelyard.records import Draft, ModelVersion, RuntimeName
from modelyard.security.keys import signing_key
from modelyard.security.seal import seal

from .conftest import Server, graph, start, value_info  # noqa: TID252 - the suite is not installed
from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the same


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


def instead(factor: float) -> bytes:
    """A graph that can be told from that of the bundle by what it answers."""
    return graph(
        [helper.make_node("Mul", ["numeric", "w"], ["prediction"])],
        [value_info("numeric", TensorProto.FLOAT, 1)],
        [value_info("prediction", TensorProto.FLOAT, 1)],
        {"w": np.array([factor], np.float32)},
    )


def keep(yard: Yard, model: str, factor: float, runtime: RuntimeName = "int8", key_of: Path | None = None) -> str:
    """Keep what a runtime reads beside a bundle, and return its address."""
    files = seal({INT8: instead(factor), **about(model, runtime)}, signing_key(key_of or yard.root))
    address = digest_bytes(files["manifest.json"])
    yard.store.blobs.put_folder(address, files)
    return address


def decide(yard: Yard, model: ModelVersion, runtime: dict[str, Any] | None, **more: Any) -> None:
    payload = {"model": model.digest, "runtime": runtime, "forced": False, "machine": kind_of_machine(), **more}
    yard.store.ledger.append(Draft(kind="runtimes.finished", actor="user:ana", payload=payload))


def champion(yard: Yard, factor: float = 2.0) -> ModelVersion:
    model = yard.keep(times(factor))
    yard.point(model)
    return model


def seen(server: Server) -> tuple[float, dict[str, Any]]:
    """Return what is answered to 1, and what the server says of its runtime."""
    with server.client() as asking, server.client("operator") as looking:
        answer = asking.post("/predict", json={"a": 1.0})
        return answer.json()["predictions"][0]["value"], looking.get("/stats").json()["runtime"]


USUAL = {"name": "onnxruntime", "threads": 1, "decided": False}


def test_without_a_decision_nothing_changes(yard: Yard) -> None:
    server = yard.serve(champion(yard))
    assert seen(server) == (2.0, USUAL)
    assert server.stop() == 0
    assert not any("runtime" in line for line in server.said)


def test_a_decision_is_followed_with_its_threads(yard: Yard) -> None:
    model = champion(yard)
    decide(yard, model, {"name": "int8", "threads": 2, "address": keep(yard, model.digest, 3.0)})
    server = yard.serve(model)
    assert seen(server) == (3.0, {"name": "int8", "threads": 2, "decided": True})
    assert any("runtime=int8 on 2 threads" in line and "by user:ana" in line for line in server.said)
    assert server.stop() == 0


def test_each_version_has_its_own(yard: Yard) -> None:
    first, second = champion(yard), yard.keep(times(5.0))
    decide(yard, second, {"name": "int8", "threads": 1, "address": keep(yard, second.digest, 7.0)})
    server = yard.serve(first)
    assert seen(server) == (2.0, USUAL)
    yard.promote(second)
    until(lambda: seen(server) == (7.0, {"name": "int8", "threads": 1, "decided": True}))
    yard.promote(first)
    until(lambda: seen(server) == (2.0, USUAL))
    assert server.stop() == 0


def test_a_running_server_takes_what_is_decided_meanwhile(yard: Yard) -> None:
    model = champion(yard)
    server = yard.serve(model)
    decide(yard, model, {"name": "int8", "threads": 1, "address": keep(yard, model.digest, 3.0)})
    until(lambda: seen(server)[0] == 3.0)
    decide(yard, model, None)  # measured again, and nothing met the limits
    until(lambda: seen(server) == (2.0, USUAL))
    assert server.stop() == 0


def test_the_newest_measurement_counts(yard: Yard) -> None:
    model = champion(yard)
    decide(yard, model, {"name": "int8", "threads": 1, "address": keep(yard, model.digest, 3.0)})
    decide(yard, model, None)
    server = yard.serve(model)
    assert seen(server) == (2.0, USUAL)
    assert server.stop() == 0


def spoilt(yard: Yard, model: ModelVersion) -> dict[str, Any]:
    address = keep(yard, model.digest, 3.0)
    path = yard.store.blobs.folder(address) / INT8
    path.chmod(0o600)
    path.write_bytes(instead(9.0))
    return {"name": "int8", "threads": 1, "address": address}


def of_another_time(yard: Yard, model: ModelVersion) -> dict[str, Any]:
    """What was once decided for the same model, signed by us, in the place of what is decided now."""
    then, now = (yard.store.blobs.folder(keep(yard, model.digest, factor)) for factor in (9.0, 3.0))
    for file in then.iterdir():
        (now / file.name).unlink()
        shutil.copy(file, now / file.name)
    return {"name": "int8", "threads": 1, "address": keep_address(now)}


def keep_address(folder: Path) -> str:
    return folder.parent.name + folder.name


def of_another_model(yard: Yard, model: ModelVersion) -> dict[str, Any]:
    return {"name": "int8", "threads": 1, "address": keep(yard, "0" * 64, 3.0)}


def by_somebody_else(yard: Yard, model: ModelVersion) -> dict[str, Any]:
    return {"name": "int8", "threads": 1, "address": keep(yard, model.digest, 3.0, key_of=yard.root / "other")}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (spoilt, "bundle-tampered"),
        (of_another_model, "bundle-tampered"),
        (of_another_time, "bundle-tampered"),
        (by_somebody_else, "bundle-untrusted-signer"),
        (lambda yard, model: {"name": "int8", "threads": 1, "address": "ab" * 32}, "folder-not-found"),
        (lambda yard, model: {"name": "int8", "threads": 1, "address": "../../etc"}, "folder-not-found"),
        (lambda yard, model: {"name": "kernels", "threads": 1}, "runtime-missing"),
        (lambda yard, model: {"name": "gpu", "threads": 1}, "cannot be read"),
        (lambda yard, model: {"name": "onnxruntime", "threads": 0}, "cannot be read"),
        (lambda yard, model: {"name": "onnxruntime", "code": "x"}, "cannot be read"),
        (lambda yard, model: "onnxruntime", "cannot be read"),
    ],
)
def test_what_cannot_be_believed_is_not_followed(yard: Yard, make: Any, says: str) -> None:
    model = champion(yard)
    decide(yard, model, make(yard, model))
    server = yard.serve(model)
    assert seen(server) == (2.0, USUAL)
    assert server.stop() == 0
    assert [says in line for line in server.said if "is not followed, onnxruntime answers" in line] == [True]


def test_what_is_cheap_on_another_machine_need_not_be_here_unless_it_was_named(yard: Yard) -> None:
    model = champion(yard)
    runtime = {"name": "int8", "threads": 1, "address": keep(yard, model.digest, 3.0)}
    decide(yard, model, runtime, machine={"processor": "Other", "cores": 96})
    server = yard.serve(model)
    assert seen(server) == (2.0, USUAL)
    assert server.stop() == 0
    assert any("measured on 96 cores of Other" in line for line in server.said)
    decide(yard, model, runtime, machine={"processor": "Other", "cores": 96}, forced=True)
    server = yard.serve(model)
    assert seen(server)[0] == 3.0
    assert server.stop() == 0


def test_several_processes_all_follow(yard: Yard) -> None:
    model = champion(yard)
    decide(yard, model, {"name": "int8", "threads": 1, "address": keep(yard, model.digest, 3.0)})
    server = yard.serve(model, "--processes", "2")
    assert {seen(server)[0] for _ in range(8)} == {3.0}
    assert server.stop() == 0


def test_a_server_that_is_only_tried_is_told(yard: Yard, tmp_path: Path) -> None:
    model = champion(yard)
    decide(yard, model, {"name": "int8", "threads": 1, "address": keep(yard, model.digest, 3.0)})
    line = telling(yard.store, yard.now("champion"), apart=yard.root)
    told = dict(pairwise(line))
    runtime = ("--runtime", told["--runtime"], "--beside", told["--beside"])
    server = start(yard.root, yard.folder(model), "--endpoint", ENDPOINT, *runtime, **yard.tokens)
    assert seen(server) == (3.0, {"name": "int8", "threads": 1, "decided": True})
    assert server.stop() == 0
    decide(yard, model, {"name": "onnxruntime", "threads": 2}, machine={"processor": "Other", "cores": 96})
    assert "--runtime" not in telling(yard.store, yard.now("champion"), apart=yard.root)
    server = start(yard.root, yard.folder(model), "--endpoint", ENDPOINT, "--runtime", "{", **yard.tokens)
    assert seen(server) == (2.0, USUAL)
    assert server.stop() == 0
