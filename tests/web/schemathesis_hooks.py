"""What test_schemathesis.py tells schemathesis: bodies that are no JSON, and which refusals are no findings."""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi.checks import RejectedPositiveData

Rows = Sequence[dict[str, Any]]

CSV = "text/csv"
LINES = "application/jsonlines"
ARROW = "application/vnd.apache.arrow.stream"
OCTETS = "application/octet-stream"
# A row for each of the models, good but for what is drawn into it.
RECORDS: Rows = (
    {"tenure": 41, "charges": 79.85, "contract": "yearly"},
    {"size": 3.5, "town": "Delft"},
    {"since": "2024-02-29T12:30:00Z", "express": True, "pieces": 2, "weight": 1.5, "note": "brittle"},
    {"sepal_length": 7.7, "sepal_width": 3.0, "petal_length": 6.1, "petal_width": 2.3},
)


def _csv(rows: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _arrow(rows: Rows) -> bytes:
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return bytes(out.getvalue().to_pybytes())


def _tensors(rows: Rows) -> bytes:
    """Write numbers in bytes, behind a line of JSON with all the rest."""
    inputs, tail = [], b""
    for name, value in rows[0].items():
        tensor: dict[str, Any] = {"name": name, "shape": [len(rows)]}
        values = [row[name] for row in rows]
        if isinstance(value, float) and None not in values:
            data = pa.array(values, pa.float64()).buffers()[1].to_pybytes()[: 8 * len(rows)]
            inputs.append({**tensor, "datatype": "FP64", "parameters": {"binary_data_size": len(data)}})
            tail += data
        else:
            datatype = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}[type(value)]
            inputs.append({**tensor, "datatype": datatype, "data": values})
    return json.dumps({"inputs": inputs}).encode() + b"\n" + tail


@st.composite
def _bodies(draw: Any, write: Callable[[Rows], bytes]) -> bytes:
    record = draw(st.sampled_from(RECORDS))
    nulls = st.fixed_dictionaries({}, optional=dict.fromkeys(record, st.none()))
    rows = [record, *({**record, **draw(nulls)} for _ in range(draw(st.integers(0, 2))))]
    body = write(rows)
    if draw(st.booleans()):
        return body
    start, stop = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    return body[:start] + draw(st.binary(max_size=8)) + body[stop:]


for media_type, write in ((CSV, _csv), (LINES, _lines), (ARROW, _arrow), (OCTETS, _tensors)):
    schemathesis.openapi.media_type(media_type, _bodies(write))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Ask for one form of answer or another, and tell where bytes of tensors begin."""
    body = case.body if isinstance(case.body, bytes) else repr((case.query, case.body)).encode()
    forms = ("application/json", "*/*", CSV, ARROW, LINES)
    case.headers.setdefault("Accept", forms[zlib.crc32(body) % len(forms)])
    if case.media_type == OCTETS and b"\n" in body:
        case.headers["Inference-Header-Content-Length"] = str(body.index(b"\n") + 1)


# Of these forms a JSON schema can say only that they are strings, so that any text counts as good data.
NOT_JSON = (CSV, LINES, ARROW, OCTETS)
# What a JSON schema has no words for, by a problem's path, what it expected and what it got.
UNSAYABLE = re.compile(
    # 41.0 is an integer to JSON Schema; to a feature of type int, a shape or a tensor of INT64 only 41 is.
    r".* an integer( of \d+ bits( without a sign)?)?, got a number"
    # The sum or product of good features may be too large for a float64.
    r"|.* features for which the model gives a finite number, got others"
    # Arrays whose lengths have to agree with each other, or with a shape.
    r"|.* an array of \d+ values, as the first, got an array of \d+"
    r"|.* \d+ elements, as the shape says, got \d+"
    r"|.* \d+ rows, as the first, got \d+"
    r"|.* an array, or rows as the shape says, got rows of other lengths"
    # Rows whose values have to be in the order of names that stand elsewhere.
    r"|\$\.dataframe_split\.data\[.*"
)
# A moment before the year 1 or after 9999 in UTC, though not where its offset is; and a leap second.
BEYOND_TIME = re.compile(r"000[01]-01-01|9999-12-31|:60")
NO_MOMENT = re.compile(r".* a date and time \(RFC 3339\), got a string of another form")


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Say whether a failed check is a finding."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    if case.media_type in NOT_JSON:
        return False
    problems = json.loads(response.content)["errors"]
    told = [f"{problem['path']} {problem['expected']}, got {problem['got']}" for problem in problems]
    if BEYOND_TIME.search(repr((case.query, case.body))):
        told = [one for one in told if not NO_MOMENT.fullmatch(one)]
    return not problems or not all(UNSAYABLE.fullmatch(one) for one in told)
