from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairlead.errors import NotCompilable

METRICS = [
    {},
    {"p": 1},
    {"p": 3},
    {"metric": "euclidean"},
    {"metric": "manhattan"},
    {"metric": "cityblock"},
]


def scaled(numbers: Any) -> Any:
    return StandardScaler().fit_transform(numbers[3:])


@pytest.mark.parametrize("metric", METRICS, ids=str)
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree", "brute"])
def test_neighbors(bench: Any, numbers: Any, metric: dict[str, Any], weights: str, algorithm: str) -> None:
    X = scaled(numbers)
    rows = X * 1.01 if algorithm == "brute" else X  # half of them training rows, at no distance
    settings = {"weights": weights, "algorithm": algorithm, **metric}
    y = np.array(["a", "b", "c"])[np.random.default_rng(0).integers(0, 3, len(X))]
    bench.predict(KNeighborsClassifier(**settings).fit(X[:300], y[:300]), rows)
    bench.predict(KNeighborsRegressor(7, **settings).fit(X[:300], X[:300, 0] ** 2), rows)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_many_features(bench: Any, weights: str) -> None:
    """Above 15 features scikit-learn compares all rows, by an expansion of the distance."""
    X = np.random.default_rng(0).normal(size=(600, 20)) * 100
    bench.predict(KNeighborsClassifier(weights=weights).fit(X[:400], X[:400, 0] > 0), X[400:])


def test_closer_than_the_expansion_sees(bench: Any) -> None:
    random = np.random.default_rng(0)
    X = 1e8 + random.normal(size=(600, 3))
    bench.predict(KNeighborsRegressor(weights="distance").fit(X[:300], X[:300, 0]), X)


def test_whole_numbers_of_one_neighbor(bench: Any) -> None:
    X = np.random.default_rng(0).permutation(np.arange(600.0)).reshape(-1, 1) * 3
    bench.predict(KNeighborsClassifier(1).fit(X[:300].astype(int), X[:300, 0] % 2), X + 1)


def test_one_hot(bench: Any, mixed: Any) -> None:
    X = mixed[["colour", "letter", "yes", "number"]]
    encode = make_column_transformer((OneHotEncoder(), ["colour", "letter", "yes"]), remainder="passthrough")
    bench.predict(make_pipeline(encode, KNeighborsClassifier(4)).fit(X.iloc[:300], mixed["count"][:300]), X)


@pytest.mark.parametrize("settings", [{}, {"n_neighbors": 1}, {"p": 1}, {"weights": "distance"}], ids=str)
def test_ties_are_refused(bench: Any, settings: dict[str, Any]) -> None:
    X = np.random.default_rng(0).integers(0, 10, size=(600, 3)).astype(float)
    X, places = np.unique(X, axis=0, return_index=True)
    with pytest.raises(NotCompilable, match="equally far"):
        bench.predicted(KNeighborsClassifier(**settings).fit(X, places % 2), X)


def test_of_equally_near_the_first_is_taken(bench: Any) -> None:
    X = np.array([[0.0], [2.0], [4.0]])
    model = KNeighborsRegressor(1, algorithm="brute").fit(X, [1.0, 2.0, 3.0])
    bench.predict(model, np.array([[1.0], [3.0]]))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"weights": lambda d: 1 / (1 + d)}, "weights are a function"),
        ({"metric": lambda a, b: abs(a - b).sum()}, "metric"),
        ({"metric": "cosine"}, "metric 'cosine' is not known"),
        ({"metric_params": {"w": np.ones(5)}}, "its metric has parameters: w"),
    ],
)
def test_not_compilable(bench: Any, numbers: Any, settings: dict[str, Any], reason: str) -> None:
    X = scaled(numbers)
    with pytest.raises(NotCompilable, match=reason):
        bench.predicted(KNeighborsRegressor(**settings).fit(X, X[:, 0]), X)


def test_several_targets(bench: Any, numbers: Any) -> None:
    X = scaled(numbers)
    with pytest.raises(NotCompilable, match="more than one target"):
        bench.predicted(KNeighborsRegressor().fit(X, X[:, :2]), X)
    with pytest.raises(NotCompilable, match="more than one target"):
        bench.predicted(KNeighborsClassifier().fit(X, (X[:, :2] > 0).astype(int)), X)
