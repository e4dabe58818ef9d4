"""A small table of passengers, models of it as bundles, and dashboard stores, each made once a process of the run."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairlead.bundle.build import BuildOptions, build
from fairlead.dashboard import environment
from fairlead.dashboard.boards.board import Board, load_board
from fairlead.dashboard.building.build import DashboardOptions
from fairlead.dashboard.building.build import build as build_dashboard
from fairlead.dashboard.rows import RowsOptions
from fairlead.dashboard.store import Store

HERE = Path(__file__).parent
_STORES = {"pay_store", "survival_page", "survival_store"}
FEATURES = ["class", "sex", "age", "fare", "deck", "town", "own_cabin"]
_NUMBERS = ["class", "age", "fare", "own_cabin"]
_WORDS = ["sex", "deck", "town"]


@pytest.hookimpl(tryfirst=True)  # before xdist, which looks for the groups then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let warn what these tests do not test: explainerdashboard and what is below it, which also reset the filters.

    What needs a store is kept together, for `--dist loadgroup`: each takes many seconds to build.
    """
    for item in items:
        if item.path.is_relative_to(HERE):
            if _STORES.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.xdist_group("dashboards"))
            for module in ("explainerdashboard", "dash", "dtreeviz", "jupyter_dash", "plotly", "shap", "sklearn"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:::{module}"))


@pytest.fixture(scope="session")
def passengers() -> pd.DataFrame:
    """Give 200 passengers by name: `FEATURES` and two things to predict, `survived` (0 or 1) and `pay` (a number)."""
    random = np.random.default_rng(11)
    n = 200
    frame = pd.DataFrame(
        {
            "class": random.integers(1, 4, n),
            "sex": random.choice(["female", "male"], n),
            "age": random.normal(35, 12, n).round(1).clip(1),
            "fare": random.gamma(2, 20, n).round(2),
            "deck": random.choice(["A", "B", "C"], n),
            "town": random.choice(["Oslo", "Bergen", "Y <b>& Z"], n),
            "own_cabin": random.random(n) < 0.4,
        },
        index=pd.Index([f"P{place:03}" for place in range(n)], name="name"),
    )
    score = (frame["sex"] == "female") * 1.5 - frame["class"] * 0.6 + frame["fare"] / 60 + random.normal(0, 0.7, n)
    frame["survived"] = (score > 0.2).astype(int)
    frame["pay"] = (frame["fare"] * 3 + frame["age"] + random.normal(0, 4, n)).round(2)
    frame.loc[random.random(n) < 0.15, "age"] = np.nan
    frame.loc[random.random(n) < 0.3, "deck"] = None
    return frame


@pytest.fixture(scope="session")
def passengers_csv(passengers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the passengers as a file whose first column is `name`."""
    path = tmp_path_factory.mktemp("passengers") / "passengers.csv"
    passengers.to_csv(path)
    return path


def _prepared() -> ColumnTransformer:
    number = Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    return ColumnTransformer([("number", number, _NUMBERS), ("word", OneHotEncoder(handle_unknown="ignore"), _WORDS)])


BundleOf = Callable[[Any, pd.DataFrame, str], Path]


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> BundleOf:
    """Make a bundle of a fitted model and a sample of its features."""

    def make(model: Any, sample: pd.DataFrame, name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "model.pkl").write_bytes(pickle.dumps(model))
        return build(folder / "model.pkl", folder / name, BuildOptions(data=sample)).path

    return make


@pytest.fixture(scope="session")
def survival_model(passengers: pd.DataFrame) -> Pipeline:
    """Give a ColumnTransformer and a forest that predict `survived`."""
    forest = RandomForestClassifier(20, max_depth=4, random_state=0)
    return Pipeline([("prepare", _prepared()), ("forest", forest)]).fit(passengers[FEATURES], passengers["survived"])


@pytest.fixture(scope="session")
def survival_bundle(survival_model: Pipeline, passengers: pd.DataFrame, bundle_of: BundleOf) -> Path:
    """Give the compiled bundle of `survival_model`; do not change it."""
    return bundle_of(survival_model, passengers[FEATURES], "survival")


@pytest.fixture(scope="session")
def pay_bundle(passengers: pd.DataFrame, bundle_of: BundleOf) -> Path:
    """Give the compiled bundle of a regression of `pay`; do not change it."""
    forest = RandomForestRegressor(20, max_depth=4, random_state=0)
    model = Pipeline([("prepare", _prepared()), ("forest", forest)]).fit(passengers[FEATURES], passengers["pay"])
    return bundle_of(model, passengers[FEATURES], "pay")


@pytest.fixture(scope="session")
def linear_bundle(passengers: pd.DataFrame, bundle_of: BundleOf) -> Path:
    """Give the compiled bundle of a DictVectorizer and a LogisticRegression of `survived`; do not change it."""
    sample = passengers[["class", "sex", "fare", "town"]]
    model = Pipeline([("vectorize", DictVectorizer()), ("logistic", LogisticRegression(max_iter=500))])
    model.fit(sample.to_dict("records"), passengers["survived"])
    return bundle_of(model, sample, "linear")


StoreOf = Callable[..., Path]


@pytest.fixture(scope="session")
def store_of(tmp_path_factory: pytest.TempPathFactory, passengers_csv: Path) -> StoreOf:
    """Build the dashboard of a bundle and the passengers: ``store_of(bundle, name, target=…, title=…)``."""

    def make(bundle: Path, name: str, **options: Any) -> Path:
        options = {"data": passengers_csv, "index": "name"} | options
        target = tmp_path_factory.mktemp("dashboards") / f"{name}.dash"
        return build_dashboard(bundle, target, DashboardOptions(**options)).path

    return make


@pytest.fixture(scope="session")
def survival_store(survival_bundle: Path, store_of: StoreOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a dashboard of `survival_bundle` with interactions; do not change it."""
    page = tmp_path_factory.mktemp("pages") / "survival.html"
    return store_of(
        survival_bundle, "survival", target="survived", title="Who <survived> & why", interactions=True, static=page
    )


@pytest.fixture(scope="session")
def survival_page(survival_store: Path) -> Path:
    """Give the file that was written with `survival_store`."""
    return Path(Store.open(survival_store).manifest.recipe.options["static"])


@pytest.fixture(scope="session")
def pay_store(
    pay_bundle: Path, store_of: StoreOf, passengers: pd.DataFrame, passengers_csv: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """Give a dashboard of `pay_bundle` that holds half of the passengers, and looks up the others; do not change it."""
    half = tmp_path_factory.mktemp("half") / "half.csv"
    passengers[100:].to_csv(half)
    rows = RowsOptions(str(passengers_csv), "name", "pay")
    return store_of(pay_bundle, "pay", data=half, target="pay", title="What they pay", rows=rows)


@pytest.fixture(scope="session")
def project(passengers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of model, data and YAML files as explainerdashboard itself writes them; do not change it."""
    folder = tmp_path_factory.mktemp("project")
    numbers = passengers[["class", "fare"]].assign(
        Sex_female=(passengers["sex"] == "female").astype(int), Sex_male=(passengers["sex"] == "male").astype(int)
    )
    model = RandomForestClassifier(10, max_depth=3, random_state=0).fit(numbers, passengers["survived"])
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    numbers.assign(survived=passengers["survived"]).to_csv(folder / "data.csv")
    library = environment.library()
    components = import_module("explainerdashboard.custom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = library.ClassifierExplainer(
            model, numbers, passengers["survived"], cats=["Sex"], labels=["drowned", "survived"], precision="float32"
        )
        explainer.to_yaml(
            folder / "explainer.yaml",
            modelfile="model.pkl",
            datafile="data.csv",
            index_col="name",
            target_col="survived",
        )
        dashboard = library.ExplainerDashboard(
            explainer,
            [
                components.ImportancesComposite,
                "contributions",
                components.ShapDependenceComponent(explainer, hide_title=True),
            ],
            title="Old & known",
            hide_cutoff=True,
            port=8123,
        )
        dashboard.to_yaml(folder / "dashboard.yaml")
    return folder


@pytest.fixture(scope="session")
def survival_board(survival_store: Path) -> Board:
    """Give the board of `survival_store`, at ``/survival/``."""
    return load_board(survival_store, "/survival/")


@pytest.fixture(scope="session")
def pay_board(pay_store: Path) -> Board:
    """Give the board of `pay_store`, at ``/pay/``."""
    return load_board(pay_store, "/pay/")
