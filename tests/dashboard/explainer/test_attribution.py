"""SHAP values: they add up to the prediction, and each belongs to its feature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures
from sklearn.svm import LinearSVC

from fairlead.bundle.read import open_bundle
from fairlead.dashboard.explainer.attribution import ExactAttribution, Origins, adds_up
from fairlead.dashboard.explainer.attribution_choice import Attributed, ModelOutput, RowsToExplain, attribute
from fairlead.dashboard.explainer.features import Display
from fairlead.dashboard.explainer.preprocessing import origins, split
from fairlead.dashboard.explainer.sampling import SampledAttribution
from fairlead.dashboard.explainer.served import served_of
from fairlead.errors import DashboardError
from fairlead.predict.predictor import load
from fairlead.schema import Feature, Schema
from observing import records_of

BundleOf = Callable[[Any, pd.DataFrame, str], Path]
WORDS = ["sex", "deck", "town"]
NUMBERS = ["class", "fare", "own_cabin"]
ANYTHING = ModelOutput(None, is_firm=False)


def _one_hot() -> ColumnTransformer:
    return ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), WORDS), ("numbers", SimpleImputer(), NUMBERS)]
    )


def _attributed(
    path: Path, sample: pd.DataFrame, wanted: ModelOutput = ANYTHING, y: Any = None
) -> tuple[Any, Attributed]:
    predictor = load(path)
    served = served_of(Display(predictor.schema), predictor)
    frame = served.display.frame(records_of(sample), [str(name) for name in sample.index])
    told: list[float] = []
    made = attribute(open_bundle(path), served, RowsToExplain(frame, served.outputs(frame), y), wanted, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    return served, made


def _total(made: Attributed) -> np.ndarray[Any, Any]:
    return made.attribution.base + made.values.sum(axis=1)


FORESTS = {"n_estimators": 8, "max_depth": 4, "random_state": 0}


@pytest.mark.parametrize(
    ("model", "target", "space"),
    [
        (RandomForestClassifier(**FORESTS), "survived", "probability"),
        (RandomForestClassifier(**FORESTS), "class", "probability"),
        (RandomForestRegressor(**FORESTS), "pay", "raw"),
        (GradientBoostingClassifier(n_estimators=8, random_state=0), "survived", "logodds"),
        (LogisticRegression(max_iter=2000), "survived", "logodds"),
        (LogisticRegression(max_iter=2000), "class", "logodds"),
        (LinearRegression(), "pay", "raw"),
        (GridSearchCV(LinearRegression(), {"fit_intercept": [True, False]}, cv=2), "pay", "raw"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else value,
)
def test_values_of_the_last_step_add_up_to_the_prediction(
    model: Any, target: str, space: str, passengers: pd.DataFrame, bundle_of: BundleOf
) -> None:
    features = [name for name in [*WORDS, *NUMBERS] if name != target]
    sample = passengers[features]
    columns = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), WORDS), ("rest", SimpleImputer(), features[3:])]
    )
    path = bundle_of(make_pipeline(columns, model).fit(sample, passengers[target]), sample, "exact")
    served, made = _attributed(path, sample)
    assert isinstance(made.attribution, ExactAttribution)
    assert made.attribution.space == space
    assert made.notes == []
    assert made.values.shape[:2] == (len(sample), len(features))
    outputs = served.outputs(served.display.frame(records_of(sample), [""] * len(sample)))
    total = _total(made)
    if space == "logodds":
        np.testing.assert_allclose(total.sum(axis=1), 0, atol=1e-9)
        total = np.exp(total) if total.shape[1] > 2 else np.exp(total / 2)
        total /= total.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(total, outputs, rtol=1e-6, atol=1e-9)


def _boosted(library: str, n_classes: int) -> Any:
    module = pytest.importorskip(library)
    if library == "xgboost":
        return module.XGBClassifier(n_estimators=6, max_depth=3) if n_classes else module.XGBRegressor(n_estimators=6)
    if library == "lightgbm":
        return (module.LGBMClassifier if n_classes else module.LGBMRegressor)(n_estimators=6, verbose=-1)
    return HistGradientBoostingClassifier(max_iter=6) if n_classes else HistGradientBoostingRegressor(max_iter=6)


@pytest.mark.parametrize("library", ["sklearn", "xgboost", "lightgbm"])
@pytest.mark.parametrize(("target", "n_classes"), [("survived", 2), ("class", 3), ("pay", 0)])
def test_boosted_trees_with_nulls_are_exact_and_have_interactions(
    library: str, target: str, n_classes: int, passengers: pd.DataFrame, bundle_of: BundleOf
) -> None:
    sample = passengers[["age", "fare"]].head(120)
    y = passengers[target].head(120) - (1 if target == "class" else 0)
    path = bundle_of(_boosted(library, n_classes).fit(sample.to_numpy(), y), sample, "boosted")
    served, made = _attributed(path, sample)
    frame = served.display.frame(records_of(sample), [""] * len(sample))
    assert isinstance(made.attribution, ExactAttribution)
    assert adds_up(made.attribution.base, made.values, served.outputs(frame), made.attribution.space)
    interactions = made.attribution.interactions(frame.head(5))
    assert interactions is not None
    np.testing.assert_allclose(interactions.sum(axis=2), made.values[:5], atol=1e-4 * np.abs(made.values).max())


def test_what_a_sparse_matrix_does_not_hold_is_missing_to_xgboost(
    passengers: pd.DataFrame, bundle_of: BundleOf
) -> None:
    sample = passengers[[*WORDS, "fare"]]
    columns = ColumnTransformer(
        [("words", OneHotEncoder(), WORDS), ("fare", "passthrough", ["fare"])], sparse_threshold=1
    )
    model = make_pipeline(columns, pytest.importorskip("xgboost").XGBRegressor(n_estimators=4, max_depth=3))
    _, made = _attributed(bundle_of(model.fit(sample, passengers["pay"]), sample, "sparse"), sample)
    assert isinstance(made.attribution, ExactAttribution)


def test_values_belong_to_the_feature_that_moves_them(passengers: pd.DataFrame, bundle_of: BundleOf) -> None:
    sample = passengers[[*WORDS, *NUMBERS]]
    model = make_pipeline(_one_hot(), LinearRegression()).fit(sample, passengers["pay"])
    served, made = _attributed(bundle_of(model, sample, "moves"), sample)
    row = served.display.frame(records_of(sample.head(1)), ["a"])
    other = row.assign(fare=row["fare"] + 10, town="Bergen" if sample["town"].iloc[0] == "Oslo" else "Oslo")
    change = made.attribution.values(other)[0, :, 0] - made.attribution.values(row)[0, :, 0]
    moved = {name: change[place] for place, name in enumerate(served.display.columns) if abs(change[place]) > 1e-9}
    weight = model[-1].coef_[[*model[0].get_feature_names_out()].index("numbers__fare")]
    assert moved.keys() == {"fare", "town"}
    assert moved["fare"] == pytest.approx(10 * weight)


def test_a_row_has_the_same_values_alone_and_among_others(passengers: pd.DataFrame, bundle_of: BundleOf) -> None:
    sample = passengers[[*WORDS, *NUMBERS]]
    for name, model in {"exact": RandomForestClassifier(**FORESTS), "sampled": LinearSVC()}.items():
        fitted = make_pipeline(_one_hot(), model).fit(sample, passengers["survived"])
        served, made = _attributed(bundle_of(fitted, sample, name), sample)
        alone = made.attribution.shap_values(served.display.frame(records_of(sample.iloc[[7]]), ["a"]))
        np.testing.assert_allclose(alone[0], made.values[7], atol=1e-12)


@pytest.mark.parametrize(
    ("model", "target", "told"),
    [
        (LinearSVC(), "survived", "not what one linear step, or trees, give"),
        (KNeighborsClassifier(), "class", "not what one linear step, or trees, give"),
        (CalibratedClassifierCV(LinearSVC(), cv=2), "survived", "not what one linear step, or trees, give"),
        (PoissonRegressor(), "pay", "not what one linear step, or trees, give"),
        (make_pipeline(PolynomialFeatures(2), LinearRegression()), "pay", "does not keep features apart"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_what_cannot_be_looked_into_is_sampled(
    model: Any, target: str, told: str, passengers: pd.DataFrame, bundle_of: BundleOf
) -> None:
    sample = passengers[["fare", "own_cabin"]].head(60).astype(float)
    y = passengers[target].head(60)
    path = bundle_of(model.fit(sample, y.abs()), sample, "sampled")
    served, made = _attributed(path, sample)
    assert isinstance(made.attribution, SampledAttribution)
    assert made.attribution.interactions(served.display.frame([], [])) is None
    assert [note for note in made.notes if told in note]
    outputs = served.outputs(served.display.frame(records_of(sample), [""] * len(sample)))
    np.testing.assert_allclose(_total(made), outputs, atol=1e-12 * max(1.0, float(np.abs(outputs).max())))


def test_sampled_values_of_few_features_are_shapleys_own(homes: pd.DataFrame, compiled_bundle: Path) -> None:
    predictor = load(compiled_bundle)
    served = served_of(Display(predictor.schema), predictor)
    frame = served.display.frame(records_of(homes), [str(place) for place in homes.index])
    attribution = SampledAttribution(served, frame.head(6))
    background = frame.head(6)
    row = frame.iloc[[20]]

    def known(features: tuple[str, ...]) -> Any:
        return served.outputs(background.assign(**{name: row[name].iloc[0] for name in features})).mean(axis=0)

    names = list(frame.columns)
    for place, name in enumerate(names):
        others = [other for other in names if other != name]
        wanted = sum(
            math.factorial(len(part)) * math.factorial(len(others) - len(part)) / math.factorial(len(names))
            * (known((*part, name)) - known(part))
            for size in range(len(names))
            for part in itertools.combinations(others, size)
        )  # fmt: skip
        np.testing.assert_allclose(attribution.values(row)[0, place], wanted, atol=1e-12)


def test_sampling_keeps_to_rows_that_take_a_bearable_time(
    passengers: pd.DataFrame, bundle_of: BundleOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.dashboard.explainer.sampling._MOST_PREDICTIONS", 1)
    monkeypatch.setattr("fairlead.dashboard.explainer.sampling._FEWEST_ROWS", 30)
    sample = passengers[["class", "fare"]]
    path = bundle_of(LinearSVC().fit(sample, passengers["survived"]), sample, "many")
    y = np.zeros(len(sample), dtype=np.int64)
    y[150] = 1
    _, made = _attributed(path, sample, y=y)
    assert len(made.rows) == len(made.values) == 30
    assert 150 in made.rows
    assert made.notes[-1].startswith("30 of 200 rows are kept")


def test_a_probability_can_be_wanted_of_boosted_trees(passengers: pd.DataFrame, bundle_of: BundleOf) -> None:
    sample = passengers[["class", "fare"]]
    path = bundle_of(GradientBoostingClassifier(n_estimators=5).fit(sample, passengers["survived"]), sample, "boosted")
    _, made = _attributed(path, sample, ModelOutput("probability", is_firm=True))
    assert isinstance(made.attribution, ExactAttribution)
    assert made.attribution.space == "probability"


def test_a_probability_that_is_wanted_of_a_linear_model_is_sampled(
    linear_bundle: Path, passengers: pd.DataFrame
) -> None:
    sample = passengers[["class", "sex", "fare", "town"]]
    _, made = _attributed(linear_bundle, sample, ModelOutput("probability", is_firm=True))
    assert isinstance(made.attribution, SampledAttribution)
    assert made.attribution.space == "probability"
    assert "log-odds" in made.notes[0]
    _, made = _attributed(linear_bundle, sample, ModelOutput("probability", is_firm=False))
    assert isinstance(made.attribution, ExactAttribution)
    assert "add up to its logodds, not to probability" in made.notes[0]


def test_log_odds_that_a_model_has_not_are_an_error(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    sample = passengers[list(load(survival_bundle).schema.names)]
    with pytest.raises(DashboardError, match="add up to its probability, not to logodds"):
        _attributed(survival_bundle, sample, ModelOutput("logodds", is_firm=True))
    _, made = _attributed(survival_bundle, sample, ModelOutput("logodds", is_firm=False))
    assert "not to logodds" in made.notes[0]


def test_a_regression_has_no_log_odds(pay_bundle: Path, passengers: pd.DataFrame) -> None:
    with pytest.raises(DashboardError, match="expected none for a regression"):
        _attributed(pay_bundle, passengers[list(load(pay_bundle).schema.names)], ModelOutput("logodds", is_firm=True))


def test_an_onnx_graph_that_the_user_brought_is_sampled(passengers: pd.DataFrame, tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    from fairlead.bundle.build import BuildOptions, build

    sample = passengers[["class", "fare"]].astype(np.float32)
    model = RandomForestClassifier(4, max_depth=3, random_state=0).fit(sample.to_numpy(), passengers["survived"])
    (tmp_path / "model.onnx").write_bytes(to_onnx(model, sample.to_numpy()[:1]).SerializeToString())
    path = build(tmp_path / "model.onnx", tmp_path / "graph", BuildOptions(data=sample)).path
    _, made = _attributed(path, sample)
    assert isinstance(made.attribution, SampledAttribution)


def test_the_users_own_class_is_sampled(tmp_path: Path) -> None:
    from fairlead.bundle.build import BuildOptions, build

    code = tmp_path / "tariff_model.py"
    code.write_text(
        "class Tariff:\n    def predict(self, km: float, night: bool):\n        return km * (3 if night else 2)\n"
    )
    path = build("tariff_model:Tariff", tmp_path / "tariff", BuildOptions(code=code)).path
    sample = pd.DataFrame({"km": [1.0, 2.0, 5.0], "night": [True, False, True]})
    _, made = _attributed(path, sample)
    assert isinstance(made.attribution, SampledAttribution)
    assert _total(made)[:, 0].tolist() == pytest.approx([3.0, 4.0, 15.0])


def test_the_users_own_step_is_seen_through(prepared_bundle: Path) -> None:
    sample = pd.DataFrame({"area": [100.0, 25.0, 49.0, 81.0], "rooms": [1, 2, 3, 4]})
    served, made = _attributed(prepared_bundle, sample)
    assert isinstance(made.attribution, ExactAttribution)
    outputs = served.outputs(served.display.frame(records_of(sample), [""] * 4))
    np.testing.assert_allclose(_total(made), outputs)


def test_a_vectorizers_columns_are_found_by_trying(passengers: pd.DataFrame) -> None:
    sample = passengers[["class", "sex", "town"]]
    vectorizer = DictVectorizer().fit(records_of(sample))
    categories = {name: tuple(sorted(sample[name].unique())) for name in ("sex", "town")}
    schema = Schema(
        features=(
            Feature(name="town", type="string", categories=categories["town"]),
            Feature(name="class", type="int"),
            Feature(name="sex", type="string", categories=categories["sex"]),
        )
    )
    # All of one town, so that the others are only known from the schema.
    some = [{**record, "town": "Oslo"} for record in records_of(sample)[:30]]
    found = origins(lambda records: vectorizer.transform(records).toarray(), some, schema)
    assert found is not None
    wanted = [schema.names.index(name.partition("=")[0]) for name in vectorizer.feature_names_]
    assert found.tolist() == wanted


def _schema_of(*names: str) -> Schema:
    return Schema(features=tuple(Feature(name=name, type="float", nullable=True) for name in names))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a, b: [a * b],
        lambda a, b: [a + b],
        lambda a, b: [a, b if a > 1 else 0.0],
        lambda a, b: [a, b, a if b is None else b],
    ],
)
def test_a_column_of_several_features_belongs_to_none(mixed: Callable[[Any, Any], list[float]]) -> None:
    records = [{"a": float(place % 3), "b": float(place)} for place in range(6)] + [{"a": 2.0, "b": None}]

    def matrix(rows: Any) -> Any:
        return np.array([[np.nan if one is None else one for one in _numbers(mixed, row)] for row in rows], dtype=float)

    assert origins(matrix, records, _schema_of("a", "b")) is None


def _numbers(mixed: Callable[[Any, Any], list[float]], row: dict[str, Any]) -> list[float]:
    try:
        return mixed(row["a"], row["b"])
    except TypeError:
        return [np.nan] * len(mixed(0.0, 0.0))


def test_a_record_that_nobody_has_seen_may_be_refused() -> None:
    def matrix(rows: Any) -> Any:
        if any(row["a"] is None or row["a"] < 1 for row in rows):
            raise ValueError("too small")
        return np.array([[row["a"], 7.0] for row in rows])

    found = origins(matrix, [{"a": 1.0}, {"a": 2.0}], _schema_of("a"))
    assert found is not None
    assert found.tolist() == [0, -1]


def test_a_column_that_moves_in_a_rare_row_only_is_found() -> None:
    few = [{"a": float(place % 3), "b": float(place)} for place in range(6)]

    def matrix(rows: Any) -> Any:
        return np.array([[row["a"] == 7.5, row["b"], (row["b"] or 0) > 70 and row["a"] == 8.5] for row in rows], float)

    rare = [[], [{"a": 7.5, "b": 0.0}], [{"a": 7.5, "b": 99.0}, {"a": 8.5, "b": 99.0}]]
    found = [origins(matrix, few, _schema_of("a", "b"), [*few, *more]) for more in rare]
    assert [None if places is None else places.tolist() for places in found] == [[-1, 1, -1], [0, 1, -1], None]


def test_columns_add_up_to_their_features_along_any_axis() -> None:
    found = Origins(np.array([2, 0, -1, 2]), 3).summed(np.arange(8.0).reshape(2, 4, 1), axis=1)
    assert found[..., 0].tolist() == [[1.0, 0.0, 3.0], [5.0, 0.0, 11.0]]
    assert Origins(np.array([-1]), 2).summed(np.ones((1, 1)), axis=1).tolist() == [[0.0, 0.0]]


def test_a_model_is_parted_into_steps_however_deep() -> None:
    inner = make_pipeline(SimpleImputer(), LinearRegression())
    steps, last = split(make_pipeline("passthrough", PolynomialFeatures(), inner))
    assert [type(step).__name__ for step in steps] == ["PolynomialFeatures", "SimpleImputer"]
    assert isinstance(last, LinearRegression)
