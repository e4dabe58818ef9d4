"""Explainers: what a page shows is what the predictor gives, and it is computed ahead."""

from __future__ import annotations

import importlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dash.exceptions import PreventUpdate
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.build import BuildOptions, build
from fairlead.bundle.read import open_bundle
from fairlead.dashboard.boards import explainer_file, layout
from fairlead.dashboard.boards.board import Board
from fairlead.dashboard.boards.visit import visit
from fairlead.dashboard.explainer.attribution import Attribution, ExactAttribution
from fairlead.dashboard.explainer.explain import ExplainerOptions, attach, detach, explain
from fairlead.errors import DashboardError
from fairlead.predict.predictor import Predictor, load
from fairlead.schema import Schema
from observing import observed_of, records_of

BundleOf = Callable[[Any, pd.DataFrame, str], Path]


def _silent(what: str, share: float) -> None:
    """Be told and say nothing."""


def _explained(path: Path, sample: pd.DataFrame, y: Any, **options: Any) -> Any:
    bundle = open_bundle(path)
    return explain(bundle, observed_of(bundle, sample, y), ExplainerOptions(**options), _silent)


def _sample(path: Path, passengers: pd.DataFrame) -> pd.DataFrame:
    return passengers[list(load(path).schema.names)]


class OutsideRows:
    """Rows that are not in the explainer, as `fairlead.dashboard.rows` gives them."""

    def __init__(self, records: dict[str, dict[str, Any]], listed: bool = False, observed: Any = 1) -> None:
        self.trouble = None
        self.records = records
        self.listed = listed
        self.observed = observed

    def record(self, index: str) -> dict[str, Any] | None:
        return self.records.get(index)

    def y(self, index: str) -> Any | None:
        return self.observed if index in self.records else None

    def exists(self, index: str) -> bool:
        return index in self.records

    def indexes(self) -> list[str] | None:
        return list(self.records) if self.listed else None

    def close(self) -> None:
        pass


def _stored(explainer: Any, path: Path, folder: Path, rows: OutsideRows | None = None) -> Any:
    """Write an explainer and load it again, as a board does."""
    detach(explainer)
    explainer_file.dump(explainer, folder / "explainer.pickle")
    loaded = explainer_file.load(folder / "explainer.pickle")
    attach(loaded, load(path), rows)
    return loaded


