import io
import json
import math
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from fairlead.batch.formats import jsonl
from fairlead.batch.formats.form import ReadOptions, Rows
from fairlead.batch.formats.jsonl import JsonReader
from fairlead.errors import InputError
from fairlead.schema import Schema

SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "tenure", "type": "int"},
            {"name": "charges", "type": "float", "nullable": True},
            {"name": "plan", "type": "string", "categories": ["a", "b"], "default": "a"},
        ]
    }
)
AS_JSON = ReadOptions(to="jsonl")
AS_PARQUET = ReadOptions()
GOOD = {"tenure": 1, "charges": 2.5, "plan": "b"}


def opened(text: bytes | list[Any], options: ReadOptions = AS_JSON) -> JsonReader:
    if isinstance(text, list):
        text = b"".join(json.dumps(record).encode() + b"\n" for record in text)
    return jsonl.reader(io.BytesIO(text), len(text), "in.jsonl", None, SCHEMA, options)


def rows_of(reader: JsonReader) -> list[Rows]:
    """Read a file, each chunk as in another process."""
    parser = pickle.loads(pickle.dumps(reader.parser))
    return [parser.rows(pickle.loads(pickle.dumps(chunk))) for chunk, _ in reader.chunks()]


def told(rows: Rows) -> dict[int, list[str]]:
    return {place: [str(problem) for problem in problems] for place, problems in rows.rejections.items()}


def test_records_stay_as_they_are_where_json_is_written() -> None:
    records = [{"id": 7, **GOOD, "tags": [1, {"x": None}]}, {"tenure": 1}, {}]
    (rows,) = rows_of(opened(records))
    assert rows.data == rows.kept == records
    assert (rows.n_rows, rows.places, rows.rejections) == (3, None, {})
    (rows,) = rows_of(opened(records, ReadOptions(to="jsonl", keep=("tags", "ride_id"))))
    assert rows.data == records
    assert rows.kept == [{"tags": [1, {"x": None}], "ride_id": None}] + [{"tags": None, "ride_id": None}] * 2


def test_names_are_known_before_anything_is_read() -> None:
    assert opened([{"b": 1, "a": 2}, {"c": 3}]).kept_schema.names == ["b", "a", "c"]
    assert opened([{"b": 1}], ReadOptions(to="jsonl", keep=("x",))).kept_schema.names == ["x"]


@pytest.mark.parametrize("options", [AS_JSON, AS_PARQUET])
def test_what_is_no_object_is_rejected_at_its_place(options: ReadOptions) -> None:
    good = json.dumps(GOOD).encode()
    lines = [b"\xef\xbb\xbf" + good, b"", good + b"\r", b"nope", b"  \t", b"[1]", b"\xff{}", b"7", b"null"]
    lines += [b"[" * 100_000, b'{"a":1}{"b":2}', b'{"a":', b"1}", b'"text"', b" " + good]
    (rows,) = rows_of(opened(b"\n".join(lines), options))
    assert rows.n_rows == 13
    assert rows.places is not None
    assert rows.places.tolist() == [0, 1, 12]
    text = "record: expected a JSON object, got text that is not JSON, at $[{}]"
    assert told(rows) == {place: [text.format(place)] for place in (2, 4, 7, 8, 9, 10)} | {
        3: ["record: expected a JSON object, got an array, at $[3]"],
        5: ["record: expected a JSON object, got an integer, at $[5]"],
        6: ["record: expected a JSON object, got null, at $[6]"],
        11: ["record: expected a JSON object, got a string, at $[11]"],
    }


def test_columns_are_of_the_features_and_of_what_came_first() -> None:
    records = [
        {"id": None, "tenure": 1, "charges": None, "n": 1, "tags": ["x"], "at": {"lat": 1}, "nil": None},
        {
            "id": "a",
            "tenure": 2,
            "charges": 3,
            "n": 1.5,
            "ok": True,
            "nil": None,
            "at": {"lat": 0.5, "lon": None},
            "l": [],
        },
        {"tenure": "x", "charges": True},
        {"tenure": 3, "charges": None, "plan": "b", "tags": None},
    ]
    reader = opened([*records, {"tenure": None}], AS_PARQUET)
    (rows,) = rows_of(reader)
    assert {field.name: str(field.type) for field in reader.kept_schema} == {
        "id": "string", "tenure": "int64", "n": "double", "tags": "list<item: string>",
        "at": "struct<lat: double, lon: string>", "nil": "string", "charges": "double", "ok": "bool",
        "l": "list<item: string>", "plan": "string",
    }  # fmt: skip
    assert rows.kept.schema.names == reader.kept_schema.names
    assert rows.kept.to_pylist()[1] == {
        "id": "a", "tenure": 2, "n": 1.5, "tags": None, "at": {"lat": 0.5, "lon": None}, "nil": None, "charges": 3.0,
        "ok": True, "l": [], "plan": "a",
    }  # fmt: skip
    assert rows.data.to_pylist() == [
        {"tenure": 1, "charges": None, "plan": "a"},
        {"tenure": 2, "charges": 3.0, "plan": "a"},
        {"tenure": 3, "charges": None, "plan": "b"},
    ]
    assert str(rows.data.schema.field("plan").type).startswith("dictionary")


def test_bad_records_are_told_as_over_http() -> None:
    records = [GOOD, {"tenure": "x", "charges": True, "plan": None}, {"charges": 1.0}, GOOD]
    (rows,) = rows_of(opened(records, AS_PARQUET))
    assert told(rows) == {
        1: [
            "tenure: expected an integer, got a string, at $[1].tenure",
            "charges: expected a number, got a boolean, at $[1].charges",
            "plan: expected a string, got null, at $[1].plan",
        ],
        2: ["tenure: expected an integer, got nothing, at $[2].tenure"],
    }
    assert rows.places is not None
    assert rows.places.tolist() == [0, 3]
    assert rows.kept.num_rows == rows.data.num_rows == 2


