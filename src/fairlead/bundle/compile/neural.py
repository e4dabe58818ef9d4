"""Multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Columns, Compilation, Predict, Prediction, constant
from fairlead.bundle.compile.scores import (
    above,
    best,
    classes_of,
    complement,
    finite,
    flat,
    sigmoid,
    softmax,
    weighted_sum,
)
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable

_ACTIVATIONS: dict[str, Callable[[Var], Var]] = {
    "identity": lambda x: x,
    "logistic": sigmoid,
    "tanh": op.tanh,
    "relu": op.relu,
    "softmax": softmax,
    "exp": op.exp,
}


def _forward(step: Any, columns: Columns) -> Var:
    """Compute the last layer's activation, shape (n_rows, n_outputs)."""
    finite(step, *(array for pair in zip(step.coefs_, step.intercepts_, strict=True) for array in pair))
    x = weighted_sum(columns, step.coefs_[0], step.intercepts_[0])
    for weights, intercept in zip(step.coefs_[1:], step.intercepts_[1:], strict=True):
        x = op.add(op.matmul(_ACTIVATIONS[step.activation](x), constant(weights)), constant(intercept))
    return _ACTIVATIONS[step.out_activation_](x)


def _classifier(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    if step._label_binarizer.y_type_.startswith("multilabel"):
        raise NotCompilable(label_of(step), "predicts several labels at once")
    output = _forward(step, columns)
    if step.n_outputs_ > 1:
        return Prediction(label=best(output), probabilities=output, classes=classes_of(step))
    return Prediction(label=above(output, 0.5), probabilities=complement(output), classes=classes_of(step))


def _regressor(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    if np.shape(step.coefs_[-1])[1] > 1:
        raise NotCompilable(label_of(step), "predicts more than one target")
    return Prediction(value=flat(_forward(step, columns)))


PREDICTORS: dict[str, Predict] = {
    "sklearn.MLPClassifier": _classifier,
    "sklearn.MLPRegressor": _regressor,
}
