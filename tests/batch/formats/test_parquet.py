from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.batch.formats import parquet
from fairlead.batch.formats.form import CHUNK_ROWS, ReadOptions
from fairlead.errors import InputError
from fairlead.schema import Schema

SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "size", "type": "float", "nullable": True},
            {"name": "rooms", "type": "int"},
            {"name": "town", "type": "string", "categories": ["Delft", "Gouda"], "column": "Town name"},
        ]
    }
)


def homes(n_rows: int = 10) -> pa.Table:
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "id": pa.array([f"h{i}" for i in range(n_rows)], pa.large_string()),
            "size": rng.uniform(20, 200, n_rows).astype(np.float32),
            "rooms": rng.integers(1, 9, n_rows).astype(np.int16),
            "Town name": rng.choice(["Delft", "Gouda"], n_rows),
            "seen": pa.array(range(n_rows), pa.timestamp("ns", "Europe/Amsterdam")),
            "tags": [["a", "b"]] * n_rows,
        }
    )


def file_of(table: pa.Table, **how: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, **how)
    file.seek(0)
    return file


def reader_of(file: Any, **options: Any) -> Any:
    return parquet.reader(file, 0, "homes.parquet", None, SCHEMA, ReadOptions(**options))


def copied(found: Any) -> pa.Table:
    """Write what a reader keeps, and read it again."""
    file = io.BytesIO()
    writer = parquet.writer(file, found.kept_schema, None)
    for chunk, _ in found.chunks():
        writer.write(parquet.encoder(found.kept_schema, None).encode(found.parser.rows(chunk).kept))
    writer.close()
    file.seek(0)
    return pq.read_table(file)


def test_what_is_kept_comes_out_as_it_was() -> None:
    table = homes(3 * CHUNK_ROWS + 5)
    found = copied(reader_of(file_of(table)))
    assert found.schema == table.schema
    assert found.equals(table)


def test_a_category_of_pandas_stays_one() -> None:
    frame = homes().drop(["seen"]).to_pandas().astype({"Town name": "category"}).set_index("id")
    found = copied(reader_of(file_of(pa.Table.from_pandas(frame)))).to_pandas()
    pd.testing.assert_frame_equal(found, frame)


def test_only_what_is_needed_is_read() -> None:
    found = reader_of(file_of(homes()), keep=("id",))
    ((chunk, share),) = found.chunks()
    assert chunk.column_names == ["id", "size", "rooms", "Town name"]
    assert pa.types.is_dictionary(chunk.schema.field("Town name").type)
    assert (found.kept_schema.names, found.n_rows, share) == (["id"], 10, 1.0)
    assert copied(found).column_names == ["id"]
    assert copied(reader_of(file_of(homes()), keep=("tags", "id"))).column_names == ["tags", "id"]


def test_nothing_may_be_kept() -> None:
    found = reader_of(file_of(homes()), keep=())
    ((chunk, _),) = found.chunks()
    rows = found.parser.rows(chunk)
    assert (rows.n_rows, rows.kept.num_columns) == (10, 0)


def test_chunks_are_the_same_whole_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_PIECE_ROWS", 50_000)
    table = homes(130_000)
    found = reader_of(file_of(table, row_group_size=20_000))
    assert found.pieces == [(0, 3), (3, 6), (6, 7)]
    whole = [chunk for chunk, _ in found.chunks()]
    apart = [chunk for piece in found.pieces for chunk, _ in found.chunks(piece)]
    assert [len(chunk) for chunk in whole] == [CHUNK_ROWS, 60_000 - CHUNK_ROWS] * 2 + [10_000]
    assert all(one.equals(other) for one, other in zip(whole, apart, strict=True))
    assert [share for _, share in found.chunks((6, 7))] == [1.0]


def test_chunks_make_row_groups_of_a_size(tmp_path: Path) -> None:
    found = reader_of(file_of(homes(10 * CHUNK_ROWS + 1)), keep=("id",))
    path = tmp_path / "out.parquet"
    with path.open("wb") as file:
        writer = parquet.writer(file, found.kept_schema, None)
        for chunk, _ in found.chunks():
            writer.write(found.parser.rows(chunk).kept)
        writer.close()
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [4 * CHUNK_ROWS, 4 * CHUNK_ROWS, 2 * CHUNK_ROWS + 1]


def test_an_empty_file_keeps_its_columns() -> None:
    found = reader_of(file_of(homes(0)))
    assert list(found.chunks()) == []
    assert copied(found).schema == homes(0).schema


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            homes().drop(["rooms"]),
            r"homes.parquet: rooms: expected a column of int, got none, .*\nits columns",
        ),
        (homes().set_column(2, "rooms", [["x"] * 10]), "rooms: expected a column of int, got one of string"),
        (pa.table([[1], [2]], names=["a", "a"]), "expected columns of different names, got a twice"),
    ],
)
def test_columns_that_do_not_serve_are_told(table: pa.Table, told: str) -> None:
    with pytest.raises(InputError, match=told):
        reader_of(file_of(table))


def test_a_column_to_keep_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="expected the column ride_id to keep, got id, size, rooms, Town name"):
        reader_of(file_of(homes()), keep=("ride_id",))


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"PAR1" * 8], ids=["empty", "csv", "magic"])
def test_what_is_no_parquet_is_told(data: bytes) -> None:
    with pytest.raises(InputError, match=r"homes.parquet: expected a Parquet file"):
        reader_of(io.BytesIO(data))


def test_a_truncated_file_is_told() -> None:
    whole = file_of(homes(1000)).getvalue()
    with pytest.raises(InputError, match="expected a Parquet file"):
        reader_of(io.BytesIO(whole[:-100]))


def test_a_broken_page_is_told_with_its_place() -> None:
    table = homes(5000)
    whole = bytearray(file_of(table, row_group_size=1000, write_page_checksum=True).getvalue())
    column = pq.ParquetFile(io.BytesIO(bytes(whole))).metadata.row_group(3).column(1)
    for i in range(column.data_page_offset + 40, column.data_page_offset + 400):
        whole[i] ^= 0xFF
    found = reader_of(io.BytesIO(bytes(whole)))
    with pytest.raises(InputError, match=r"homes.parquet: broken after row [\d,]+ of 5,000: .*written again"):
        list(found.chunks())
