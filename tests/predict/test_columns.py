from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from msgspec.structs import replace
from sklearn.tree import DecisionTreeClassifier

from fairlead.errors import ModelFailed
from fairlead.predict.columns import OutputColumns
from fairlead.predict.outputs import Prediction
from fairlead.predict.predictor import Predictor, load
from fairlead.schema import parse_output

BUNDLES = ["compiled_bundle", "native_bundle", "prepared_bundle", "frame_prepared_bundle"]
ROWS = 20_000  # several blocks


class Gives:
    """An engine that gives the same whatever it gets."""

    def __init__(self, prediction: Prediction) -> None:
        self.unseen: dict[str, int] = {}
        self._prediction = prediction

    def predict(self, rows: Any) -> Prediction:
        raise AssertionError("a table does not become rows")

    def predict_table(self, table: pa.Table) -> Prediction:
        return self._prediction


def homes_table(n_rows: int, **more: Any) -> pa.Table:
    rng = np.random.default_rng(7)
    columns = {
        "size": rng.uniform(20, 200, n_rows),
        "rooms": rng.integers(1, 6, n_rows),
        "town": rng.choice(["Delft", "Gouda", "Leiden", "Assen"], n_rows),
        "area": rng.uniform(20, 200, n_rows),
    }
    return pa.table({**columns, **more})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_columns_hold_what_rows_would(bundle: str, request: pytest.FixtureRequest) -> None:
    predictor = load(request.getfixturevalue(bundle))
    table = homes_table(ROWS if bundle == "compiled_bundle" else 300)
    table = table.set_column(0, "size", pa.array([None, math.inf, *table["size"].to_pylist()[2:]]))
    table = table.set_column(3, "area", pa.array([None, math.inf, 13.0, *table["area"].to_pylist()[3:]]))
    if "frame" in bundle:
        table = table.slice(3)
    by_rows = predictor.run(table)
    columns = OutputColumns(predictor.manifest)
    outcome = predictor.run_table(table, columns)
    assert outcome.rejections == by_rows.rejections
    assert outcome.outputs.schema == columns.schema
    assert outcome.places.tolist() == [i for i, one in enumerate(by_rows.predictions) if one is not None]
    assert outcome.outputs.to_pylist() == [one for one in by_rows.predictions if one is not None]
    assert predictor.counts.rows == 2 * len(outcome.places)
    assert predictor.counts.rejected == 2 * len(outcome.rejections)


def test_no_rows_give_no_rows(predictor: Predictor) -> None:
    columns = OutputColumns(predictor.manifest)
    outcome = predictor.run_table(homes_table(0), columns)
    assert (outcome.outputs.num_rows, outcome.outputs.schema) == (0, columns.schema)
    refused = predictor.run_table(homes_table(2, rooms=pa.array([None, None], pa.int64())), columns)
    assert (refused.outputs.num_rows, sorted(refused.rejections)) == (0, [0, 1])


def test_each_kind_of_output_has_its_type(predictor: Predictor) -> None:
    found = OutputColumns(predictor.manifest).schema
    assert found.field("prediction").type == pa.dictionary(pa.int32(), pa.string())
    assert found.field("probabilities").type == pa.struct([("cheap", pa.float64()), ("dear", pa.float64())])
    assert (found.field("p").type, found.field("is_dear").type) == (pa.float64(), pa.bool_())


@pytest.mark.parametrize(
    ("labels", "kind"), [([0, 1], pa.int64()), ([False, True], pa.bool_()), ([0.5, 2.5], pa.float64())]
)
def test_labels_keep_their_type(predictor: Predictor, labels: list[Any], kind: pa.DataType) -> None:
    outputs = tuple(map(parse_output, ("label=prediction", "large=prediction>0.75", "sure=probability")))
    manifest = replace(predictor.manifest, classes=tuple(labels), outputs=outputs)
    columns = OutputColumns(manifest)
    prediction = Prediction(codes=np.array([1, 0, 1]), probabilities=np.array([[0.25, 0.75], [1, 0], [0.5, 0.5]]))
    found = columns.of_prediction(prediction)
    assert found["label"].type == kind
    assert found.to_pylist() == [
        {"label": labels[code], "large": labels[code] > 0.75, "sure": sure}
        for code, sure in ((1, 0.75), (0, 1.0), (1, 0.5))
    ]


def test_codes_and_labels_are_one(homes: pd.DataFrame, make_bundle: Any) -> None:
    # The tree engine gives codes for a table, and labels for rows.
    X = homes[["size", "rooms"]]
    predictor = load(make_bundle(DecisionTreeClassifier(random_state=0).fit(X, homes["town"]), "towns", data=X))
    table = homes_table(ROWS)
    by_rows = predictor.run(table.select(["size", "rooms"]).to_pylist()).predictions
    assert predictor.run(table).predictions == by_rows
    assert predictor.run_table(table, OutputColumns(predictor.manifest)).outputs.to_pylist() == by_rows


def test_rows_without_a_finite_number_are_refused_alone(predictor: Predictor) -> None:
    probabilities = np.tile([0.25, 0.75], (4, 1))
    probabilities[2] = math.nan
    given = Prediction(codes=np.ones(4), probabilities=probabilities)
    broken = Predictor(predictor.manifest, predictor.digest, Gives(given))
    table = homes_table(5, rooms=pa.array([1, None, 2, 3, 4], pa.int64()))
    outcome = broken.run_table(table, OutputColumns(predictor.manifest))
    assert outcome.places.tolist() == [0, 2, 4]
    assert {place: str(problems[0]) for place, problems in outcome.rejections.items()} == {
        1: "rooms: expected an integer, got null, at $[1].rooms",
        3: "record: expected features for which the model gives a finite number, got others, at $[3]",
    }


def test_a_model_that_loses_rows_is_caught(predictor: Predictor) -> None:
    one = Prediction(codes=np.ones(1), probabilities=np.ones((1, 2)))
    short = Predictor(predictor.manifest, predictor.digest, Gives(one))
    with pytest.raises(ModelFailed, match="gave 1 predictions for 3 rows"):
        short.run_table(homes_table(3), OutputColumns(predictor.manifest))


def test_what_a_function_answers_is_known_from_its_example(function_bundle: Any) -> None:
    advisor = load(function_bundle)
    table = pa.table({"size": [80.0, 120.0], "rooms": [3, 4]})
    answers = [one for one in advisor.run(table).predictions if one is not None]
    told = [{**one["prediction"], "nested": 0} for one in answers]
    columns = OutputColumns(advisor.manifest, {"prediction": told[0]})
    assert columns.of_prediction(Prediction(told))["prediction"].to_pylist() == told
    with pytest.raises(ModelFailed, match="output prediction: expected double"):
        advisor.run_table(table, OutputColumns(advisor.manifest))


def test_what_arrow_has_no_type_for_is_json(function_bundle: Any) -> None:
    advisor = load(function_bundle)
    table = pa.table({"size": [80.0, 120.0], "rooms": [3, 4]})
    answers = [one for one in advisor.run(table).predictions if one is not None]
    found = advisor.run_table(table, OutputColumns(advisor.manifest, answers[0])).outputs
    assert found.schema.field("prediction").type == pa.string()
    assert found["prediction"].to_pylist() == [msgspec.json.encode(one["prediction"]).decode() for one in answers]
