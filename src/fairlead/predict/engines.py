"""The step that computes: the engine.

`OnnxEngine` runs the compiled graph, `trees.TreesEngine` a tree ensemble, `native.NativeEngine` the user's own
object. All take rows or a table of the schema and give a `Prediction`; nothing above knows which it is.

Layer L1; onnxruntime is imported when an `OnnxEngine` is made.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fairlead.predict.encode import BLOCK_ROWS, Encoder
from fairlead.predict.outputs import Prediction
from fairlead.predict.validate import Row
from fairlead.schema import Scalar, Schema

if TYPE_CHECKING:
    import pyarrow as pa


class Engine(Protocol):
    """What computes predictions."""

    @property
    def unseen(self) -> dict[str, int]:
        """How often a value outside the categories came, by feature."""
        ...

    def predict(self, rows: Sequence[Row]) -> Prediction:
        """Predict rows of the model's schema."""
        ...

    def predict_table(self, table: pa.Table) -> Prediction:
        """Predict an Arrow table whose columns are the model's schema, in its order; many rows at little cost each."""
        ...


class OnnxEngine:
    """Runs a compiled model on one thread.

    Parameters
    ----------
    graph : the ONNX file's bytes, with one input ``X`` and the outputs ``label`` and maybe
        ``probabilities``, or ``value``.
    schema : the features that reach the model.
    classes : a classifier's labels.
    """

    def __init__(self, graph: bytes, schema: Schema, classes: Sequence[Scalar] | None) -> None:
        from fairlead.predict.runtime import ort

        options = ort.SessionOptions()
        # One row is far too little work for a second thread, and idle threads spin.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        _return_freed_memory()
        self.encoder = Encoder(schema)
        self._classes = None if classes is None else list(classes)
        self._names = [output.name for output in self.session.get_outputs()]

    @property
    def unseen(self) -> dict[str, int]:
        return self.encoder.unseen

    def predict(self, rows: Sequence[Row]) -> Prediction:
        return self.predict_matrix(self.encoder.encode(rows))

    def predict_table(self, table: pa.Table) -> Prediction:
        parts = [self._run(matrix) for _, matrix in self.encoder.blocks(table)]
        results = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        if self._classes is None:
            return Prediction(results[0])
        return Prediction(codes=results[0], probabilities=results[1] if len(results) > 1 else None)

    def predict_matrix(self, matrix: npt.NDArray[np.float64]) -> Prediction:
        """Predict encoded rows: float64, shape (n_rows, n_features)."""
        if len(matrix) <= BLOCK_ROWS:
            results = self._run(matrix)
        else:
            pieces = [matrix[start : start + BLOCK_ROWS] for start in range(0, len(matrix), BLOCK_ROWS)]
            results = [np.concatenate(column) for column in zip(*map(self._run, pieces), strict=True)]
        if self._classes is None:
            return Prediction(results[0])
        labels = [self._classes[place] for place in results[0].tolist()]
        return Prediction(labels, results[1] if len(results) > 1 else None)

    def _run(self, matrix: npt.NDArray[np.float64]) -> list[Any]:
        found: list[Any] = self.session.run(self._names, {"X": matrix})
        return found


def _return_freed_memory() -> None:
    """Hand back to the system what parsing the graph took: 74 of 162 MB for a forest of 140,000 nodes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
