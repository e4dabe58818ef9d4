"""Every form of asking gives the numbers that the predictor gives for the same rows."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import fairlead

Rows = Sequence[dict[str, Any]]
FLOWERS: Rows = [
    {"is_wild": place % 2 == 0, "petals": place % 7, "length": place / 7, "width": place * 0.013}
    for place in range(1500)
]
CUSTOMERS: Rows = [
    {"tenure": 41, "charges": 79.85, "contract": "yearly"},
    {"tenure": 1, "charges": None, "contract": "monthly"},
    {"tenure": 0, "charges": 1e-5, "contract": 'never, "heard" of\nit'},
    {"tenure": 72, "charges": 118.75, "contract": "Größe"},
]
HOUSES: Rows = [
    {"is_new": True, "rooms": 3, "size": 71.25, "town": 'Sint, "N"', "sold": "2021-05-01T10:20:00Z"},
    {"is_new": False, "rooms": None, "size": 0.1, "town": "Delft\nNoord", "sold": "2022-05-01T12:20:00+02:00"},
    {"is_new": False, "rooms": 41, "size": None, "town": None, "sold": "1999-12-31T23:59:59Z"},
    {"is_new": True, "rooms": -7, "size": -1e-7, "town": "Gouda é", "sold": "2020-01-01T00:00:00Z"},
]
SEVERAL = {"flower": FLOWERS[:5], "churn": CUSTOMERS, "house": HOUSES}
ARROW = "application/vnd.apache.arrow.stream"
TYPES = {
    "is_wild": "BOOL",
    "petals": "INT64",
    "length": "FP64",
    "width": "FP64",
    "tenure": "INT64",
    "charges": "FP64",
    "contract": "BYTES",
    "is_new": "BOOL",
    "rooms": "INT64",
    "size": "FP64",
    "town": "BYTES",
    "sold": "BYTES",
}
DTYPES = {"BOOL": "?", "INT64": "<i8", "FP64": "<f8"}


class Asked:
    """A model that is asked in one form after the other."""

    def __init__(self, client: Any, name: str, bundle: Path) -> None:
        self.client = client
        self.name = name
        self.predictor = fairlead.load(bundle)

    def post(self, path: str, content: Any, content_type: str | None = "application/json", **headers: str) -> Any:
        body = json.dumps(content) if not isinstance(content, bytes | str) else content
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        if content_type is not None:
            named["content-type"] = content_type
        response = self.client.post(path.replace("NAME", self.name), content=body, headers=named)
        assert response.status_code == 200, response.text
        return response


def csv_of(rows: Rows, has_header: bool = True) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    if has_header:
        writer.writerow(rows[0])
    texts = [["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in row.values()] for row in rows]
    writer.writerows(texts)
    return out.getvalue()


def table_of(rows: Rows) -> pa.Table:
    table = pa.Table.from_pylist(list(rows))
    if "sold" in table.column_names:
        moments = pd.to_datetime(table.column("sold").to_pandas(), utc=True)
        # Not the zoned series itself: pyarrow 25 takes its values in a way that pandas 3.1 warns of.
        bare = pa.array(moments.dt.tz_convert(None).dt.as_unit("us").to_numpy())
        zoned = bare.cast(pa.timestamp("us", tz="UTC"))
        table = table.set_column(table.column_names.index("sold"), "sold", zoned)
    return table


def stream_of(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return bytes(out.getvalue())


def json_array(asked: Asked, rows: Rows) -> Any:
    return asked.post("/models/NAME/predict", rows).json()


def json_objects(asked: Asked, rows: Rows) -> Any:
    return [asked.post("/predict", row).json() for row in rows]


def query(asked: Asked, rows: Rows) -> Any:
    texts = [{k: "" if v is None else str(v).lower() if isinstance(v, bool) else v for k, v in r.items()} for r in rows]
    return [asked.client.get("/predict", params=text).json() for text in texts]


def csv_text(asked: Asked, rows: Rows) -> Any:
    return asked.post("/predict", "\ufeff" + csv_of(rows), "text/csv").json()


def csv_without_header(asked: Asked, rows: Rows) -> Any:
    return asked.post("/predict", csv_of(rows, False), "text/csv; header=absent").json()


def arrow(asked: Asked, rows: Rows) -> Any:
    return asked.post("/predict", stream_of(table_of(rows)), ARROW).json()


def arrow_both_ways(asked: Asked, rows: Rows) -> Any:
    answer = asked.post("/predict", stream_of(table_of(rows)), ARROW, accept=ARROW)
    assert answer.headers["content-type"] == ARROW
    read: Any = pa.ipc.open_stream(answer.content).read_all().to_pylist()
    return read


def instances(asked: Asked, rows: Rows) -> Any:
    return asked.post("/v1/models/NAME:predict", {"instances": rows}).json()["predictions"]


def instances_as_arrays(asked: Asked, rows: Rows) -> Any:
    body = {"instances": [list(row.values()) for row in rows]}
    return asked.post("/v1/models/NAME:predict", body).json()["predictions"]


def dataframe_split(asked: Asked, rows: Rows) -> Any:
    split = pd.DataFrame(list(rows)).to_dict(orient="split")
    return asked.post("/invocations", {"dataframe_split": split}).json()["predictions"]


def dataframe_records(asked: Asked, rows: Rows) -> Any:
    return asked.post("/invocations", {"dataframe_records": rows}).json()["predictions"]


def inputs_of_columns(asked: Asked, rows: Rows) -> Any:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return asked.post("/models/NAME/invocations", {"inputs": columns}).json()["predictions"]


def inputs_of_tensors(asked: Asked, rows: Rows) -> Any:
    columns = {name: [[row[name]] for row in rows] for name in rows[0]}
    return asked.post("/invocations", {"inputs": columns}).json()["predictions"]


def inputs_of_rows(asked: Asked, rows: Rows) -> Any:
    return asked.post("/invocations", {"inputs": [list(row.values()) for row in rows]}).json()["predictions"]


def invocations_csv(asked: Asked, rows: Rows) -> Any:
    return asked.post("/invocations", csv_of(rows), "text/csv; charset=utf-8").json()["predictions"]


def json_lines(asked: Asked, rows: Rows) -> Any:
    lines = "\n".join(json.dumps(row) for row in rows) + "\n"
    answer = asked.post("/invocations", lines, "application/jsonlines", accept="application/jsonlines")
    return [json.loads(line) for line in answer.text.splitlines()]


def tensors(asked: Asked, rows: Rows) -> Any:
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": TYPES[name], "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    return by_row(asked.post("/v2/models/NAME/infer", {"inputs": inputs}).json()["outputs"])


def binary_tensors(asked: Asked, rows: Rows) -> Any:
    inputs, parts = [], []
    for name in rows[0]:
        values, datatype = [row[name] for row in rows], TYPES[name]
        tensor = {"name": name, "shape": [len(rows), 1], "datatype": datatype}
        if None in values and datatype in ("BYTES", "INT64"):
            inputs.append({**tensor, "data": values})
            continue
        if datatype == "BYTES":
            part = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
        else:
            part = np.array([np.nan if v is None else v for v in values], dtype=DTYPES[datatype]).tobytes()
        inputs.append({**tensor, "parameters": {"binary_data_size": len(part)}})
        parts.append(part)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    answer = asked.post(
        "/v2/models/NAME/infer",
        head + b"".join(parts),
        "application/octet-stream",
        inference_header_content_length=str(len(head)),
    )
    length = int(answer.headers["inference-header-content-length"])
    outputs, tail = json.loads(answer.content[:length])["outputs"], answer.content[length:]
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        output["data"] = from_bytes(tail[:size], output["datatype"])
        tail = tail[size:]
    assert not tail
    return by_row(outputs)


def from_bytes(data: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return list(np.frombuffer(data, DTYPES[datatype]).tolist())
    texts = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return texts


def by_row(outputs: list[Any]) -> list[Any]:
    """Make predictions of tensors."""
    columns = {}
    for output in outputs:
        values = output["data"]
        if labels := output.get("parameters", {}).get("labels"):
            width = len(labels)
            values = [dict(zip(labels, values[i : i + width], strict=True)) for i in range(0, len(values), width)]
        elif output.get("parameters", {}).get("content_type") == "application/json":
            values = list(map(json.loads, values))
        columns[output["name"]] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


FORMS: list[Callable[[Asked, Rows], Any]] = [
    json_array,
    json_objects,
    query,
    csv_text,
    csv_without_header,
    arrow,
    arrow_both_ways,
    instances,
    instances_as_arrays,
    dataframe_split,
    dataframe_records,
    inputs_of_columns,
    inputs_of_tensors,
    inputs_of_rows,
    invocations_csv,
    json_lines,
    tensors,
    binary_tensors,
]
LARGE = [form for form in FORMS if form not in (json_objects, query)]


@pytest.fixture(scope="module")
def asked_of(
    in_process: Callable[..., Any], flower_bundle: Path, churn_bundle: Path, house_bundle: Path
) -> Callable[[str], Asked]:
    bundles = {"flower": flower_bundle, "churn": churn_bundle, "house": house_bundle}
    made = {name: Asked(in_process(bundle), name, bundle) for name, bundle in bundles.items()}
    return made.__getitem__


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return abs(found - expected) <= 1e-12 * max(1.0, abs(expected))
    return bool(found == expected) and isinstance(found, type(expected))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_numbers(asked_of: Callable[[str], Asked], form: Any, name: str) -> None:
    asked, rows = asked_of(name), SEVERAL[name]
    expected = asked.predictor.run(list(rows))
    assert not expected.rejections
    assert same(form(asked, rows), expected.predictions)


@pytest.mark.parametrize("form", LARGE, ids=lambda form: form.__name__)
def test_many_rows_are_answered_in_order(asked_of: Callable[[str], Asked], form: Any) -> None:
    asked = asked_of("flower")
    assert same(form(asked, FLOWERS), asked.predictor.run(list(FLOWERS)).predictions)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "UINT64"])
@pytest.mark.parametrize("form", ["flat", "nested", "binary"])
def test_a_matrix_gives_the_same_numbers(asked_of: Callable[[str], Asked], form: str, datatype: str) -> None:
    asked = asked_of("flower")
    dtype = {"FP": "<f", "IN": "<i", "UI": "<u"}[datatype[:2]] + str(int(datatype.lstrip("FPINTU")) // 8)
    matrix = np.array([[1, 3, 2, 1], [0, 4, 5, 7], [1, 0, 1, 2]], dtype=dtype)
    tensor: dict[str, Any] = {"name": "predict", "shape": list(matrix.shape), "datatype": datatype}
    more = b""
    if form == "binary":
        more = matrix.tobytes()
        tensor["parameters"] = {"binary_data_size": len(more)}
    else:
        tensor["data"] = (matrix if form == "nested" else matrix.ravel()).tolist()
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"inference_header_content_length": str(len(head))} if more else {}
    answer = asked.post("/v2/models/NAME/infer", head + more, "application/json", **length)
    names = ("is_wild", "petals", "length", "width")
    rows = [dict(zip(names, (bool(a), int(b), float(c), float(d)), strict=True)) for a, b, c, d in matrix]
    assert same(by_row(answer.json()["outputs"]), asked.predictor.run(rows).predictions)


def test_csv_comes_back(asked_of: Callable[[str], Asked]) -> None:
    asked = asked_of("churn")
    answer = asked.post("/predict", csv_of(CUSTOMERS), "text/csv", accept="text/csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    found = list(csv.DictReader(io.StringIO(answer.text)))
    expected = asked.predictor.run(list(CUSTOMERS)).predictions
    assert list(found[0]) == ["prediction", "probabilities.0", "probabilities.1", "churn_probability", "churn"]
    for one, other in zip(found, expected, strict=True):
        assert other is not None
        assert float(one["churn_probability"]) == other["churn_probability"]
        assert float(one["probabilities.1"]) == other["probabilities"]["1"]
        assert one["churn"] == str(other["churn"]).lower()
        assert one["prediction"] == str(other["prediction"])
    without = asked.post("/invocations", csv_of(CUSTOMERS, False), "text/csv;header=absent", accept="text/csv")
    assert without.headers["content-type"] == "text/csv; charset=utf-8; header=absent"
    assert without.text == answer.text.split("\r\n", 1)[1]
