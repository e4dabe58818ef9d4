from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.compile.model import CompiledModel
from fairlead.errors import NotCompilable

Agree = Callable[..., CompiledModel]
Array = npt.NDArray[Any]


class MyScaler(StandardScaler):
    """A user's own class that may do anything."""


def last_two(frame: pd.DataFrame) -> list[str]:
    return list(frame.columns[-2:])


PICKS: dict[str, Any] = {
    "name": ["b", "d"],
    "one name": ["a"],
    "index": [0, 3],
    "index from the end": [-1, -3],
    "slice": slice(1, 3),
    "slice of all": slice(None),
    "slice by names": slice("b", "d"),
    "slice up to a name": slice(None, "c"),
    "slice from a name": slice("c", None),
    "mask": [True, False, False, True],
    "numpy mask": np.array([False, True, True, False]),
    "callable": last_two,
    "selector": make_column_selector(pattern="[ad]"),
    "nothing": [],
}


@pytest.mark.parametrize("remainder", ["passthrough", "drop"])
@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS.keys())
def test_picks(agree: Agree, numbers_only: pd.DataFrame, three: Array, pick: Any, remainder: str) -> None:
    members = [("scale", StandardScaler(), pick), ("last", "passthrough", ["d"])]
    encode = ColumnTransformer(members, remainder=remainder)

    agree(make_pipeline(encode, DecisionTreeClassifier(max_depth=5)).fit(numbers_only, three), numbers_only)


def test_remainder_of_its_own(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    encode = ColumnTransformer(
        [("drop", "drop", ["a"]), ("same", "passthrough", ["d"])], remainder=make_pipeline(MinMaxScaler())
    )

    agree(make_pipeline(encode, DecisionTreeClassifier(max_depth=5)).fit(numbers_only, three), numbers_only)


def test_the_order_of_picks_counts(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    encode = ColumnTransformer([("one", StandardScaler(), ["d", "a"]), ("two", MinMaxScaler(), ["c", "d"])])

    agree(make_pipeline(encode, LogisticRegression()).fit(numbers_only, three), numbers_only)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_sparse_threshold(agree: Agree, people: pd.DataFrame, threshold: float) -> None:
    encode = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        ],
        sparse_threshold=threshold,
    )

    agree(make_pipeline(encode, LogisticRegression(max_iter=1000)).fit(people, people["children"] > 2), people)


def test_nested_pipelines(agree: Agree, people: pd.DataFrame) -> None:
    numbers = Pipeline([("fill", Pipeline([("impute", SimpleImputer())])), ("scale", StandardScaler())])
    inner = ColumnTransformer([("numbers", numbers, ["age", "income"])], remainder="drop")
    words = ColumnTransformer([("words", OneHotEncoder(handle_unknown="ignore"), ["city"])])
    encode = ColumnTransformer(
        [("inner", inner, ["income", "age"]), ("words", Pipeline([("w", words)]), ["plan", "city"])]
    )
    forest = Pipeline([("none", "passthrough"), ("forest", RandomForestClassifier(5, max_depth=4, random_state=0))])
    model = Pipeline([("nothing", None), ("encode", encode), ("model", forest)])

    agree(model.fit(people, people["plan"]), people)


def test_functions_that_do_nothing(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    model = make_pipeline(FunctionTransformer(), StandardScaler(), LogisticRegression())

    agree(model.fit(numbers_only, three), numbers_only)


@pytest.mark.parametrize("weights", [None, {"scaled": 0.25}, {"scaled": 3, "words": 0.5, "same": 2.0}])
def test_union(agree: Agree, people: pd.DataFrame, weights: Any) -> None:
    union = FeatureUnion(
        [
            ("scaled", ColumnTransformer([("s", StandardScaler(), ["age"])])),
            ("words", ColumnTransformer([("w", OneHotEncoder(handle_unknown="ignore"), ["city", "plan"])])),
            ("gone", "drop"),
            ("same", ColumnTransformer([("p", "passthrough", ["children"])])),
        ],
        transformer_weights=weights,
    )
    y = people["age"] > 50

    agree(make_pipeline(union, LogisticRegression(max_iter=1000)).fit(people, y), people)
    agree(make_pipeline(union, RandomForestClassifier(5, random_state=0)).fit(people, y), people)


@pytest.mark.parametrize("search", [GridSearchCV, RandomizedSearchCV])
def test_searches(agree: Agree, numbers_only: pd.DataFrame, three: Array, search: Any) -> None:
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    options = {"n_iter": 2} if search is RandomizedSearchCV else {}
    found = search(model, {"decisiontreeclassifier__max_depth": [2, 4]}, cv=2, **options).fit(numbers_only, three)

    agree(found, numbers_only)
    agree(make_pipeline(MinMaxScaler(), found).fit(numbers_only, three), numbers_only)


def test_a_subclass_is_not_the_class(bench: Any, numbers_only: pd.DataFrame, three: Array) -> None:
    model = Pipeline([("scale", MyScaler()), ("model", LogisticRegression())]).fit(numbers_only, three)
    compilation, _ = bench.compilation(numbers_only)
    from fairlead.bundle.compile import steps

    with pytest.raises(NotCompilable, match=r"^scale: MyScaler: has no compiled form$") as caught:
        steps.predict(model, compilation.inputs, compilation)
    assert caught.value.step == "scale: MyScaler"


def test_a_refused_step_is_named_however_deep(bench: Any, numbers_only: pd.DataFrame, three: Array) -> None:
    encode = ColumnTransformer([("numbers", Pipeline([("logs", FunctionTransformer(np.log1p))]), ["d"])])
    model = Pipeline([("encode", encode), ("my own", MyScaler()), ("model", LogisticRegression())])
    model.steps[1] = ("my own", MyScaler())

    with pytest.raises(NotCompilable, match=r"^my own: MyScaler"):
        bench.predict(Pipeline([("p", model)]).fit(numbers_only, three), numbers_only)


def test_a_column_that_is_no_feature(bench: Any, numbers_only: pd.DataFrame, three: Array) -> None:
    scale = StandardScaler().set_output(transform="pandas")
    encode = ColumnTransformer([("some", MinMaxScaler(), ["a"])])
    model = Pipeline([("scale", scale), ("encode", encode), ("model", LogisticRegression())])

    with pytest.raises(NotCompilable, match="some: picks the column 'a', which is no feature of the schema"):
        bench.predict(Pipeline([("p", model)]).fit(numbers_only, three), numbers_only)
