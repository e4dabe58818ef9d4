"""scikit-learn's trees: single, forests, gradient boosting and histogram gradient boosting."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlead.bundle.compile.answers import answered
from fairlead.bundle.compile.columns import Columns, Compilation, Float64, Prediction
from fairlead.bundle.compile.ensembles import Ensemble, Tree
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable
from fairlead.predict.forest import Answer, Finish


def _tree(estimator: Any, value: Float64, target: int = 0) -> Tree:
    tree = estimator.tree_
    missing_left = getattr(tree, "missing_go_to_left", None)
    if missing_left is None or len(missing_left) == 0:
        missing_left = np.zeros(tree.node_count, bool)
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=missing_left.astype(bool),
        value=value,
        target=target,
    )


def _forest(forest: Any, columns: Columns, compilation: Compilation) -> Prediction:
    members = getattr(forest, "estimators_", [forest])
    if forest.n_outputs_ != 1:
        raise NotCompilable(label_of(forest), "predicts more than one output")
    classes = getattr(forest, "classes_", None)
    kept, answer = _kept(classes)
    trees = [_tree(member, member.tree_.value[:, 0, kept]) for member in members]
    ensemble = Ensemble(trees, n_targets=trees[0].value.shape[1])
    return answered(ensemble, Finish(divisor=len(members), answer=answer), columns, compilation, classes)


def _kept(classes: Any) -> tuple[slice, Answer]:
    """Say which of a leaf's values are added, and what their sum answers: of two classes the second says all."""
    if classes is None:
        return slice(None), "number"
    return (slice(1, 2), "positive") if len(classes) == 2 else (slice(None), "largest")


def _gradient_boosting(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
    prior = model.init_
    if prior != "zero" and type(prior).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise NotCompilable(label_of(model), f"starts from an estimator of its own ({type(prior).__name__})")
    n_targets = model.estimators_.shape[1]
    start = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32)), float).ravel()
    trees = [
        _tree(member, model.learning_rate * member.tree_.value[:, 0, :], target)
        for stage in model.estimators_
        for target, member in enumerate(stage)
    ]
    classes = getattr(model, "classes_", None)
    if classes is None:
        finish = Finish()
    elif len(classes) > 2:
        finish = Finish(link="softmax", answer="largest")
    else:
        scale = 2.0 if model.loss == "exponential" else 1.0
        finish = Finish(scale=scale, link="sigmoid", answer="at_least_zero")
    return answered(Ensemble(trees, n_targets=n_targets, base=start), finish, columns, compilation, classes)


def _histogram_gradient_boosting(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
    if model.is_categorical_ is not None and np.any(model.is_categorical_):
        raise NotCompilable(label_of(model), "splits on categorical features")
    start = np.asarray(model._baseline_prediction, float).ravel()
    trees = [
        _histogram_tree(predictor.nodes, target)
        for stage in model._predictors
        for target, predictor in enumerate(stage)
    ]
    ensemble = Ensemble(trees, n_targets=len(start), base=start, round_input=False)
    classes = getattr(model, "classes_", None)
    if classes is None:
        finish = Finish(link="exp" if model.loss in ("poisson", "gamma") else "identity")
    elif len(classes) > 2:
        finish = Finish(link="softmax", answer="largest")
    else:
        # At zero this one answers the first class, where gradient boosting answers the second.
        finish = Finish(link="sigmoid", answer="above_zero")
    return answered(ensemble, finish, columns, compilation, classes)


def _histogram_tree(nodes: Any, target: int) -> Tree:
    is_leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float64)[:, np.newaxis],
        target=target,
    )


_FORESTS = ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees")
PREDICTORS = {
    **{f"sklearn.{name}{kind}": _forest for name in _FORESTS for kind in ("Classifier", "Regressor")},
    **{f"sklearn.GradientBoosting{kind}": _gradient_boosting for kind in ("Classifier", "Regressor")},
    **{f"sklearn.HistGradientBoosting{kind}": _histogram_gradient_boosting for kind in ("Classifier", "Regressor")},
}
