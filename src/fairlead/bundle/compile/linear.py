"""Linear classifiers and regressors, generalised ones too."""

from __future__ import annotations

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
    one_vs_rest,
    sigmoid,
    softmax,
    weighted_sum,
)
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable


def _decision(step: Any, columns: Columns) -> tuple[Var, int]:
    """Compute the linear part, shape (n_rows, n_outputs), and say how many outputs there are."""
    weights = np.atleast_2d(_dense(step.coef_)).T
    finite(step, weights, step.intercept_)
    return weighted_sum(columns, weights, np.ravel(step.intercept_)), weights.shape[1]


def _dense(weights: Any) -> Any:
    return weights.toarray() if hasattr(weights, "toarray") else weights  # after `sparsify()`


def _regressor(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    total, n_outputs = _decision(step, columns)
    if n_outputs > 1:
        raise NotCompilable(label_of(step), "predicts more than one target")
    return Prediction(value=flat(total))


def _generalised(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    link = type(step._base_loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise NotCompilable(label_of(step), f"its link {link} is not known")
    value = _regressor(step, columns, compilation).value
    assert value is not None
    return Prediction(value=op.exp(value) if link == "LogLink" else value)


def _classified(step: Any, decision: Var, n_outputs: int, probabilities: Var | None) -> Prediction:
    """Label by the decision itself, not by the probabilities: they may round to a tie."""
    label = above(decision, 0.0) if n_outputs == 1 else best(decision)
    return Prediction(label=label, probabilities=probabilities, classes=classes_of(step))


def _decided(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    if getattr(getattr(step, "_label_binarizer", None), "y_type_", "").startswith("multilabel"):
        raise NotCompilable(label_of(step), "predicts several labels at once")
    decision, n_outputs = _decision(step, columns)
    return _classified(step, decision, n_outputs, None)


def _logistic_of(decision: Var, n_outputs: int) -> Var:
    """Source: LinearClassifierMixin._predict_proba_lr."""
    return complement(sigmoid(decision)) if n_outputs == 1 else one_vs_rest(sigmoid(decision))


def _logistic(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    decision, n_outputs = _decision(step, columns)
    if _is_one_vs_rest(step):
        probabilities = _logistic_of(decision, n_outputs)
    elif n_outputs == 1:
        probabilities = softmax(op.concat([op.neg(decision), decision], axis=1))
    else:
        probabilities = softmax(decision)
    return _classified(step, decision, n_outputs, probabilities)


def _is_one_vs_rest(step: Any) -> bool:
    """Source: LogisticRegression.predict_proba, which had ``multi_class`` before scikit-learn 1.8."""
    binary = len(step.classes_) <= 2
    if "multi_class" not in type(step)._get_param_names():
        return binary
    mode = step.multi_class
    return mode in ("ovr", "warn") or (mode in ("auto", "deprecated") and (binary or step.solver == "liblinear"))


def _sgd(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    decision, n_outputs = _decision(step, columns)
    probabilities = None
    if step.loss == "log_loss":
        probabilities = _logistic_of(decision, n_outputs)
    elif step.loss == "modified_huber":
        clipped = op.clip(decision, constant(-1.0), constant(1.0))
        half = op.div(op.add(clipped, constant(1.0)), constant(2.0))
        probabilities = complement(half) if n_outputs == 1 else one_vs_rest(half)
    return _classified(step, decision, n_outputs, probabilities)


_REGRESSORS = (
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "Lasso",
    "LassoCV",
    "ElasticNet",
    "ElasticNetCV",
    "BayesianRidge",
    "ARDRegression",
    "HuberRegressor",
    "SGDRegressor",
    "LinearSVR",
)

PREDICTORS: dict[str, Predict] = {
    **{f"sklearn.{name}": _regressor for name in _REGRESSORS},
    **{f"sklearn.{name}": _generalised for name in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")},
    **{f"sklearn.{name}": _decided for name in ("LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron")},
    **{f"sklearn.{name}": _logistic for name in ("LogisticRegression", "LogisticRegressionCV")},
    "sklearn.SGDClassifier": _sgd,
}
