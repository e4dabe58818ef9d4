"""LightGBM: boosters and its scikit-learn estimators, read from the model's own text.

Source: the text format is that of LightGBM's ``src/io/tree.cpp`` (`Tree::ToString`); the decision type's
bits are those of ``include/LightGBM/tree.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from msgspec.structs import replace

from fairlead.bundle.compile.answers import answered
from fairlead.bundle.compile.columns import (
    Columns,
    Compilation,
    Prediction,
    computed,
    constant,
    gather,
    values_of,
)
from fairlead.bundle.compile.ensembles import Ensemble, Tree
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable
from fairlead.predict.forest import Finish

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_NONE, _MISSING_ZERO = 0, 1
_ZERO = float(np.float32(1e-35))  # kZeroThreshold
_IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg")


def _estimator(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
    return _model(model, model.booster_, getattr(model, "classes_", None), columns, compilation)


def _booster(booster: Any, columns: Columns, compilation: Compilation) -> Prediction:
    return _model(booster, booster, None, columns, compilation)


def _model(step: Any, booster: Any, classes: Any, columns: Columns, compilation: Compilation) -> Prediction:
    # What follows the trees (importances by the features' names, parameters) is not theirs.
    header, *blocks = booster.model_to_string().partition("\nend of trees")[0].split("\nTree=")
    settings = dict(line.partition("=")[::2] for line in header.splitlines())
    n_targets = int(settings["num_tree_per_iteration"])
    found = [(dict(line.partition("=")[::2] for line in block.splitlines()), i) for i, block in enumerate(blocks)]
    trees = [_tree(step, block, number % n_targets) for block, number in found]
    columns = _without_zeros(columns, [block for block, _ in found])
    ensemble = Ensemble(trees, n_targets=n_targets, round_input=False)
    divisor = len(trees) // n_targets if "average_output" in settings else 1
    finish = replace(_finish(step, settings.get("objective", "regression")), divisor=float(divisor))
    if finish.answer == "number":
        classes = None
    elif classes is None:
        classes = range(max(2, n_targets))
    return answered(ensemble, finish, columns, compilation, classes)


def _finish(step: Any, objective: str) -> Finish:
    name, *rest = objective.split()
    options = dict(option.partition(":")[::2] for option in rest)
    slope = float(options.get("sigmoid", 1))
    if name == "binary":
        return Finish(scale=slope, link="sigmoid", answer="positive")
    if name == "cross_entropy":
        return Finish(scale=slope, link="sigmoid")
    if name == "multiclass":
        return Finish(link="softmax", answer="largest")
    if name == "multiclassova":
        return Finish(scale=slope, link="sigmoid", answer="largest")
    if name in ("poisson", "gamma", "tweedie"):
        return Finish(link="exp")
    if name in _IDENTITY:
        return Finish(link="signed_square" if "sqrt" in rest else "identity")
    raise NotCompilable(label_of(step), f"has the objective {name}")


def _numbers(text: str, dtype: type) -> Any:
    return np.array(text.split(), dtype=np.float64).astype(dtype)


def _tree(step: Any, block: dict[str, str], target: int) -> Tree:
    leaves = _numbers(block["leaf_value"], float)
    if int(block["num_cat"]):
        raise NotCompilable(label_of(step), "splits on categorical features")
    if int(block.get("is_linear", "0")):
        raise NotCompilable(label_of(step), "has linear models in its leaves")
    threshold = _numbers(block.get("threshold", ""), float)
    decision = _numbers(block.get("decision_type", ""), int)
    n_inner, n_leaves = len(threshold), len(leaves)
    # A child below zero is a leaf, the bitwise not of its number; leaves follow the inner nodes here.
    left, right = (
        np.concatenate([np.where(child < 0, n_inner + ~child, child), np.full(n_leaves, -1)])
        for child in (_numbers(block.get(f"{side}_child", ""), int) for side in ("left", "right"))
    )
    pad = np.zeros(n_leaves)
    return Tree(
        feature=np.concatenate([_numbers(block.get("split_feature", ""), int), pad.astype(int)]),
        threshold=np.concatenate([threshold, pad]),
        left=left,
        right=right,
        missing_left=np.concatenate([_missing_left(decision, threshold), pad.astype(bool)]),
        value=np.concatenate([np.zeros(n_inner), leaves])[:, np.newaxis],
        target=target,
    )


def _missing_left(decision: Any, threshold: Any) -> Any:
    # Where it learned of no missing values, LightGBM reads NaN as zero.
    return np.where(_missing(decision) == _MISSING_NONE, threshold >= 0, (decision & _DEFAULT_LEFT) > 0)


def _missing(decision: Any) -> Any:
    return (decision >> 2) & 3


def _without_zeros(columns: Columns, blocks: Sequence[dict[str, str]]) -> Columns:
    """Make zero null in the columns where it stands for missing; all splits of a column agree on that."""
    places: set[int] = set()
    for block in blocks:
        split, decision = (_numbers(block.get(key, ""), int) for key in ("split_feature", "decision_type"))
        places |= set(split[_missing(decision) == _MISSING_ZERO].tolist())
    if not places:
        return columns
    chosen = sorted(places)
    values = computed([columns[place] for place in chosen])
    tensor = gather(values)
    tensor = op.where(op.less_or_equal(op.abs(tensor), constant(_ZERO)), constant(np.nan), tensor)
    marked = [value.broken(-_ZERO, _ZERO) for value in values]
    made = dict(zip(chosen, values_of(tensor, len(chosen), marked), strict=True))
    return tuple(made.get(place, column) for place, column in enumerate(columns))


PREDICTORS = {
    "lightgbm.Booster": _booster,
    **{f"lightgbm.LGBM{kind}": _estimator for kind in ("Classifier", "Regressor", "Ranker")},
}
