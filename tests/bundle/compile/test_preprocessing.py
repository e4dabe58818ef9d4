from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from fairlead.bundle.compile import steps
from fairlead.bundle.compile.columns import Indicator, Value
from fairlead.errors import NotCompilable

SCALERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    StandardScaler(with_mean=False, with_std=False),
    MinMaxScaler(),
    MinMaxScaler(feature_range=(-2, 3)),
    MinMaxScaler(clip=True),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False),
    RobustScaler(with_scaling=False),
    RobustScaler(quantile_range=(5, 95), unit_variance=True),
]


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_scaler(bench: Any, numbers: Any, scaler: Any) -> None:
    scaler.fit(numbers[3:300])
    numbers[5:50, 1] = np.nan
    bench.transform(scaler, numbers)


def test_max_abs_clip(bench: Any, numbers: Any) -> None:
    bench.transform(MaxAbsScaler(clip=True).fit(numbers[3:300]), numbers)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_scaler_of_one_hot(bench: Any, mixed: Any, scaler: Any) -> None:
    model = make_pipeline(OneHotEncoder(sparse_output=False), scaler).fit(mixed.iloc[:, :4])
    bench.transform(model, mixed.iloc[:, :4])
    columns, _, _ = bench.columns(model, mixed.iloc[:, :4])
    assert all(isinstance(column, Indicator) for column in columns)


def test_scaler_of_sparse_multiplies(bench: Any, mixed: Any) -> None:
    model = make_pipeline(OneHotEncoder(), StandardScaler(with_mean=False)).fit(mixed)
    assert sparse.issparse(model.transform(mixed))
    bench.transform(model, mixed)


def test_scaled_thresholds_lie_on_the_feature(bench: Any, numbers: Any) -> None:
    scaler = StandardScaler().fit(numbers[3:])
    columns, compilation, _ = bench.columns(scaler, numbers)
    compilation.note_thresholds(columns[1], np.array([(5.25 - scaler.mean_[1]) / scaler.scale_[1]]))
    assert compilation.thresholds[1] == pytest.approx([5.25])


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_normalizer(bench: Any, numbers: Any, norm: str) -> None:
    numbers[7] = 0.0
    numbers[8] = 1e-17
    bench.transform(Normalizer(norm).fit(numbers), numbers, tolerance=1e-15)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_normalizer_of_sparse(bench: Any, mixed: Any, norm: str) -> None:
    bench.transform(make_pipeline(OneHotEncoder(), Normalizer(norm)).fit(mixed), mixed, tolerance=1e-15)


@pytest.mark.parametrize("threshold", [0.0, 0.5, -3.25])
def test_binarizer(bench: Any, numbers: Any, threshold: float) -> None:
    numbers[10:13, 0] = threshold, np.nextafter(threshold, -9), np.nextafter(threshold, 9)
    step = Binarizer(threshold=threshold).fit(numbers)
    bench.transform(step, numbers)
    _, compilation, _ = bench.columns(step, numbers)
    assert compilation.thresholds[0] == [threshold]


@pytest.mark.parametrize(
    "func",
    [None, np.log1p, np.log, np.sqrt, np.exp, np.expm1, np.abs, np.square],
    ids=lambda f: getattr(f, "__name__", "none"),
)
def test_function(bench: Any, numbers: Any, func: Any) -> None:
    X = np.vstack(
        [numbers[3:] / 1000, -numbers[3:] / 1e9, [[0.0, 1e-300, -1e-20, 1.0, 30.0]], [[1e-16, 1e-8, 36.0, 37.0, 500.0]]]
    )
    X = np.abs(X) if func in (np.log1p, np.log, np.sqrt) else X
    X = np.maximum(X, 1e-300) if func is np.log else X
    bench.transform(FunctionTransformer(func).fit(X), X, tolerance=1e-15)


def test_function_of_one_hot(bench: Any, mixed: Any) -> None:
    model = make_pipeline(OneHotEncoder(sparse_output=False), FunctionTransformer(np.log1p)).fit(mixed[["colour"]])
    bench.transform(model, mixed[["colour"]])


