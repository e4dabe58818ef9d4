"""An ONNX graph that the user brought, with an estimator's methods.

Exporters agree on little: the label may be int64, string or float, probabilities a tensor or a
sequence of maps (`ZipMap`), the input one tensor or one a column. Layer L1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlead.errors import SourceError
from fairlead.extras import require
from fairlead.predict.runtime import ort
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
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base
            raise SourceError(f"onnxruntime refuses the graph ({error})".replace("\n", " ")) from error
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
    maps = [node for node in proto.graph.node if node.op_type == "ZipMap"]
    types = _types(proto) if maps else {}
    for node in maps:
        for place, output in enumerate(proto.graph.output):
            if output.name == node.output[0]:
                kind = types.get(node.input[0], onnx.TensorProto.FLOAT)
                tensor = onnx.helper.make_tensor_value_info(node.input[0], kind, [None, None])
                proto.graph.output.remove(output)
                proto.graph.output.insert(place, tensor)
        proto.graph.node.remove(node)
    return proto


def _types(proto: Any) -> dict[str, int]:
    """Infer the element type of every tensor, as far as it can be told."""
    inferred = require("onnx.shape_inference", "build").infer_shapes(proto)
    return {one.name: one.type.tensor_type.elem_type for one in inferred.graph.value_info}


_CLASS_LABELS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
_KEEPS_LABELS = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_PICKS_LABELS = ("ArrayFeatureExtractor", "Gather")


def _classes(proto: Any) -> tuple[Scalar, ...]:
    """Follow the label back to the node that names the classes, or picks from a table of them."""
    onnx = require("onnx", "build")
    makers = {output: node for node in proto.graph.node for output in node.output}
    tables = {one.name: one for one in proto.graph.initializer}
    name = proto.graph.output[0].name
    while name in makers:
        node = makers[name]
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        labels = next((attributes[key] for key in _CLASS_LABELS if attributes.get(key)), None)
        if labels is not None:
            return _plain(labels)
        if node.op_type in _PICKS_LABELS and node.input[0] in tables:
            return _plain(onnx.numpy_helper.to_array(tables[node.input[0]]).ravel().tolist())
        if node.op_type not in _KEEPS_LABELS:
            break
        name = node.input[0]
    raise SourceError("the graph has a label but does not tell its classes (no classlabels attribute)")


def _plain(labels: Any) -> tuple[Scalar, ...]:
    return tuple(value.decode() if isinstance(value, bytes) else value for value in labels)


def _width(proto: Any) -> int:
    raise SourceError(
        f"{proto.graph.input[0].name}: the graph does not tell how many features it takes: export it with that number"
    )
