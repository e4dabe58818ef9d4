"""A folded forest answers as the graph does, bit for bit where both add float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LinearRegression
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
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

from fairlead.bundle.compile import axes, folding, model, slots
from fairlead.bundle.compile.model import CompiledModel, compile_model
from fairlead.predict.engines import OnnxEngine
from fairlead.predict.forest import decode_forest, encode_forest
from fairlead.predict.trees import TreesEngine
from fairlead.schema import Feature, Schema

Array = npt.NDArray[Any]
NUMBERS = ["age", "income", "children"]
WORDS = ["city", "plan"]
OPTIONS = {"n_estimators": 9, "random_state": 0}


def schema_of(frame: pd.DataFrame) -> Schema:
    features = []
    for name in frame:
        words = sorted(frame[name].dropna().unique()) if not pd.api.types.is_numeric_dtype(frame[name]) else None
        features.append(
            Feature(
                name=str(name),
                type="float" if words is None else "string",
                nullable=True,
                categories=None if words is None else tuple(words),
            )
        )
    return Schema(features=tuple(features))


def target(people: pd.DataFrame, n_classes: int) -> Array:
    score = people["age"] / 30 + (people["city"] == "Oslo") + people["children"] + people["income"].fillna(0) / 2000
    return np.asarray(score if not n_classes else pd.qcut(score, n_classes, labels=False))


def engines_of(compiled: CompiledModel, schema: Schema) -> tuple[OnnxEngine, TreesEngine]:
    assert compiled.forest is not None, compiled.forest_reason
    forest = decode_forest(encode_forest(compiled.forest), "trees.bin")
    assert forest is not None
    return OnnxEngine(compiled.graph, schema, compiled.classes), TreesEngine(forest, schema, compiled.classes)


def hard_rows(compiled: CompiledModel, schema: Schema) -> Array:
    """Make rows on every cut and beside it, at null, unseen categories and far out."""
    assert compiled.forest is not None
    rng, forest = np.random.default_rng(0), compiled.forest
    ends = np.cumsum(np.maximum(forest.sizes, 0))
    columns = []
    for place, feature in enumerate(schema.features):
        if feature.categories is not None:
            columns.append(rng.choice([-1, *range(len(feature.categories)), np.nan], 6000))
            continue
        cuts = forest.cuts[ends[place] - max(int(forest.sizes[place]), 0) : ends[place]]
        near = np.concatenate([cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf), rng.normal(0, 3000, 200)])
        odd = np.array([np.nan, 0.0, -0.0, 1e-300, -1e-300, 1e-46, 1e300, -1e300, 3.0, 1.0])
        near = np.concatenate([near, np.repeat(odd, 1 + len(near) // 40)])
        columns.append(rng.choice(near[np.isfinite(near) | np.isnan(near)], 6000))
    return np.column_stack(columns)


def check_same(fitted: Any, frame: pd.DataFrame, *, tolerance: float = 0.0) -> CompiledModel:
    schema = schema_of(frame)
    compiled = compile_model(fitted, schema)
    onnx, trees = engines_of(compiled, schema)
    X = hard_rows(compiled, schema)
    wanted, found = onnx.predict_matrix(X), trees.predict_matrix(X)
    if compiled.classes is None:
        given, right = np.asarray(found.values), np.asarray(wanted.values)
    else:
        assert found.probabilities is not None
        assert wanted.probabilities is not None
        given, right = found.probabilities, wanted.probabilities
        if not tolerance:
            assert found.values == wanted.values
    apart = np.abs(given - right) / np.maximum(1, np.abs(right))
    assert apart.max() <= tolerance
    assert len(np.unique(right)) > 1
    return compiled


PREPARATIONS = {
    "one-hot and scaled": make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), WORDS), (StandardScaler(), NUMBERS)
    ),
    "imputed": make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-7), WORDS),
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), RobustScaler()), NUMBERS),
    ),
    "infrequent": make_column_transformer(
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.24), WORDS),
        (MinMaxScaler(clip=True), ["age", "children"]),
    ),
    "numbers as categories": make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["children"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=9), ["children"]),
        ("passthrough", ["age"]),
    ),
    "missing by number": make_pipeline(
        make_column_transformer((SimpleImputer(missing_values=3), ["children"]), ("passthrough", ["age"])),
        MaxAbsScaler(),
    ),
    "indicators": make_column_transformer(
        (MissingIndicator(), ["income"]), (Binarizer(threshold=40), ["age"]), ("passthrough", ["children", "age"])
    ),
    "bins": make_column_transformer(
        (KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf"), ["age"]),
        (KBinsDiscretizer(4, encode="onehot", quantile_method="averaged_inverted_cdf"), ["children", "age"]),
    ),
    "functions": make_column_transformer(
        (FunctionTransformer(np.abs), ["age"]),
        (make_pipeline(StandardScaler(), FunctionTransformer(np.square)), ["age", "children"]),
        (FunctionTransformer(np.sqrt), ["children"]),
    ),
    "negative scale": make_pipeline(
        make_column_transformer(("passthrough", ["age", "children"])), MinMaxScaler(feature_range=(-3, -1))
    ),
}  # fmt: skip
ESTIMATORS = {
    "tree": (DecisionTreeClassifier(random_state=0), 2, 0.0),
    "forest": (RandomForestClassifier(**OPTIONS), 2, 0.0),
    "forest of values": (ExtraTreesRegressor(**OPTIONS), 0, 0.0),
    "forest of classes": (RandomForestClassifier(**OPTIONS), 4, 1e-6),
    "boosting": (GradientBoostingClassifier(**OPTIONS), 3, 1e-15),
    "xgboost": (XGBClassifier(n_estimators=9), 2, 3e-7),
    "xgboost of classes": (XGBClassifier(n_estimators=9), 4, 3e-7),
    "lightgbm": (LGBMClassifier(n_estimators=9, verbose=-1), 2, 1e-15),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("preparation", PREPARATIONS)
@pytest.mark.filterwarnings("ignore")
def test_preparations(people: pd.DataFrame, preparation: str, estimator: str) -> None:
    people = people.assign(income=people["income"].fillna(2500.0) if preparation != "indicators" else people["income"])
    last, n_classes, tolerance = ESTIMATORS[estimator]
    fitted = make_pipeline(PREPARATIONS[preparation], last).fit(people, target(people, n_classes))

    check_same(fitted, people, tolerance=tolerance)


@pytest.mark.parametrize(
    ("estimator", "n_classes", "tolerance"),
    [
        (HistGradientBoostingClassifier(max_iter=9), 2, 1e-15),
        (HistGradientBoostingClassifier(max_iter=9), 3, 1e-15),
        (HistGradientBoostingRegressor(max_iter=9, loss="poisson"), 0, 1e-14),
        (RandomForestRegressor(**OPTIONS), 0, 0.0),
        (XGBRegressor(n_estimators=9), 0, 3e-7),
        (XGBRegressor(n_estimators=9, missing=3.0), 0, 3e-7),
        (LGBMRegressor(n_estimators=9, verbose=-1), 0, 1e-15),
        (LGBMRegressor(n_estimators=9, verbose=-1, zero_as_missing=True), 0, 1e-15),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_nulls_on_both_sides(people: pd.DataFrame, estimator: Any, n_classes: int, tolerance: float) -> None:
    rng = np.random.default_rng(1)
    X = people[NUMBERS].mask(rng.random((len(people), 3)) < 0.2)
    fitted = estimator.fit(X.to_numpy(), target(people, n_classes))

    compiled = check_same(fitted, X, tolerance=tolerance)

    assert compiled.forest is not None
    assert len(compiled.forest.usual) >= 3


@pytest.mark.filterwarnings("ignore")
def test_a_sparse_matrix_in_front_of_xgboost(people: pd.DataFrame) -> None:
    people = people.assign(income=people["income"].fillna(0.0), children=people["children"] - 2.0)
    prepare = make_column_transformer(
        (OneHotEncoder(), WORDS), (StandardScaler(with_mean=False), NUMBERS), sparse_threshold=1.0
    )

    check_same(
        make_pipeline(prepare, XGBClassifier(n_estimators=9)).fit(people, target(people, 2)), people, tolerance=3e-7
    )


def test_a_dict_vectorizer(people: pd.DataFrame) -> None:
    X = people[["age", "city", "plan"]]
    fitted = make_pipeline(DictVectorizer(), RandomForestClassifier(**OPTIONS))

    check_same(fitted.fit(X.to_dict("records"), target(people, 2)), X)


def test_13_000_categories() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": [f"item {i}" for i in range(13_000)], "x": rng.normal(size=13_000)})
    y = (rng.random(13_000) < 0.5).astype(int)
    fitted = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["id"]), ("passthrough", ["x"])),
        RandomForestClassifier(2, random_state=0, max_depth=60),
    )

    check_same(fitted.fit(frame, y), frame)


def test_more_thresholds_than_a_slot_holds(monkeypatch: pytest.MonkeyPatch, people: pd.DataFrame) -> None:
    monkeypatch.setattr(slots, "_SLOT_THRESHOLDS", 7)
    fitted = RandomForestClassifier(**OPTIONS).fit(people[["age", "children"]].to_numpy(), target(people, 2))

    compiled = check_same(fitted, people[["age", "children"]])

    assert compiled.forest is not None
    assert compiled.forest.nodes["bin"].max() == 6


@pytest.mark.parametrize(
    "mixing", [PCA(2), PolynomialFeatures(2, interaction_only=True, include_bias=False), Normalizer()]
)
def test_columns_of_several_features_stay_with_the_graph(people: pd.DataFrame, mixing: Any) -> None:
    X = people[["age", "children"]]
    fitted = make_pipeline(mixing, RandomForestRegressor(**OPTIONS)).fit(X, target(people, 0))

    compiled = compile_model(fitted, schema_of(X))

    assert (compiled.forest, compiled.forest_reason) == (
        None,
        "trees: a split looks at a column that is made of several features",
    )


def test_other_models_say_nothing_of_trees(people: pd.DataFrame) -> None:
    X = people[["age", "children"]]
    compiled = compile_model(LinearRegression().fit(X, target(people, 0)), schema_of(X))

    assert (compiled.forest, compiled.forest_reason) == (None, None)


def test_one_leaf_and_one_class(people: pd.DataFrame) -> None:
    X = people[["age", "children"]].to_numpy()
    for fitted, answer in (
        (DecisionTreeClassifier().fit(X, np.ones(len(X), int)), [1]),
        (RandomForestRegressor(2).fit(X, np.full(len(X), 2.5)), [2.5]),
    ):
        schema = schema_of(people[["age", "children"]])
        _, trees = engines_of(compile_model(fitted, schema), schema)
        assert list(trees.predict([(40.0, 1.0)]).values) == answer
        assert list(trees.predict([]).values) == []


def test_a_column_that_is_not_monotone_is_found_out(monkeypatch: pytest.MonkeyPatch, people: pd.DataFrame) -> None:
    monkeypatch.setattr(axes.Axes, "pieces", lambda self, value: axes._ENDS)  # as if it had no breaks
    X = people[["age", "children"]] - 40
    fitted = make_pipeline(FunctionTransformer(np.square), RandomForestRegressor(**OPTIONS)).fit(X, target(people, 0))

    compiled = compile_model(fitted, schema_of(X))

    assert (compiled.forest, compiled.forest_reason) == (
        None,
        "trees: a column is not monotone where it was taken to be",
    )


def test_too_many_columns(monkeypatch: pytest.MonkeyPatch, people: pd.DataFrame) -> None:
    monkeypatch.setattr(folding, "MOST_SLOTS", 1)
    X = people[["age", "children"]]
    compiled = compile_model(RandomForestRegressor(**OPTIONS).fit(X, target(people, 0)), schema_of(X))

    assert compiled.forest_reason == "trees: there are more than 1 different columns to split on"


def test_a_fault_in_folding_leaves_the_graph(monkeypatch: pytest.MonkeyPatch, people: pd.DataFrame) -> None:
    def fail(*_: object) -> None:
        raise IndexError("nowhere")

    monkeypatch.setattr(model, "folded", fail)
    X = people[["age", "children"]]
    compiled = compile_model(RandomForestRegressor(**OPTIONS).fit(X, target(people, 0)), schema_of(X))

    assert compiled.forest_reason == "folding failed: IndexError: nowhere"
