import gzip
import io
import pickle
import random

import pytest

from fairlead.batch.formats import csv_text
from fairlead.batch.formats.csv_text import CsvReader
from fairlead.batch.formats.form import ReadOptions, Rows
from fairlead.errors import InputError
from fairlead.predict.tables import checked_table
from fairlead.schema import Schema

SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "tenure", "type": "int"},
            {"name": "charges", "type": "float", "nullable": True, "column": "Charges $"},
            {"name": "plan", "type": "string", "categories": ["a", "b"], "nullable": True},
            {"name": "senior", "type": "bool", "default": False},
        ]
    }
)
AS_CSV = ReadOptions(to="csv")
AS_PARQUET = ReadOptions()


def opened(text: bytes, options: ReadOptions = AS_PARQUET, schema: Schema = SCHEMA) -> CsvReader:
    return csv_text.reader(io.BytesIO(text), len(text), "in.csv", None, schema, options)


def rows_of(reader: CsvReader) -> list[Rows]:
    """Read a file, each chunk as in another process."""
    parser = pickle.loads(pickle.dumps(reader.parser))
    found = [parser.rows(pickle.loads(pickle.dumps(chunk))) for chunk, _ in reader.chunks()]
    assert all(rows.kept.schema.names == reader.kept_schema.names for rows in found)
    return found


def told(rows: Rows) -> dict[int, list[str]]:
    return {place: [str(problem) for problem in problems] for place, problems in rows.rejections.items()}


def test_columns_are_typed_by_the_schema() -> None:
    reader = opened(b"id,tenure,charges,plan\n7,1,1.5,a\n,2.0,,\n")
    (rows,) = rows_of(reader)
    assert rows.data.to_pylist() == [
        {"tenure": 1, "charges": 1.5, "plan": "a"},
        {"tenure": 2, "charges": None, "plan": None},
    ]
    assert [str(kind) for kind in reader.kept_schema.types] == ["string", "int64", "double", "string"]
    assert rows.kept.to_pylist()[1] == {"id": None, "tenure": 2, "charges": None, "plan": None}
    assert (rows.n_rows, rows.places, rows.rejections) == (2, None, {})
    assert str(rows.data.schema.field("plan").type).startswith("dictionary")


def test_text_stays_as_it_came_where_csv_is_written() -> None:
    reader = opened(b'id,tenure,charges,plan\n"7,""x""",1.0,1e3,a\n', AS_CSV)
    (rows,) = rows_of(reader)
    assert rows.kept.to_pylist() == [{"id": '7,"x"', "tenure": "1.0", "charges": "1e3", "plan": "a"}]
    assert rows.data.to_pylist() == [{"tenure": 1, "charges": 1000.0, "plan": "a"}]


def test_a_column_may_have_its_name_of_the_training() -> None:
    (rows,) = rows_of(opened(b"plan,Charges $,tenure\na,1,2\n"))
    assert rows.data.to_pylist() == [{"tenure": 2, "charges": 1.0, "plan": "a"}]
    assert rows.kept.to_pylist() == [{"plan": "a", "Charges $": 1.0, "tenure": 2}]


def test_columns_are_kept_in_the_order_asked_for() -> None:
    text = b"id,tenure,charges,plan\n7,1,1.5,a\n"
    (rows,) = rows_of(opened(text, ReadOptions(keep=("plan", "id"))))
    assert rows.kept.to_pylist() == [{"plan": "a", "id": "7"}]
    (rows,) = rows_of(opened(text + b"8,x,,\n9,2,,\n", ReadOptions(keep=())))
    assert rows.kept.num_rows == rows.data.num_rows == 2


def test_features_that_have_no_column_have_their_default() -> None:
    schema = Schema.parse({"features": [{"name": "senior", "type": "bool", "default": False}]})
    (rows,) = rows_of(opened(b"id\n7\n8\n", ReadOptions(keep=()), schema))
    assert checked_table(rows.data, schema).table.to_pylist() == [{"senior": False}] * 2
    assert rows.kept.num_rows == 2


