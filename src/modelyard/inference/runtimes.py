"""The runtimes that can answer for a model: which does where nothing was decided, and how each of them is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from modelyard._kit.digest import canonical
from modelyard._kit.errors import ModelError, Tampered
from modelyard.inference.predictor import OnnxPredictor, Predictor
from modelyard.inference.trees import FILE as TREES
from modelyard.inference.trees import TreesPredictor
from modelyard.records import Runtime, RuntimeName, Task

__all__ = ["INT8", "ONNX", "Beside", "about", "files_of", "load", "open_beside", "usual"]

ONNX = "model.onnx"
INT8 = "int8.onnx"
_PREPARE = "prepare.onnx"
_LIGHTGBM, _SKOPS = "model.txt", "model.skops"
# Says in a folder beside a bundle whose it is.
_ABOUT = "runtime.json"
_FORMAT = 1


class _About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    model: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Beside:
    """Files of a runtime that the bundle does not hold.

    Attributes:
        names: Their names.
        read: Returns the bytes of one of them, checked against the seal.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]


def usual(names: Collection[str], form: str) -> RuntimeName:
    """Return what answers where nothing was decided.

    Args:
        names: Files of the bundle.
        form: Format of the model, see `ModelVersion.format`.
    """
    if TREES in names:
        return "kernels"
    return "onnxruntime" if form == "onnx" else "native"


def files_of(name: RuntimeName, names: Collection[str]) -> tuple[str, ...]:
    """Return the files that a runtime reads, of those that there are; empty: it cannot run from them."""
    if name == "native":
        models = [one for one in (_LIGHTGBM, _SKOPS) if one in names]
        return (_PREPARE, models[0]) if models and _PREPARE in names else ()
    file = {"kernels": TREES, "onnxruntime": ONNX, "int8": INT8}[name]
    return (file,) if file in names else ()


def load(
    name: RuntimeName, names: Collection[str], read: Callable[[str], bytes], *, task: Task, threads: int = 1
) -> Predictor:
    """Return what answers by a runtime.

    Args:
        name: Which.
        names: The files that there are.
        read: Returns the bytes of one of them.
        task: What is answered.
        threads: Threads of one prediction.

    Raises:
        ModelError: What it reads is not there, or cannot be read here.
    """
    files = files_of(name, names)
    if not files:
        raise ModelError(
            "runtime-missing",
            f"there is nothing that `{name}` could run of this model",
            hint="`modelyard runtimes` measures what can, and keeps what it needs",
        )
    if name == "kernels":
        return TreesPredictor(read(TREES))
    if name != "native":
        return OnnxPredictor(read(files[0]), threads=threads)
    from modelyard.inference.native import LightGBMPredictor, SkopsPredictor

    prepare, model = map(read, files)
    kind = LightGBMPredictor if files[1] == _LIGHTGBM else SkopsPredictor
    return kind(prepare, model, task=task, threads=threads)


def about(model: str, name: RuntimeName) -> dict[str, bytes]:
    """Return the file that says in a folder beside a bundle whose it is.

    Args:
        model: Digest of the model.
        name: The runtime that reads the folder.
    """
    return {_ABOUT: canonical({"format": _FORMAT, "model": model, "runtime": name})}


def open_beside(folder: Path, runtime: Runtime, model: str, trusted: Collection[bytes]) -> Beside:
    """Open a folder beside a bundle, after checking it to the last byte.

    Args:
        folder: The folder.
        runtime: What was decided.
        model: Digest of the model that it was decided for.
        trusted: Public keys of the signers that are believed.

    Raises:
        Tampered: The seal does not hold, or the folder belongs to something else (`bundle-tampered`).
    """
    from modelyard.security.seal import open_sealed, read_sealed

    manifest = open_sealed(folder, trusted)
    names = tuple(name for name in manifest.files if name != _ABOUT)
    try:
        found = msgspec.json.decode(read_sealed(folder, _ABOUT, manifest), type=_About)
    except msgspec.DecodeError:
        found = _About(0, "", "")
    # Signed by us, and still not for this: a folder of another model could be put in its place.
    if manifest.digest != runtime.address or found != _About(_FORMAT, model, runtime.name):
        raise Tampered(
            "bundle-tampered",
            f"what lies in `{folder.name}` is not what `{runtime.name}` reads of model `{model[:12]}`",
            where=str(folder),
            hint="`modelyard runtimes` makes it again",
        )
    return Beside(names, lambda name: read_sealed(folder, name, manifest))
