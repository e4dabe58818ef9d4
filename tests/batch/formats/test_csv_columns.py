"""Columns of text mean what the same text means over HTTP."""

import io
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairlead.batch.formats import csv_text
from fairlead.batch.formats.csv_columns import typed
from fairlead.batch.formats.form import ReadOptions
from fairlead.predict.validate import Validator
from fairlead.schema import FeatureType, Problem, Schema

NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(2**64), 2**64).map(str),
    st.integers().map(lambda number: f"{number}.0"),
    st.floats().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:.30f}"),
    st.from_regex(r"\A[-+]?[0-9]{0,25}(\.[0-9]{0,25})?([eE][-+]?[0-9]{0,4})?\Z"),
    st.sampled_from(["", "-0", "00", "-00.0", "1.", ".5", "1e400", "-1e400", "1e-400", "5e-324", "0x10", "1_000", "٣"]),
    st.sampled_from(["nan", "inf", "Infinity", " 1", "1 ", "1\n", "1.000", "1" * 400, "0." + "1" * 400, "1.0e0"]),
)
DATES = st.one_of(
    st.datetimes().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes(datetime(1000, 1, 1), timezones=st.timezones()).map(str),
    st.from_regex(
        r"\A[0-3][0-9]{3}-[01][0-9]-[0-3][0-9][T t_][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,9})?"
        r"([Zz]|[-+][0-2][0-9]:?[0-6][0-9])?\Z"
    ),
    st.sampled_from(["2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2024-12-31 23:59:60Z", "0001-01-01T00:00+23:00"]),
    st.sampled_from(["2024-01-01", "2024-01-01T00:00", "2024-01-01T24:00:00", "2024-01-01T00:00:00-00:00", "20240101"]),
)
WORDS = st.sampled_from(["true", "TRUE", "False", "fALSE", "1", "yes", "null", "", " true", "trüe", "falſe"])
TEXTS = st.one_of(NUMBERS, DATES, WORDS, st.text(max_size=8), st.text('",\n\r\t 01', max_size=6))


def one_by_one(schema: Schema, texts: list[list[str]]) -> tuple[list[tuple[Any, ...]], dict[int, tuple[Problem, ...]]]:
    """Read lines as over HTTP."""
    rows: list[tuple[Any, ...]] = []
    rejections: dict[int, tuple[Problem, ...]] = {}
    validator = Validator(schema)
    for place, line in enumerate(texts):
        record, unread = validator.parse_text(dict(zip(schema.names, line, strict=True)))
        checked = validator.check([record])
        if unread:
            # What else is wrong is told too, but not that a value which could not be read is missing.
            found = {problem.path: problem for problem in unread}
            for problem in checked.rejections.get(0, ()):
                found.setdefault(problem.alone().path, problem.alone())
            rejections[place] = tuple(Problem(f"$[{place}]{p.path[1:]}", p.expected, p.got) for p in found.values())
        elif checked.rejections:
            rejections[place] = tuple(problem.moved(place) for problem in checked.rejections[0])
        else:
            rows.append(checked.rows[0])
    return rows, rejections


def field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


KINDS: tuple[FeatureType, ...] = ("bool", "int", "float", "string", "datetime")
SCHEMA = Schema.parse({"features": [{"name": kind, "type": kind, "nullable": True} for kind in KINDS]})


@settings(max_examples=100)
@given(st.lists(st.one_of([st.lists(TEXTS, min_size=5, max_size=5), st.tuples(WORDS, NUMBERS, NUMBERS, TEXTS, DATES)])))
@example([["true", "1", "1.5", "x", "2024-01-31T10:00:00.5+01:30"], ["", "-0", "-0", "", "2024-02-29 10:00:00"]])
@example(
    [["true", "9" * 18 + ".0", "1e308", "x", "2024-01-31T10:00:00Z"], ["no", "9" * 20, "1e309", "y", "2024-02-30"]]
)
def test_columns_mean_what_lines_mean(lines: list[list[str]]) -> None:
    text = ",".join(SCHEMA.names) + "\n" + "".join(",".join(map(field, line)) + "\n" for line in lines)
    reader = csv_text.reader(io.BytesIO(text.encode()), len(text), "in.csv", None, SCHEMA, ReadOptions())
    rows, rejections = one_by_one(SCHEMA, lines)
    chunks = [reader.parser.rows(chunk) for chunk, _ in reader.chunks()]
    assert sum(chunk.n_rows for chunk in chunks) == len(lines)
    if not lines:
        return
    (found,) = chunks
    assert found.rejections == rejections
    # As text, -0.0 is another number than 0.0.
    assert str([tuple(map(in_utc, row.values())) for row in found.data.to_pylist()]) == str(rows)
    assert found.kept.to_pylist() == found.data.to_pylist()
    places = [place for place in range(len(lines)) if place not in rejections]
    assert (list(range(len(lines))) if found.places is None else found.places.tolist()) == places


def in_utc(value: object) -> object:
    """Name UTC as `Validator` does."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "42"), ("int", "-7.0"), ("float", "-1.5e-3"), ("bool", "TRUE"),
        ("datetime", "2026-10-31T23:59:59.123Z"),
        ("datetime", "2026-10-01 00:00:00"), ("datetime", "2026-10-01T00:00:00.123456+05:30"),
    ],
)  # fmt: skip
def test_what_is_common_is_decided_at_once(kind: FeatureType, text: str) -> None:
    values, left = typed(pa.array([text, None]), kind)
    assert not left.any()
    assert values.is_valid().to_pylist() == [True, False]


def test_the_types_are_those_of_the_table_check() -> None:
    values, _ = typed(pa.array(["2026-10-01T00:00:00+01:00"]), "datetime")
    assert values.to_pylist() == [datetime(2026, 9, 30, 23, tzinfo=UTC)]
    assert msgspec.json.encode(values.to_pylist()) == b'["2026-09-30T23:00:00Z"]'
