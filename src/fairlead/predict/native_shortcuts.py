"""Shorter ways through scikit-learn, XGBoost and LightGBM that end in the very same bits.

A label is taken from the probabilities where the class's own `predict` does so; the steps before the
last one run once for both; a forest's trees are asked in turn without joblib; a ColumnTransformer's
matrix is made of rows. All go by exact class: any other is called as it is. `NativeEngine.prove` shows
with the model's own rows that nothing changes.

Layer L1; imports numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fairlead.predict.native_columns import NoShortcut, RowsTransform, class_key, rows_transform
from fairlead.schema import Schema

Values = tuple[Any, Any]
Finish = Callable[[Any], Values]

_LIBRARIES = ("sklearn", "xgboost", "lightgbm")
_SEARCHES = frozenset(
    f"sklearn.{name}" for name in ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")
)
_FOREST_CLASSIFIERS = frozenset({"sklearn.RandomForestClassifier", "sklearn.ExtraTreesClassifier"})
_FOREST_REGRESSORS = frozenset({"sklearn.RandomForestRegressor", "sklearn.ExtraTreesRegressor"})
# Their `predict` is `classes_[argmax(predict_proba(X), axis=1)]`. Not so: SVC, whose probabilities are
# another model's; the linear, boosted, naive Bayes and neural ones, which decide before they round.
_LABEL_IS_LIKELIEST = _FOREST_CLASSIFIERS | {
    f"sklearn.{name}"
    for name in (
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "BaggingClassifier",
        "CalibratedClassifierCV",
        "LabelPropagation",
        "LabelSpreading",
        "VotingClassifier",  # has probabilities only when it votes softly
    )
}
# Above this many rows the trees' own work counts, and joblib may spread it over threads.
_FEW_ROWS = 1024


class Shortcut:
    """A shorter way to a model's values and probabilities.

    Parameters
    ----------
    transform : makes of rows what `steps` take; None when they take the model's own input.
    steps : transformers, in order.
    finish : gives values and probabilities, or None for these.
    last : what `finish` asks.
    """

    def __init__(self, transform: RowsTransform | None, steps: Sequence[Any], finish: Finish, last: Any) -> None:
        self.takes_rows = transform is not None
        self._transform = transform
        self._steps = steps
        self._finish = finish
        self._last = last

    @property
    def libraries(self) -> set[str]:
        """Whose versions a proof holds for."""
        owners = (class_key(step).split(".")[0] for step in (*self._steps, self._last))
        return {"numpy", "sklearn"} | {name for name in owners if name in _LIBRARIES}

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Let a forest add its trees in order: threads add them as they come, and round otherwise each time."""
        if class_key(self._last) not in _FOREST_CLASSIFIERS | _FOREST_REGRESSORS:
            yield
            return
        n_jobs, self._last.n_jobs = self._last.n_jobs, 1
        try:
            yield
        finally:
            self._last.n_jobs = n_jobs

    def __call__(self, batch: Any) -> Values:
        """Predict rows when `takes_rows`, the model's own input otherwise."""
        if self._transform is not None:
            batch = self._transform(batch)
        for step in self._steps:
            batch = step.transform(batch)
        return self._finish(batch)


def shortcut_of(model: Any, schema: Schema, form: str, has_probabilities: bool) -> Shortcut | None:
    """Find a shorter way through `model`; None when there is none that is known to be exact."""
    try:
        *steps, last = _flat(model)
        finish = _finish(last, has_probabilities, bool(steps))
    except NoShortcut:
        return None
    transform = None
    if form == "frame" and steps:
        try:
            transform, rest = rows_transform(steps[0], schema), steps[1:]
        except (NoShortcut, AttributeError):  # an attribute that another version of scikit-learn lacks
            rest = steps
    else:
        rest = steps
    return Shortcut(transform, rest, finish, last)


def _flat(model: Any) -> list[Any]:
    """The steps of a Pipeline or of the best one of a search, however deep."""
    key = class_key(model)
    if key in _SEARCHES:
        return _flat(model.best_estimator_)
    if key != "sklearn.Pipeline":
        return [model]
    steps = [step for _, step in model.steps if step is not None and not isinstance(step, str)]
    if not steps or steps[-1] is not model.steps[-1][1]:
        raise NoShortcut
    return [*steps[:-1], *_flat(steps[-1])]


def _finish(last: Any, has_probabilities: bool, has_steps: bool) -> Finish:
    key = class_key(last)
    if key.split(".")[0] not in _LIBRARIES or {"predict", "predict_proba"} & set(vars(last)):
        raise NoShortcut
    if not has_probabilities:
        if key in _FOREST_REGRESSORS and last.n_outputs_ == 1:
            return lambda batch: (_forest_values(last, batch), None)
        return lambda batch: (last.predict(batch), None)
    if key in _FOREST_CLASSIFIERS and last.n_outputs_ == 1:
        return lambda batch: _likeliest(last, _forest_probabilities(last, batch))
    if key in _LABEL_IS_LIKELIEST or _is_likeliest_when_boosted(last, key):
        return lambda batch: _likeliest(last, last.predict_proba(batch))
    if not has_steps:
        raise NoShortcut
    return lambda batch: (last.predict(batch), last.predict_proba(batch))


def _is_likeliest_when_boosted(last: Any, key: str) -> bool:
    if key == "lightgbm.LGBMClassifier":
        return not callable(last.objective_)
    # Binary takes p > 0.5 of a float32; 1 - p is exact around there, so that p > 1 - p says the same.
    return key == "xgboost.XGBClassifier" and last.objective in ("binary:logistic", "multi:softprob")


def _likeliest(last: Any, probabilities: Any) -> Values:
    return last.classes_[np.argmax(probabilities, axis=1)], probabilities


def _forest_probabilities(forest: Any, batch: Any) -> Any:
    X = forest._validate_X_predict(batch)
    if X.shape[0] > _FEW_ROWS:
        return forest.predict_proba(batch)
    total = np.zeros((X.shape[0], forest.n_classes_), dtype=np.float64)
    for tree in forest.estimators_:
        total += tree.tree_.predict(X)
    total /= len(forest.estimators_)
    return total


def _forest_values(forest: Any, batch: Any) -> Any:
    X = forest._validate_X_predict(batch)
    if X.shape[0] > _FEW_ROWS:
        return forest.predict(batch)
    total = np.zeros(X.shape[0], dtype=np.float64)
    for tree in forest.estimators_:
        total += tree.tree_.predict(X)[:, 0]
    total /= len(forest.estimators_)
    return total
