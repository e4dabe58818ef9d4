from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from msgspec.structs import replace

from fairlead.errors import InvalidRecords
from fairlead.predict.predictor import Predictor
from fairlead.schema import Schema

GOOD = {"size": 80.0, "rooms": 3, "town": "Delft"}
NAMES = ["prediction", "probabilities", "p", "is_dear"]


def test_each_form_comes_back_in_its_own(predictor: Predictor) -> None:
    one = predictor.predict(GOOD)
    assert list(one) == NAMES
    assert predictor.predict([GOOD, GOOD]) == [one, one]
    assert predictor.predict((GOOD,)) == [one]
    frame = predictor.predict(pd.DataFrame([GOOD, GOOD], index=["a", "b"]))
    assert list(frame.columns) == NAMES
    assert list(frame.index) == ["a", "b"]
    assert frame.to_dict("records") == [one, one]


def test_nothing_comes_back_as_nothing(predictor: Predictor, homes: pd.DataFrame) -> None:
    assert predictor.predict([]) == []
    empty = predictor.predict(homes.head(0))
    assert (list(empty.columns), len(empty)) == (NAMES, 0)


def test_the_dtypes_of_pandas_all_serve(predictor: Predictor, homes: pd.DataFrame) -> None:
    wanted = predictor.predict(homes)
    for kinds in (
        {"size": "float32", "rooms": "int8"},
        {"size": "Float64", "rooms": "Int64", "town": "string"},
        {"rooms": "float64", "town": "category"},
        {"size": object, "rooms": object, "town": object},
        {"rooms": "uint64"},
    ):
        found = predictor.predict(homes.astype(kinds))
        assert found["prediction"].tolist() == wanted["prediction"].tolist()
        assert found["p"].tolist() == pytest.approx(wanted["p"].tolist(), abs=1e-6)
    decimal = homes.assign(size=[Decimal(str(value)) for value in homes["size"]])
    assert predictor.predict(decimal)["p"].tolist() == wanted["p"].tolist()


def test_nan_is_null(predictor: Predictor) -> None:
    frame = pd.DataFrame([GOOD, {**GOOD, "size": math.nan}])
    assert predictor.predict(frame)["p"][1] == predictor.predict({**GOOD, "size": None})["p"]


def test_every_refused_row_is_told(predictor: Predictor, homes: pd.DataFrame) -> None:
    frame = homes.head(4).astype({"rooms": float})
    frame.loc[1, "rooms"] = math.nan
    frame.loc[2, "size"] = math.inf
    frame.loc[3, "rooms"] = 2.5
    with pytest.raises(InvalidRecords) as caught:
        predictor.predict(frame)
    assert [problem.path for problem in caught.value.problems] == ["$[1].rooms", "$[2].size", "$[3].rooms"]


def test_a_lone_record_is_told_without_an_index(predictor: Predictor) -> None:
    with pytest.raises(InvalidRecords) as caught:
        predictor.predict({"size": "80", "rooms": 3, "town": "Delft"})
    assert str(caught.value) == "size: expected a number, got a string, at $.size"


def test_a_column_of_several_types_is_told_row_by_row(predictor: Predictor) -> None:
    frame = pd.DataFrame([GOOD, {**GOOD, "rooms": "secret-3"}, {**GOOD, "size": math.nan, "town": 5}])
    with pytest.raises(InvalidRecords) as caught:
        predictor.predict(frame)
    assert [str(problem) for problem in caught.value.problems] == [
        "rooms: expected an integer, got a string, at $[1].rooms",
        "town: expected a string, got an integer, at $[2].town",
    ]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_column_may_have_its_name_of_training(predictor: Predictor, mixed: bool) -> None:
    features = [
        replace(feature, name=f"the_{feature.name}", column=feature.name) for feature in predictor.schema.features
    ]
    manifest = replace(predictor.manifest, schema=Schema(features=tuple(features)))
    renamed = Predictor(manifest, predictor.digest, predictor.engine)
    frame = pd.DataFrame([GOOD, GOOD])
    if mixed:  # on the way that goes row by row
        frame = frame.assign(other=[1, "a"])
    assert renamed.predict(frame).equals(predictor.predict(frame))


def test_a_name_that_is_there_twice_is_refused(predictor: Predictor) -> None:
    frame = pd.DataFrame([[1.0, 2.0, 3, "Delft"]], columns=["size", "size", "rooms", "town"])
    with pytest.raises(InvalidRecords, match="got one name twice"):
        predictor.predict(frame)


@pytest.mark.parametrize("data", ["text", 3, None, {1, 2}])
def test_another_form_is_a_type_error(predictor: Predictor, data: Any) -> None:
    with pytest.raises(TypeError, match="expected a DataFrame, a list of records or a record, got"):
        predictor.predict(data)


def test_names_that_are_no_text(predictor: Predictor, homes: pd.DataFrame) -> None:
    with pytest.raises(InvalidRecords, match="size: expected a column of float, got none"):
        predictor.predict(homes.set_axis([0, 1, 2], axis=1))


def test_a_large_frame_is_worked_on_in_slices(predictor: Predictor, homes: pd.DataFrame) -> None:
    large = homes.sample(70_000, replace=True, random_state=1)
    told: list[tuple[int, int]] = []
    found = predictor.predict(large, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(65_536, 70_000), (70_000, 70_000)]
    assert list(found.index) == list(large.index)
    wanted = predictor.predict(homes)
    assert found["p"].tolist() == wanted.loc[large.index, "p"].tolist()
    assert found["prediction"].tolist() == wanted.loc[large.index, "prediction"].tolist()
    bad = large.reset_index(drop=True).astype({"rooms": float})
    bad.loc[[3, 69_999], "rooms"] = math.nan
    with pytest.raises(InvalidRecords) as caught:
        predictor.predict(bad)
    assert [problem.path for problem in caught.value.problems] == ["$[3].rooms", "$[69999].rooms"]


def test_a_long_list_is_told_of_too(predictor: Predictor) -> None:
    told: list[tuple[int, int]] = []
    assert len(predictor.predict([GOOD] * 5, on_progress=lambda done, total: told.append((done, total)))) == 5
    assert told == [(5, 5)]
    with pytest.raises(InvalidRecords, match=r"at \$\[65536\].rooms"):
        predictor.predict([GOOD] * 65_536 + [{**GOOD, "rooms": None}])
