from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from msgspec.structs import replace
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fairlead.bundle.read import open_bundle
from fairlead.errors import ModelFailed
from fairlead.predict import native_shortcuts
from fairlead.predict.native import NativeEngine
from fairlead.predict.predictor import load, predictor_of
from fairlead.schema import Feature, Schema


class Model:
    """A model as users write them: it keeps what it was asked, and answers or raises what it is told to."""

    def __init__(self, answer: Any = None, probabilities: Any = None) -> None:
        self.answer, self.probabilities = answer, probabilities
        self.asked: Any = None

    def predict(self, batch: Any) -> Any:
        self.asked = batch
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.zeros(len(batch)) if self.answer is None else self.answer

    def predict_proba(self, batch: Any) -> Any:
        if isinstance(self.probabilities, Exception):
            raise self.probabilities
        return self.probabilities


PLAIN = Schema(features=(Feature(name="x", type="float", column="X 1"), Feature(name="n", type="int")))
ROWS = [(0.5, 1), (1.5, 2)]


def engine(
    model: Model, kind: Any = "regressor", form: str = "matrix", has_probabilities: bool = False
) -> NativeEngine:
    return NativeEngine(model, kind, PLAIN, form, has_probabilities)


def test_each_form_is_handed_over_as_the_model_was_trained() -> None:
    model = Model()
    engine(model, form="matrix").predict(ROWS)
    assert model.asked.dtype == np.float64
    np.testing.assert_array_equal(model.asked, [[0.5, 1], [1.5, 2]])
    engine(model, form="records").predict(ROWS)
    assert model.asked == [{"X 1": 0.5, "n": 1}, {"X 1": 1.5, "n": 2}]
    engine(model, form="frame").predict(ROWS)
    assert model.asked.to_dict("list") == {"X 1": [0.5, 1.5], "n": [1, 2]}
    engine(model, form="frame").predict_table(pa.table({"x": [0.5, 1.5], "n": [1, 2]}))
    assert model.asked.to_dict("list") == {"X 1": [0.5, 1.5], "n": [1, 2]}


def test_a_column_of_one_number_each_is_a_number_each() -> None:
    found = engine(Model(np.array([[1], [2]], dtype=np.float32))).predict(ROWS)
    assert isinstance(found.values, np.ndarray)
    assert found.values.dtype == np.float64
    assert found.values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ZeroDivisionError("no"), "the model raised ZeroDivisionError: no"),
        ([1.0], r"shape \(1,\) for 2 rows"),
        ([[1.0, 2.0], [3.0, 4.0]], r"shape \(2, 2\) for 2 rows"),
        (1.0, r"shape \(\) for 2 rows"),
        ([{}, {}], "object values: expected numbers"),
        (["a", "b"], "expected numbers"),
        ([[1.0], [1.0, 2.0]], "the model raised ValueError"),
    ],
)
def test_what_a_model_cannot_answer_is_its_failure(answer: Any, message: str) -> None:
    with pytest.raises(ModelFailed, match=message):
        engine(Model(answer)).predict(ROWS)


def test_so_is_what_its_probabilities_raise() -> None:
    model = Model([0, 1], AttributeError("none"))
    assert engine(model, "classifier").predict(ROWS).probabilities is None
    with pytest.raises(ModelFailed, match="AttributeError: none"):
        engine(model, "classifier", has_probabilities=True).predict(ROWS)


@pytest.mark.parametrize("answer", [[[0.5, 0.5]], [0.5, 0.5], "many"])
def test_probabilities_of_another_shape_are_its_failure(answer: Any) -> None:
    with pytest.raises(ModelFailed, match="probabilities"):
        engine(Model([0, 1], answer), "classifier", has_probabilities=True).predict(ROWS)


def test_what_a_function_raises_is_its_failure(function_bundle: Path) -> None:
    with pytest.raises(ModelFailed, match="the model raised ValueError: no advice"):
        load(function_bundle).run([{"size": 1.0, "rooms": 1, "how": "raise"}])


