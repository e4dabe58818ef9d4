from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import InvalidRecords
from fairlead.predict.tables import checked_table, is_table
from fairlead.predict.validate import Validator
from fairlead.schema import Feature, Problem, Schema


def schema_of(kind: Any, extra: Any = "ignore", **more: Any) -> Schema:
    return Schema(features=(Feature(name="x", type=kind, **more),), extra=extra)


def checked(kind: Any, column: Any, **more: Any) -> Any:
    return checked_table(pa.table({"x": column}), schema_of(kind, **more))


def refused(kind: Any, column: Any, **more: Any) -> list[Problem]:
    with pytest.raises(InvalidRecords) as caught:
        checked(kind, column, **more)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("kind", "column", "values"),
    [
        ("int", pa.array([1, 2], pa.int8()), [1, 2]),
        ("int", pa.array([1, 2], pa.uint64()), [1, 2]),
        ("int", pa.array([1.0, -2.0]), [1, -2]),
        ("float", pa.array([1, 2]), [1.0, 2.0]),
        ("float", pa.array([2**60 + 1]), [float(2**60)]),
        ("float", pa.array([0.5], pa.float16()), [0.5]),
        ("float", pa.array([0.5], pa.float32()), [0.5]),
        ("float", pa.array([Decimal("1.25")]), [1.25]),
        ("bool", pa.array([True, False]), [True, False]),
        ("string", pa.array(["a", ""]), ["a", ""]),
        ("string", pa.array(["a"], pa.large_string()), ["a"]),
        ("string", pa.array(["a"], pa.string_view()), ["a"]),
        ("string", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("int", pa.array([3, 3]).dictionary_encode(), [3, 3]),
        ("datetime", pa.array([datetime(2020, 1, 1)], pa.timestamp("s")), [datetime(2020, 1, 1, tzinfo=UTC)]),
        ("datetime", pa.array([1001], pa.timestamp("ns", "UTC")), [datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)]),
        ("datetime", pa.array([0], pa.timestamp("ms", "+02:00")), [datetime(1970, 1, 1, tzinfo=UTC)]),
    ],
)
def test_columns_of_every_width_serve(kind: str, column: Any, values: list[Any]) -> None:
    found = checked(kind, column)
    assert found.rejections == {}
    assert found.table.column("x").to_pylist() == values
    assert found.places.tolist() == list(range(len(values)))


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("int", ["1"]),
        ("int", [True]),
        ("float", ["1.5"]),
        ("float", [True]),
        ("bool", [1]),
        ("string", [1]),
        ("string", [b"x"]),
        ("datetime", ["2020-01-01T00:00:00Z"]),
        ("datetime", [1]),
        ("int", [[1]]),
        ("datetime", pa.array([2**62], pa.timestamp("s"))),
    ],
)
def test_a_column_of_another_type_is_refused(kind: str, column: Any) -> None:
    column = pa.array(column)
    assert refused(kind, column) == [Problem("$.x", f"a column of {kind}", f"one of {column.type}")]


def test_a_missing_column_is_refused_unless_it_has_a_default() -> None:
    with pytest.raises(InvalidRecords, match="x: expected a column of int, got none"):
        checked_table(pa.table({"y": [1, 2]}), schema_of("int"))
    for kind, default, value in [
        ("int", 3, 3),
        ("float", 3, 3.0),
        ("string", "a", "a"),
        ("float", None, None),
        ("datetime", "2020-01-01T02:00:00+02:00", datetime(2020, 1, 1, tzinfo=UTC)),
    ]:
        found = checked_table(pa.table({"y": [1, 2]}), schema_of(kind, default=default, nullable=default is None))
        assert found.table.column("x").to_pylist() == [value, value]
        assert found.ignored_keys == 2


def test_every_problem_of_the_columns_is_told_at_once() -> None:
    schema = Schema(
        features=(Feature(name="x", type="int"), Feature(name="my name", type="int"), Feature(name="z", type="int")),
        extra="forbid",
    )
    with pytest.raises(InvalidRecords) as caught:
        checked_table(pa.table({"x": ["a"], "z": [1], "other one": [1]}), schema)
    assert caught.value.problems == (
        Problem("$.x", "a column of int", "one of string"),
        Problem('$["my name"]', "a column of int", "none"),
        Problem('$["other one"]', "no such column", "one"),
    )


def test_a_column_is_found_under_the_name_of_training_too() -> None:
    schema = schema_of("int", extra="forbid", column="X 1")
    for table in ({"X 1": [1]}, {"x": [1]}, {"x": [1], "X 1": [2]}):
        assert checked_table(pa.table(table), schema).table.to_pydict() == {"x": [1]}


def test_a_name_that_is_there_twice_is_refused() -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(InvalidRecords, match="x: expected a column of int, got 2 columns"):
        checked_table(table, schema_of("int"))


@pytest.mark.parametrize("kind", ["bool", "int", "float", "string", "datetime"])
def test_null_is_a_problem_of_its_row(kind: str) -> None:
    null = pa.nulls(2)
    assert checked(kind, null, nullable=True).table.column("x").to_pylist() == [None, None]
    found = checked(kind, null)
    wanted = Validator(schema_of(kind)).check([{"x": None}, {"x": None}])
    assert found.rejections == wanted.rejections
    assert found.table.num_rows == 0


