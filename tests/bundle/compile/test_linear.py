from __future__ import annotations

import resource
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model, svm
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

from fairlead.bundle.compile import steps
from fairlead.bundle.compile.columns import Indicator, Value
from fairlead.errors import NotCompilable

from .conftest import run_graph

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # LogisticRegressionCV and others tell what will change in a later scikit-learn.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

REGRESSORS = [
    linear_model.LinearRegression(),
    linear_model.LinearRegression(fit_intercept=False),
    linear_model.Ridge(),
    linear_model.RidgeCV(),
    linear_model.Lasso(0.01),
    linear_model.LassoCV(cv=3),
    linear_model.ElasticNet(0.01),
    linear_model.ElasticNetCV(cv=3),
    linear_model.BayesianRidge(),
    linear_model.ARDRegression(),
    linear_model.HuberRegressor(),
    linear_model.SGDRegressor(random_state=0),
    svm.LinearSVR(),
]
GENERALISED = [
    linear_model.PoissonRegressor(),
    linear_model.GammaRegressor(),
    linear_model.TweedieRegressor(power=1.5),
    linear_model.TweedieRegressor(power=0),
    linear_model.TweedieRegressor(power=0, link="log"),
]
CLASSIFIERS = [
    linear_model.LogisticRegression(),
    linear_model.LogisticRegression(fit_intercept=False, C=100),
    linear_model.LogisticRegressionCV(cv=3),
    *(
        linear_model.SGDClassifier(loss=loss, random_state=0)
        for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "huber")
    ),
    linear_model.Perceptron(random_state=0),
    linear_model.RidgeClassifier(),
    linear_model.RidgeClassifierCV(),
    svm.LinearSVC(),
]


def near(numbers: Any) -> Any:
    """Bring the columns to one scale; the extremes stay extreme."""
    return (numbers - [0, 5, -300, 0, 1e3]) / [1, 10, 1000, 0.01, 1]


@pytest.mark.parametrize("model", REGRESSORS, ids=str)
def test_regressor(bench: Any, numbers: Any, model: Any) -> None:
    X = near(numbers)
    model.fit(X[3:], X[3:] @ [1, -2, 0.5, 3, 0] + np.sin(X[3:, 0]))
    bench.predict(model, X)


@pytest.mark.parametrize("model", GENERALISED, ids=str)
def test_generalised_regressor(bench: Any, numbers: Any, model: Any) -> None:
    X = np.clip(near(numbers)[3:], -3, 3)
    bench.predict(model.fit(X, np.exp(X @ [0.1, -0.2, 0.05, 0.3, 0])), X)


@pytest.mark.parametrize("model", CLASSIFIERS, ids=str)
@pytest.mark.parametrize("classes", [[0, 1], ["no", "yes"], ["a", "b", "c"], [1.0, 2.0, 4.0, 9.0]], ids=str)
def test_classifier(bench: Any, numbers: Any, model: Any, classes: list[Any]) -> None:
    X = near(numbers)
    score = X[3:] @ [1, -2, 0.5, 3, 0] + np.random.default_rng(2).normal(size=len(X) - 3)
    places = np.searchsorted(np.quantile(score, np.linspace(0, 1, len(classes) + 1)[1:-1]), score)
    bench.predict(model.fit(X[3:], np.array(classes)[places]), X)


def test_liblinear_and_bool_labels(bench: Any, numbers: Any) -> None:
    X = near(numbers)
    bench.predict(linear_model.LogisticRegression(solver="liblinear").fit(X[3:], X[3:, 0] > 0), X)


def test_probability_of_far_rows_stays_exact(bench: Any) -> None:
    X = np.linspace(-700, 700, 1401)[:, None]
    model = linear_model.LogisticRegression().fit(X, X[:, 0] > 0.3)
    model.coef_[:], model.intercept_[:] = 1.0, 0.0
    _, found = bench.predicted(model, X)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(X), rtol=1e-14, atol=0)


def test_decision_on_the_line(bench: Any) -> None:
    """A decision of a billionth has a probability of 0.5, and the label of its sign."""
    X = np.array([[0.0], [1e-20], [-1e-20], [5e-324], [-0.0], [1.0]])
    model = linear_model.LogisticRegression().fit(X, [0, 1, 0, 1, 0, 1])
    model.coef_[:], model.intercept_[:] = 1.0, 0.0
    bench.predict(model, X)
    assert bench.predicted(model, X)[1]["label"].tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
