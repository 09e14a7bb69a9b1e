"""Build one ONNX graph: the preparation's nodes, and an estimator's behind them.

The nodes are written here rather than by skl2onnx and onnxmltools: those cannot export what we train (a gradient
boosting that saw missing values, rare categories) or shift it (LightGBM's thresholds are rounded to the nearest
float32, which may lie above them). Parity is not taken on trust in either case, see `export`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.models.prepare import FARTHEST, Preparation

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["MATRIX", "ML", "Graph", "add_preparation"]

# Name of the tensor between preparation and estimator.
MATRIX = "matrix"
ML = "ai.onnx.ml"
# Old enough for every runtime of the last years, new enough for what we need.
_OPSETS = {"": 17, ML: 3}
# Version of the file format; left to the library, a newer `onnx` would write a newer one.
_IR = 10


class Graph:
    """A graph in the making; equal calls give equal bytes."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._opsets = dict(_OPSETS)

    def use(self, domain: str, version: int) -> None:
        """Ask for a newer operator set than usual."""
        self._opsets[domain] = version

    def input(self, name: str, columns: int, *, text: bool = False) -> str:
        """Add an input of rows x columns."""
        from onnx import TensorProto, helper

        kind = TensorProto.STRING if text else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, [None, columns]))
        return name

    def add(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self._nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Add a constant, once under a name, and return that name."""
        from onnx import numpy_helper

        self._constants.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def answer(self, raw: str, output: str, task: str, columns: int) -> str:
        """Turn sums into the answer: probabilities by the logistic function or the softmax, or the sums themselves.

        Args:
            raw: Rows x `columns`; one column for a binary problem is the log-odds of the second class.
            output: Name of the answer.
            task: What is answered.
            columns: Columns of `raw`.
        """
        if task == "regression":
            return self.add("Identity", [raw], output)
        if columns > 1:
            return self.add("Softmax", [raw], output, axis=1)
        return self.both(self.add("Sigmoid", [raw], "answer_yes"), output)

    def both(self, yes: str, output: str) -> str:
        """Put the probability of the first class beside that of the second."""
        import numpy as np

        no = self.add("Sub", [self.constant("answer_one", np.ones(1, np.float32)), yes], "answer_no")
        return self.add("Concat", [no, yes], output, axis=1)

    def to_bytes(self, output: str, columns: int) -> bytes:
        """Return the graph with its one output as a model."""
        from onnx import TensorProto, helper

        answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, columns])
        graph = helper.make_graph(self._nodes, "model", self._inputs, [answer], list(self._constants.values()))
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="modelyard")
        return model.SerializeToString(deterministic=True)


def add_preparation(graph: Graph, p: Preparation) -> str:
    """Add inputs and preparation to a graph; returns the name of the matrix."""
    import numpy as np

    parts: list[str] = []
    if len(p.fill):
        parts += _numbers(graph, graph.input("numeric", len(p.fill)), p)
    if any(p.known):
        categorical = graph.input("categorical", len(p.known), text=True)
        onehot = p.style.categories == "onehot"
        for at, known in enumerate(p.known):
            if known:
                # A scalar position drops the axis, which the one-hot then adds again.
                place = graph.constant(f"prepare_at_{at}", np.array(at if onehot else [at], np.int64))
                column = graph.add("Gather", [categorical, place], f"prepare_column_{at}", axis=1)
                parts.append(_category(graph, column, known, at, onehot=onehot))
    if len(parts) == 1:
        return graph.add("Identity", parts, MATRIX)
    return graph.add("Concat", parts, MATRIX, axis=1)


def _numbers(graph: Graph, numeric: str, p: Preparation) -> list[str]:
    import numpy as np
    from onnx import TensorProto

    gone = graph.add("IsNaN", [numeric], "prepare_gone")
    full = graph.add("Where", [gone, graph.constant("prepare_fill", p.fill), numeric], "prepare_full")
    if p.style.scale:
        centred = graph.add("Sub", [full, graph.constant("prepare_mean", p.mean)], "prepare_centred")
        scaled = graph.add("Div", [centred, graph.constant("prepare_scale", p.scale)], "prepare_scaled")
        low = graph.constant("prepare_low", np.array(-FARTHEST, np.float32))
        high = graph.constant("prepare_high", np.array(FARTHEST, np.float32))
        full = graph.add("Clip", [scaled, low, high], "prepare_clipped")
    if not p.flags:
        return [full]
    which = graph.constant("prepare_which", np.array(p.flags, np.int64))
    flags = graph.add("Gather", [gone, which], "prepare_flags", axis=1)
    return [full, graph.add("Cast", [flags], "prepare_flagged", to=TensorProto.FLOAT)]


def _category(graph: Graph, column: str, known: tuple[str, ...], at: int, *, onehot: bool) -> str:
    import numpy as np

    name, keys = f"prepare_code_{at}", list(known)
    if not onehot:
        codes = [float(code) for code in range(len(known))]
        default = float(len(known))
        return graph.add(
            "LabelEncoder", [column], name, ML, keys_strings=keys, values_floats=codes, default_float=default
        )
    places = list(range(len(known)))
    graph.add("LabelEncoder", [column], name, ML, keys_strings=keys, values_int64s=places, default_int64=len(known))
    depth = graph.constant(f"prepare_depth_{at}", np.array(len(known) + 1, np.int64))
    switch = graph.constant("prepare_switch", np.array([0, 1], np.float32))
    return graph.add("OneHot", [name, depth, switch], f"prepare_onehot_{at}", axis=-1)