def test_a_column_to_keep_that_never_came_is_null() -> None:
    reader = opened([GOOD], ReadOptions(keep=("ride_id", "plan")))
    assert reader.kept_schema == pa.schema([("ride_id", pa.string()), ("plan", pa.string())])
    (rows,) = rows_of(reader)
    assert rows.kept.to_pylist() == [{"ride_id": None, "plan": "b"}]
    (rows,) = rows_of(opened([GOOD], ReadOptions(keep=())))
    assert rows.kept.num_rows == 1


@pytest.mark.parametrize(
    ("first", "later", "message"),
    [
        ({"id": 1}, {"id": "x"}, "id: expected int64, got string"),
        ({"id": 1}, {"id": 1.5}, "id: expected int64, got double"),
        ({"id": 1}, {"id": True}, "id: expected int64, got bool"),
        ({"id": True}, {"id": 1}, "id: expected bool, got int64"),
        ({"id": 1}, {"id": 2**63}, "id: expected int64, got an integer beyond 64 bits"),
        ({"id": None}, {"id": {}}, "id: expected string, got an empty object"),
        ({"id": [1]}, {"id": ["x"]}, r"id: expected list<item: int64>, got list<item: string>"),
        ({"id": {"a": 1}}, {"id": {"b": 1}}, r"id: expected struct<a: int64>, got struct<b: int64>"),
        ({}, {"new": 1}, "has a key new, which none of the first records has"),
    ],
)
def test_a_file_that_changes_its_schema_midway(
    first: dict[str, Any], later: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.FIRST_BYTES", 300)
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.MAX_BYTES", 300)
    good = json.dumps(GOOD | first).encode() + b"\n"
    text = good * 10 + b"\n" + good + json.dumps(GOOD | later).encode()
    with pytest.raises(InputError, match=rf"in\.jsonl: it changed its schema: line 13:? {message}"):
        rows_of(opened(text, AS_PARQUET))
    # Where it is left out, or where JSON is written, it may.
    assert sum(rows.n_rows for rows in rows_of(opened(text, ReadOptions(keep=("plan",))))) == 12
    assert sum(rows.n_rows for rows in rows_of(opened(text))) == 12


def test_integers_fit_into_a_column_of_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.FIRST_BYTES", 100)
    text = json.dumps(GOOD | {"n": 1.5}) + "\n" + json.dumps(GOOD | {"n": 2**60 + 1}) + "\n"
    found = rows_of(opened(text.encode(), AS_PARQUET))
    assert [n for rows in found for n in rows.kept["n"].to_pylist()] == [1.5, 2.0**60]


@pytest.mark.parametrize("values", [[1, "x"], [{"a": 1}, 2], [{}], [2**64], [[1, "x"]]])
def test_values_that_no_column_can_hold_are_told(values: list[Any]) -> None:
    records = [GOOD | {"odd": value} for value in values]
    with pytest.raises(InputError, match=r"in\.jsonl: odd: expected values that a column can hold, got .*--keep"):
        opened(records, AS_PARQUET)
    assert rows_of(opened(records))[0].n_rows == len(values)


@pytest.mark.parametrize("text", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("options", [AS_JSON, AS_PARQUET])
def test_an_empty_file_has_the_features_columns(text: bytes, options: ReadOptions) -> None:
    reader = opened(text, options)
    assert sum(rows.n_rows for rows in rows_of(reader)) == 0
    if options is AS_PARQUET:
        assert reader.kept_schema.names == list(SCHEMA.names)


def test_a_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.FIRST_BYTES", 100)
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.MAX_BYTES", 1000)
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.MAX_RECORD_BYTES", 4096)
    with pytest.raises(InputError, match=r"expected a record of at most .* at byte 0, got more"):
        rows_of(opened(b" " * 10_000))


def encoded(scored: Any) -> list[str]:
    encoder = pickle.loads(pickle.dumps(jsonl.encoder(pa.schema([]), None)))
    file = io.BytesIO()
    writer = jsonl.writer(file, pa.schema([]), None)
    writer.write(encoder.encode(scored))
    writer.close()
    return file.getvalue().decode().splitlines()


def test_records_become_lines() -> None:
    records = [{"b": 1, "a": None}, {"a": math.nan, "é": [1e300, "x\n"]}]
    assert encoded(records) == ['{"b":1,"a":null}', '{"a":null,"é":[1e300,"x\\n"]}']
    assert encoded([]) == []


def test_tables_become_lines() -> None:
    moment = datetime(2026, 10, 31, 23, tzinfo=UTC)
    table = pa.table(
        {
            "t": [moment],
            "z": pa.array([moment], pa.timestamp("ns", "Asia/Tokyo")),
            "n": pa.array([datetime(2026, 1, 1)], pa.timestamp("ns")),
            "d": [date(2026, 10, 31)],
            "m": [Decimal("1.50")],
            "f": [math.nan],
            "w": pa.array(["x"]).dictionary_encode(),
            "p": [{"no": 0.25, "yes": 0.75}],
            "l": [[1, 2]],
        }
    )
    assert encoded(table) == [
        '{"t":"2026-10-31T23:00:00Z","z":"2026-10-31T23:00:00Z","n":"2026-01-01T00:00:00","d":"2026-10-31","m":1.50,'
        '"f":null,"w":"x","p":{"no":0.25,"yes":0.75},"l":[1,2]}'
    ]
    assert encoded(table.slice(0, 0)) == []
