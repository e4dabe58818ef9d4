from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairlead.bundle.build import BuildReport
from fairlead.bundle.compile.model import CompiledModel
from fairlead.errors import NotCompilable

Agree = Callable[..., CompiledModel]
Array = npt.NDArray[Any]
SMALL: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1, "random_state": 0}
RAW: dict[str, Any] = {"max_depth": 3, "nthread": 1, "seed": 0}


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes(agree: Agree, numbers_only: pd.DataFrame, three: Array, n_classes: int) -> None:
    model = xgboost.XGBClassifier(**SMALL).fit(numbers_only, np.minimum(three, n_classes - 1))

    assert agree(model, numbers_only).classes == tuple(range(n_classes))


OBJECTIVES = [
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
]


@pytest.mark.parametrize("base_score", [None, 0.3, 4.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_regressions(
    agree: Agree, numbers_only: pd.DataFrame, amount: Array, objective: str, base_score: float | None
) -> None:
    model = xgboost.XGBRegressor(objective=objective, base_score=base_score, **SMALL)

    agree(model.fit(numbers_only, amount), numbers_only)


@pytest.mark.parametrize("objective", ["reg:logistic", "reg:quantileerror"])
def test_regressions_of_shares(agree: Agree, numbers_only: pd.DataFrame, amount: Array, objective: str) -> None:
    options = {"quantile_alpha": 0.8} if objective == "reg:quantileerror" else {}
    model = xgboost.XGBRegressor(objective=objective, **options, **SMALL).fit(numbers_only, amount / amount.max())

    agree(model, numbers_only)


@pytest.mark.parametrize("base_score", [0.1, 0.5, 0.9])
def test_base_score_of_a_classifier(agree: Agree, numbers_only: pd.DataFrame, three: Array, base_score: float) -> None:
    agree(xgboost.XGBClassifier(base_score=base_score, **SMALL).fit(numbers_only, three > 0), numbers_only)


@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_dart(agree: Agree, numbers_only: pd.DataFrame, three: Array, amount: Array, n_classes: int) -> None:
    options = SMALL | {"booster": "dart", "rate_drop": 0.4, "one_drop": True}
    if n_classes:
        model = xgboost.XGBClassifier(**options).fit(numbers_only, np.minimum(three, n_classes - 1))
    else:
        model = xgboost.XGBRegressor(**options).fit(numbers_only, amount)

    agree(model, numbers_only, tolerance=1e-5)


@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_random_forest(agree: Agree, numbers_only: pd.DataFrame, three: Array, amount: Array, n_classes: int) -> None:
    if n_classes:
        model = xgboost.XGBRFClassifier(**SMALL).fit(numbers_only, np.minimum(three, n_classes - 1))
    else:
        model = xgboost.XGBRFRegressor(**SMALL).fit(numbers_only, amount)

    agree(model, numbers_only)


@pytest.mark.parametrize("options", [{}, {"num_parallel_tree": 2}, {"booster": "dart"}])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_early_stopping(
    agree: Agree, numbers_only: pd.DataFrame, three: Array, options: dict[str, Any], n_classes: int
) -> None:
    y = np.minimum(three, n_classes - 1)
    stopping = {"n_estimators": 40, "learning_rate": 0.9, "early_stopping_rounds": 3}
    model = xgboost.XGBClassifier(**SMALL | stopping | options)
    model.fit(numbers_only[:300], y[:300], eval_set=[(numbers_only[300:], y[300:])], verbose=False)

    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    agree(model, numbers_only)


@pytest.mark.parametrize("missing", [np.nan, 0.0, -999.0, 0.1])
def test_missing(agree: Agree, numbers_only: pd.DataFrame, amount: Array, missing: float) -> None:
    random = np.random.default_rng(2)
    X = numbers_only.mask(random.random(numbers_only.shape) < 0.2, missing)
    X = X.mask(random.random(X.shape) < 0.1, np.nan)

    agree(xgboost.XGBRegressor(missing=missing, **SMALL).fit(X, amount), X)


def test_scaler_in_front(agree: Agree, numbers_only: pd.DataFrame, three: Array) -> None:
    compiled = agree(
        make_pipeline(StandardScaler(), xgboost.XGBClassifier(**SMALL)).fit(numbers_only, three), numbers_only
    )

    assert 9_000 < np.median(compiled.thresholds[1]) < 11_000


@pytest.mark.parametrize("sparse", [True, False])
def test_dict_vectorizer(agree: Agree, people: pd.DataFrame, sparse: bool) -> None:
    X = people[["children", "city", "plan", "age"]]
    y = ((people["city"] == "Oslo") ^ (people["children"] == 0)).astype(int)
    vectorizer = DictVectorizer(sparse=sparse)
    model = xgboost.XGBClassifier(**SMALL).fit(vectorizer.fit_transform(X.to_dict("records")), y)

    agree(model, X, vectorizer=vectorizer)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_one_hot(agree: Agree, people: pd.DataFrame, sparse: bool, threshold: float) -> None:
    encode = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore", sparse_output=sparse), ["city", "plan"])],
        remainder="passthrough",
        sparse_threshold=threshold,
    )
    y = ((people["city"] == "Oslo") ^ (people["children"] == 0)).astype(int)

    agree(make_pipeline(encode, xgboost.XGBClassifier(**SMALL)).fit(people, y), people)


def test_one_hot_alone_is_sparse(agree: Agree, people: pd.DataFrame) -> None:
    X = people[["city", "plan"]]
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), xgboost.XGBRegressor(**SMALL))

    agree(model.fit(X, people["age"] + 50 * (X["city"] == "Oslo")), X)


