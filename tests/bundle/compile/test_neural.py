from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairlead.errors import NotCompilable

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("layers", [(7,), (8, 5)])
def test_classifier(bench: Any, numbers: Any, activation: str, n_classes: int, layers: tuple[int, ...]) -> None:
    X = numbers[3:]
    y = np.array(["a", "b", "c"])[np.random.default_rng(0).integers(0, n_classes, len(X))]
    network = MLPClassifier(layers, activation=activation, max_iter=20, random_state=0)
    bench.predict(make_pipeline(StandardScaler(), network).fit(X, y), X)
    bench.predict(make_pipeline(StandardScaler(), network).fit(X, y), numbers[:3])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_regressor(bench: Any, numbers: Any, activation: str, loss: str) -> None:
    X = StandardScaler().fit_transform(numbers[3:])
    network = MLPRegressor(loss, (9, 4), activation=activation, max_iter=20, random_state=0)
    bench.predict(network.fit(X, X[:, 0] ** 2), X)


def test_one_hot(bench: Any, mixed: Any) -> None:
    X = mixed[["colour", "letter", "count"]]
    network = MLPClassifier((6,), max_iter=20, random_state=0)
    bench.predict(make_pipeline(OneHotEncoder(), network).fit(X, mixed["yes"]), X)


def test_several_targets(bench: Any, numbers: Any) -> None:
    X = StandardScaler().fit_transform(numbers)
    regressor = MLPRegressor(hidden_layer_sizes=(3,), max_iter=3).fit(X, X[:, :2])
    with pytest.raises(NotCompilable, match="MLPRegressor: predicts more than one target"):
        bench.predicted(regressor, X)
    classifier = MLPClassifier((3,), max_iter=3).fit(X, (X[:, :2] > 0).astype(int))
    with pytest.raises(NotCompilable, match="several labels"):
        bench.predicted(classifier, X)
