"""Single trees: what they say is what the model does, told by the features that people know."""

from __future__ import annotations

import base64
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from dash.exceptions import PreventUpdate
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from fairlead.bundle.read import open_bundle
from fairlead.dashboard.boards import explainer_file, layout
from fairlead.dashboard.boards.board import Board
from fairlead.dashboard.boards.memory import parts_of
from fairlead.dashboard.boards.visit import visit
from fairlead.dashboard.explainer.explain import ExplainerOptions, attach, detach, explain
from fairlead.dashboard.explainer.tree_columns import NumberColumn, OwnColumn, Split, WordColumn
from fairlead.errors import DashboardError
from fairlead.predict.predictor import load
from observing import observed_of, records_of

BundleOf = Callable[[Any, pd.DataFrame, str], Path]
TOWNS = ["Bergen", "Oslo", "Molde"]


def explained(path: Path, sample: pd.DataFrame, y: Any, folder: Path, rows: Any = None, **options: Any) -> Any:
    """Make an explainer, write it and load it again, as a board does."""
    bundle = open_bundle(path)
    explainer = explain(bundle, observed_of(bundle, sample, y), ExplainerOptions(**options), lambda what, share: None)
    detach(explainer)
    explainer_file.dump(explainer, folder / "explainer.pickle")
    loaded = explainer_file.load(folder / "explainer.pickle")
    attach(loaded, load(path), rows)
    return loaded


