"""Every shortcut gives the bits that the model's own methods give, over all telco customers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.originals import original_of
from fairlead.bundle.samples import records_of
from fairlead.bundle.signature import schema_of
from fairlead.predict.native import NativeEngine
from fairlead.predict.native_shortcuts import shortcut_of
from fairlead.predict.training_frame import to_frame
from fairlead.predict.validate import Row, Validator
from fairlead.schema import Schema

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "data" / "telco-churn.csv"
TRAIN_ROWS = 600


@pytest.fixture(scope="module")
def customers() -> pd.DataFrame:
    """Give the published customers where they are at hand, as many made-up ones elsewhere."""
    spec = importlib.util.spec_from_file_location("churn_run", ROOT / "examples" / "churn" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: pd.DataFrame = module.read(PUBLISHED) if PUBLISHED.is_file() else module.generate(7_043)
    return found


def rows_of(model: Any, frame: pd.DataFrame) -> tuple[Schema, list[Row]]:
    loaded = LoadedModel(model, "pickle", {})
    schema = schema_of(loaded, original_of(loaded), frame, None)
    checked = Validator(schema).check(records_of(frame))
    assert not checked.rejections
    return schema, checked.rows


def bits(numbers: Any) -> tuple[Any, ...]:
    array = np.asarray(numbers)
    return array.dtype, array.shape, array.tobytes() if array.dtype != object else array.tolist()


def check(model: Any, frame: pd.DataFrame, *, takes_rows: bool) -> None:
    original = original_of(LoadedModel(model, "pickle", {}))
    schema, rows = rows_of(model, frame)
    shortcut = shortcut_of(model, schema, original.form, original.has_probabilities)
    assert shortcut is not None
    assert shortcut.takes_rows is takes_rows
    engine = NativeEngine(model, original.kind, schema, original.form, original.has_probabilities)
    with shortcut.in_order():
        for part in (rows, rows[:1], rows[1:3], rows[100:132], rows[500:564]):
            batch = engine._batch(part)
            values, probabilities = shortcut(part if takes_rows else batch)
            assert bits(values) == bits(np.asarray(model.predict(batch)))
            if original.has_probabilities:
                assert bits(probabilities) == bits(model.predict_proba(batch))
    assert engine.prove(rows[:8]) is not None


def columns_of(frame: pd.DataFrame) -> ColumnTransformer:
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    numbers = [name for name in frame if name not in words]
    return ColumnTransformer(
        [("word", OneHotEncoder(handle_unknown="ignore"), words), ("number", StandardScaler(), numbers)]
    )


CLASSIFIERS = [
    RandomForestClassifier(40, random_state=1),
    RandomForestClassifier(2, random_state=1, n_jobs=2),  # half of its votes are ties
    ExtraTreesClassifier(20, random_state=1),
    DecisionTreeClassifier(max_depth=4, random_state=1),
    ExtraTreeClassifier(random_state=1),
    BaggingClassifier(random_state=1),
    CalibratedClassifierCV(GaussianNB()),
    VotingClassifier([("tree", DecisionTreeClassifier(random_state=1)), ("nb", GaussianNB())], voting="soft"),
    VotingClassifier([("tree", DecisionTreeClassifier(random_state=1)), ("nb", GaussianNB())]),
    StackingClassifier([("tree", DecisionTreeClassifier(random_state=1)), ("nb", GaussianNB())]),
    HistGradientBoostingClassifier(max_iter=5, random_state=1),
    GradientBoostingClassifier(n_estimators=20, random_state=1),
    AdaBoostClassifier(n_estimators=10, random_state=1),
    LogisticRegression(max_iter=2000),
    RidgeClassifier(),
    SGDClassifier(loss="log_loss", random_state=1),
    SVC(),
    KNeighborsClassifier(),
    GaussianNB(),
    LinearDiscriminantAnalysis(),
    MLPClassifier((8,), max_iter=2000, tol=1e-2, random_state=1),
    LabelSpreading(gamma=0.1),
    DummyClassifier(),
    LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1),
    XGBClassifier(n_estimators=20, n_jobs=1),
    XGBClassifier(n_estimators=20, n_jobs=1, objective="binary:hinge"),
]
REGRESSORS = [
    RandomForestRegressor(30, random_state=1),
    ExtraTreesRegressor(30, random_state=1, n_jobs=2),
    Ridge(),
    HistGradientBoostingRegressor(max_iter=5, random_state=1),
    LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1),
    XGBRegressor(n_estimators=20, n_jobs=1),
]


def named(estimator: Any) -> str:
    return type(estimator).__name__


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")  # as the plain call of LightGBM says
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=named)
def test_classifiers(estimator: Any, customers: pd.DataFrame) -> None:
    X, churn = customers.drop(columns="churn"), customers["churn"]
    model = make_pipeline(columns_of(X), estimator).fit(X[:TRAIN_ROWS], churn[:TRAIN_ROWS])
    check(model, X, takes_rows=True)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("estimator", REGRESSORS, ids=named)
def test_regressors(estimator: Any, customers: pd.DataFrame) -> None:
    X = customers.drop(columns=["churn", "totalcharges"])
    model = make_pipeline(columns_of(X), estimator).fit(X[:TRAIN_ROWS], customers["totalcharges"][:TRAIN_ROWS])
    check(model, X, takes_rows=True)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=1),
        ExtraTreesClassifier(20, random_state=1),
        LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1),
        LogisticRegression(max_iter=2000),
    ],
    ids=named,
)
def test_several_classes_of_text(estimator: Any, customers: pd.DataFrame) -> None:
    X = customers.drop(columns=["churn", "contract"])
    model = make_pipeline(columns_of(X), estimator).fit(X[:TRAIN_ROWS], customers["contract"][:TRAIN_ROWS])
    check(model, X, takes_rows=True)


def test_several_classes_of_xgboost(customers: pd.DataFrame) -> None:
    X = customers.drop(columns=["churn", "contract"])
    codes = customers["contract"].astype("category").cat.codes
    model = make_pipeline(columns_of(X), XGBClassifier(n_estimators=10, n_jobs=1)).fit(
        X[:TRAIN_ROWS], codes[:TRAIN_ROWS]
    )
    check(model, X, takes_rows=True)


def test_the_best_of_a_search(customers: pd.DataFrame) -> None:
    X, churn = customers.drop(columns="churn"), customers["churn"]
    pipeline = make_pipeline(columns_of(X), make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=1)))
    grid = {"pipeline__randomforestclassifier__max_depth": [3, None]}
    check(GridSearchCV(pipeline, grid, cv=2).fit(X[:TRAIN_ROWS], churn[:TRAIN_ROWS]), X, takes_rows=True)


@pytest.mark.parametrize(
    "forest", [RandomForestClassifier(10, random_state=1), RandomForestRegressor(10, random_state=1)], ids=named
)
def test_forests_of_frames_matrices_and_records(forest: Any, customers: pd.DataFrame) -> None:
    X, churn = customers[["tenure", "monthlycharges", "totalcharges"]], customers["churn"]
    check(forest.fit(X[:TRAIN_ROWS], churn[:TRAIN_ROWS]), X, takes_rows=False)
    check(
        forest.fit(X[:TRAIN_ROWS].to_numpy(), churn[:TRAIN_ROWS]),
        X.set_axis([f"x{i}" for i in range(3)], axis=1),
        takes_rows=False,
    )
    records = customers[["tenure", "contract", "totalcharges"]]
    model = make_pipeline(DictVectorizer(), forest).fit(records[:TRAIN_ROWS].to_dict("records"), churn[:TRAIN_ROWS])
    check(model, records, takes_rows=False)


class MyForest(RandomForestClassifier):
    """A class of the user's, which may predict in another way."""


def test_an_unknown_class_is_called_as_it_is(customers: pd.DataFrame) -> None:
    X, churn = customers[["tenure", "totalcharges"]], customers["churn"]
    mine = MyForest(5).fit(X, churn)
    overruled = RandomForestClassifier(5).fit(X, churn)
    overruled.predict = lambda X: np.zeros(len(X))
    for model in (
        mine,
        make_pipeline(StandardScaler(), MyForest(5)).fit(X, churn),
        overruled,
        LogisticRegression().fit(X, churn),
    ):
        schema, rows = rows_of(model, X)
        assert shortcut_of(model, schema, "frame", True) is None
        assert NativeEngine(model, "classifier", schema, "frame", True).prove(rows) is None
        assert len(to_frame(rows, schema)) == len(X)