def test_function_relative_precision(bench: Any) -> None:
    X = np.concatenate([10.0 ** np.arange(-300, 2), -(10.0 ** np.arange(-300, 0))])[:, None]
    for func in (np.log1p, np.expm1):
        found = bench.transformed(FunctionTransformer(func).fit(X), X)
        np.testing.assert_allclose(found, func(X), rtol=1e-15, atol=0)


def test_unknown_function(bench: Any, numbers: Any) -> None:
    with pytest.raises(NotCompilable, match="FunctionTransformer: its function"):
        bench.columns(FunctionTransformer(np.tan).fit(numbers), numbers)
    with pytest.raises(NotCompilable, match="its function"):
        bench.columns(FunctionTransformer(lambda X: X).fit(numbers), numbers)


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "mean"},
        {"strategy": "median"},
        {"strategy": "most_frequent"},
        {"strategy": "constant", "fill_value": -7.5},
        {"strategy": "constant"},
        {"strategy": "mean", "add_indicator": True},
        {"strategy": "mean", "keep_empty_features": True, "add_indicator": True},
    ],
    ids=str,
)
def test_impute_numbers(bench: Any, numbers: Any, settings: dict[str, Any]) -> None:
    numbers[np.random.default_rng(1).random(numbers.shape) < 0.2] = np.nan
    numbers[:, 4] = np.arange(600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bench.transform(SimpleImputer(**settings).fit(numbers), numbers)
        numbers[:, 2] = np.nan
        bench.transform(SimpleImputer(**settings).fit(numbers), numbers)


@pytest.mark.parametrize("missing", [-1, 0, 7.5])
def test_impute_other_missing_value(bench: Any, numbers: Any, missing: float) -> None:
    numbers[np.random.default_rng(1).random(numbers.shape) < 0.2] = missing
    bench.transform(SimpleImputer(missing_values=missing, add_indicator=True).fit(numbers), numbers)


def test_impute_float32(bench: Any, numbers: Any) -> None:
    numbers[5:50, 1] = np.nan
    bench.transform(SimpleImputer().fit(numbers.astype(np.float32)), numbers)


@pytest.mark.parametrize(
    ("settings", "n_categories"),
    [
        ({"strategy": "most_frequent"}, 8),
        ({"strategy": "constant", "fill_value": "b"}, 8),
        ({"strategy": "constant", "fill_value": "none"}, 9),
        ({"strategy": "constant"}, 9),
    ],
    ids=str,
)
def test_impute_strings(bench: Any, mixed: Any, settings: dict[str, Any], n_categories: int) -> None:
    X = mixed[["colour", "letter"]]
    imputer = SimpleImputer(**settings).fit(X)
    columns, _, _ = bench.columns(imputer, X)
    codes = bench.transformed(imputer, X)
    wanted = imputer.transform(X)
    for place, column in enumerate(columns):
        assert isinstance(column, Value)
        assert column.categories is not None
        assert [column.categories[int(code)] for code in codes[:, place]] == wanted[:, place].tolist()
    assert len(columns[1].categories) == n_categories
    bench.transform(make_pipeline(imputer, OneHotEncoder()).fit(X), X)


def test_impute_strings_of_a_word_for_missing(bench: Any, mixed: Any) -> None:
    X = mixed[["colour"]].astype(object)
    imputer = SimpleImputer(missing_values="red", strategy="constant", fill_value="blue").fit(X)
    bench.transform(make_pipeline(imputer, OneHotEncoder()).fit(X), X)


@pytest.mark.parametrize("features", ["missing-only", "all"])
def test_missing_indicator(bench: Any, numbers: Any, features: str) -> None:
    numbers[5:50, 1] = numbers[60:, 3] = np.nan
    bench.transform(MissingIndicator(features=features).fit(numbers), numbers)


@pytest.mark.filterwarnings("ignore:.*quantile_method.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:Bins whose width:UserWarning")
@pytest.mark.filterwarnings("ignore:Number of distinct clusters:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("encode", ["ordinal", "onehot", "onehot-dense"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile", "kmeans"])
def test_bins(bench: Any, numbers: Any, encode: str, strategy: str) -> None:
    numbers[:, 4] = np.random.default_rng(3).integers(0, 2, 600)
    step = KBinsDiscretizer(n_bins=[2, 5, 9, 3, 4], encode=encode, strategy=strategy).fit(numbers[3:])
    for feature, edges in enumerate(step.bin_edges_):
        around = np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
        numbers[10 : 10 + len(around), feature] = around
    bench.transform(step, numbers)
    columns, compilation, _ = bench.columns(step, numbers)
    assert sorted(compilation.thresholds[2]) == sorted(step.bin_edges_[2][1:-1])
    assert compilation.sparse == (encode == "onehot")
    if encode != "ordinal":
        assert all(isinstance(c, Indicator) and c.source.categories is not None for c in columns)


