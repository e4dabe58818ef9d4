from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fairlead.errors import NotCompilable

DISCRETE = [
    MultinomialNB(),
    MultinomialNB(alpha=0.1, fit_prior=False),
    ComplementNB(),
    ComplementNB(norm=True),
    BernoulliNB(),
    BernoulliNB(binarize=1.5),
    BernoulliNB(binarize=None),
]


@pytest.mark.parametrize("n_classes", [1, 2, 4])
@pytest.mark.parametrize("smoothing", [1e-9, 0.1])
def test_gaussian(bench: Any, numbers: Any, n_classes: int, smoothing: float) -> None:
    X = numbers[3:]
    y = np.random.default_rng(1).integers(0, n_classes, len(X))
    X += y[:, None] * [1, 10, 1000, 0.01, 1]
    # Log likelihoods of thousands leave 1e-13 of a probability to chance.
    bench.predict(GaussianNB(var_smoothing=smoothing).fit(X, y), X, tolerance=1e-11)


def test_gaussian_far_away(bench: Any, numbers: Any) -> None:
    model = GaussianNB().fit(numbers[3:], numbers[3:, 0] > 0)
    bench.predict(model, numbers, tolerance=1e-9)


@pytest.mark.parametrize("model", DISCRETE, ids=str)
@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_discrete(bench: Any, model: Any, n_classes: int) -> None:
    random = np.random.default_rng(4)
    X = random.poisson(1.0, size=(600, 8)).astype(float)
    X = np.minimum(X, 1) if getattr(model, "binarize", 0) is None else X
    bench.predict(model.fit(X, random.integers(0, n_classes, 600)), X)


@pytest.mark.parametrize("model", [*DISCRETE, GaussianNB()], ids=str)
def test_one_hot(bench: Any, mixed: Any, model: Any) -> None:
    X = mixed[["colour", "letter", "yes"]]
    pipeline = make_pipeline(OneHotEncoder(sparse_output=False), model)
    bench.predict(pipeline.fit(X, mixed["count"]), X, tolerance=1e-11)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_weights(bench: Any) -> None:
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    for model in (MultinomialNB(alpha=0, force_alpha=True), BernoulliNB(alpha=0, force_alpha=True)):
        with pytest.raises(NotCompilable, match="not finite"):
            bench.predicted(model.fit(X, [0, 1]), X)
