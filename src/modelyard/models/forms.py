"""The forms of one model that a runtime can answer by: those in its bundle, one with small weights, its own library's.

A bundle holds no estimator of the library that trained it, and must hold none. So it is trained again by the recipe of
the bundle on the stored rows, and written as its library writes it safely; that it is the same model is looked at, not
believed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.inference import Bundle
from modelyard.inference.runtimes import INT8, ONNX, files_of
from modelyard.models.export import native_files, onnx_bytes
from modelyard.models.families import get
from modelyard.models.fitting import fit
from modelyard.records import RUNTIMES, RuntimeName

if TYPE_CHECKING:
    from modelyard.models.dataset import Frame

__all__ = ["Forms", "forms_of", "small_weights"]

# What has weights that are multiplied, and what it becomes with weights of 8 bits.
_PRODUCTS = ("MatMul", "Gemm")
_SMALL = "MatMulInteger"


@dataclass(slots=True)
class Forms:
    """What can be run of a model.

    Attributes:
        files: Runtime -> the files that it reads.
        left_out: Runtime -> why there are none.
        notes: What else is to be said of them.
    """

    files: dict[RuntimeName, dict[str, bytes]] = field(default_factory=dict)
    left_out: dict[RuntimeName, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def forms_of(bundle: Bundle, table: Frame | None, *, why: str = "") -> Forms:
    """Return the forms of a model.

    Args:
        bundle: The model.
        table: The rows that it was trained on; none: it cannot be trained again.
        why: Why not.
    """
    forms = Forms()
    for name in RUNTIMES:
        if files := files_of(name, bundle.names):
            forms.files[name] = {one: bundle.read(one) for one in files}
    if ONNX in bundle.names:
        _try(forms, "int8", lambda: {INT8: small_weights(bundle.read(ONNX))})
    else:
        forms.left_out["onnxruntime"] = forms.left_out["int8"] = (
            "the bundle holds no whole graph: its answers differed too much from the trained model's"
        )
    if "kernels" not in forms.files:
        forms.left_out["kernels"] = (
            "the bundle holds no form of it for them: they sum trees of at most 63 leaves with one number each"
        )
    if "native" not in forms.files:
        if table is None:
            forms.left_out["native"] = f"it cannot be trained again to compare with: {why}"
        else:
            _try(forms, "native", lambda: _again(bundle, table, forms))
    return forms


def _try(forms: Forms, name: RuntimeName, make: Callable[[], dict[str, bytes]]) -> None:
    try:
        forms.files[name] = make()
    except Exception as error:  # noqa: BLE001 - a library may raise anything; what cannot be made is told, not measured
        forms.left_out[name] = str(error)[:200] or type(error).__name__


def small_weights(model: bytes) -> bytes:
    """Return an ONNX graph with its matrices in 8 bits, quantised as the rows come.

    Raises:
        ValueError: It has none.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    graph = onnx.load_from_string(model)
    if not any(node.op_type in _PRODUCTS for node in graph.graph.node):
        raise ValueError("nothing in it is multiplied by a matrix: comparisons in trees have no weights to make small")
    # Else it advises on standard error to optimise the graph before; ours has nothing left to optimise.
    add_pre_process_metadata(graph)
    with tempfile.TemporaryDirectory(prefix="modelyard-int8-") as folder:
        path = Path(folder, INT8)
        quantize_dynamic(graph, path, op_types_to_quantize=list(_PRODUCTS), weight_type=QuantType.QInt8)
        made = path.read_bytes()
    if not any(node.op_type == _SMALL for node in onnx.load_from_string(made).graph.node):
        raise ValueError("onnxruntime.quantization left its matrices as they are")
    return made


def _again(bundle: Bundle, table: Frame, forms: Forms) -> dict[str, bytes]:
    """Train a model again, and return it as its own library writes it."""
    from modelyard.models.dataset import dataset

    version, problem = bundle.version, bundle.signature.problem
    rows = dataset(table, problem, signature=bundle.signature)
    seed = bundle.json("recipe.json")["seed"]
    fitted = fit(get(version.family), version.params, rows.feeds, rows.target, problem, seed)
    same = onnx_bytes(fitted) == bundle.read(ONNX)
    says = "is the model to the last byte" if same else "is NOT the model to the last byte; its loss says how far off"
    forms.notes.append(f"native was trained again on {len(rows):,} rows: its ONNX form {says}")
    return native_files(fitted)[1]
