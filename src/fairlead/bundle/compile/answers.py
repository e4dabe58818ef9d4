"""How the scores of tree ensembles become labels and probabilities.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Prediction
from fairlead.bundle.compile.scores import best, complement, flat, plain_classes


def regression(scores: Var) -> Prediction:
    """Answer a regressor's scores: float64, shape (n_rows, 1)."""
    return Prediction(value=flat(scores))


def binary(positive: Var, is_positive: Var, classes: Iterable[Any]) -> Prediction:
    """Answer two classes.

    Parameters
    ----------
    positive : float64, shape (n_rows, 1): the probability of the second class.
    is_positive : bool, shape (n_rows, 1): whether the label is the second class.
    """
    label = flat(op.cast(is_positive, to=np.int64))
    return Prediction(label=label, probabilities=complement(positive), classes=plain_classes(classes))


def multiclass(probabilities: Var, classes: Iterable[Any]) -> Prediction:
    """Answer with the class of the largest probability, the first of equals: float64, shape (n_rows, n_classes)."""
    return Prediction(label=best(probabilities), probabilities=probabilities, classes=plain_classes(classes))
