from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.facts import features_of
from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.originals import original_of
from fairlead.errors import SchemaError
from fairlead.schema import Feature


def facts(model: Any) -> list[Feature]:
    return features_of(original_of(LoadedModel(model, "pickle", {})))


def test_names(numbers_only: pd.DataFrame, three: Any) -> None:
    named = LogisticRegression(max_iter=5000).fit(numbers_only[["a", "d"]], three)
    assert [feature.name for feature in facts(named)] == ["a", "d"]
    bare = make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(numbers_only.to_numpy(), three)
    assert facts(bare) == [Feature(name=f"x{i}", type="float") for i in range(4)]


def test_a_searchs_own(numbers_only: pd.DataFrame, three: Any) -> None:
    search = GridSearchCV(make_pipeline(StandardScaler(), DecisionTreeClassifier()), {}, cv=2)

    assert [feature.name for feature in facts(search.fit(numbers_only, three))] == ["a", "b", "c", "d"]


def test_dict_vectorizers() -> None:
    records = [{"b": "x", "a": 1.0, "flag": True}, {"b": "y=z", "a": 2.0, "flag": False}]
    found = facts(make_pipeline(DictVectorizer(), LogisticRegression()).fit(records, [0, 1]))

    assert found == [
        Feature(name="a", type="float"),
        Feature(name="b", type="string", categories=("x", "y=z")),
        Feature(name="flag", type="float"),
    ]


def test_a_name_that_is_number_and_category() -> None:
    model = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1.0}, {"a": "x"}], [0, 1])

    with pytest.raises(SchemaError, match="a: the DictVectorizer learned it both as a number and as a category"):
        facts(model)


@pytest.mark.parametrize("pick", [["city", "plan"], [3, 4], slice("city", "plan"), slice(3, 5), [-2, -1]])
@pytest.mark.parametrize("unknown", ["error", "ignore"])
def test_categories(people: pd.DataFrame, pick: Any, unknown: str) -> None:
    encode = make_column_transformer((OneHotEncoder(handle_unknown=unknown), pick), remainder="drop")
    found = facts(make_pipeline(encode, DecisionTreeClassifier()).fit(people, people["children"]))

    assert [feature.name for feature in found] == list(people)
    city = found[3]
    assert (city.type, city.categories) == ("string", ("Bergen", "Bodø", "Oslo", "Tromsø"))
    assert city.closed == (unknown == "error")
    assert found[0] == Feature(name="age", type="float")


@pytest.mark.parametrize(
    ("values", "kind", "categories"),
    [
        (np.array([True, False] * 5), "bool", (False, True)),
        (np.arange(10) % 2, "int", (0, 1)),
        (np.arange(10) % 2 / 2, "float", (0.0, 0.5)),
        (np.array(["a", "b"] * 5, dtype=object), "string", ("a", "b")),
    ],
)
def test_types_of_categories(values: Any, kind: str, categories: tuple[Any, ...]) -> None:
    X = pd.DataFrame({"x": values})
    (feature,) = facts(make_pipeline(OrdinalEncoder(), DecisionTreeClassifier()).fit(X, np.arange(10) % 2))

    assert (feature.type, feature.categories) == (kind, categories)
    assert [type(one) for one in feature.categories or ()] == [type(one) for one in categories]


def test_null_as_a_category() -> None:
    X = pd.DataFrame({"x": pd.Series(["a", None, "b", "a"], dtype="object")})
    (feature,) = facts(make_pipeline(OneHotEncoder(), DecisionTreeClassifier()).fit(X, [0, 1, 0, 1]))

    assert (feature.categories, feature.nullable) == (("a", "b"), True)


def test_who_takes_null(people: pd.DataFrame) -> None:
    X, y = people[["age", "income"]], people["children"]

    def nullable(model: Any) -> list[bool]:
        return [feature.nullable for feature in facts(model.fit(X, y))]

    assert nullable(make_pipeline(SimpleImputer(), DecisionTreeClassifier())) == [True, True]
    assert nullable(make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=2))) == [True, True]
    assert nullable(xgboost.XGBRegressor(n_estimators=2, n_jobs=1)) == [True, True]
    assert nullable(RandomForestClassifier(2)) == [False, False]  # it learned null and does not tell
    impute_one = make_column_transformer((SimpleImputer(), ["income"]), remainder="passthrough")
    assert nullable(make_pipeline(impute_one, DecisionTreeClassifier())) == [False, True]
    X = X.fillna(0)
    assert nullable(DecisionTreeClassifier()) == [False, False]


def test_unions(people: pd.DataFrame) -> None:
    union = FeatureUnion([("words", OneHotEncoder()), ("codes", OrdinalEncoder())])
    found = facts(make_pipeline(union, DecisionTreeClassifier()).fit(people[["city"]], people["children"]))

    assert found[0].categories == ("Bergen", "Bodø", "Oslo", "Tromsø")


def test_boosters_name_their_features(numbers_only: pd.DataFrame, amount: Any) -> None:
    for X, names in ((numbers_only, ["a", "b", "c", "d"]), (numbers_only.to_numpy(), ["x0", "x1", "x2", "x3"])):
        booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(X, amount), num_boost_round=2)
        assert [feature.name for feature in facts(booster)] == names