def test_compiled_and_native_give_the_same(compiled_bundle: Path, native_bundle: Path, homes: pd.DataFrame) -> None:
    compiled, native = load(compiled_bundle), load(native_bundle)
    assert (compiled.manifest.engine, native.manifest.engine) == ("onnx", "native")
    records = [
        *homes.to_dict("records"),
        {"size": None, "rooms": 1, "town": "Delft"},
        {"size": 1e9, "rooms": -5, "town": "Nowhere"},
    ]
    for one, other in zip(compiled.predict(records), native.predict(records), strict=True):
        assert one["prediction"] == other["prediction"]
        assert one["is_dear"] == other["is_dear"]
        assert one["p"] == pytest.approx(other["p"], abs=1e-12)
    assert compiled.engine.unseen == {"town": 1}
    assert native.engine.unseen == {"town": 1}


@pytest.fixture(scope="session")
def forest(homes: pd.DataFrame) -> Any:
    columns = ColumnTransformer([("town", OneHotEncoder(), ["town"])], remainder="passthrough")
    return make_pipeline(columns, RandomForestClassifier(10, random_state=1)).fit(homes, homes["rooms"] > 2)


@pytest.fixture(scope="session")
def forest_bundle(homes: pd.DataFrame, forest: Any, make_bundle: Any) -> Path:
    path: Path = make_bundle(forest, "forest", data=homes, engine="native")
    return path


def test_a_build_proves_the_shortcut_and_a_server_takes_it(
    forest_bundle: Path, forest: Any, homes: pd.DataFrame
) -> None:
    predictor = load(forest_bundle)
    assert isinstance(predictor.engine, NativeEngine)
    assert predictor.engine.has_shortcut
    found = [answer["probabilities"] for answer in predictor.predict(homes.to_dict("records"))]
    assert [list(one.values()) for one in found] == forest.predict_proba(homes).tolist()


def test_other_versions_go_the_plain_way(forest_bundle: Path) -> None:
    bundle = open_bundle(forest_bundle)
    shortcut = {**(bundle.manifest.shortcut or {}), "sklearn": "1.0"}
    for other in (shortcut, None):
        plain = predictor_of(type(bundle)(bundle.path, replace(bundle.manifest, shortcut=other), bundle.digest))
        assert isinstance(plain.engine, NativeEngine)
        assert not plain.engine.has_shortcut


def test_what_the_shortcut_refuses_is_told_by_the_model(forest_bundle: Path) -> None:
    engine = load(forest_bundle).engine
    with pytest.raises(ModelFailed, match=r"ValueError: Found unknown categories \['Paris'\] in column 0"):
        engine.predict([(50.0, 1, "Paris")])


def test_a_shortcut_that_differs_is_not_taken(
    forest: Any, homes: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = Schema(
        features=(
            Feature(name="size", type="float"),
            Feature(name="rooms", type="int"),
            Feature(name="town", type="string"),
        )
    )
    engine = NativeEngine(forest, "classifier", schema, "frame", True)
    rows = [tuple(row) for row in homes.to_numpy().tolist()]
    proved = engine.prove(rows)
    assert proved is not None
    assert set(proved) == {"numpy", "sklearn"}
    exact = native_shortcuts._forest_probabilities

    def off_by_a_bit(*arguments: Any) -> Any:
        return np.nextafter(exact(*arguments), 2)

    monkeypatch.setattr(native_shortcuts, "_forest_probabilities", off_by_a_bit)
    assert engine.prove(rows) is None


def test_proving_leaves_the_model_as_it_was(homes: pd.DataFrame) -> None:
    model = RandomForestClassifier(10, random_state=1, n_jobs=2).fit(homes[["size", "rooms"]], homes["rooms"] > 2)
    schema = Schema(features=(Feature(name="size", type="float"), Feature(name="rooms", type="int")))
    rows = [tuple(row) for row in homes[["size", "rooms"]].to_numpy(object).tolist()]
    assert NativeEngine(model, "classifier", schema, "frame", True).prove(rows)
    assert model.n_jobs == 2
