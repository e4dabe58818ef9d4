from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from fairlead.bundle.compile.model import CompiledModel
from fairlead.errors import NotCompilable

Agree = Callable[..., CompiledModel]
Array = npt.NDArray[Any]
FORESTS = {"n_estimators": 7, "max_depth": 5, "random_state": 0}
CLASSIFIERS = [
    (DecisionTreeClassifier, {"max_depth": 6, "random_state": 0}),
    (ExtraTreeClassifier, {"max_depth": 6, "random_state": 0}),
    (RandomForestClassifier, FORESTS),
    (ExtraTreesClassifier, FORESTS),
    (GradientBoostingClassifier, FORESTS),
    (HistGradientBoostingClassifier, {"max_iter": 7, "random_state": 0}),
]
REGRESSORS = [
    (DecisionTreeRegressor, {"max_depth": 6, "random_state": 0}),
    (ExtraTreeRegressor, {"max_depth": 6, "random_state": 0}),
    (RandomForestRegressor, FORESTS),
    (ExtraTreesRegressor, FORESTS),
    (GradientBoostingRegressor, FORESTS),
    (HistGradientBoostingRegressor, {"max_iter": 7, "random_state": 0}),
]
MISSING = [
    (cls, options)
    for cls, options in (*CLASSIFIERS, *REGRESSORS)
    if cls not in (GradientBoostingClassifier, GradientBoostingRegressor)
]


def labels(three: Array, kind: str) -> Array:
    if kind == "two":
        return np.asarray(three > 0).astype(int)
    if kind == "bools":
        return np.asarray(three > 0)
    if kind == "strings":
        return np.array(["low", "middle", "high"])[three]
    return three + 5


@pytest.mark.parametrize("kind", ["two", "three", "strings", "bools"])
@pytest.mark.parametrize(("cls", "options"), CLASSIFIERS)
def test_classifiers(agree: Agree, numbers_only: pd.DataFrame, three: Array, cls: Any, options: Any, kind: str) -> None:
    model = cls(**options).fit(numbers_only, labels(three, kind))

    compiled = agree(model, numbers_only)

    wanted = {"two": (0, 1), "three": (5, 6, 7), "strings": ("high", "low", "middle"), "bools": (False, True)}
    assert compiled.classes == wanted[kind]
    assert type(compiled.classes[0]) is {"two": int, "three": int, "strings": str, "bools": bool}[kind]


@pytest.mark.parametrize(("cls", "options"), REGRESSORS)
def test_regressors(agree: Agree, numbers_only: pd.DataFrame, amount: Array, cls: Any, options: Any) -> None:
    agree(cls(**options).fit(numbers_only, amount), numbers_only, tolerance=1e-12)


@pytest.mark.parametrize(("cls", "options"), MISSING)
def test_learned_nan(agree: Agree, people: pd.DataFrame, cls: Any, options: Any) -> None:
    X = people[["age", "income", "children"]]
    y = people["income"].isna() | (people["age"] > 60)

    agree(cls(**options).fit(X, y.astype(int)), X)


@pytest.mark.parametrize(("cls", "options"), [*CLASSIFIERS, *REGRESSORS])
def test_one_hot_splits_are_folded(agree: Agree, people: pd.DataFrame, cls: Any, options: Any) -> None:
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city", "plan"]),
        ("passthrough", ["age"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["children"]),
    )
    y = (people["city"].isin(["Oslo", "Bodø"]) ^ (people["plan"] == "gold")).astype(int) + (people["age"] > 50)

    agree(make_pipeline(encode, cls(**options)).fit(people, y), people)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("cls", "options"), CLASSIFIERS[2:5])
def test_dict_vectorizer_in_front(agree: Agree, people: pd.DataFrame, cls: Any, options: Any, sparse: bool) -> None:
    X = people[["age", "city", "plan"]]
    y = (people["city"] == "Oslo") ^ (people["age"] > 50)
    vectorizer = DictVectorizer(sparse=sparse)
    model = cls(**options).fit(vectorizer.fit_transform(X.to_dict("records")), y)

    agree(model, X, vectorizer=vectorizer)


def test_scaled_one_hot(agree: Agree, people: pd.DataFrame) -> None:
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    model = make_pipeline(one_hot, StandardScaler(), RandomForestClassifier(**FORESTS))
    X = people[["city", "plan"]]

    agree(model.fit(X, people["children"]), X)


