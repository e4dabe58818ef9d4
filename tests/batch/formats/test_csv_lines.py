import csv
import io
import math
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from fairlead.batch.formats import csv_text
from fairlead.errors import OutputError


def written(*tables: pa.Table) -> str:
    file = io.BytesIO()
    schema = tables[0].schema
    writer = csv_text.writer(file, schema, None)
    encoder = pickle.loads(pickle.dumps(csv_text.encoder(schema, None)))
    for table in tables:
        writer.write(encoder.encode(table))
    writer.close()
    return file.getvalue().decode()


def test_fields_are_quoted_where_they_must_be() -> None:
    words = ["x", "a b", "a,b", 'a"b', "a\nb", "a\rb", "", None, " é", "'"]
    text = written(pa.table({"w,1": words, "n": range(10)}))
    assert text.splitlines()[:4] == ['"w,1",n', "x,0", "a b,1", '"a,b",2']
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [[word or "", str(i)] for i, word in enumerate(words)]
    assert '"",6\n,7\n' in text  # an empty string, and null
    assert '"a""b",3' in text


def test_words_in_a_dictionary_are_written_as_others() -> None:
    words = pa.array(["a,b", None, "", "x", "a,b"])
    assert written(pa.table({"w": words.dictionary_encode(), "n": range(5)})) == written(
        pa.table({"w": words, "n": range(5)})
    )


def test_numbers_are_the_same_when_they_are_read() -> None:
    numbers = [0.1, 1 / 3, 1e300, 5e-324, -0.0, 1e16, 123456789.125, 2.0**53]
    text = written(pa.table({"f": [*numbers, math.nan, None, math.inf], "i": range(-1, 10)}))
    lines = [line.split(",") for line in text.splitlines()[1:]]
    assert [float(line[0]) for line in lines[:8]] == numbers
    assert [line[0] for line in lines[8:]] == ["", "", "inf"]
    assert pd.read_csv(io.StringIO(text))["f"][:8].tolist() == pytest.approx(numbers, rel=1e-15)
    assert written(pa.table({"f": pa.array([0.1], pa.float32())})) == "f\n0.1\n"


def test_types_have_their_text() -> None:
    moment = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
    table = pa.table(
        {
            "b": [True, False, None],
            "t": [moment, moment.replace(microsecond=120000), None],
            "z": pa.array([moment, None, None], pa.timestamp("ns", "Asia/Tokyo")),
            "n": pa.array([datetime(2026, 1, 1), None, None], pa.timestamp("s")),
            "d": [date(2026, 10, 31), None, None],
            "m": [Decimal("1.50"), None, None],
            "nil": pa.nulls(3),
        }
    )
    assert written(table).splitlines() == [
        "b,t,z,n,d,m,nil",
        "true,2026-10-31T23:59:59Z,2026-10-31T23:59:59Z,2026-01-01T00:00:00,2026-10-31,1.50,",
        "false,2026-10-31T23:59:59.120000Z,,,,,",
        ",,,,,,",
    ]


def test_a_struct_becomes_columns() -> None:
    table = pa.table({"p": [{"no": 0.25, "yes": {"x": 0.75}}], "version": ["1"]})
    assert written(table) == "p.no,p.yes.x,version\n0.25,0.75,1\n"


def test_an_empty_table_has_its_header() -> None:
    empty = pa.table({"a": pa.array([], pa.int64()), "p": pa.array([], pa.struct([("x", pa.float64())]))})
    assert written(empty) == "a,p.x\n"
    some = pa.table({"a": [1], "p": [{"x": 0.5}]})
    assert written(some, empty, some) == "a,p.x\n1,0.5\n1,0.5\n"


def test_a_table_of_many_chunks_is_one() -> None:
    table = pa.concat_tables([pa.table({"a": [i, i], "w": ["x", "y"]}) for i in range(3)]).slice(1, 4)
    assert written(table) == "a,w\n0,y\n1,x\n1,y\n2,x\n"


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int64()), pa.binary(), pa.map_(pa.string(), pa.string()), pa.dictionary(pa.int8(), pa.binary())],
)
def test_what_has_no_place_in_a_line_is_refused_before_anything_is_written(kind: pa.DataType) -> None:
    with pytest.raises(OutputError, match=r"tags: .* write JSONL or Parquet, or leave it out with --keep"):
        csv_text.encoder(pa.schema([("a", pa.int64()), ("tags", kind)]), None)


def test_columns_have_different_names() -> None:
    schema = pa.schema([("p.x", pa.int64()), ("p", pa.struct([("x", pa.float64())]))])
    with pytest.raises(OutputError, match=r"got p\.x twice"):
        csv_text.encoder(schema, None)


def test_compressed_lines_are_the_same_each_time() -> None:
    schema = pa.schema([("a", pa.int64())])
    table = pa.table({"a": range(1000)})
    assert csv_text.encoder(schema, "gzip").encode(table) == csv_text.encoder(schema, "gzip").encode(table)
