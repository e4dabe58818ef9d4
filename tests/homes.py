"""Small real bundles, one of each way through the predictor. A pytest plugin, loaded by tests/conftest.py."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fairlead.bundle.build import BuildOptions, build
from fairlead.predict.predictor import Predictor, load
from fairlead.schema import Schema

OUTPUTS = ("prediction=prediction", "probabilities=probabilities", "p=probability:dear", "is_dear=probability:dear>=.5")

# The user's own class: answers of numpy's, and every way to fail.
ADVISOR = """
import numpy as np


class Advisor:
    def predict(self, size: float, rooms: int, town: str = "Delft", how: str = "well"):
        if how == "raise":
            raise ValueError("no advice")
        if how == "object":
            return {"advice": object()}
        return {
            "score": np.float32(size) * 2,
            "rooms": np.int64(rooms),
            "large": np.bool_(size > 100),
            "scores": np.array([[size, 1.0]]),
            "nested": [{"town": np.str_(town)}, (np.float64(0.5), None)],
        }
"""

PREPARE = """
import time

import numpy as np


def prepare(record):
    if record["area"] == 13:
        raise KeyError(record["area"])
    if record["area"] == 14:
        return [1, 2]
    if record["area"] == 15:
        return {"size": 1.0}
    if record["area"] == 17:
        time.sleep(60)
    if record["area"] == 16:
        return {"size": "wide", "rooms": 1.0}
    return {"size": np.sqrt(record["area"]), "rooms": np.int64(record["rooms"])}
"""

PREPARE_FRAME = """
import numpy as np


def prepare_frame(frame):
    if (frame["area"] == 13).any():
        raise KeyError("area")
    if (frame["area"] == 14).any():
        return frame.iloc[1:]
    if (frame["area"] == 15).any():
        return frame.to_numpy()
    done = frame.assign(size=np.sqrt(frame["area"])).drop(columns="area")
    return done.sort_values("size", ascending=False)
"""


@pytest.fixture(scope="session")
def homes() -> pd.DataFrame:
    """Give rows that the models are trained on."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "size": rng.uniform(20, 200, 80).round(1),
            "rooms": rng.integers(1, 6, 80),
            "town": rng.choice(["Delft", "Gouda", "Leiden"], 80),
        }
    )


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a bundle of a fitted model as `fairlead build` does."""

    def make(model: Any, name: str, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(name)
        source = folder / "model.pkl"
        source.write_bytes(pickle.dumps(model))
        return build(source, folder / name, BuildOptions(**options)).path

    return make


@pytest.fixture(scope="session")
def homes_model(homes: pd.DataFrame) -> Any:
    """Give a classifier of homes that takes null for `size`."""
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer(
        [("numbers", SimpleImputer(), ["size"]), ("rooms", "passthrough", ["rooms"]), ("town", encoder, ["town"])]
    )
    target = np.where(homes["size"] * homes["rooms"] + 40 * (homes["town"] == "Leiden") > 250, "dear", "cheap")
    return make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(homes, target)


def homes_schema(**more: Any) -> Schema:
    return Schema.parse(
        {
            "features": [
                {"name": "size", "type": "float", "nullable": True},
                {"name": "rooms", "type": "int"},
                {"name": "town", "type": "string"},
            ],
            **more,
        }
    )


@pytest.fixture(scope="session")
def compiled_bundle(homes: pd.DataFrame, homes_model: Any, make_bundle: Any) -> Path:
    """Give a compiled bundle of the classifier."""
    options = {"data": homes, "schema": homes_schema(), "outputs": OUTPUTS, "engine": "onnx"}
    return make_bundle(homes_model, "homes", **options)


@pytest.fixture(scope="session")
def native_bundle(homes: pd.DataFrame, homes_model: Any, make_bundle: Any) -> Path:
    """Give the same model, run by scikit-learn itself."""
    options = {"data": homes, "schema": homes_schema(), "outputs": OUTPUTS, "engine": "native"}
    return make_bundle(homes_model, "homes", **options)


@pytest.fixture(scope="session")
def function_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle of the user's own class."""
    folder = tmp_path_factory.mktemp("advisor")
    code = folder / "advisor_model.py"
    code.write_text(ADVISOR)
    return build("advisor_model:Advisor", folder / "advisor", BuildOptions(code=code)).path


@pytest.fixture(scope="session")
def prepared_bundle(make_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle with `prepare`."""
    return _prepared(make_bundle, tmp_path_factory.mktemp("code") / "prepare_homes.py", PREPARE)


@pytest.fixture(scope="session")
def frame_prepared_bundle(make_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle with `prepare_frame`, which sorts what it gets."""
    return _prepared(make_bundle, tmp_path_factory.mktemp("code") / "prepare_homes_frame.py", PREPARE_FRAME)


def _prepared(make_bundle: Any, code: Path, text: str) -> Path:
    code.write_text(text)
    incoming = pd.DataFrame({"area": [100.0, 25.0, 49.0, 81.0], "rooms": [1, 2, 3, 4]})
    seen = pd.DataFrame({"size": np.sqrt(incoming["area"]), "rooms": incoming["rooms"].astype(float)})
    model = LinearRegression().fit(seen, [10.0, 20.0, 30.0, 50.0])
    path: Path = make_bundle(model, "prepared", data=incoming, code=code)
    return path


@pytest.fixture
def predictor(compiled_bundle: Path) -> Predictor:
    """Give a fresh predictor of the compiled bundle."""
    return load(compiled_bundle)


@pytest.fixture
def with_schema(predictor: Predictor) -> Callable[..., Predictor]:
    """Give the same predictor under another schema of the same features."""

    def make(schema: Schema) -> Predictor:
        return Predictor(replace(predictor.manifest, schema=schema), predictor.digest, predictor.engine)

    return make


def homes_frame(n_rows: int, seed: int = 5) -> pd.DataFrame:
    """Give rows that every bundle here takes, and an id of each."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"h{i}" for i in range(n_rows)],
            "size": rng.uniform(20, 200, n_rows).round(1),
            "rooms": rng.integers(1, 6, n_rows),
            "town": rng.choice(["Delft", "Gouda", "Leiden", "Assen"], n_rows),
            "area": rng.uniform(20, 200, n_rows).round(1),
        }
    )
