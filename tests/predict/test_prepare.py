from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from fairlead.errors import ModelFailed, SchemaError
from fairlead.predict.predictor import Predictor, load
from fairlead.predict.prepare import Preparation

ROWS = [{"area": float(area), "rooms": area % 4} for area in (100, 25, 49, 81, 4)]


@pytest.fixture(scope="module")
def prepared(prepared_bundle: Path) -> Predictor:
    return load(prepared_bundle)


@pytest.fixture(scope="module")
def frame_prepared(frame_prepared_bundle: Path) -> Predictor:
    return load(frame_prepared_bundle)


def test_what_prepare_gives_reaches_the_model(prepared: Predictor, frame_prepared: Predictor) -> None:
    assert prepared.manifest.engine == "onnx"
    assert prepared.schema.names == ("area", "rooms")
    assert prepared.manifest.model_schema.names == ("size", "rooms")
    by_record, by_frame = prepared.run(ROWS).predictions, frame_prepared.run(ROWS).predictions
    assert len({answer["prediction"] for answer in by_record if answer}) == len(ROWS)
    # The frame came back sorted: each answer is at its own record all the same.
    assert by_frame == by_record


def test_a_table_is_prepared_as_records_are(prepared: Predictor, frame_prepared: Predictor) -> None:
    for predictor in (prepared, frame_prepared):
        found = predictor.predict(pd.DataFrame(ROWS, index=[7, 3, 5, 1, 0]))
        assert found["prediction"].tolist() == [answer["prediction"] for answer in predictor.predict(ROWS)]
        assert found.index.tolist() == [7, 3, 5, 1, 0]


def test_a_record_that_prepare_spoils_is_told_and_spoils_no_other(prepared: Predictor) -> None:
    bad: list[Any] = [{"area": float(area), "rooms": 1} for area in (13, 14, 15, 16)]
    records = [ROWS[0], "no record", *bad, ROWS[1]]
    outcome = prepared.run(records)
    told = {place: [str(problem) for problem in problems] for place, problems in outcome.rejections.items()}
    assert told == {
        1: ["record: expected an object, got a string, at $[1]"],
        2: ["record: expected a record that prepare() accepts, got KeyError, at $[2]"],
        3: ["record: expected an object from prepare, got an array, at $[3]"],
        4: ["rooms: expected a number from prepare, got nothing, at $[4].rooms"],
        5: ["size: expected a number from prepare, got a string, at $[5].size"],
    }
    assert [answer is None for answer in outcome.predictions] == [False, True, True, True, True, True, False]
    assert [outcome.predictions[0], outcome.predictions[-1]] == prepared.predict(ROWS[:2])


def test_the_same_in_a_table_with_rows_refused_before(prepared: Predictor) -> None:
    import pyarrow as pa

    table = pa.table({"area": [100.0, None, 13.0, 25.0], "rooms": [0, 1, 1, 1]})
    outcome = prepared.run(table)
    assert {place: problems[0].got for place, problems in outcome.rejections.items()} == {1: "null", 2: "KeyError"}
    assert outcome.predictions[2] is None
    assert [outcome.predictions[0], outcome.predictions[3]] == prepared.predict(ROWS[:2])


def test_nothing_to_prepare(prepared: Predictor, frame_prepared: Predictor) -> None:
    for predictor in (prepared, frame_prepared):
        assert predictor.run([]).predictions == []
        assert predictor.run([{}]).predictions == [None]


@pytest.mark.parametrize(
    ("area", "message"),
    [
        (13, "prepare_frame raised KeyError"),
        (14, "prepare_frame: expected 2 rows back, got 1"),
        (15, "prepare_frame raised AttributeError"),
    ],
)
def test_a_frame_that_prepare_frame_spoils_is_the_models_failure(
    frame_prepared: Predictor, area: int, message: str
) -> None:
    with pytest.raises(ModelFailed, match=message):
        frame_prepared.run([ROWS[0], {"area": float(area), "rooms": 1}])


def test_a_module_without_either_is_refused(prepared: Predictor) -> None:
    with pytest.raises(SchemaError, match="features: expected a function prepare"):
        Preparation(ModuleType("features"), prepared.schema, prepared.schema)
