from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.predict.encode import BLOCK_ROWS, UNSEEN, Encoder
from fairlead.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="f", type="float", nullable=True),
        Feature(name="s", type="string", nullable=True, categories=("a", "b", "")),
        Feature(name="i", type="int", nullable=True),
        Feature(name="b", type="bool", nullable=True),
        Feature(name="t", type="string"),
    )
)
TYPES = pa.schema([("f", pa.float64()), ("s", pa.string()), ("i", pa.int64()), ("b", pa.bool_()), ("t", pa.string())])
ROWS = st.lists(
    st.tuples(
        st.none() | st.floats(allow_nan=False),
        st.none() | st.sampled_from(["a", "b", "", "c", "A", "a "]),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.booleans(),
        st.sampled_from(["x", "y"]),
    ),
    max_size=20,
)


def table_of(rows: list[Any]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(TYPES)
    return pa.table([pa.array(list(c), type=f.type) for c, f in zip(columns, TYPES, strict=True)], schema=TYPES)


def matrix_of(encoder: Encoder, table: pa.Table) -> np.ndarray:
    return np.concatenate([matrix.copy() for _, matrix in encoder.blocks(table)])


@given(rows=ROWS)
def test_rows_columns_and_tables_give_one_matrix(rows: list[Any]) -> None:
    one_by_one, at_once, table = Encoder(SCHEMA), Encoder(SCHEMA), Encoder(SCHEMA)
    wanted = np.concatenate([np.empty((0, 5)), *(one_by_one.encode([row]) for row in rows)])
    np.testing.assert_array_equal(at_once.encode(rows), wanted)
    np.testing.assert_array_equal(matrix_of(table, table_of(rows)), wanted)
    assert one_by_one.unseen == at_once.unseen == table.unseen
    assert wanted.dtype == np.float64


def test_what_becomes_of_each_value() -> None:
    rows = [(1.5, "b", 2, True, "x"), (None, None, None, None, "x"), (0.0, "", -1, False, "x"), (0.0, "B", 0, True, "")]
    wanted = [
        [1.5, 1, 2, 1, UNSEEN],
        [np.nan, np.nan, np.nan, np.nan, UNSEEN],
        [0, 2, -1, 0, UNSEEN],
        [0, UNSEEN, 0, 1, UNSEEN],
    ]
    encoder = Encoder(SCHEMA)
    np.testing.assert_array_equal(encoder.encode(rows), wanted)
    assert encoder.unseen == {"s": 1}  # `t` is free text


@pytest.mark.parametrize("count", [3, 30])
def test_every_unseen_value_counts(count: int) -> None:
    rows = [(0.0, "new", 0, True, "x")] * count
    by_rows, by_table = Encoder(SCHEMA), Encoder(SCHEMA)
    by_rows.encode(rows)
    matrix_of(by_table, table_of(rows))
    assert by_rows.unseen == by_table.unseen == {"s": count}
    matrix_of(by_table, table_of(rows))
    assert by_table.unseen == {"s": 2 * count}


def test_nothing_gives_an_empty_matrix_of_the_right_width() -> None:
    assert Encoder(SCHEMA).encode([]).shape == (0, 5)
    assert matrix_of(Encoder(SCHEMA), table_of([])).shape == (0, 5)
    assert Encoder(SCHEMA).unseen == {}


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string())],
    ids=str,
)
def test_every_layout_of_strings_is_one(kind: pa.DataType) -> None:
    values = ["a", None, "c", "b", "", "a"]
    table = table_of([(0.0, value, 0, True, "x") for value in values])
    other = table.set_column(1, "s", pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)]))
    wanted = matrix_of(Encoder(SCHEMA), table)
    encoder = Encoder(SCHEMA)
    np.testing.assert_array_equal(matrix_of(encoder, other), wanted)
    np.testing.assert_array_equal(wanted[:, 1], [0, np.nan, UNSEEN, 1, 2, 0])
    assert encoder.unseen["s"] == 1


def test_a_column_of_nulls() -> None:
    table = table_of([(None, None, None, None, "x")] * 3)
    matrix = matrix_of(Encoder(SCHEMA), table)
    assert np.isnan(matrix[:, :4]).all()


@pytest.mark.parametrize("count", [2, 20])
def test_numbers_outside_their_categories_stay_numbers_and_are_counted(count: int) -> None:
    schema = Schema(features=(Feature(name="senior", type="int", nullable=True, categories=(0, 1)),))
    rows = [(0,), (1,), (None,), *[(7,)] * count]
    by_rows, by_table = Encoder(schema), Encoder(schema)
    wanted = np.array([[0.0], [1.0], [np.nan], *[[7.0]] * count])
    np.testing.assert_array_equal(by_rows.encode(rows), wanted)
    np.testing.assert_array_equal(matrix_of(by_table, pa.table({"senior": [row[0] for row in rows]})), wanted)
    assert by_rows.unseen == by_table.unseen == {"senior": count}


def test_a_dictionary_whose_places_are_all_taken_has_room_for_null() -> None:
    words = [f"w{i}" for i in range(127)]
    column = pa.DictionaryArray.from_arrays(pa.array([0, None, 126], pa.int8()), pa.array(words))
    schema = Schema(features=(Feature(name="s", type="string", nullable=True, categories=tuple(words[::-1])),))
    found = matrix_of(Encoder(schema), pa.table({"s": column}))
    np.testing.assert_array_equal(found, [[126], [np.nan], [0]])


def test_blocks_follow_each_other() -> None:
    table = table_of([(float(i), "a", i, True, "x") for i in range(2 * BLOCK_ROWS + 5)])
    starts = [(start, len(matrix)) for start, matrix in Encoder(SCHEMA).blocks(table)]
    assert starts == [(0, BLOCK_ROWS), (BLOCK_ROWS, BLOCK_ROWS), (2 * BLOCK_ROWS, 5)]
    np.testing.assert_array_equal(matrix_of(Encoder(SCHEMA), table)[:, 0], np.arange(2.0 * BLOCK_ROWS + 5))
