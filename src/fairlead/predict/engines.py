"""The step that computes: the engine.

`OnnxEngine` runs the compiled graph, `NativeEngine` the user's own object, `trees.TreesEngine` a tree
ensemble. All take rows or a table of the schema and give a `Prediction`; nothing above knows which it is.

Layer L1; onnxruntime is imported when an `OnnxEngine` is made, pandas for a native one only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fairlead.errors import ModelFailed
from fairlead.predict.encode import Encoder
from fairlead.predict.outputs import Prediction
from fairlead.predict.validate import Row
from fairlead.schema import Feature, Kind, Scalar, Schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# A larger table runs in pieces, so that what a graph computes in between stays small.
_CHUNK_ROWS = 8192


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
        """Predict an Arrow table whose columns are the model's schema, in its order."""
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
        import onnxruntime as ort

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
        return self.predict_matrix(self.encoder.encode_table(table))

    def predict_matrix(self, matrix: npt.NDArray[np.float64]) -> Prediction:
        """Predict encoded rows: float64, shape (n_rows, n_features)."""
        if len(matrix) <= _CHUNK_ROWS:
            results = self.session.run(self._names, {"X": matrix})
        else:
            pieces = [matrix[start : start + _CHUNK_ROWS] for start in range(0, len(matrix), _CHUNK_ROWS)]
            parts = [self.session.run(self._names, {"X": piece}) for piece in pieces]
            results = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if self._classes is None:
            return Prediction(results[0])
        labels = [self._classes[place] for place in results[0].tolist()]
        return Prediction(labels, results[1] if len(results) > 1 else None)


def _return_freed_memory() -> None:
    """Hand back to the system what parsing the graph took: 74 of 162 MB for a forest of 140,000 nodes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


class NativeEngine:
    """Runs the user's own object.

    Parameters
    ----------
    model : as `bundle.formats` loaded it; a vectorizer and its estimator joined in a Pipeline.
    kind : what it does.
    schema : the features that reach the model.
    form : how rows are handed to it, see `bundle.manifest.Manifest`.
    has_probabilities : whether to ask for them.
    """

    def __init__(self, model: Any, kind: Kind, schema: Schema, form: str, has_probabilities: bool) -> None:
        self.model = model
        self._kind = kind
        self._schema = schema
        self._form = form
        self._has_probabilities = has_probabilities
        self._encoder = Encoder(schema)

    @property
    def unseen(self) -> dict[str, int]:
        return self._encoder.unseen

    def predict(self, rows: Sequence[Row]) -> Prediction:
        if self._form == "matrix":
            return self._predict(self._encoder.encode(rows))
        self._encoder.count_unseen(rows)
        if self._form == "arguments":
            return Prediction([self._call(dict(zip(self._schema.names, row, strict=True))) for row in rows])
        if self._form == "records":
            names = [feature.source for feature in self._schema.features]
            return self._predict([dict(zip(names, row, strict=True)) for row in rows])
        return self._predict(to_frame(rows, self._schema))

    def predict_table(self, table: pa.Table) -> Prediction:
        return self.predict(list(zip(*(column.to_pylist() for column in table.columns), strict=True)))

    def _predict(self, batch: Any) -> Prediction:
        try:
            values = np.asarray(self.model.predict(batch))
            probabilities = self.model.predict_proba(batch) if self._has_probabilities else None
        except Exception as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {error}") from error
        if values.shape not in ((len(batch),), (len(batch), 1)):
            raise ModelFailed(f"the model gave an array of shape {values.shape} for {len(batch)} rows: one value each")
        values = values.reshape(len(batch))
        if self._kind == "classifier":
            return Prediction(values.tolist(), None if probabilities is None else _matrix(probabilities, len(batch)))
        try:
            return Prediction(values.astype(np.float64))
        except (TypeError, ValueError) as error:
            raise ModelFailed(f"the model gave {values.dtype} values: expected numbers") from error

    def _call(self, arguments: dict[str, Any]) -> Any:
        try:
            return self.model.predict(**arguments)
        except Exception as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {error}") from error


def _matrix(probabilities: Any, n_rows: int) -> npt.NDArray[np.float64]:
    try:
        matrix = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelFailed("the model gave probabilities that are no numbers") from error
    if matrix.ndim != 2 or len(matrix) != n_rows:
        raise ModelFailed(f"the model gave probabilities of shape {matrix.shape} for {n_rows} rows")
    return matrix


def to_frame(rows: Sequence[Row], schema: Schema) -> pd.DataFrame:
    """Make the pandas frame that the original was trained on: its column names, nulls as NaN."""
    import pandas as pd

    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(schema.features)
    series = {}
    for feature, column in zip(schema.features, columns, strict=True):
        values = [np.nan if value is None else value for value in column] if feature.type == "string" else list(column)
        series[feature.source] = pd.Series(values, dtype=_dtype(feature, column))
    return pd.DataFrame(series)


def _dtype(feature: Feature, column: Sequence[object]) -> str:
    if feature.type == "string":
        return "object"
    if feature.type in ("int", "bool") and None in column:
        return "float64"
    return {"int": "int64", "bool": "bool", "float": "float64", "datetime": "datetime64[us, UTC]"}[feature.type]
