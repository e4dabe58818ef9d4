from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from fairlead.bundle.fitted import check_fitted
from fairlead.errors import NotFitted

FRAME = pd.DataFrame({"age": np.arange(30.0), "city": ["Oslo", "Rome", "Bonn"] * 10})
Y = [0, 1] * 15


class Doubler(TransformerMixin, BaseEstimator):
    """A user's own step without fitted attributes."""

    def fit(self, X: Any, y: Any = None) -> Doubler:
        return self

    def transform(self, X: Any) -> Any:
        return X * 2


def pipeline() -> Any:
    inner = make_pipeline(Doubler(), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", inner, ["age"]), ("cities", OneHotEncoder(), ["city"]), ("rest", "drop", [])],
        remainder="passthrough",
    )
    return Pipeline([("prep", columns), ("nothing", "passthrough"), ("model", LogisticRegression())])


def test_cross_val_score_leaves_the_pipeline_unfitted() -> None:
    # From the fifth of the documents the product is made from: "ColumnTransformer instance not fitted yet".
    model = pipeline()
    cross_val_score(model, FRAME, Y, cv=2)
    with pytest.raises(NotFitted, match=r"step prep: this ColumnTransformer instance is not fitted yet") as caught:
        check_fitted(model)
    assert "return_estimator=True" in str(caught.value)


def test_what_cross_validate_returns_is_fitted() -> None:
    for model in cross_validate(pipeline(), FRAME, Y, cv=2, return_estimator=True)["estimator"]:
        check_fitted(model)


@pytest.mark.parametrize(
    "model",
    [
        pipeline().fit(FRAME, Y),
        LogisticRegression().fit(FRAME[["age"]], Y),
        RandomForestClassifier(2).fit(FRAME[["age"]], Y),
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2).fit(FRAME[["age"]], Y),
        VotingClassifier([("a", LogisticRegression())]).fit(FRAME[["age"]], Y),
        DictVectorizer().fit([{"a": 1}]),
        make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(FRAME[["age"]], Y),
        FeatureUnion([("a", StandardScaler()), ("b", "passthrough")]).fit(FRAME[["age"]]),
        Doubler(),
        b"an ONNX graph",
        object(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_fitted_models_and_foreign_objects_pass(model: Any) -> None:
    check_fitted(model)


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (LogisticRegression(), "^this LogisticRegression"),
        (DictVectorizer(), "^this DictVectorizer"),
        (GridSearchCV(LogisticRegression(), {}), "^this GridSearchCV"),
        (Pipeline([("scale", StandardScaler().fit(FRAME[["age"]])), ("model", LogisticRegression())]), "^step model: "),
        (make_pipeline(FeatureUnion([("a", StandardScaler())]), LogisticRegression()), "^step featureunion → a: "),
    ],
)
def test_an_unfitted_step_is_named(model: Any, step: str) -> None:
    with pytest.raises(NotFitted, match=step):
        check_fitted(model)


def test_a_step_swapped_after_fitting_is_found() -> None:
    model = pipeline().fit(FRAME, Y)
    model.named_steps["prep"].transformers_[0][1].steps[1] = ("standardscaler", StandardScaler())
    with pytest.raises(NotFitted, match="step prep → numbers → standardscaler: this StandardScaler"):
        check_fitted(model)


@pytest.mark.parametrize(("module", "kind"), [("xgboost", "XGBClassifier"), ("lightgbm", "LGBMClassifier")])
def test_boosters_are_asked_too(module: str, kind: str) -> None:
    model = getattr(importlib.import_module(module), kind)(n_estimators=2)
    with pytest.raises(NotFitted, match=f"this {kind}"):
        check_fitted(model)
    check_fitted(model.fit(FRAME[["age"]], Y))
