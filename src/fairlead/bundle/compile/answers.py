"""From a tree ensemble to a model's answer: the sums of its trees become values, or labels and probabilities.

A `Finish` says how, once for the graph made here and for the trees engine that does without a graph.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Columns, Compilation, Prediction, constant
from fairlead.bundle.compile.ensembles import Ensemble, add_up
from fairlead.bundle.compile.scores import best, complement, flat, plain_classes, sigmoid, softmax
from fairlead.predict.forest import Answer, Finish, Link


def answered(
    ensemble: Ensemble,
    finish: Finish,
    columns: Columns,
    compilation: Compilation,
    classes: Iterable[Any] | None = None,
) -> Prediction:
    """Compile an ensemble and what becomes of its sums.

    Parameters
    ----------
    classes : a classifier's, in the order of the probabilities.
    """
    added = add_up(ensemble, columns, compilation)
    raw = added.sums
    linked = _LINKS[finish.link](_scaled(raw, finish))
    wide = op.cast(linked, to=np.float64) if finish.single else linked
    if classes is None:
        prediction = Prediction(value=flat(wide))
    elif finish.answer == "largest":
        prediction = Prediction(label=best(wide), probabilities=wide, classes=plain_classes(classes))
    else:
        is_second = _IS_SECOND[finish.answer](raw, wide)
        label = flat(op.cast(is_second, to=np.int64))
        prediction = Prediction(label=label, probabilities=complement(wide), classes=plain_classes(classes))
    compilation.trees = (added, finish, prediction)
    return prediction


def _scaled(raw: Var, finish: Finish) -> Var:
    if finish.divisor != 1:
        raw = op.div(raw, constant(finish.divisor))
    return raw if finish.scale == 1 else op.mul(raw, constant(finish.scale))


def _sigmoid(x: Var) -> Var:
    return op.sigmoid(x) if x.unwrap_tensor().dtype == np.float32 else sigmoid(x)


def _softmax(x: Var) -> Var:
    return op.softmax(x, axis=1) if x.unwrap_tensor().dtype == np.float32 else softmax(x)


_LINKS: dict[Link, Callable[[Var], Var]] = {
    "identity": lambda x: x,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "exp": op.exp,
    "signed_square": lambda x: op.mul(op.sign(x), op.mul(x, x)),
}
_IS_SECOND: dict[Answer, Callable[[Var, Var], Var]] = {
    "positive": lambda raw, probability: op.greater(probability, constant(0.5)),
    "above_zero": lambda raw, probability: op.greater(_double(raw), constant(0.0)),
    "at_least_zero": lambda raw, probability: op.greater_or_equal(_double(raw), constant(0.0)),
}


def _double(x: Var) -> Var:
    return op.cast(x, to=np.float64)