def board_of(explainer: Any, **params: Any) -> Board:
    display = explainer.model.display
    features = dict(zip(display.columns, display.schema.features, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a board does
        dashboard = layout.make(explainer, params, "/trees/", features, is_listed=False)
    return Board("trees", "", "", None, dashboard.app.server, explainer, dashboard)  # no store


def told(explainer: Any, index: str, tree: int = 0, **of: Any) -> list[tuple[str, str, str, str]]:
    return list(explainer.get_decisionpath_summary_df(tree, index, **of).itertuples(index=False, name=None))


def summed_or_averaged(explainer: Any, index: str, label: int) -> float:
    bars = explainer.plot_trees(index, pos_label=label).data[0]
    if "prediction" in bars.text[0]:
        return float(np.mean(bars.y))
    return float(bars.base[0] + np.sum(bars.y))


class Outside:
    """Rows that are not in the explainer, as `fairlead.dashboard.rows` gives them."""

    trouble = None

    def __init__(self, records: dict[str, dict[str, Any]]) -> None:
        self.records = records

    def record(self, index: str) -> dict[str, Any] | None:
        return self.records.get(index)

    def y(self, index: str) -> Any | None:
        return 1 if index in self.records else None

    def exists(self, index: str) -> bool:
        return index in self.records

    def indexes(self) -> list[str] | None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def survival(survival_bundle: Path, passengers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give an explainer of 60 passengers, with one outside who comes from a town that nobody has seen."""
    sample = passengers[list(load(survival_bundle).schema.names)].head(60)
    rows = Outside({"stranger": {**records_of(sample)[0], "town": "<Ur>", "age": None}})
    folder = tmp_path_factory.mktemp("survival")
    return explained(survival_bundle, sample, passengers["survived"].head(60), folder, rows)


def test_each_tree_says_what_it_predicts(survival: Any, survival_model: Pipeline, passengers: pd.DataFrame) -> None:
    matrix = survival_model[:-1].transform(passengers.loc[["P007"]])
    forest = survival_model[-1].estimators_
    wanted = [100 * tree.predict_proba(matrix)[0, 1] for tree in forest]
    bars = survival.plot_trees("P007", highlight_tree=3).data[0]
    numbers = [int(text.split("tree no ")[1].split(":")[0]) for text in bars.text]  # as a click is understood

    assert survival.no_of_trees == len(numbers) == 20
    assert bars.y.tolist() == pytest.approx(sorted(wanted))
    assert bars.y.tolist() == pytest.approx([wanted[number] for number in numbers])
    assert [color != bars.marker.color[0] for color in bars.marker.color].count(True) in (1, 19)
    for tree, value in enumerate(wanted):
        assert told(survival, "P007", tree)[-1][3] == f"{value:.4g}%"
        assert told(survival, "P007", tree, pos_label=0)[-1][3] == f"{100 - value:.4g}%"


@pytest.mark.parametrize("index", ["P007", "stranger"])
def test_the_way_of_a_row_ends_where_it_says(index: str, survival: Any) -> None:
    row = survival.get_X_row(index).iloc[0]
    for tree in range(survival.no_of_trees):
        way = told(survival, index, tree)
        assert way[0][2:] == ("Starting average", way[0][3])
        assert way[-1] == ("", "", "Final Prediction", way[-2][3])
        for feature, condition, _, _ in way[1:-1]:
            if isinstance(row[feature], str):
                assert condition.startswith((f"{row[feature]}: ", f"is {row[feature]}"))
            elif row[feature] == -999:
                assert condition.startswith("missing, taken as ")
            else:
                assert condition.startswith((f"{row[feature]:.6g} ≤ ", f"{row[feature]:.6g} > "))
    assert summed_or_averaged(survival, index, 1) == pytest.approx(
        100 * survival.model.predict_proba(survival.get_X_row(index))[0, 1]
    )


def test_a_tab_of_its_own(survival: Any) -> None:
    board = board_of(survival, tabs=["decision_trees"])
    page = str(board.dashboard.explainer_layout.to_html())

    assert "Decision path table" in page
    assert visit(board, ["stranger"]).failed == ()
    chosen = [one for one in board.dashboard.app.layout._traverse() if "-highlight-" in str(getattr(one, "id", ""))]
    assert [one.value for one in chosen] == ["0"] * 3  # a number would not be taken for one of the options
    tabs = board_of(survival).dashboard.explainer_layout.tabs
    assert type(tabs[-1]).__name__ == "DecisionTreesComposite"
    tabs = board_of(survival, decision_trees=False).dashboard.explainer_layout.tabs
    assert "DecisionTreesComposite" not in [type(tab).__name__ for tab in tabs]


def test_a_picture_shows_the_way(survival: Any) -> None:
    address = survival.decisiontree_encoded(2, "P007")
    picture = ElementTree.fromstring(base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")))
    passed = [box for box in picture.iter("{http://www.w3.org/2000/svg}rect") if box.get("stroke-width") == "3"]
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]

    assert len(passed) == len(told(survival, "P007", 2)) - 1
    assert told(survival, "P007", 2)[-1][3] in texts
    assert any(str(text).endswith("?") for text in texts)


def test_a_browser_may_ask_for_a_tree_that_is_not_there(survival: Any) -> None:
    for tree in (-1, 20):
        with pytest.raises(PreventUpdate):
            survival.get_decisionpath_summary_df(tree, "P007")
        with pytest.raises(PreventUpdate):
            survival.decisiontree_encoded(tree, "P007")
    assert survival.get_decisionpath_summary_df(0, None).empty


def test_trees_take_next_to_no_room(survival: Any) -> None:
    parts = parts_of(SimpleNamespace(_tree_columns=survival._tree_columns), 10**6)
    assert 0 < parts["decision trees"] < 20_000


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    random = np.random.default_rng(5)
    n = 120
    frame = pd.DataFrame(
        {
            "age": random.integers(1, 80, n).astype(float),
            "fare": random.gamma(2, 20, n).round(2),
            "town": random.choice(TOWNS, n),
            "class": random.integers(1, 4, n),
        }
    )
    frame.index = pd.Index([f"R{number}" for number in range(n)])
    return frame


def kinds_of(people: pd.DataFrame) -> pd.Series[Any]:
    kinds = np.where(people["age"] > 40, "old", np.where(people["town"] == "Oslo", "town", "other"))
    return pd.Series(kinds, index=people.index)


def boosted(module: str, name: str, **options: Any) -> Any:
    return getattr(pytest.importorskip(module), name)(n_estimators=6, max_depth=3, **options)


@pytest.mark.parametrize(
    ("make", "column"),
    [
        (lambda: ExtraTreesClassifier(5, max_depth=4, random_state=0), "kind"),
        (lambda: DecisionTreeRegressor(max_depth=4, random_state=0), "fare"),
        (lambda: GradientBoostingClassifier(n_estimators=6, random_state=0), "old"),
        (lambda: boosted("xgboost", "XGBClassifier"), "number"),
        (lambda: boosted("xgboost", "XGBClassifier"), "old"),
        (lambda: boosted("xgboost", "XGBRegressor"), "fare"),
        (lambda: boosted("lightgbm", "LGBMClassifier", verbose=-1), "kind"),
    ],
)
def test_trees_of_every_kind_make_the_prediction(
    make: Callable[[], Any], column: str, people: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path
) -> None:
    kinds = kinds_of(people)
    y = {"kind": kinds, "old": (kinds == "old").astype(int), "number": kinds.factorize()[0], "fare": people["fare"]}
    sample = people[["age", "town", "class"]]
    encoded = ColumnTransformer([("town", OneHotEncoder(sparse_output=False), ["town"])], remainder="passthrough")
    path = bundle_of(make_pipeline(encoded, make()).fit(sample, y[column]), sample, "kinds")
    explainer = explained(path, sample.head(30), None, tmp_path, decision_trees=True)

    assert explainer.notes == ()
    wanted = explainer.model.outputs(explainer.get_X_row("R4"))[0]
    factor = 100 if explainer.is_classifier else 1
    assert explainer.no_of_trees in (1, 5, 6)
    for label, value in enumerate(wanted):
        assert summed_or_averaged(explainer, "R4", label) == pytest.approx(factor * value, rel=1e-5)


def test_what_splits_are_in_words(people: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    turned = FunctionTransformer(np.negative, feature_names_out="one-to-one")
    prepare = ColumnTransformer(
        [
            ("turned", make_pipeline(turned, MinMaxScaler((-1, 1))), ["age"]),
            ("log", FunctionTransformer(np.log1p, feature_names_out="one-to-one"), ["fare"]),
            ("town", OrdinalEncoder(), ["town"]),
            ("class", OneHotEncoder(sparse_output=False), ["class"]),
        ]
    )
    y = kinds_of(people).where(people["class"] != 2, "second").where(people["fare"] < 60, "rich")
    path = bundle_of(make_pipeline(prepare, DecisionTreeClassifier(random_state=0)).fit(people, y), people, "words")
    explainer = explained(path, people.head(60), None, tmp_path)
    columns = explainer._tree_columns

    assert [type(column) for column in columns] == [NumberColumn, OwnColumn, *[WordColumn] * 4]
    half = Split(0.5, missing_left=True, is_strict=False)
    low, high = people["age"].min(), people["age"].max()
    middle = Split(0.0, missing_left=True, is_strict=False)
    assert columns[0].question(middle) == f"age ≥ {(low + high) / 2:g}"
    assert columns[0].condition(middle, 7.0, 0.8) == f"7 < {(low + high) / 2:g}"
    assert columns[1].condition(half, 9.0, 2.3) == "log__fare: 2.3 > 0.5"
    assert columns[2].question(half) == "town is Bergen"
    assert columns[2].condition(half, "Oslo", 2.0) == "Oslo: not Bergen"
    assert columns[2].condition(half, "Bergen", 0.0) == "is Bergen"
    assert columns[4].question(half) == "class is not 2"
    assert columns[4].condition(half, 2, 1.0) == "is 2"
    assert columns[4].condition(half, 3, 0.0) == "3: not 2"


def test_a_column_without_a_name(people: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    sample = people[["fare"]]
    model = make_pipeline(FunctionTransformer(np.log1p), DecisionTreeRegressor(max_depth=2, random_state=0))
    path = bundle_of(model.fit(sample, people["age"]), sample, "nameless")
    explainer = explained(path, sample.head(20), None, tmp_path)

    assert {row[1].partition(":")[0] for row in told(explainer, "R3")[1:-1]} == {"prepared fare"}


def test_xgboost_sends_a_number_at_the_threshold_to_the_right() -> None:
    split = Split(3.0, missing_left=False, is_strict=True)
    column = NumberColumn("class", 1.0, 0.0)

    assert column.condition(split, 3, 3.0) == "3 ≥ 3"
    assert column.condition(split, 2, 2.0) == "2 < 3"
    assert column.condition(split, -999, float("nan")) == "is missing"
    assert column.question(split) == "class < 3"


def test_long_lists_of_words_are_cut() -> None:
    towns = tuple("abcdefghij")
    column = WordColumn("town", towns, 0.0, {town: float(place) for place, town in enumerate(towns)})
    split = Split(4.5, missing_left=False, is_strict=False)

    assert column.question(split) == "town is one of a, b, c and 2 more"
    assert column.condition(split, "a", 0.0) == "a: one of a, b, c and 2 more"
    assert column.condition(split, "z", 0.0) == "z: none of f, g, h and 2 more"


def test_a_model_without_trees(people: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    sample = people[["age", "fare"]]
    y = (people["age"] > 40).astype(int)
    path = bundle_of(LogisticRegression(max_iter=500).fit(sample, y), sample, "straight")
    explainer = explained(path, sample.head(20), None, tmp_path, decision_trees=True)

    assert explainer.notes == ("no decision trees: only a model whose last step is trees has them, as shap reads them",)
    tabs = board_of(explainer, tabs=["decision_trees", "importances"]).dashboard.explainer_layout
    assert type(tabs).__name__ == "ExplainerPageLayout"
    with pytest.raises(DashboardError, match="expected one that the explainer has, it has no decision trees"):
        board_of(explainer, tabs=["decision_trees"])
    composite = importlib.import_module("explainerdashboard.custom").DecisionTreesComposite
    named = {"module": composite.__module__, "name": composite.__name__, "params": None}
    with pytest.raises(DashboardError, match="it has no decision trees"):
        board_of(explainer, tabs=[named])


def test_no_trees_where_nobody_looks(people: pd.DataFrame, bundle_of: BundleOf, tmp_path: Path) -> None:
    sample = people[["age", "fare"]]
    y = (people["age"] > 40).astype(int)
    path = bundle_of(RandomForestClassifier(3, max_depth=2, random_state=0).fit(sample, y), sample, "unseen")
    explainer = explained(path, sample.head(20), None, tmp_path, decision_trees=False)

    detach(explainer)
    assert not layout.has_decision_trees(explainer)
    assert "decision trees" not in parts_of(explainer, 10**6)