def test_nan_is_null() -> None:
    column = pa.array([1.5, math.nan, None])
    assert checked("float", column, nullable=True).table.column("x").to_pylist() == [1.5, None, None]
    assert list(checked("float", column).rejections) == [1, 2]
    assert checked("int", pa.array([1.0, math.nan]), nullable=True).table.column("x").to_pylist() == [1, None]
    assert {p.got for found in checked("int", pa.array([1.0, math.nan])).rejections.values() for p in found} == {"null"}


def test_a_number_that_is_no_integer_is_a_problem_of_its_row() -> None:
    numbers = [1.0, 3.5, 2.0**63, -(2.0**63), 1e300, math.inf, -math.inf, math.nan]
    found = checked("int", pa.array(numbers), nullable=True)
    assert found.table.column("x").to_pylist() == [1, -(2**63), None]
    assert found.places.tolist() == [0, 3, 7]
    assert found.rejections[1] == (Problem("$[1].x", "an integer", "a number"),)
    assert list(found.rejections) == [1, 2, 4, 5, 6]
    found = checked("int", pa.array([1, 2**63], pa.uint64()))
    assert found.rejections == {1: (Problem("$[1].x", "an integer", "an integer beyond 64 bits"),)}
    found = checked("int", pa.array([1, 2**63, None], pa.uint64()), nullable=True)
    assert found.rejections == {1: (Problem("$[1].x", "an integer", "an integer beyond 64 bits"),)}
    assert found.table.column("x").to_pylist() == [1, None]


def test_infinities_are_problems_of_their_rows() -> None:
    for kind in (pa.float64(), pa.float32(), pa.float16()):
        found = checked("float", pa.array([1.0, math.inf, -math.inf], kind))
        assert found.places.tolist() == [0]
        assert found.rejections[2] == (Problem("$[2].x", "a finite number", "an infinity"),)


def test_closed_categories() -> None:
    column = pa.array(["a", "c", None, "b"])
    schema = Schema(
        features=(Feature(name="x", type="string", categories=("a", "b"), nullable=True),), categories="closed"
    )
    for found in (
        checked("string", column, categories=("a", "b"), closed=True, nullable=True),
        checked("string", column.dictionary_encode(), categories=("a", "b"), closed=True, nullable=True),
        checked_table(pa.table({"x": column}), schema),
    ):
        assert found.table.column("x").to_pylist() == ["a", None, "b"]
        assert found.rejections == {1: (Problem("$[1].x", "one of a, b", "another string"),)}
    assert checked("string", column, categories=("a", "b"), nullable=True).rejections == {}


def test_an_empty_table() -> None:
    found = checked("int", pa.array([], pa.int64()))
    assert (found.table.num_rows, found.places.tolist(), found.rejections) == (0, [], {})
    assert checked("string", pa.array([], pa.null())).table.schema.field("x").type == pa.string()


def test_only_an_arrow_table_is_one() -> None:
    assert is_table(pa.table({"x": [1]}))
    assert not is_table([{"x": 1}])
    assert not is_table(pd.DataFrame({"x": [1]}))


FEATURES = Schema(
    features=(
        Feature(name="b", type="bool", nullable=True),
        Feature(name="i", type="int"),
        Feature(name="f", type="float"),
        Feature(name="s", type="string", categories=("k1", "k2"), closed=True, nullable=True),
        Feature(name="my name", type="string"),
    )
)
TYPES = {"b": pa.bool_(), "i": pa.int64(), "f": pa.float64(), "s": pa.string(), "my name": pa.string()}


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "b": st.none() | st.booleans(),
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "f": st.none() | st.floats(allow_nan=False),
                "s": st.none() | st.sampled_from(["k1", "k2", "k3"]),
                "my name": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
                "other": st.just(1),
            }
        ),
        max_size=8,
    )
)
def test_a_table_is_judged_as_its_records(rows: list[dict[str, Any]]) -> None:
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()})
    table = table.append_column("other", pa.array([1] * len(rows), pa.int64()))
    found, wanted = checked_table(table, FEATURES), Validator(FEATURES).check(rows)
    assert found.places.tolist() == list(wanted.places)
    assert found.rejections == wanted.rejections
    assert found.ignored_keys == wanted.ignored_keys
    assert list(zip(*(column.to_pylist() for column in found.table.columns), strict=True)) == wanted.rows


def test_the_rows_of_a_table_in_pieces_keep_their_places() -> None:
    column = pa.chunked_array([[1.0, math.nan], [], [3.0, math.inf], [5.0]])
    found = checked("float", column)
    assert found.places.tolist() == [0, 2, 4]
    assert found.table.column("x").to_pylist() == [1.0, 3.0, 5.0]
    assert np.array(list(found.rejections)).tolist() == [1, 3]


def test_a_dictionary_of_words_stays_one() -> None:
    column = pa.chunked_array([pa.array(["a", None]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()])
    found = checked("string", column, nullable=True)
    assert pa.types.is_dictionary(found.table.column("x").type)
    assert found.table.column("x").to_pylist() == ["a", None, "b", "a"]
    assert list(checked("string", column).rejections) == [1]
    closed = checked("string", column, nullable=True, categories=("a",), closed=True)
    assert list(closed.rejections) == [2]
    assert closed.table.column("x").to_pylist() == ["a", None, "a"]


def test_null_among_the_words_of_a_dictionary_is_null() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", None]))
    assert column.null_count == 0
    assert list(checked("string", column).rejections) == [1]