def test_bad_lines_are_rejected_at_their_places() -> None:
    text = (
        b"id,tenure,charges,plan\r\n0,1,1.5,a\r\n1,1,1.5\r\n\r\n2,x,1e999,a\r\n"
        b'"3\r\n3",1,,\r\n4\r\n5,,y,\r\n6,6,6,b\r\n1,2,3,4,5'
    )
    (rows,) = rows_of(opened(text))
    assert rows.n_rows == 8
    assert rows.places is not None
    assert rows.places.tolist() == [0, 3, 6]
    assert rows.kept["id"].to_pylist() == ["0", "3\r\n3", "6"]
    assert told(rows) == {
        1: ["record: expected 4 fields, got 3, at $[1]"],
        2: [
            "tenure: expected an integer, got text that is not one, at $[2].tenure",
            "charges: expected a number, got a number too large, at $[2].charges",
        ],
        4: ["record: expected 4 fields, got 1, at $[4]"],
        5: [
            "charges: expected a number, got text that is not one, at $[5].charges",
            "tenure: expected an integer, got null, at $[5].tenure",
        ],
        7: ["record: expected 4 fields, got 5, at $[7]"],
    }


def test_blocks_are_of_whole_records_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.FIRST_BYTES", 512)
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.MAX_BYTES", 2048)
    some = random.Random(5)
    words = ["", "x", "a\nb", 'q"q', "a,b", "\r\n", 'a"\n"b,']
    lines = [(str(i), "" if some.random() < 0.1 else str(i % 72), some.choice(words)) for i in range(2000)]
    quoted = [tuple('"' + word.replace('"', '""') + '"' for word in line) for line in lines]
    text = b"id,tenure,note,charges,plan\n" + "".join(f"{i},{t},{note},,\n" for i, t, note in quoted).encode()
    found = rows_of(opened(text, AS_CSV))
    assert len(found) > 15
    assert sum(rows.n_rows for rows in found) == 2000
    assert [note or "" for rows in found for note in rows.kept["note"].to_pylist()] == [note for _, _, note in lines]
    reader = opened(text, AS_CSV)
    chunks, shares = zip(*reader.chunks(), strict=True)
    assert chunks == tuple(chunk for chunk, _ in opened(text, AS_CSV).chunks())
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1.0


def test_the_first_block_tells_the_size_of_others() -> None:
    line = b"1,2.5,a\n"
    text = b"tenure,charges,plan\n" + line * 400_000
    sizes = [rows.n_rows for rows in rows_of(opened(text))]
    assert sum(sizes) == 400_000
    assert all(65_536 * 0.9 < size <= 131_072 for size in sizes[:-1])