def test_no_class_wins(bench: Any, loss: str) -> None:
    X = np.array([[0.0], [1.0], [2.0], [-800.0]] * 3)
    model = linear_model.SGDClassifier(loss=loss, random_state=0).fit(X, [0, 1, 2, 1] * 3)
    model.coef_[:], model.intercept_[:] = 1.0, -1.0
    bench.predict(model, X)
    assert bench.predicted(model, X)[1]["probabilities"][3] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"drop": "first"}, {"min_frequency": 15}], ids=str)
def test_one_hot_is_folded(bench: Any, mixed: Any, scale: bool, n_classes: int, settings: dict[str, Any]) -> None:
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="infrequent_if_exist", **settings), ["colour", "letter", "yes"]),
        (StandardScaler(), ["number"]),
        remainder="passthrough",
    )
    middle = [StandardScaler(with_mean=False)] if scale else []
    model = make_pipeline(encode, *middle, linear_model.LogisticRegression())
    model.fit(mixed, np.random.default_rng(3).integers(0, n_classes, len(mixed)))
    X = mixed.copy()
    X.loc[:30, "colour"] = "violet"
    X.loc[20:60, "letter"] = "never heard of"
    with pytest.warns(UserWarning, match="unknown categories") if "drop" in settings else nullcontext():
        bench.predict(model, X, {0: ["red", "green", "blue", "violet"], 1: list("hgfedcba")})


def test_bins_are_folded(bench: Any, numbers: Any) -> None:
    X = near(numbers)
    bins = KBinsDiscretizer(5, strategy="uniform")
    bench.predict(make_pipeline(bins, linear_model.Ridge()).fit(X[3:], X[3:, 0] ** 2), X)


@pytest.mark.parametrize("model", [linear_model.Ridge(), linear_model.LogisticRegression()], ids=str)
def test_centred_one_hot(bench: Any, mixed: Any, model: Any) -> None:
    X = mixed[["colour", "letter", "count"]]
    pipeline = make_pipeline(OneHotEncoder(sparse_output=False), StandardScaler(), model)
    bench.predict(pipeline.fit(X, mixed["yes"].astype(int)), X)


def test_thirteen_thousand_categories_in_little_memory(bench: Any) -> None:
    """26,000 one-hot columns of 100,000 rows would be 20 GB."""
    n_categories, n_rows = 13_000, 100_000
    names = [f"c{i:05}" for i in range(n_categories)]
    compilation, rows = bench.compilation(
        pd.DataFrame({"a": ["c00000"], "b": ["c00001"], "n": [0.5]}), {0: names, 1: names}
    )
    a, b, n = compilation.inputs
    columns = (*(Indicator(source, float(code)) for source in (a, b) for code in range(n_categories)), n)
    random = np.random.default_rng(0)
    model = linear_model.LogisticRegression().fit(np.eye(3), [0, 1, 1])
    model.coef_, model.intercept_ = random.normal(size=(1, len(columns))), np.array([0.25])
    prediction = steps.predict(model, columns, compilation)
    rows = np.column_stack([random.integers(-1, n_categories, (n_rows, 2)), random.normal(size=n_rows)]).astype(float)
    rows[random.random((n_rows, 3)) < 0.01] = np.nan
    rows[:, 2] = np.nan_to_num(rows[:, 2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert isinstance(a, Value)
    found = run_graph(a.tensor, {"p": prediction.probabilities}, rows)["p"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    weights = [np.append(side, 0.0) for side in np.split(model.coef_[0, :-1], 2)]
    wanted = 0.25 + model.coef_[0, -1] * rows[:, 2]
    for weight, codes in zip(weights, rows.T, strict=False):
        wanted += weight[np.nan_to_num(codes, nan=-1).astype(int)]
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-wanted)), rtol=1e-13)


def test_several_targets(bench: Any, numbers: Any) -> None:
    model = linear_model.LinearRegression().fit(numbers, numbers[:, :2])
    with pytest.raises(NotCompilable, match="LinearRegression: predicts more than one target"):
        bench.predicted(model, numbers)
    labels = (numbers[:, :2] > 0).astype(int)
    with pytest.raises(NotCompilable, match="several labels"):
        bench.predicted(linear_model.RidgeClassifier().fit(numbers, labels), numbers)


def test_infinite_weights(bench: Any, numbers: Any) -> None:
    model = linear_model.LinearRegression().fit(numbers, numbers[:, 0])
    model.coef_[2] = np.inf
    with pytest.raises(NotCompilable, match="weights that are not finite"):
        bench.predicted(model, numbers)


def test_sparse_weights(bench: Any, numbers: Any) -> None:
    X = near(numbers)
    bench.predict(linear_model.SGDClassifier(random_state=0).fit(X[3:], X[3:, 0] > 0).sparsify(), X)
