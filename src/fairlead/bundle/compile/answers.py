"""How raw scores become labels and probabilities; shared by the families that compute scores.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Prediction, constant
from fairlead.schema import Scalar


def plain_classes(classes: Iterable[Any]) -> tuple[Scalar, ...]:
    """Take class labels out of numpy."""
    return tuple(label.item() if isinstance(label, np.generic) else label for label in classes)


def regression(scores: Var) -> Prediction:
    """Answer a regressor's scores: float64, shape (n_rows, 1)."""
    return Prediction(value=op.reshape(scores, constant([-1], np.int64)))


def binary(positive: Var, is_positive: Var, classes: Iterable[Any]) -> Prediction:
    """Answer two classes.

    Parameters
    ----------
    positive : float64, shape (n_rows, 1): the probability of the second class.
    is_positive : bool, shape (n_rows, 1): whether the label is the second class.
    """
    both = op.concat([op.sub(constant(1.0), positive), positive], axis=1)
    label = op.reshape(op.cast(is_positive, to=np.int64), constant([-1], np.int64))
    return Prediction(label=label, probabilities=both, classes=plain_classes(classes))


def multiclass(probabilities: Var, classes: Iterable[Any]) -> Prediction:
    """Answer with the class of the largest probability, the first of equals: float64, shape (n_rows, n_classes)."""
    label = op.arg_max(probabilities, axis=1, keepdims=0)
    return Prediction(label=label, probabilities=probabilities, classes=plain_classes(classes))
