from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fairlead.bundle.compile.model import CompiledModel
from fairlead.errors import NotCompilable

Agree = Callable[..., CompiledModel]
Array = npt.NDArray[Any]
SMALL: dict[str, Any] = {"n_estimators": 8, "num_leaves": 7, "n_jobs": 1, "verbose": -1, "random_state": 0}
RAW: dict[str, Any] = {"num_leaves": 7, "num_threads": 1, "verbose": -1, "seed": 0}


@pytest.fixture(scope="module")
def zeros(numbers_only: pd.DataFrame) -> pd.DataFrame:
    """Give numbers with many zeros and nulls."""
    random = np.random.default_rng(1)
    frame = numbers_only.copy()
    frame["b"] = frame["b"] - 1e4
    for column in frame:
        frame.loc[random.random(len(frame)) < 0.2, column] = 0.0
        frame.loc[random.random(len(frame)) < 0.1, column] = np.nan
    return frame


@pytest.mark.parametrize("strings", [False, True])
def test_two_classes(agree: Agree, numbers_only: pd.DataFrame, three: Array, strings: bool) -> None:
    y = np.where(three > 0, "yes", "no") if strings else three > 0

    agree(lightgbm.LGBMClassifier(**SMALL).fit(numbers_only, y), numbers_only, tolerance=1e-12)


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_three_classes(agree: Agree, numbers_only: pd.DataFrame, three: Array, objective: str) -> None:
    y = np.array(["low", "middle", "high"])[three]

    agree(lightgbm.LGBMClassifier(objective=objective, **SMALL).fit(numbers_only, y), numbers_only, tolerance=1e-12)


OBJECTIVES = ["regression", "regression_l1", "huber", "fair", "quantile", "mape", "poisson", "gamma", "tweedie"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_regressions(agree: Agree, numbers_only: pd.DataFrame, amount: Array, objective: str) -> None:
    agree(lightgbm.LGBMRegressor(objective=objective, **SMALL).fit(numbers_only, amount), numbers_only)


def test_square_root(agree: Agree, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = lightgbm.LGBMRegressor(reg_sqrt=True, **SMALL).fit(numbers_only, amount - amount.mean())

    assert (model.predict(numbers_only) < 0).any()
    agree(model, numbers_only, tolerance=1e-12)


@pytest.mark.parametrize("boosting", ["rf", "dart"])
@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_other_boosting(
    agree: Agree, numbers_only: pd.DataFrame, three: Array, amount: Array, boosting: str, n_classes: int
) -> None:
    options = SMALL | {"boosting_type": boosting, "subsample": 0.7, "subsample_freq": 1}
    if n_classes:
        model = lightgbm.LGBMClassifier(**options).fit(numbers_only, np.minimum(three, n_classes - 1))
    else:
        model = lightgbm.LGBMRegressor(**options).fit(numbers_only, amount)

    agree(model, numbers_only, tolerance=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"zero_as_missing": True}, {"use_missing": False}, {"zero_as_missing": True, "extra_trees": True}]
)
def test_missing(agree: Agree, zeros: pd.DataFrame, three: Array, options: dict[str, Any]) -> None:
    model = lightgbm.LGBMClassifier(**SMALL, **options).fit(zeros, three)
    edges = zeros.head(20).copy()
    edges["a"] = np.tile([0.0, -0.0, 1e-35, -1e-35, 2e-35, -2e-35, 1e-36, 1e-300, np.nan, 1.0], 2)

    agree(model, pd.concat([zeros, edges]), tolerance=1e-12)


def test_nan_where_none_was_learned(agree: Agree, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = lightgbm.LGBMRegressor(**SMALL).fit(numbers_only, amount)
    holes = numbers_only.copy()
    holes[holes > 0.5] = np.nan

    agree(model, holes, tolerance=1e-12)


def test_early_stopping(agree: Agree, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = lightgbm.LGBMRegressor(**SMALL | {"n_estimators": 60, "learning_rate": 0.9})
    early = [lightgbm.early_stopping(2, verbose=False)]
    model.fit(numbers_only[:300], amount[:300], eval_X=numbers_only[300:], eval_y=amount[300:], callbacks=early)

    assert model.best_iteration_ < 60
    agree(model, numbers_only, tolerance=1e-12)


def test_one_hot_in_front(agree: Agree, people: pd.DataFrame) -> None:
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city", "plan"]), ("passthrough", ["age"])
    )
    y = (people["city"] == "Oslo") ^ (people["age"] > 50)

    agree(make_pipeline(encode.set_output(transform="pandas"), lightgbm.LGBMClassifier(**SMALL)).fit(people, y), people)


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"objective": "regression"}, None),
        ({"objective": "binary"}, (0, 1)),
        ({"objective": "binary", "sigmoid": 2.5}, (0, 1)),
        ({"objective": "multiclass", "num_class": 3}, (0, 1, 2)),
        ({"objective": "cross_entropy"}, None),
    ],
)
def test_boosters(agree: Agree, numbers_only: pd.DataFrame, three: Array, options: Any, classes: Any) -> None:
    y = three if options["objective"] == "multiclass" else three > 0
    booster = lightgbm.train(RAW | options, lightgbm.Dataset(numbers_only, y), num_boost_round=6)

    assert agree(booster, numbers_only, tolerance=1e-12).classes == classes


def test_features_named_as_the_file_names_its_own(agree: Agree, numbers_only: pd.DataFrame, amount: Array) -> None:
    frame = numbers_only.set_axis(["threshold", "leaf_value", "num_cat", "left_child"], axis=1)

    agree(lightgbm.LGBMRegressor(**SMALL).fit(frame, amount), frame, tolerance=1e-12)


def test_no_split_at_all(agree: Agree, numbers_only: pd.DataFrame) -> None:
    model = lightgbm.LGBMRegressor(**SMALL).fit(numbers_only, np.full(len(numbers_only), 3.0))

    agree(model, numbers_only, tolerance=1e-12)


def test_categorical_splits_are_refused(bench: Any) -> None:
    X = np.column_stack([np.arange(200) % 5, np.arange(200.0)])
    model = lightgbm.LGBMRegressor(**SMALL, min_data_per_group=1, cat_smooth=0)
    model.fit(X, np.sin(X[:, 0] * 7), categorical_feature=[0])

    with pytest.raises(NotCompilable, match="splits on categorical features"):
        bench.predict(model, X)


def test_linear_leaves_are_refused(bench: Any, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = lightgbm.LGBMRegressor(**SMALL, linear_tree=True).fit(numbers_only.to_numpy(), amount)

    with pytest.raises(NotCompilable, match="linear models in its leaves"):
        bench.predict(model, numbers_only.to_numpy())


def test_an_unknown_objective_is_refused(bench: Any, numbers_only: pd.DataFrame, three: Array) -> None:
    params = RAW | {"objective": "cross_entropy_lambda"}
    booster = lightgbm.train(params, lightgbm.Dataset(numbers_only, three > 0), num_boost_round=2)

    with pytest.raises(NotCompilable, match="Booster: has the objective cross_entropy_lambda"):
        bench.predict(booster, numbers_only)
