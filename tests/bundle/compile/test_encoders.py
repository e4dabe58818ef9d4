from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from fairlead.bundle.compile.columns import Indicator
from fairlead.errors import NotCompilable

CATEGORIES = {0: ["green", "violet", "red", "blue"], 1: list("zhgfedcba")}

ONE_HOT = [
    {},
    {"drop": "first"},
    {"drop": "if_binary"},
    {"drop": ["green", "c", 3, True]},
    {"min_frequency": 15},
    {"min_frequency": 0.05, "drop": "first"},
    {"max_categories": 3},
    {"max_categories": 2, "drop": "if_binary"},
    {"max_categories": 1},
    {"min_frequency": 15, "drop": ["green", "b", 3, True]},
    {"min_frequency": 0.9},
]


def with_unseen(mixed: pd.DataFrame) -> pd.DataFrame:
    X = mixed.iloc[:, :4].copy()
    X.loc[:20, "colour"] = "violet"
    X.loc[21:30, "colour"] = "never heard of"
    X.loc[10:40, "letter"] = "z"
    X.loc[30:60, "count"] = 99
    return X


@pytest.mark.parametrize("settings", ONE_HOT, ids=str)
@pytest.mark.parametrize("sparse_output", [True, False])
@pytest.mark.parametrize("handle_unknown", ["error", "ignore", "infrequent_if_exist", "warn"])
def test_one_hot(bench: Any, mixed: Any, settings: dict[str, Any], sparse_output: bool, handle_unknown: str) -> None:
    encoder = OneHotEncoder(**settings, sparse_output=sparse_output, handle_unknown=handle_unknown)
    X = mixed.iloc[:, :4]
    encoder.fit(X)
    bench.transform(encoder, X, CATEGORIES)
    columns, compilation, _ = bench.columns(encoder, X, CATEGORIES)
    assert len(columns) == len(encoder.get_feature_names_out())
    assert all(isinstance(column, Indicator) for column in columns)
    assert compilation.sparse == sparse_output
    if handle_unknown != "error":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            bench.transform(encoder, with_unseen(mixed), CATEGORIES)


@pytest.mark.parametrize("handle_unknown", ["ignore", "infrequent_if_exist"])
@pytest.mark.parametrize(
    "settings", [{}, {"min_frequency": 40}, {"max_categories": 3}, {"min_frequency": 100}], ids=str
)
def test_one_hot_of_numbers_with_nulls(bench: Any, handle_unknown: str, settings: dict[str, Any]) -> None:
    random = np.random.default_rng(5)
    X = random.choice([0.1, 0.2, 0.3, 2.0, -1.5, np.nan], size=(600, 3), p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    X[:, 1] = np.where(np.isnan(X[:, 1]), 0.1, X[:, 1])
    encoder = OneHotEncoder(handle_unknown=handle_unknown, **settings).fit(X)
    X[:9] = np.nextafter(0.3, 1)
    X[9:12] = np.nan
    X[12:15] = 0.1 + 0.2
    bench.transform(encoder, X)


@pytest.mark.parametrize("settings", [{}, {"min_frequency": 40}, {"drop": "first"}], ids=str)
def test_one_hot_of_none(bench: Any, mixed: Any, settings: dict[str, Any]) -> None:
    X = mixed[["letter"]].astype(object)
    X = X.where(X.notna(), None)
    bench.transform(OneHotEncoder(**settings).fit(X), X)


def test_one_hot_null_unseen_in_training(bench: Any, mixed: Any) -> None:
    encoder = OneHotEncoder(handle_unknown="ignore").fit(mixed[["letter"]].dropna())
    bench.transform(encoder, mixed[["letter"]])


def test_one_hot_notes_the_numbers(bench: Any, mixed: Any) -> None:
    _, compilation, _ = bench.columns(OneHotEncoder().fit(mixed[["count"]]), mixed[["count"]])
    assert compilation.thresholds[0] == [0, 1, 2, 3, 4]


def test_one_hot_of_a_category_outside_the_schema(bench: Any, mixed: Any) -> None:
    encoder = OneHotEncoder().fit(mixed[["colour"]])
    with pytest.raises(NotCompilable, match="OneHotEncoder: column 0: its category 'red'"):
        bench.columns(encoder, mixed[["colour"]], {0: ["green", "blue"]})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"handle_unknown": "use_encoded_value", "unknown_value": -1},
        {"handle_unknown": "use_encoded_value", "unknown_value": np.nan},
        {"handle_unknown": "use_encoded_value", "unknown_value": -1, "encoded_missing_value": -2},
        {"encoded_missing_value": 77, "dtype": np.int64},
        {"handle_unknown": "use_encoded_value", "unknown_value": 99, "min_frequency": 15},
        {"handle_unknown": "use_encoded_value", "unknown_value": 99, "max_categories": 3, "encoded_missing_value": 50},
        {"max_categories": 1},
        {"dtype": np.float32},
    ],
    ids=str,
)
def test_ordinal(bench: Any, mixed: Any, settings: dict[str, Any]) -> None:
    X = mixed.iloc[:, :4]
    encoder = OrdinalEncoder(**settings).fit(X)
    bench.transform(encoder, X, CATEGORIES)
    if "handle_unknown" in settings:
        bench.transform(encoder, with_unseen(mixed), CATEGORIES)


@pytest.mark.parametrize("unknown", [-1, np.nan])
def test_ordinal_of_numbers_with_nulls(bench: Any, unknown: float) -> None:
    random = np.random.default_rng(5)
    X = random.choice([0.1, 0.2, 0.3, 2.0, -1.5, np.nan], size=(600, 3))
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown).fit(X)
    X[:9] = np.nextafter(0.3, 1)
    bench.transform(encoder, X)


def test_ordinal_in_the_order_given(bench: Any, mixed: Any) -> None:
    encoder = OrdinalEncoder(categories=[["red", "blue", "green"]]).fit(mixed[["colour"]])
    bench.transform(encoder, mixed[["colour"]], CATEGORIES)


def test_ordinal_unknown_is_nan_where_the_original_raises(bench: Any, mixed: Any) -> None:
    encoder = OrdinalEncoder().fit(mixed[["colour"]])
    mixed["colour"] = "violet"
    assert np.isnan(bench.transformed(encoder, mixed[["colour"]], CATEGORIES)).all()