def _dashboard(explainer: Any, **options: Any) -> Any:
    display = explainer.model.display
    features = dict(zip(display.columns, display.schema.features, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a board does
        return layout.make(explainer, options, "/odd/", features, is_listed=False)


def _visited(explainer: Any, outside: tuple[str, ...] = (), **options: Any) -> tuple[str, ...]:
    dashboard = _dashboard(explainer, **options)
    board = Board("odd", "", "", None, dashboard.app.server, explainer, dashboard)
    return visit(board, outside).failed


@pytest.fixture(scope="module")
def survival(survival_bundle: Path, passengers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give an explainer of 150 passengers, loaded from a file, with the other 50 outside; do not change it."""
    sample = _sample(survival_bundle, passengers)
    explainer = _explained(survival_bundle, sample.head(150), passengers["survived"].head(150), interactions=True)
    outside = dict(zip(sample.index[150:], records_of(sample.iloc[150:]), strict=True))
    outside["<P>"] = {**records_of(sample.tail(1))[0], "town": "a town that nobody has seen"}
    return _stored(explainer, survival_bundle, tmp_path_factory.mktemp("survival"), OutsideRows(outside))


@pytest.fixture(scope="module")
def survival_predictor(survival_bundle: Path) -> Predictor:
    return load(survival_bundle)


@pytest.mark.parametrize("index", ["P000", "P017", "P150", "P199"])
def test_a_page_shows_the_predictors_answer(
    index: str, survival: Any, survival_predictor: Predictor, passengers: pd.DataFrame
) -> None:
    record = records_of(passengers.loc[[index]])[0]
    answer = survival_predictor.run([record]).predictions[0]
    assert answer is not None
    wanted = list(answer["probabilities"].values())
    typed = survival.get_row_from_input(survival.get_X_row(index, merge=True).iloc[0].tolist())
    assert survival.prediction_result_df(index, round=15).probability.tolist() == pytest.approx(wanted, abs=1e-14)
    assert survival.prediction_result_df(X_row=typed, round=15).probability.tolist() == pytest.approx(wanted, abs=1e-14)
    for label in (0, 1):
        for row in ({"index": index}, {"X_row": typed}):
            shown = survival.get_contrib_df(**row, pos_label=label)
            assert shown.contribution.iloc[-1] == pytest.approx(wanted[label], rel=1e-9)
            assert shown.contribution.iloc[:-1].sum() == pytest.approx(wanted[label], rel=1e-9)


def test_a_row_from_outside_keeps_a_word_that_nobody_has_seen(survival: Any, survival_predictor: Predictor) -> None:
    assert survival.get_X_row("<P>")["town"].tolist() == ["a town that nobody has seen"]
    assert survival.get_X_row("‹P›").equals(survival.get_X_row("<P>"))
    record = survival.model.display.records(survival.get_X_row("<P>"))[0]
    answer = survival_predictor.run([record]).predictions[0]
    assert answer is not None
    pdp = survival.pdp_df("town", index="<P>")
    assert pdp["a town that nobody has seen"].iloc[0] == pytest.approx(100 * answer["probabilities"]["1"])


def test_outside_rows_have_what_was_observed(survival: Any) -> None:
    assert survival.index_exists("P150")
    assert survival.get_y("P150") == 1
    assert not survival.index_exists("nobody")


@contextmanager
def _looked_up_in(rows: OutsideRows, explainer: Any) -> Iterator[None]:
    before = explainer._get_X_row_func, explainer._get_y_func, explainer._index_exists_func
    attach(explainer, explainer.model.predictor, rows)
    try:
        yield
    finally:
        explainer._get_X_row_func, explainer._get_y_func, explainer._index_exists_func = before


@pytest.mark.parametrize(
    ("value", "place"),
    [(0, 0), (1.0, 1), ("1", 1), ("0", 0), (True, 1), (2, None), ("yes", None), (None, None)],
)
def test_a_class_that_the_model_does_not_know_was_not_observed(value: Any, place: int | None, survival: Any) -> None:
    with _looked_up_in(OutsideRows({"here": {}}, observed=value), survival):
        assert survival.get_y("here") == place


@pytest.mark.parametrize(
    ("value", "number"), [(7, 7.0), ("2.5", 2.5), (10**400, None), ("much", None), ("1e999", None)]
)
def test_what_is_no_number_was_not_measured(value: Any, number: float | None, pay: Any) -> None:
    with _looked_up_in(OutsideRows({"here": {}}, observed=value), pay):
        assert pay.get_y("here") == number


def test_a_row_that_goes_away_is_told(survival: Any) -> None:
    rows = OutsideRows({"here": {}})
    rows.record = lambda index: None
    with _looked_up_in(rows, survival), pytest.raises(DashboardError, match="here: this row was there"):
        survival.get_X_row("here")


def test_every_callback_works_and_nothing_is_computed_that_was_stored(
    survival: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[int] = []
    compute = ExactAttribution.values

    def counting(self: Any, frame: pd.DataFrame, *told: Any) -> Any:
        explained.append(len(frame))
        return compute(self, frame, *told)

    monkeypatch.setattr(ExactAttribution, "values", counting)
    monkeypatch.setattr(ExactAttribution, "interactions", None)
    kept = set(vars(survival))
    _dashboard(survival)
    assert explained == []  # a board comes up without one SHAP value
    assert _visited(survival, ("P150", "‹P›")) == ()
    assert set(explained) == {1}  # what is typed, and rows from outside
    assert set(vars(survival)) - kept <= {"_graphviz_available", "_index_list"}


@pytest.mark.parametrize(
    ("column", "typed"),
    [
        *(("class", typed) for typed in (None, "", 2.5, 1e30, float("inf"), 2**63, "much")),
        *(("fare", typed) for typed in ("much", "missing")),
        *(("sex", typed) for typed in (True, -999, 1.5)),
        *(("own_cabin", typed) for typed in ("maybe", True, 2)),
    ],
)
def test_what_the_model_refuses_shows_nothing(column: str, typed: Any, survival: Any) -> None:
    row = survival.get_X_row("P000", merge=True).iloc[0]
    inputs = [typed if name == column else value for name, value in row.items()]
    with pytest.raises(PreventUpdate):
        survival.get_row_from_input(inputs)
    with pytest.raises(PreventUpdate):
        survival.get_row_from_input([inputs])


def test_missing_values_can_be_typed(survival: Any, survival_predictor: Predictor, passengers: pd.DataFrame) -> None:
    row = survival.get_X_row("P000", merge=True).iloc[0]
    typed = {**row, "age": -999, "deck": "missing"}
    assert "missing" in survival.categorical_dict["deck"]
    shown = survival.get_row_from_input(list(typed.values()))
    record = {**records_of(passengers.loc[["P000"]])[0], "age": None, "deck": None}
    answer = survival_predictor.run([record]).predictions[0]
    assert answer is not None
    shown_probability = survival.prediction_result_df(X_row=shown, round=15).probability.tolist()
    assert shown_probability == pytest.approx(list(answer["probabilities"].values()), abs=1e-14)
    assert "-999 where it is missing" in survival.description("age")


@pytest.mark.parametrize("asked", [{"sample": 10**9, "n_grid_points": 10**9}, {"sample": 1, "n_grid_points": 1}])
def test_what_a_browser_may_ask_is_bounded(asked: dict[str, int], survival: Any) -> None:
    shown = survival.pdp_df("fare", **asked)
    assert shown.shape[0] <= 500
    assert shown.shape[1] <= 51


@pytest.mark.parametrize("asked", [{"sample": None}, {"n_grid_points": "10"}, {"n_grid_points": 0}, {"sample": True}])
def test_what_makes_no_sense_shows_nothing(asked: dict[str, Any], survival: Any) -> None:
    with pytest.raises(PreventUpdate):
        survival.pdp_df("fare", **asked)


def test_integers_are_shown_as_integers(survival: Any) -> None:
    points = list(survival.pdp_df("class").columns)
    assert points == sorted({round(point) for point in points})
    assert survival.X["class"].dtype == np.int64


def test_a_store_is_small_and_holds_no_predictor(survival: Any, survival_bundle: Path, tmp_path: Path) -> None:
    detach(survival)
    try:
        explainer_file.dump(survival, tmp_path / "explainer.pickle")
        loaded = explainer_file.load(tmp_path / "explainer.pickle")
        assert loaded.model.predictor is None
        assert (tmp_path / "explainer.pickle").stat().st_size < 1_000_000
    finally:
        attach(survival, load(survival_bundle), None)


def test_a_list_of_rows_from_outside_can_be_chosen_from(survival: Any, survival_bundle: Path, tmp_path: Path) -> None:
    detach(survival)
    explainer_file.dump(survival, tmp_path / "explainer.pickle")
    attach(survival, load(survival_bundle), None)
    loaded = explainer_file.load(tmp_path / "explainer.pickle")
    attach(loaded, load(survival_bundle), OutsideRows({"P000": {}, "<new>": {}}, listed=True))
    assert list(loaded.get_index_list()) == [*survival.idxs, "‹new›"]


def test_another_model_cannot_take_the_place(survival: Any, pay_bundle: Path) -> None:
    with pytest.raises(DashboardError, match="build the dashboard again"):
        attach(survival, load(pay_bundle), None)


def test_two_builds_give_the_same(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    sample = _sample(survival_bundle, passengers).head(60)
    np.random.seed(1)
    state = np.random.get_state()[1].tolist()
    one, two = (_explained(survival_bundle, sample, passengers["survived"].head(60)) for _ in range(2))
    assert one.get_permutation_importances_df().equals(two.get_permutation_importances_df())
    assert one.get_shap_values_df().equals(two.get_shap_values_df())
    assert np.random.get_state()[1].tolist() == state


def test_progress_is_told(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    bundle = open_bundle(survival_bundle)
    observed = observed_of(bundle, _sample(survival_bundle, passengers).head(30), passengers["survived"].head(30))
    steps: list[tuple[str, float]] = []
    explain(bundle, observed, ExplainerOptions(interactions=True), lambda *step: steps.append(step))
    shares = [share for _, share in steps]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert {"predictions", "SHAP values", "SHAP interactions", "importances", "performance"} <= {
        what for what, _ in steps
    }


@pytest.fixture(scope="module")
def pay(pay_bundle: Path, passengers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give an explainer of a regression, loaded from a file, with passenger P199 outside; do not change it."""
    sample = _sample(pay_bundle, passengers)
    params = {"units": "kr", "target": "Pay", "index_name": "PassengerName", "model_output": "raw"}
    explainer = _explained(pay_bundle, sample.head(190), passengers["pay"].head(190), params=params)
    outside = OutsideRows({"P199": records_of(sample.loc[["P199"]])[0]})
    return _stored(explainer, pay_bundle, tmp_path_factory.mktemp("pay"), outside)


def test_a_regression_shows_the_predictors_number(pay: Any, pay_bundle: Path, passengers: pd.DataFrame) -> None:
    answers = load(pay_bundle).run(records_of(_sample(pay_bundle, passengers))).predictions
    for place, index in ((3, "P003"), (199, "P199")):
        wanted = answers[place]["prediction"]
        assert pay.get_contrib_df(index).contribution.iloc[-1] == pytest.approx(wanted, rel=1e-9)
        assert pay.prediction_result_df(index, round=9)["Pay"][0] == f"{wanted:.9f} kr"
    assert pay.get_y("P199") == 1.0
    assert pay.index_name == "PassengerName"
    assert pay.notes == ()


def test_odd_features_and_three_classes(passengers: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    some = passengers.head(60)
    sample = some[["fare", "own_cabin", "age"]].rename(columns={"fare": "fare.in {kr}", "age": "the age = <x>"})
    model = RandomForestClassifier(5, max_depth=3, random_state=0)
    words = some["class"].map({1: "1st", 2: "<2nd>", 3: "3rd"})
    path = bundle_of(model.fit(sample.fillna(30).to_numpy(), words), sample, "odd")
    explainer = _explained(path, sample, words, positive_class_only=True, precision="float32")
    explainer = _stored(explainer, path, tmp_path)
    assert explainer.keeps_one_label
    assert not any("<" in label for label in explainer.labels)
    answer = load(path).run(records_of(sample)[:1]).predictions[0]
    assert answer is not None
    wanted = list(answer["probabilities"].values())
    assert explainer.prediction_result_df("P000", round=15).probability.tolist() == pytest.approx(wanted, abs=1e-14)
    assert explainer.get_contrib_df("P000").contribution.iloc[-1] == pytest.approx(wanted[1], rel=1e-5)
    assert _visited(explainer) == ()


def test_several_classes_in_log_odds_add_up_to_what_is_shown(passengers: pd.DataFrame, bundle_of: BundleOf) -> None:
    sample = passengers[["fare", "own_cabin"]]
    path = bundle_of(LogisticRegression().fit(sample, passengers["class"]), sample, "linear3")
    explainer = _explained(path, sample, passengers["class"], interactions=True)
    assert explainer.model_output == "logodds"
    assert not explainer.interactions_should_work
    assert explainer.notes == ("no SHAP interactions: only trees have them",)
    shown = explainer.prediction_result_df("P004", logodds=True, round=12).logodds
    for label in range(3):
        total = explainer.get_contrib_df("P004", pos_label=label).contribution.iloc[-1]
        assert total == pytest.approx(shown[label], abs=1e-9)


def test_one_feature_is_enough(passengers: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    sample, survived = passengers[["fare"]].head(60), passengers["survived"].head(60) == 1
    path = bundle_of(DecisionTreeClassifier(max_depth=3).fit(sample, survived), sample, "one")
    explainer = _stored(_explained(path, sample, survived), path, tmp_path)
    assert explainer.labels == ["false", "true"]
    assert _visited(explainer, tabs=["importances", "contributions", "whatif", "shap_dependence"]) == ()


def test_nobody_observed_anything(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    explainer = _explained(survival_bundle, _sample(survival_bundle, passengers).head(40), None)
    assert explainer.y_missing
    assert explainer.get_contrib_df("P001").contribution.iloc[-1] == pytest.approx(
        explainer.prediction_result_df("P001", round=15).probability[1]
    )


def test_a_class_that_was_never_observed_is_told(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    with pytest.raises(DashboardError, match="no row was observed as 1: give rows of every class"):
        _explained(survival_bundle, _sample(survival_bundle, passengers).head(20), [0] * 20)


def test_float32_where_no_prediction_changes(passengers: pd.DataFrame, bundle_of: BundleOf) -> None:
    sample = passengers[["fare", "own_cabin"]].assign(third=passengers["fare"] / 3)
    path = bundle_of(LogisticRegression(max_iter=999).fit(sample, passengers["survived"]), sample, "digits")
    explainer = _explained(
        path, sample.assign(fare=sample["fare"].round()), passengers["survived"], precision="float32"
    )
    assert explainer.X.dtypes["fare"] == np.float32
    assert explainer.X.dtypes["third"] == np.float64
    assert explainer.get_shap_values_df().to_numpy().dtype == np.float32
    assert explainer.notes[0].startswith("third: held in float64")


def test_one_hot_columns_are_put_together(passengers: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    sample = pd.get_dummies(passengers[["fare", "sex", "town"]], columns=["sex", "town"], dtype=float)
    path = bundle_of(
        RandomForestClassifier(5, max_depth=3, random_state=0).fit(sample, passengers["survived"]), sample, "hot"
    )
    cats = ["sex", {"Home": [name for name in sample if name.startswith("town")], "fare": ["fare"]}]
    params = {
        "cats": cats,
        "descriptions": {"sex": "as written", "nothing": "?"},
        "labels": ["lost", "saved"],
        "pos_label": "saved",
    }
    explainer = _stored(_explained(path, sample, passengers["survived"], params=params), path, tmp_path)
    assert set(explainer.merged_cols) == {"fare", "sex", "Home"}
    assert explainer.labels == ["lost", "saved"]
    assert explainer.description("sex") == "as written"
    shown = explainer.prediction_result_df("P003", round=15).probability[1]
    typed = explainer.get_row_from_input(explainer.get_X_row("P003", merge=True).iloc[0].tolist())
    assert explainer.prediction_result_df(X_row=typed, round=15).probability[1] == shown
    assert explainer.get_contrib_df("P003").contribution.iloc[-1] == pytest.approx(shown)
    assert explainer.pdp_df("Home", X_row=typed).shape[1] == 3


WRITTEN_BY_TO_YAML = {
    "shap": "guess", "model_output": "probability", "cats": None, "cats_notencoded": None, "descriptions": {},
    "target": "Outcome", "n_jobs": None, "permutation_cv": None, "cv": None, "na_fill": -999, "precision": "float32",
    "shap_kwargs": None, "strip_pipeline_prefix": False, "auto_detect_pipeline_cats": False, "labels": ["no", "yes"],
    "pos_label": 1,
}  # fmt: skip


def test_what_the_library_itself_writes_is_read(linear_bundle: Path, passengers: pd.DataFrame) -> None:
    sample = _sample(linear_bundle, passengers)
    explainer = _explained(linear_bundle, sample, passengers["survived"], params=WRITTEN_BY_TO_YAML)
    assert explainer.precision == "float32"
    assert explainer.model_output == "logodds"
    assert any("not to probability" in note for note in explainer.notes)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"labels": ["only one"]}, "labels: expected 2 different ones"),
        ({"cats": {"G": ["class", "fare"]}}, "cats: class is not a onehot encoded column"),
        ({"precision": "float16"}, "precision: expected float64 or float32, got 'float16'"),
        ({"model_output": "margin"}, "model_output: expected probability or logodds, got 'margin'"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(
    params: dict[str, Any], told: str, linear_bundle: Path, passengers: pd.DataFrame
) -> None:
    sample = _sample(linear_bundle, passengers).head(30)
    with pytest.raises(DashboardError) as caught:
        _explained(linear_bundle, sample, passengers["survived"].head(30), params=params)
    assert told in str(caught.value)


def test_rows_that_the_model_refuses_are_told(prepared_bundle: Path) -> None:
    bundle = open_bundle(prepared_bundle)
    frame = pd.DataFrame({"area": [100.0, 13.0, 49.0], "rooms": [1, 2, 3]})
    with pytest.raises(DashboardError, match=r"refuses rows that are to be explained:\n.*\$\[1\]"):
        explain(bundle, observed_of(bundle, frame, [1, 2, 3]), ExplainerOptions(), _silent)


def test_two_rows_are_too_few(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    with pytest.raises(DashboardError, match="expected 3 rows or more to be explained, got 2"):
        _explained(survival_bundle, _sample(survival_bundle, passengers).head(2), [0, 1])


def test_a_feature_that_is_always_missing_can_be_drawn(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    sample = _sample(survival_bundle, passengers).head(30).assign(age=np.nan)
    explainer = _explained(survival_bundle, sample, passengers["survived"].head(30))
    assert explainer.pdp_df("age", index="P001").shape == (30, 1)


def test_datetimes_and_bools_that_may_be_missing(prepared_homes: Path, tmp_path: Path) -> None:
    times = [f"2024-0{1 + place % 6}-01T0{place % 10}:00:00Z" for place in range(30)]
    records = [{"at": at, "ok": (None, True, False)[place % 3], "n": place % 4} for place, at in enumerate(times)]
    bundle = open_bundle(prepared_homes)
    observed = replace(
        observed_of(bundle, pd.DataFrame({"n": range(30)}), [float(place) for place in range(30)]), records=records
    )
    explainer = explain(bundle, observed, ExplainerOptions(), _silent)
    explainer = _stored(explainer, prepared_homes, tmp_path)
    answers = load(prepared_homes).run(records).predictions
    assert explainer.preds.tolist() == [answer["prediction"] for answer in answers]
    assert explainer.get_contrib_df("4").contribution.iloc[-1] == pytest.approx(answers[4]["prediction"])
    assert explainer.categorical_dict["ok"] == ["false", "missing", "true"]
    typed = explainer.get_row_from_input(explainer.get_X_row("4", merge=True).iloc[0].tolist())
    assert explainer.model.display.records(typed) == [records[4]]


@pytest.fixture(scope="module")
def prepared_homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle of a class that takes a datetime and a bool that may be null."""
    folder = tmp_path_factory.mktemp("moment")
    code = folder / "moment_model.py"
    code.write_text(
        "class Moment:\n"
        "    def predict(self, at, ok, n):\n"
        "        return at.month * 1.0 + (10 if ok is None else 5 * ok) + n * at.hour\n"
    )
    features = [
        {"name": "at", "type": "datetime"},
        {"name": "ok", "type": "bool", "nullable": True},
        {"name": "n", "type": "int"},
    ]
    schema = Schema.parse({"features": features})
    return build("moment_model:Moment", folder / "moment", BuildOptions(code=code, schema=schema)).path


def test_classes_of_the_users_own_module_come_back_with_the_predictor(
    passengers: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "own_steps.py"
    code.write_text(
        "from sklearn.base import BaseEstimator, TransformerMixin\n\n\n"
        "class Halved(TransformerMixin, BaseEstimator):\n"
        "    def fit(self, X, y=None):\n"
        "        self.n_features_in_ = X.shape[1]\n"
        "        return self\n\n"
        "    def transform(self, X):\n"
        "        return X / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sample = passengers[["fare", "own_cabin"]].astype(float)
    model = make_pipeline(importlib.import_module("own_steps").Halved(), LinearRegression())
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model.fit(sample, passengers["pay"])))
    options = BuildOptions(data=sample, code=code, trust=["own_steps.Halved"])
    path = build(tmp_path / "model.pkl", tmp_path / "halved", options).path
    explainer = _explained(path, sample, passengers["pay"])
    assert isinstance(explainer.shap_explainer, ExactAttribution)
    detach(explainer)
    explainer_file.dump(explainer, tmp_path / "explainer.pickle")
    monkeypatch.delitem(sys.modules, "own_steps")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path)])
    with pytest.raises(ModuleNotFoundError):
        explainer_file.load(tmp_path / "explainer.pickle")
    predictor = load(path)
    loaded = explainer_file.load(tmp_path / "explainer.pickle")
    attach(loaded, predictor, None)
    typed = loaded.get_row_from_input(loaded.get_X_row("P001").iloc[0].tolist())
    assert loaded.get_contrib_df(X_row=typed).contribution.iloc[-1] == pytest.approx(loaded.preds[1])


def test_an_attribution_is_what_the_library_asks_for(survival: Any) -> None:
    attribution = survival.shap_explainer
    assert isinstance(attribution, Attribution)
    assert attribution.expected_value == pytest.approx(survival._shap_base_value)
