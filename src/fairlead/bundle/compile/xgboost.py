"""xgboost: boosters and its scikit-learn estimators, read from the model's own JSON.

xgboost compares with ``<`` and adds in float32, and so does the graph.

Source: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op

from fairlead.bundle.compile.answers import answered
from fairlead.bundle.compile.columns import (
    Column,
    Columns,
    Compilation,
    Indicator,
    Prediction,
    Value,
    constant,
    gather,
    values_of,
)
from fairlead.bundle.compile.ensembles import Ensemble, Tree
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable
from fairlead.predict.forest import Finish

_EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie")
_IDENTITY = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "binary:logitraw",
    "rank:pairwise",
    "rank:ndcg",
    "rank:map",
)


def _booster(booster: Any, columns: Columns, compilation: Compilation) -> Prediction:
    return _model(booster, booster, None, None, _sparse(columns, compilation), compilation)


def _estimator(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
    classes = getattr(model, "classes_", None)
    try:
        best = model.best_iteration
    except AttributeError:
        best = None
    missing = np.nan if model.missing is None else float(model.missing)
    columns = _sparse(columns, compilation)
    if not np.isnan(missing):
        columns = _without(columns, np.float32(missing))
    return _model(model, model.get_booster(), classes, best, columns, compilation)


def _model(
    step: Any, booster: Any, classes: Any, best: int | None, columns: Columns, compilation: Compilation
) -> Prediction:
    learner = json.loads(booster.save_raw("json"))["learner"]
    objective: str = learner["objective"]["name"]
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise NotCompilable(label_of(step), "predicts more than one output")
    n_targets = max(1, int(learner["learner_model_param"]["num_class"]))
    trees = _trees(step, learner["gradient_booster"], best, n_targets)
    link = "exp" if objective in _EXPONENTIAL else "logit" if objective.endswith(":logistic") else ""
    base = _base(learner["learner_model_param"]["base_score"], n_targets, link)
    ensemble = Ensemble(trees, n_targets=n_targets, base=base, strict=True, single=True)
    finish = _finish(step, objective)
    if finish.answer == "number":
        classes = None
    elif classes is None:
        classes = range(max(2, n_targets))
    return answered(ensemble, finish, columns, compilation, classes)


def _finish(step: Any, objective: str) -> Finish:
    if objective == "binary:logistic":
        return Finish(link="sigmoid", answer="positive", single=True)
    if objective.startswith("multi:"):
        return Finish(link="softmax", answer="largest", single=True)
    if objective in _EXPONENTIAL:
        return Finish(link="exp", single=True)
    if objective == "reg:logistic":
        return Finish(link="sigmoid", single=True)
    if objective in _IDENTITY:
        return Finish(single=True)
    raise NotCompilable(label_of(step), f"has the objective {objective}")


def _base(text: str, n_targets: int, link: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a base score, one number or a bracketed list, onto the scale of the raw scores, in float32."""
    found = np.array([float(part) for part in text.strip("[]").split(",")], dtype=np.float32)
    links: dict[str, Callable[[Any], Any]] = {
        "": lambda score: score,
        "exp": np.log,
        "logit": lambda score: -np.log(np.float32(1) / score - np.float32(1)),
    }
    return np.broadcast_to(links[link](found), (n_targets,)).astype(np.float64)


def _trees(step: Any, gradient_booster: dict[str, Any], best: int | None, n_targets: int) -> list[Tree]:
    weights = None
    if gradient_booster["name"] == "dart":
        weights = gradient_booster["weight_drop"]
        gradient_booster = gradient_booster["gbtree"]
    elif gradient_booster["name"] != "gbtree":
        raise NotCompilable(label_of(step), f"is a {gradient_booster['name']} booster")
    model = gradient_booster["model"]
    per_round = n_targets * int(model["gbtree_model_param"]["num_parallel_tree"])
    count = None if best is None else (best + 1) * per_round
    return [
        _tree(step, tree, target, 1.0 if weights is None else weights[i])
        for i, (tree, target) in enumerate(zip(model["trees"][:count], model["tree_info"][:count], strict=True))
    ]


def _tree(step: Any, tree: dict[str, Any], target: int, weight: float) -> Tree:
    if any(tree["split_type"]):
        raise NotCompilable(label_of(step), "splits on categorical features")
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise NotCompilable(label_of(step), "has leaves of several values (multi_strategy)")
    # A leaf's value stands where an inner node's threshold would.
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    return Tree(
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=conditions.astype(np.float64),
        left=np.array(tree["left_children"], dtype=np.int64),
        right=np.array(tree["right_children"], dtype=np.int64),
        missing_left=np.array(tree["default_left"], dtype=bool),
        value=(conditions * np.float32(weight)).astype(np.float64)[:, np.newaxis],
        target=target,
    )


def _sparse(columns: Columns, compilation: Compilation) -> Columns:
    """In a scipy sparse matrix xgboost takes what is not stored for missing."""
    if not compilation.sparse:
        return columns
    return _without(columns, np.float32(0), values=not compilation.explicit_zeros)


def _without(columns: Columns, missing: np.float32, *, values: bool = True) -> Columns:
    """Make a number null in indicators, and in computed columns unless told otherwise."""

    def null(side: float) -> float:
        return np.nan if np.float32(side) == missing else side

    made: list[Column] = [
        Indicator(column.source, column.value, null(column.on), null(column.off))
        if isinstance(column, Indicator)
        else column
        for column in columns
    ]
    places = [i for i, column in enumerate(made) if isinstance(column, Value)]
    if places and values:
        plain = [column for column in made if isinstance(column, Value)]
        tensor = gather(plain)
        absent = op.equal(op.cast(tensor, to=np.float32), constant(missing, np.float32))
        tensor = op.where(absent, constant(np.nan), tensor)
        marked = [value.broken(*_edges(missing)) for value in plain]
        for place, value in zip(places, values_of(tensor, len(plain), marked), strict=True):
            made[place] = value
    return tuple(made)


def _edges(number: np.float32) -> tuple[float, float]:
    """Between which float64 numbers all round to a float32 number."""
    beside = (np.nextafter(number, np.float32(side)) for side in (-np.inf, np.inf))
    low, high = ((float(number) + float(other)) / 2 for other in beside)
    return low, high


PREDICTORS = {
    "xgboost.Booster": _booster,
    **{f"xgboost.XGB{kind}": _estimator for kind in ("Classifier", "Regressor", "Ranker")},
    **{f"xgboost.XGBRF{kind}": _estimator for kind in ("Classifier", "Regressor")},
}
