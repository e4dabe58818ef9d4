from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xgboost
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.build import BuildReport
from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.originals import Original, first_step, load_original, original_of
from fairlead.bundle.read import open_bundle
from fairlead.errors import SourceError

Array = npt.NDArray[Any]


def of(model: Any, form: str = "pickle", **options: Any) -> Original:
    return original_of(LoadedModel(model, form, {}, **options))


def test_classifiers_and_regressors(numbers_only: pd.DataFrame, three: Array) -> None:
    words = np.array(["a", "b", "c"])[three]
    found = of(DecisionTreeClassifier().fit(numbers_only, words))
    assert (found.kind, found.classes, found.has_probabilities, found.form) == (
        "classifier",
        ("a", "b", "c"),
        True,
        "frame",
    )
    assert found.class_name == "sklearn.tree._classes.DecisionTreeClassifier"
    scaled = make_pipeline(StandardScaler(), LinearSVC()).fit(numbers_only.to_numpy(), three > 0)
    found = of(scaled)
    assert (found.classes, found.has_probabilities, found.form) == ((False, True), False, "matrix")
    found = of(LinearRegression().fit(numbers_only, three))
    assert (found.kind, found.classes, found.has_probabilities) == ("regressor", None, False)


def test_a_pair_becomes_a_pipeline(customers_model: tuple[Any, Any]) -> None:
    vectorizer, model = customers_model

    found = of(model, vectorizer=vectorizer)

    assert (found.form, found.classes) == ("records", (0, 1))
    assert found.model.predict([{"contract": "year", "tenure": 1.0}]).shape == (1,)


def test_the_step_that_sees_the_input(numbers_only: pd.DataFrame, three: Array) -> None:
    inner = make_pipeline(StandardScaler(), DecisionTreeClassifier())
    search = GridSearchCV(make_pipeline("passthrough", inner), {}, cv=2).fit(numbers_only, three)

    assert type(first_step(search)).__name__ == "StandardScaler"
    assert type(first_step(make_pipeline(None, DictVectorizer(), LogisticRegression()))).__name__ == "DictVectorizer"


def test_a_users_class() -> None:
    class Mine:
        def predict(self, x: float) -> float:
            return x

    found = of(Mine(), "python")

    assert (found.kind, found.form, found.classes) == ("function", "arguments", None)


@pytest.mark.parametrize("thing", [StandardScaler(), {"a": 1}, "text", None])
def test_what_does_not_predict(thing: Any) -> None:
    with pytest.raises(SourceError, match="expected a model with `predict`, got"):
        of(thing)


def test_several_outputs(numbers_only: pd.DataFrame, three: Array) -> None:
    with pytest.raises(SourceError, match="DecisionTreeClassifier: predicts more than one output"):
        of(DecisionTreeClassifier().fit(numbers_only, np.column_stack([three, three])))


OBJECTIVES: list[tuple[str, dict[str, Any], int]] = [
    ("xgboost", {"objective": "reg:squarederror"}, 0),
    ("xgboost", {"objective": "binary:logistic"}, 2),
    ("xgboost", {"objective": "multi:softprob", "num_class": 3}, 3),
    ("xgboost", {"objective": "multi:softmax", "num_class": 3}, 3),
    ("lightgbm", {"objective": "regression"}, 0),
    ("lightgbm", {"objective": "binary"}, 2),
    ("lightgbm", {"objective": "multiclass", "num_class": 3}, 3),
    ("lightgbm", {"objective": "multiclassova", "num_class": 3}, 3),
]


@pytest.mark.parametrize(("library", "params", "n_classes"), OBJECTIVES)
def test_boosters(
    numbers_only: pd.DataFrame, three: Array, library: str, params: dict[str, Any], n_classes: int
) -> None:
    X, y = numbers_only.to_numpy(), three if n_classes == 3 else (three > 0).astype(int)
    if library == "xgboost":
        booster = xgboost.train(params | {"nthread": 1}, xgboost.DMatrix(X, y), num_boost_round=3)
    else:
        booster = lightgbm.train(params | {"num_threads": 1, "verbose": -1}, lightgbm.Dataset(X, y), 3)

    found = of(booster)

    assert found.kind == ("classifier" if n_classes else "regressor")
    assert found.classes == (tuple(range(n_classes)) or None)
    labels = found.model.predict(X)
    assert labels.shape == (400,)
    if n_classes:
        probabilities = found.model.predict_proba(X)
        assert probabilities.shape == (400, n_classes)
        assert (probabilities.argmax(axis=1) == labels).all()
        assert (labels == y).mean() > 0.7
        if "ova" not in params["objective"]:
            np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_linear_booster(numbers_only: pd.DataFrame, amount: Array) -> None:
    data = xgboost.DMatrix(numbers_only.to_numpy(), amount)
    booster = xgboost.train({"booster": "gblinear", "nthread": 1}, data, num_boost_round=2)

    np.testing.assert_allclose(of(booster).model.predict(numbers_only.to_numpy()), booster.predict(data))


def test_loaded_again_from_a_bundle(
    build_here: Callable[..., BuildReport], small_tree: Any, numbers_only: pd.DataFrame
) -> None:
    opened = open_bundle(build_here(small_tree, engine="native").path)

    assert (load_original(opened).predict(numbers_only) == small_tree.predict(numbers_only)).all()
