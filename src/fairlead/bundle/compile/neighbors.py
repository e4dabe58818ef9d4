"""K nearest neighbours, by the true differences and one row at a time.

The usual expansion of a squared distance, |x|² - 2xy + |y|², loses digits where rows are close. So the
graph scans over the rows and compares each with every training row: memory is that of the training set,
whatever the number of rows.

Of training rows at equal distance scikit-learn takes the one that its search comes to first, which no
graph can know. On data with few distinct values that moves a prediction in a thousand, too rare for a
sample to show; so a model is refused where such ties are found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Columns, Compilation, Float64, Predict, Prediction, constant, matrix
from fairlead.bundle.compile.scores import best, classes_of, flat, row_sum
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable

_TIE_ROWS = 500


def _sum(x: Var) -> Var:
    return op.reduce_sum(x, constant([0], np.int64), keepdims=0)


def _power(step: Any) -> float:
    """Read the metric as the p of a Minkowski distance."""
    metric = step.effective_metric_
    parameters = {k: v for k, v in (step.effective_metric_params_ or {}).items() if v is not None}
    p = float(parameters.pop("p", 2.0))
    if parameters:
        raise NotCompilable(label_of(step), f"its metric has parameters: {', '.join(sorted(parameters))}")
    known = {"euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "cityblock": 1.0, "l1": 1.0, "minkowski": p}
    if not isinstance(metric, str) or not np.isfinite(known.get(metric, np.inf)):
        raise NotCompilable(label_of(step), f"its metric {metric!r} is not known")
    return known[metric]


def _metric(p: float) -> tuple[Callable[[Var], Var], Callable[[Var], Var]]:
    """Choose how differences, shape (n_features, n_train), are reduced, and what makes that a distance."""
    if p == 2.0:
        return lambda d: _sum(op.mul(d, d)), op.sqrt
    if p == 1.0:
        return lambda d: _sum(op.abs(d)), lambda reduced: reduced
    return lambda d: _sum(op.pow(op.abs(d), constant(p))), lambda reduced: op.pow(reduced, constant(1.0 / p))


def _refuse_ties(step: Any, train: Float64, p: float) -> None:
    """Look for rows whose last neighbour and the next are equally far.

    Asked are training rows, and rows put together from the values that the training rows have.
    """
    from scipy.spatial.distance import cdist

    if step.n_neighbors >= len(train):
        return
    random = np.random.default_rng(0)
    chosen = train[random.permutation(len(train))[:_TIE_ROWS]]
    made = np.column_stack([random.choice(column, _TIE_ROWS) for column in train.T])
    for row in np.vstack([chosen, made]):
        distances = cdist(row[np.newaxis], train, "minkowski", p=p)[0]
        last, following = np.partition(distances, (step.n_neighbors - 1, step.n_neighbors))[
            step.n_neighbors - 1 : step.n_neighbors + 1
        ]
        if following - last <= 1e-12 * following:
            raise NotCompilable(label_of(step), "training rows are equally far from a row: which one counts is chance")


def _nearest(step: Any, columns: Columns) -> tuple[Var, Var]:
    """Find the neighbours: distances and indices, nearest first, both of shape (n_rows, k)."""
    train = _training_rows(step)
    p = _power(step)
    reduce, distance = _metric(p)
    _refuse_ties(step, train, p)
    by_feature = constant(np.ascontiguousarray(train.T))
    k = constant([step.n_neighbors], np.int64)

    def nearest_of_row(row: Var) -> tuple[Var, Var]:
        difference = op.sub(op.unsqueeze(row, constant([1], np.int64)), by_feature)
        return op.top_k(reduce(difference), k, axis=0, largest=0, sorted=1)

    reduced, index = op.scan([matrix(columns)], body=nearest_of_row, num_scan_inputs=1)
    return distance(reduced), index


def _training_rows(step: Any) -> Float64:
    rows = step._fit_X
    rows = rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)
    if rows.dtype == np.float32 and step._fit_method == "brute":
        raise NotCompilable(label_of(step), "was trained on float32")
    return rows.astype(np.float64)


def _weights(step: Any, distances: Var) -> Var | None:
    """Compute each neighbour's weight; where neighbours are at no distance only they count."""
    if step.weights in (None, "uniform"):
        return None
    if step.weights != "distance":
        raise NotCompilable(label_of(step), "its weights are a function")
    weights = op.div(constant(1.0), distances)
    infinite = op.cast(op.isinf(weights), to=np.float64)
    any_infinite = op.greater(op.reduce_max(infinite, constant([1], np.int64)), constant(0.0))
    return op.where(any_infinite, infinite, weights)


def _classifier(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    classes = classes_of(step)
    distances, index = _nearest(step, columns)
    weights = _weights(step, distances)
    voters = op.gather(constant(np.ravel(step._y), np.int64), index)
    third = constant([2], np.int64)
    vote = op.cast(op.equal(op.unsqueeze(voters, third), constant([[range(len(classes))]], np.int64)), to=np.float64)
    if weights is not None:
        vote = op.mul(vote, op.unsqueeze(weights, third))
    votes = op.reduce_sum(vote, constant([1], np.int64), keepdims=0)
    return Prediction(label=best(votes), probabilities=op.div(votes, row_sum(votes)), classes=classes)


def _regressor(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    targets = np.asarray(step._y, dtype=np.float64)
    if targets.ndim > 1 and targets.shape[1] > 1:
        raise NotCompilable(label_of(step), "predicts more than one target")
    distances, index = _nearest(step, columns)
    weights = _weights(step, distances)
    found = op.gather(constant(targets.ravel()), index)
    if weights is None:
        return Prediction(value=flat(op.div(row_sum(found), constant(float(step.n_neighbors)))))
    return Prediction(value=flat(op.div(row_sum(op.mul(found, weights)), row_sum(weights))))


PREDICTORS: dict[str, Predict] = {
    "sklearn.KNeighborsClassifier": _classifier,
    "sklearn.KNeighborsRegressor": _regressor,
}
