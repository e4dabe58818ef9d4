"""Weighted sums of columns, and what classifiers make of them.

Indicators over a column of codes are never computed: all their weights are one table, and a row's sum
is one look-up a source. So 13,000 one-hot columns of two features cost two look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.codes import SPECIAL_SLOTS, n_slots, offsets, slots
from fairlead.bundle.compile.columns import Column, Float64, Indicator, Value, constant, matrix
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable
from fairlead.schema import Scalar


def weighted_sum(columns: Sequence[Column], weights: Float64, intercept: Float64) -> Var:
    """Compute ``columns @ weights + intercept``.

    Parameters
    ----------
    weights : float64, shape (n_columns, n_outputs).
    intercept : float64, shape (n_outputs,).

    Returns
    -------
    float64, shape (n_rows, n_outputs).
    """
    weights = np.asarray(weights, dtype=np.float64)
    base = np.array(np.broadcast_to(np.asarray(intercept, dtype=np.float64), (weights.shape[1],)))
    folded = [i for i, c in enumerate(columns) if isinstance(c, Indicator) and c.source.categories is not None]
    chosen = set(folded)
    others = [i for i in range(len(columns)) if i not in chosen]
    parts: list[Var] = []
    if folded:
        part, off = _look_up([columns[i] for i in folded], weights[folded])
        parts.append(part)
        base = base + off
    if others:
        parts.insert(0, op.matmul(matrix([columns[i] for i in others]), constant(weights[others])))
    total = parts[0] if len(parts) == 1 else op.add(parts[0], parts[1])
    return op.add(total, constant(base[np.newaxis, :]))


def _look_up(indicators: Sequence[Any], weights: Float64) -> tuple[Var, Float64]:
    """Sum the part of indicators that is on, and the constant that all of them off would give."""
    sources: dict[tuple[int, int], Value] = {(id(i.source.tensor), i.source.index): i.source for i in indicators}
    starts = offsets(list(sources.values()))
    first = dict(zip(sources, starts, strict=True))
    table = np.zeros((sum(n_slots(s) for s in sources.values()), weights.shape[1]))
    base = np.zeros(weights.shape[1])
    for indicator, weight in zip(indicators, weights, strict=True):
        base += indicator.off * weight
        key = (id(indicator.source.tensor), indicator.source.index)
        slot = SPECIAL_SLOTS + indicator.value
        if slot == int(slot) and 1 <= slot < n_slots(sources[key]):
            table[first[key] + int(slot)] += (indicator.on - indicator.off) * weight
    index = slots(list(sources.values()))
    if len(sources) > 1:
        index = op.add(index, constant([starts], np.int64))
    found = op.gather(constant(table), index)
    return op.reduce_sum(found, constant([1], np.int64), keepdims=0), base


def finite(step: Any, *arrays: Any) -> None:
    """Refuse weights that are not finite: what 0 times infinity gives depends on the original's route."""
    if not all(np.isfinite(np.asarray(array, dtype=np.float64)).all() for array in arrays):
        raise NotCompilable(label_of(step), "has weights that are not finite")


def flat(x: Var) -> Var:
    """Drop the only column: shape (n_rows, 1) to (n_rows,)."""
    return op.squeeze(x, constant([1], np.int64))


def sigmoid(x: Var) -> Var:
    """Compute the logistic function; onnxruntime's own is 0 below about -37 in float64."""
    one = constant(1.0)
    return op.div(one, op.add(one, op.exp(op.neg(x))))


def softmax(x: Var) -> Var:
    """Compute softmax over each row, as scikit-learn does: shifted by the row's largest."""
    exp = op.exp(op.sub(x, op.reduce_max(x, constant([1], np.int64))))
    return op.div(exp, row_sum(exp))


def log_sum_exp(x: Var) -> Var:
    """Compute log(sum(exp(x))) over each row: shape (n_rows, 1)."""
    largest = op.reduce_max(x, constant([1], np.int64))
    return op.add(op.log(row_sum(op.exp(op.sub(x, largest)))), largest)


def row_sum(x: Var) -> Var:
    """Sum each row: shape (n_rows, 1)."""
    return op.reduce_sum(x, constant([1], np.int64))


def complement(positive: Var) -> Var:
    """Make both columns of a binary classifier from the second."""
    return op.concat([op.sub(constant(1.0), positive), positive], axis=1)


def one_vs_rest(x: Var) -> Var:
    """Divide each row by its sum; a row of zeros becomes uniform."""
    total = row_sum(x)
    nothing = op.equal(total, constant(0.0))
    n_classes = float(_width(x))
    return op.where(nothing, constant(1.0 / n_classes), op.div(x, op.where(nothing, constant(1.0), total)))


def _width(x: Var) -> int:
    shape = x.unwrap_tensor().shape
    assert shape is not None
    assert isinstance(shape[1], int)
    return shape[1]


def best(x: Var) -> Var:
    """Find each row's largest, the first among equals: int64, shape (n_rows,)."""
    return op.arg_max(x, axis=1, keepdims=0)


def above(x: Var, threshold: float) -> Var:
    """Label a binary classifier's only column: int64, shape (n_rows,)."""
    return flat(op.cast(op.greater(x, constant(threshold)), to=np.int64))


def classes_of(step: Any) -> tuple[Scalar, ...]:
    """Read the labels as plain Python scalars.

    Raises
    ------
    NotCompilable
        When there are several targets, or labels of another type.
    """
    if isinstance(step.classes_, list) or np.ndim(step.classes_) != 1:
        raise NotCompilable(label_of(step), "predicts more than one target")
    labels = plain_classes(step.classes_)
    if not all(isinstance(label, bool | int | float | str) for label in labels):
        raise NotCompilable(label_of(step), "its labels are not strings, numbers or bools")
    return labels


def plain_classes(classes: Iterable[Any]) -> tuple[Scalar, ...]:
    """Take class labels out of numpy."""
    return tuple(label.item() if isinstance(label, np.generic) else label for label in classes)
