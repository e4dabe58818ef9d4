"""An ONNX graph that the user brought: taken into ours as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import spox
import spox.opset.ai.onnx.v21 as op

from fairlead.bundle.compile.columns import Columns, Compilation, Prediction, constant, matrix


def _onnx_model(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
    features = op.cast(matrix(columns), to=model.dtype)
    results = list(spox.inline(model.proto)(features).values())
    if model.kind == "regressor":
        return Prediction(value=op.cast(op.reshape(results[0], constant([-1], np.int64)), to=np.float64))
    classes = model.classes
    dtype = np.str_ if isinstance(classes[0], str) else np.int64
    labels = op.reshape(results[0], constant([-1, 1], np.int64))
    hits = op.equal(labels, constant(np.array([classes]), dtype))
    return Prediction(
        label=op.arg_max(op.cast(hits, to=np.int32), axis=1, keepdims=0),
        probabilities=op.cast(results[1], to=np.float64) if model.has_probabilities else None,
        classes=classes,
    )


PREDICTORS = {"fairlead.OnnxModel": _onnx_model}
