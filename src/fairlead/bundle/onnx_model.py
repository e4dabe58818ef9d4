"""An ONNX graph that the user brought, with an estimator's methods.

Exporters agree on little: the label may be int64, string or float, probabilities a tensor or a
sequence of maps (`ZipMap`), the input one tensor or one a column. Layer L1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from fairlead.errors import SourceError
from fairlead.extras import require
from fairlead.schema import Kind, Scalar

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


class OnnxModel:
    """A graph with one numeric input of shape (n_rows, n_features).

    Parameters
    ----------
    inner : the ONNX file's bytes.

    Raises
    ------
    SourceError
        When the graph takes or gives anything else than a model over a matrix does.
    """

    def __init__(self, inner: bytes) -> None:
        onnx = require("onnx", "build")
        self.proto = without_zip_map(onnx.load_from_string(inner))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        graph = self.proto.SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES or len(inputs[0].shape) != 2:
            told = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
            raise SourceError(f"expected a graph with one float or double input (n_rows, n_features), got {told}")
        self.input_name: str = inputs[0].name
        self.dtype = _DTYPES[inputs[0].type]
        width = inputs[0].shape[1]
        outputs = {one.name: one for one in self._session.get_outputs()}
        self.names = list(outputs)
        first = outputs[self.names[0]]
        is_label = first.type in ("tensor(int64)", "tensor(string)")
        self.kind: Kind = "classifier" if is_label else "regressor"
        self.has_probabilities = is_label and len(outputs) > 1
        self.n_features_in_ = width if isinstance(width, int) else _width(self.proto)
        self.classes = _classes(self.proto) if is_label else None

    def predict(self, matrix: Any) -> Any:
        result = self._run(matrix)[0]
        return result if self.kind == "classifier" else np.asarray(result).reshape(len(matrix))

    def predict_proba(self, matrix: Any) -> Any:
        return self._run(matrix)[1]

    def _run(self, matrix: Any) -> Any:
        return self._session.run(self.names, {self.input_name: np.asarray(matrix, dtype=self.dtype)})


def without_zip_map(proto: Any) -> Any:
    """Let a graph give its probabilities as a tensor and not as a sequence of maps."""
    onnx = require("onnx", "build")
    for node in [node for node in proto.graph.node if node.op_type == "ZipMap"]:
        for place, output in enumerate(proto.graph.output):
            if output.name == node.output[0]:
                tensor = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, [None, None])
                proto.graph.output.remove(output)
                proto.graph.output.insert(place, tensor)
        proto.graph.node.remove(node)
    return proto


def _attributes(proto: Any) -> dict[str, Any]:
    onnx = require("onnx", "build")
    return {a.name: onnx.helper.get_attribute_value(a) for node in proto.graph.node for a in node.attribute}


def _classes(proto: Any) -> tuple[Scalar, ...]:
    onnx = require("onnx", "build")
    found = _attributes(proto)
    for name in ("classlabels_int64s", "classlabels_ints", "classlabels_strings"):
        if found.get(name):
            return tuple(value.decode() if isinstance(value, bytes) else int(value) for value in found[name])
    for initializer in proto.graph.initializer:
        if initializer.name.split(":")[0] == "classes":
            values = onnx.numpy_helper.to_array(initializer).ravel().tolist()
            return tuple(value.decode() if isinstance(value, bytes) else value for value in values)
    raise SourceError("the graph has a label but does not tell its classes (no classlabels attribute)")


def _width(proto: Any) -> int:
    raise SourceError(
        f"{proto.graph.input[0].name}: the graph does not tell how many features it takes: export it with that number"
    )