BOOSTERS = [
    ({"objective": "reg:squarederror"}, None),
    ({"objective": "binary:logistic"}, (0, 1)),
    ({"objective": "binary:logitraw"}, None),
    ({"objective": "multi:softprob", "num_class": 3}, (0, 1, 2)),
    ({"objective": "multi:softmax", "num_class": 3}, (0, 1, 2)),
    ({"objective": "count:poisson"}, None),
    ({"objective": "rank:pairwise"}, None),
]


@pytest.mark.parametrize(("options", "classes"), BOOSTERS)
def test_boosters(agree: Agree, numbers_only: pd.DataFrame, three: Array, options: Any, classes: Any) -> None:
    y = three if options["objective"].startswith("multi") else three > 0
    data = xgboost.DMatrix(numbers_only, y, group=[200, 200] if "rank" in options["objective"] else None)
    booster = xgboost.train(RAW | options, data, num_boost_round=6)

    assert agree(booster, numbers_only).classes == classes


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_files(
    build_here: Callable[..., BuildReport], tmp_path: Path, numbers_only: pd.DataFrame, three: Array, suffix: str
) -> None:
    path = tmp_path / f"model.{suffix}"
    xgboost.XGBClassifier(**SMALL).fit(numbers_only, three).save_model(path)

    manifest = build_here(path).manifest

    assert (manifest.engine, manifest.classes, manifest.schema.names) == ("onnx", (0, 1, 2), ("a", "b", "c", "d"))


def test_no_split_at_all(agree: Agree, numbers_only: pd.DataFrame) -> None:
    agree(xgboost.XGBRegressor(**SMALL).fit(numbers_only, np.full(len(numbers_only), 3.0)), numbers_only)


def test_categorical_splits_are_refused(bench: Any, people: pd.DataFrame) -> None:
    X = people[["city", "age"]].astype({"city": "category"})
    model = xgboost.XGBRegressor(enable_categorical=True, max_cat_to_onehot=1, **SMALL)

    with pytest.raises(NotCompilable, match="XGBRegressor: splits on categorical features"):
        bench.predict(model.fit(X, X["city"].cat.codes), people[["city", "age"]])


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_gblinear_is_refused(bench: Any, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = xgboost.XGBRegressor(booster="gblinear", n_estimators=2).fit(numbers_only, amount)

    with pytest.raises(NotCompilable, match="XGBRegressor: is a gblinear booster"):
        bench.predict(model, numbers_only)


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_several_outputs_are_refused(bench: Any, numbers_only: pd.DataFrame, amount: Array, strategy: str) -> None:
    model = xgboost.XGBRegressor(multi_strategy=strategy, tree_method="hist", n_estimators=2)
    model.fit(numbers_only, np.column_stack([amount, -amount]))

    with pytest.raises(NotCompilable, match="XGBRegressor: predicts more than one output"):
        bench.predict(model, numbers_only)


def test_an_unknown_objective_is_refused(bench: Any, numbers_only: pd.DataFrame, three: Array) -> None:
    model = xgboost.XGBClassifier(objective="binary:hinge", n_estimators=2).fit(numbers_only, three > 0)

    with pytest.raises(NotCompilable, match="XGBClassifier: has the objective binary:hinge"):
        bench.predict(model, numbers_only)
