from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fairlead
from fairlead.bundle.build import BuildReport
from fairlead.errors import InvalidRecords
from fairlead.schema import Feature, Schema

Build = Callable[..., BuildReport]


@pytest.fixture(scope="module")
def mlflow() -> Any:
    """Import MLflow, which warns about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
    return mlflow


@pytest.mark.parametrize("engine", ["onnx", "native"])
def test_mlflow_predicts_the_same(
    mlflow: Any, build_here: Build, small_tree: Any, numbers_only: pd.DataFrame, engine: str
) -> None:
    path = build_here(small_tree, engine=engine, data=numbers_only).path

    found = mlflow.pyfunc.load_model(str(path)).predict(numbers_only)

    pd.testing.assert_frame_equal(found, fairlead.load(path).predict(numbers_only))
    assert found["prediction"].tolist() == small_tree.predict(numbers_only).tolist()


@pytest.mark.parametrize("engine", ["onnx", "native"])
def test_strings_integers_and_nulls(mlflow: Any, build_here: Build, people: pd.DataFrame, engine: str) -> None:
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]), ("passthrough", ["age", "children"])
    )
    X = people[["age", "children", "city", "plan"]]
    model = make_pipeline(encode, LogisticRegression(max_iter=5000)).fit(X, people["income"].isna())
    path = build_here(model, engine=engine, data=X).path

    found = mlflow.pyfunc.load_model(str(path)).predict(X)

    pd.testing.assert_frame_equal(found, fairlead.load(path).predict(X))
    expected = model.predict_proba(X)[:, 1]
    np.testing.assert_allclose([one["true"] for one in found["probabilities"]], expected, atol=1e-9)


def test_renamed_columns(mlflow: Any, build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    schema = Schema(features=tuple(Feature(name=f"new_{name}", column=name, type="float") for name in "abcd"))
    path = build_here(small_tree, schema=schema).path

    model = mlflow.pyfunc.load_model(str(path))

    renamed = numbers_only.rename(columns="new_{}".format)
    assert model.predict(renamed)["prediction"].tolist() == small_tree.predict(numbers_only).tolist()
    assert model.metadata.get_input_schema().input_names() == ["new_a", "new_b", "new_c", "new_d"]


def test_the_signature_is_enforced(mlflow: Any, build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(str(build_here(small_tree).path))

    with pytest.raises(mlflow.exceptions.MlflowException, match=r"Model is missing inputs \['b'\]"):
        model.predict(numbers_only.drop(columns="b"))
    with pytest.raises(mlflow.exceptions.MlflowException, match="Incompatible input types for column a"):
        model.predict(numbers_only.assign(a="text"))
    extra = numbers_only.assign(more=1)
    assert model.predict(extra)["prediction"].tolist() == small_tree.predict(numbers_only).tolist()


def test_integers_that_may_be_null(mlflow: Any, build_here: Build, people: pd.DataFrame) -> None:
    impute = make_column_transformer((OneHotEncoder(), ["city"]), (SimpleImputer(), ["age", "children"]))
    X = people[["age", "children", "city"]]
    features = tuple(
        Feature(name=name, type=kind, nullable=name == "children")
        for name, kind in (("age", "float"), ("children", "int"), ("city", "string"))
    )
    regressor = make_pipeline(impute, LinearRegression()).fit(X, people["income"].fillna(0))
    path = build_here(regressor, data=X, schema=Schema(features=features)).path
    model, predictor = mlflow.pyfunc.load_model(str(path)), fairlead.load(path)
    frame = X.head(2)

    # As pandas holds integers, and as Spark hands over bigint, int and double: with nulls and without.
    for children in (
        [3, 2],
        pd.array([3, 2], "Int64"),
        pd.array([2**53 + 1, None], "Int64"),
        pd.array([None, None], "Int64"),
        np.array([3, 2], np.int32),
        pd.array([3, None], "Int32"),
        [3.0, np.nan],
        pd.Series([3, None], dtype=object),
    ):
        given = frame.assign(children=children)
        pd.testing.assert_frame_equal(model.predict(given), predictor.predict(given))


def test_what_is_refused_is_told_in_our_words(
    mlflow: Any, build_here: Build, small_tree: Any, numbers_only: pd.DataFrame
) -> None:
    model = mlflow.pyfunc.load_model(str(build_here(small_tree, data=numbers_only).path))
    frame = numbers_only.head(3)

    with pytest.raises(InvalidRecords, match=r"b: expected a number, got null, at \$\[1\]\.b"):
        model.predict(frame.assign(b=[1.0, np.nan, 2.0]))


def test_the_example_goes_through(mlflow: Any, build_here: Build, small_tree: Any) -> None:
    path = str(build_here(small_tree).path)

    example = mlflow.models.Model.load(path).load_input_example(path)
    assert len(mlflow.pyfunc.load_model(path).predict(example)) == 1
