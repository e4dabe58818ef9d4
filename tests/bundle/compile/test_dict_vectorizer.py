from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from fairlead.bundle.compile.model import CompiledModel, compile_model
from fairlead.errors import NotCompilable
from fairlead.schema import Feature, Schema

Agree = Callable[..., CompiledModel]


@pytest.fixture(scope="module")
def rides(people: pd.DataFrame) -> pd.DataFrame:
    return people[["plan", "age", "city", "children"]]


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_linear(agree: Agree, rides: pd.DataFrame, sparse: bool, sort: bool) -> None:
    vectorizer = DictVectorizer(sparse=sparse, sort=sort)
    model = Ridge().fit(vectorizer.fit_transform(rides.to_dict("records")), rides["age"] * 2)

    agree(model, rides, vectorizer=vectorizer)


@pytest.mark.parametrize("separator", ["=", ":", " is "])
def test_separators(agree: Agree, rides: pd.DataFrame, separator: str) -> None:
    model = make_pipeline(DictVectorizer(separator=separator), RandomForestClassifier(5, random_state=0))

    agree(model.fit(rides.to_dict("records"), rides["city"]), rides)


def test_values_that_hold_the_separator(agree: Agree) -> None:
    frame = pd.DataFrame({"url": [f"a?b={n % 4}" for n in range(80)], "n": np.arange(80.0)})
    model = make_pipeline(DictVectorizer(), LogisticRegression(max_iter=500))

    agree(model.fit(frame.to_dict("records"), frame["url"] == "a?b=2"), frame)


@pytest.mark.parametrize("scaler", [MaxAbsScaler(), StandardScaler(with_mean=False)])
def test_scaled(agree: Agree, rides: pd.DataFrame, scaler: Any) -> None:
    model = make_pipeline(DictVectorizer(), scaler, RandomForestClassifier(5, random_state=0))

    agree(model.fit(rides.to_dict("records"), rides["city"]), rides)


def test_a_feature_the_schema_lacks() -> None:
    model = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": "x"}, {"a": "y", "b": 1}], [0, 1])
    schema = Schema(features=(Feature(name="a", type="string", categories=("x", "y")),))

    with pytest.raises(NotCompilable, match="DictVectorizer: knows 'b', which the schema does not"):
        compile_model(model, schema)


def test_a_category_the_schema_lacks() -> None:
    model = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": "x"}, {"a": "y"}], [0, 1])
    schema = Schema(features=(Feature(name="a", type="string", categories=("x",)),))

    with pytest.raises(NotCompilable, match="DictVectorizer: knows 'a=y'"):
        compile_model(model, schema)


def test_only_as_the_first_step(bench: Any, rides: pd.DataFrame) -> None:
    vectorizer = DictVectorizer().fit(rides.to_dict("records"))
    compilation, _ = bench.compilation(rides)
    from fairlead.bundle.compile import steps

    with pytest.raises(NotCompilable, match="DictVectorizer: is not the first step"):
        steps.transform(vectorizer, compilation.inputs[:2], compilation)