def test_many_categories(agree: Agree) -> None:
    random = np.random.default_rng(0)
    X = pd.DataFrame({"id": random.choice([f"item {i}" for i in range(150)], size=1500)})
    y = X["id"].str[5:].astype(int) % 3
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), RandomForestClassifier(5, random_state=0))

    agree(model.fit(X, y), X)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize(("cls", "options"), [CLASSIFIERS[0], CLASSIFIERS[2], CLASSIFIERS[4], REGRESSORS[2]])
def test_neighbours_of_every_threshold(
    agree: Agree, numbers_only: pd.DataFrame, three: Array, cls: Any, options: Any, scale: bool
) -> None:
    members = (StandardScaler(), cls(**options)) if scale else (cls(**options),)
    model = make_pipeline(*members).fit(numbers_only, three)
    compiled = agree(model, numbers_only)
    assert all(compiled.thresholds[place] for place in range(4))

    rows = []
    base = numbers_only.iloc[0].to_numpy()
    for place, points in compiled.thresholds.items():
        single = np.array(points, dtype=np.float32)
        for side in (single, np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))):
            for point in side:
                row = base.copy()
                row[place] = point
                rows.append(row)

    agree(model, pd.DataFrame(rows, columns=numbers_only.columns))


@pytest.mark.parametrize(("cls", "options"), [*CLASSIFIERS, *REGRESSORS])
@pytest.mark.parametrize("classes", [2, 3])
def test_depth_zero(agree: Agree, cls: Any, options: Any, classes: int) -> None:
    X = pd.DataFrame({"same": np.ones(90), "too": np.zeros(90)})

    agree(cls(**options).fit(X, np.arange(90) % classes), X, tolerance=1e-7)


def test_exponential_loss(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    model = GradientBoostingClassifier(loss="exponential", **FORESTS).fit(numbers_only, three > 1)

    agree(model, numbers_only, tolerance=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
def test_gradient_boosting_losses(agree: Agree, numbers_only: pd.DataFrame, amount: Array, loss: str) -> None:
    agree(GradientBoostingRegressor(loss=loss, **FORESTS).fit(numbers_only, amount), numbers_only, tolerance=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "gamma", "poisson", "quantile"])
def test_histogram_losses(agree: Agree, numbers_only: pd.DataFrame, amount: Array, loss: str) -> None:
    model = HistGradientBoostingRegressor(loss=loss, max_iter=7, quantile=0.8 if loss == "quantile" else None)

    agree(model.fit(numbers_only, amount), numbers_only, tolerance=1e-12)


def test_starting_from_zero(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    agree(GradientBoostingClassifier(init="zero", **FORESTS).fit(numbers_only, three), numbers_only)


def test_early_stopping(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    model = HistGradientBoostingClassifier(max_iter=50, early_stopping=True, n_iter_no_change=2, random_state=0)

    agree(model.fit(numbers_only, three), numbers_only)
    assert model.n_iter_ < 50


def test_ties_go_to_the_same_class(agree: Agree) -> None:
    X = pd.DataFrame({"x": np.repeat(np.arange(6.0), 20), "y": np.tile(np.arange(4.0), 30)})

    agree(RandomForestClassifier(10, max_depth=2, random_state=0).fit(X, np.arange(120) % 2), X)


@pytest.mark.parametrize("cls", [DecisionTreeClassifier, RandomForestClassifier, DecisionTreeRegressor])
def test_several_outputs_are_refused(bench: Any, numbers_only: pd.DataFrame, three: Array, cls: Any) -> None:
    model = cls().fit(numbers_only, np.column_stack([three, three]))

    with pytest.raises(NotCompilable, match=f"{cls.__name__}: predicts more than one output"):
        bench.predict(model, numbers_only)


def test_an_init_of_its_own_is_refused(bench: Any, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(numbers_only, amount)

    with pytest.raises(NotCompilable, match=r"starts from an estimator of its own \(LinearRegression\)"):
        bench.predict(model, numbers_only)


def test_categorical_splits_are_refused(bench: Any) -> None:
    X = pd.DataFrame({"kind": np.arange(100) % 3, "x": np.arange(100.0)})
    model = HistGradientBoostingRegressor(categorical_features=[0], max_iter=2).fit(X, X["kind"])

    with pytest.raises(NotCompilable, match="splits on categorical features"):
        bench.predict(model, X)


def test_the_one_hot_matrix_is_never_made(agree: Agree, people: pd.DataFrame) -> None:
    encode = ColumnTransformer([("city", OneHotEncoder(handle_unknown="ignore"), ["city"])])
    model = make_pipeline(encode, DecisionTreeClassifier(random_state=0)).fit(people, people["plan"])

    graph = agree(model, people).graph

    assert b"TreeEnsemble" in graph
    assert b"Equal" not in graph