def test_a_quote_inside_a_field_without_quotes_is_a_letter() -> None:
    text = b'note,tenure,charges,plan\n5" of rain,1,,\n"a ""b""",2,,\n x"",3,,"a"\n'
    (rows,) = rows_of(opened(text, AS_CSV))
    assert rows.kept["note"].to_pylist() == ['5" of rain', 'a "b"', ' x""']
    assert rows.data["plan"].to_pylist() == [None, None, "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "expected CSV with a header that names the columns, got an empty file"),
        (b"\n\r\n\n", "got an empty file"),
        (b"\xef\xbb\xbf", "got an empty file"),
        (b"tenure,charges,plan,tenure\n", "got tenure twice"),
        (b"tenure,charges,,plan\n", "got none for column 3 of 4"),
        (b"charges,plan\n1,a\n", "tenure: expected a column of int, got none(.|\n)*its columns are charges, plan"),
        (b"tenure,charges,plan\n1,1,\xe4\n", r"expected UTF-8, got another byte at 24: see --encoding"),
        (b"tenure,charges,pl\xe4n\n1,1,a\n", r"got another byte in the header: see --encoding"),
        (b'tenure,charges,plan\n1,1,"a\n2,2,b\n', "end of the quote that begins at byte 24, got none"),
        (b'tenure,charges,plan\n1,1,"a\n2,2,"b"\n', r"a line end after the quote at byte 31: double a quote inside"),
        (b'tenure,charges,"plan\n1,1,a\n', "end of the quote that begins at byte 15"),
        (b'"tenure" ,charges,plan\n1,1,a\n', "after the quote at byte 7"),
    ],
)
def test_what_is_no_such_file_is_an_error(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rows_of(opened(text))
    assert str(caught.value).startswith("in.csv: ")


def test_a_column_to_keep_must_be_there() -> None:
    with pytest.raises(InputError, match="ride_ids"):
        opened(b"ride_id,tenure,charges,plan\n", ReadOptions(keep=("ride_ids",)))


def test_a_schema_may_forbid_other_columns() -> None:
    schema = Schema.parse({"features": [{"name": "tenure", "type": "int"}], "extra": "forbid"})
    with pytest.raises(InputError, match="id: expected no such column"):
        opened(b"tenure,id\n", schema=schema)


@pytest.mark.parametrize("text", [b"tenure,charges,plan", b"tenure,charges,plan\r\n", b"\n\ntenure,charges,plan\n\n"])
def test_a_file_without_rows_still_has_columns(text: bytes) -> None:
    reader = opened(text)
    assert reader.kept_schema.names == ["tenure", "charges", "plan"]
    assert sum(rows.n_rows for rows in rows_of(reader)) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-32-be"])
def test_other_encodings_are_read(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.FIRST_BYTES", 100)
    text = "plän,tenure,charges,plan\n" + "".join(f"Zürich {i},{i},,\n" for i in range(200))
    reader = opened(text.encode(encoding), ReadOptions(encoding=encoding))
    assert reader.kept_schema.names[0] == "plän"
    names = [name for rows in rows_of(reader) for name in rows.kept["plän"].to_pylist()]
    assert names == [f"Zürich {i}" for i in range(200)]


def test_a_byte_order_mark_is_left_out() -> None:
    (rows,) = rows_of(opened(b"\xef\xbb\xbftenure,charges,plan\n1,,\n"))
    assert rows.data["tenure"].to_pylist() == [1]


@pytest.mark.parametrize("encoding", ["klingon", "base64", "a\0b"])
def test_an_encoding_must_be_known(encoding: str) -> None:
    with pytest.raises(InputError, match="no such encoding"):
        opened(b"tenure,charges,plan\n", ReadOptions(encoding=encoding))


def test_text_in_another_encoding_than_said_is_an_error() -> None:
    with pytest.raises(InputError, match="expected utf-16, got another byte near byte"):
        rows_of(opened(b"tenure,charges,plan\n1", ReadOptions(encoding="utf-16")))
    with pytest.raises(InputError, match="expected ascii, got another byte near byte 24: see --encoding"):
        rows_of(opened(b"tenure,charges,plan\n1,1,\xe4\n", ReadOptions(encoding="ascii")))


def test_a_record_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.FIRST_BYTES", 100)
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.MAX_BYTES", 1000)
    monkeypatch.setattr("fairlead.batch.formats.text_blocks.MAX_RECORD_BYTES", 4096)
    with pytest.raises(InputError, match="expected a record of at most"):
        rows_of(opened(b'tenure,charges,plan\n1,1,"' + b"a\n" * 10_000))


def test_a_compressed_file_is_read() -> None:
    data = gzip.compress(b"tenure,charges,plan\n1,,\n")
    reader = csv_text.reader(io.BytesIO(data), len(data), "in.csv.gz", "gzip", SCHEMA, AS_CSV)
    assert [rows.n_rows for rows in rows_of(reader)] == [1]
    with pytest.raises(InputError, match=r"in\.csv\.gz: expected gzip"):
        csv_text.reader(io.BytesIO(data[:-3]), len(data) - 3, "in.csv.gz", "gzip", SCHEMA, AS_CSV)