def test_bins_of_float32_and_of_a_constant(bench: Any, numbers: Any) -> None:
    numbers[:, 2] = 3.0
    settings = {"encode": "ordinal", "strategy": "uniform"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = KBinsDiscretizer(4, dtype=np.float32, **settings).fit(numbers[3:])
        bench.transform(step, numbers)
        bench.transform(KBinsDiscretizer(4, **settings).fit(numbers[3:]), numbers)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"degree": 3},
        {"degree": (2, 4)},
        {"degree": 3, "interaction_only": True},
        {"degree": (2, 3), "interaction_only": True, "include_bias": False},
        {"degree": 1, "include_bias": False},
        {"degree": 0},
        {"degree": 7, "interaction_only": True},
    ],
    ids=str,
)
def test_powers(bench: Any, numbers: Any, settings: dict[str, Any]) -> None:
    bench.transform(PolynomialFeatures(**settings).fit(numbers), numbers)


def test_powers_of_one_hot(bench: Any, mixed: Any) -> None:
    bench.transform(
        make_pipeline(OneHotEncoder(), PolynomialFeatures()).fit(mixed[["colour", "yes"]]), mixed[["colour", "yes"]]
    )


@pytest.mark.parametrize(
    "step",
    [
        VarianceThreshold(1.0),
        SelectKBest(k=2),
        SelectPercentile(percentile=40),
        SelectFromModel(RandomForestClassifier(5, random_state=0)),
        RFE(LogisticRegression(), n_features_to_select=2),
    ],
    ids=lambda s: type(s).__name__,
)
def test_selection(bench: Any, numbers: Any, step: Any) -> None:
    X = numbers[3:] / [1, 10, 1000, 0.01, 100]
    bench.transform(step.fit(X, X[:, 0] + X[:, 2] > 0), X)


@pytest.mark.parametrize("step", [PCA(3), PCA(3, whiten=True), PCA(0.9), TruncatedSVD(3)], ids=str)
def test_projection(bench: Any, numbers: Any, mixed: Any, step: Any) -> None:
    X = numbers[3:] / [1, 10, 1000, 0.01, 100]
    bench.transform(step.fit(X), X, tolerance=1e-12)
    encoded = make_pipeline(OneHotEncoder(sparse_output=False), step).fit(mixed[["colour", "letter", "count"]])
    bench.transform(encoded, mixed[["colour", "letter", "count"]], tolerance=1e-12)


def test_ordinal_then_scaled(bench: Any, mixed: Any) -> None:
    X = mixed[["colour", "letter", "count"]]
    bench.transform(make_pipeline(OrdinalEncoder(), StandardScaler()).fit(X), X)


def test_subclasses_are_not_known(bench: Any, numbers: Any) -> None:
    class Mine(StandardScaler):
        pass

    with pytest.raises(NotCompilable, match="Mine: has no compiled form"):
        bench.columns(Mine().fit(numbers), numbers)


def test_every_key_names_a_class_of_the_installed_library() -> None:
    import sklearn.utils

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {f"sklearn.{name}" for name, _ in sklearn.utils.all_estimators()}
    ours = [key for table in steps.tables() for key in table if key.startswith("sklearn.")]
    assert set(ours) - known <= {"sklearn.Pipeline"}


def test_frame_and_matrix_agree(bench: Any, numbers: Any) -> None:
    frame = pd.DataFrame(numbers, columns=list("abcde"))
    bench.transform(MinMaxScaler().fit(frame), frame)
