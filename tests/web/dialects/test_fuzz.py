"""Whatever the bytes: an answer that is not the server's fault, and never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROWS = [
    {"is_new": True, "rooms": 3, "size": 71.25, "town": 'Sint, "N"', "sold": "2021-05-01T10:20:00Z"},
    {"is_new": False, "rooms": None, "size": 0.5, "town": None, "sold": "1999-12-31T23:59:59Z"},
]
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"


def stream(codec: str | None, dictionary: bool) -> bytes:
    table = pa.Table.from_pylist(ROWS).drop_columns(["sold"])
    if dictionary:
        table = table.set_column(3, "town", table.column("town").dictionary_encode())
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as written:
        written.write_table(table)
    return bytes(out.getvalue())


def infer(binary: bool) -> tuple[bytes, int]:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    types = {"is_new": "BOOL", "rooms": "FP64", "size": "FP32", "town": "BYTES", "sold": "BYTES"}
    inputs: list[Any] = []
    tail = b""
    for name, datatype in types.items():
        tensor: dict[str, Any] = {"name": name, "shape": [2], "datatype": datatype}
        if not binary or name == "town":
            inputs.append({**tensor, "data": columns[name]})
            continue
        if datatype == "BYTES":
            part = b"".join(len(v).to_bytes(4, "little") + v.encode() for v in columns[name])
        else:
            dtype = {"BOOL": "?", "FP64": "<f8", "FP32": "<f4"}[datatype]
            part = np.array([np.nan if v is None else v for v in columns[name]], dtype).tobytes()
        inputs.append({**tensor, "parameters": {"binary_data_size": len(part)}})
        tail += part
    head = json.dumps({"id": "1", "inputs": inputs, "outputs": [{"name": "is_dear"}]}).encode()
    return head + tail, len(head)


def split() -> dict[str, Any]:
    return {"columns": list(ROWS[0]), "index": [0, 1], "data": [list(row.values()) for row in ROWS]}


CSV = "is_new,rooms,size,town,sold\r\n"
CSV += 'true,3,71.25,"Sint, ""N""",2021-05-01T10:20:00Z\r\nfalse,,0.5,,1999-12-31T23:59:59Z\r\n'
BODIES: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
    "json": ("/predict", JSON, json.dumps(ROWS).encode(), {}),
    "csv": ("/predict", "text/csv", CSV.encode(), {"accept": "text/csv"}),
    "arrow": ("/predict", ARROW, stream(None, False), {"accept": ARROW}),
    "arrow dictionary": ("/predict", ARROW, stream(None, True), {}),
    "arrow lz4": ("/predict", ARROW, stream("lz4", True), {}),
    "arrow zstd": ("/predict", ARROW, stream("zstd", False), {}),
    "instances": ("/v1/models/house:predict", JSON, json.dumps({"instances": ROWS}).encode(), {}),
    "split": ("/invocations", JSON, json.dumps({"dataframe_split": split()}).encode(), {}),
    "inputs": ("/invocations", JSON, json.dumps({"inputs": {k: [r[k] for r in ROWS] for k in ROWS[0]}}).encode(), {}),
    "lines": ("/invocations", "application/jsonlines", b"\n".join(json.dumps(row).encode() for row in ROWS), {}),
    "infer": ("/v2/models/house/infer", JSON, infer(False)[0], {}),
    "binary": (
        "/v2/models/house/infer",
        "application/octet-stream",
        infer(True)[0],
        {"inference-header-content-length": str(infer(True)[1])},
    ),
}


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], house_bundle: Path) -> Any:
    return in_process(house_bundle)


def ask(client: Any, form: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    path, media_type, _, more = BODIES[form]
    answer: httpx.Response = client.post(
        path, content=body, headers={"content-type": media_type, **more, **(headers or {})}
    )
    return answer


@pytest.mark.parametrize("form", BODIES)
def test_as_it_is_it_is_answered(client: Any, form: str) -> None:
    answer = ask(client, form, BODIES[form][2])
    assert answer.status_code == 200, answer.text


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "double", "swap"]),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=6,
)
TOKENS = [
    b"NaN",
    b"null",
    b"1e999",
    b"-1",
    b"\xff",
    b'"',
    b"[",
    b"]",
    b"{",
    b"\\ud800",
    b"9" * 30,
    b",",
    b"\r",
    b"\n",
    b"Infinity",
]


def mutated(body: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    data = bytearray(body)
    for kind, at, more in changes:
        at %= len(data) + 1
        if kind == "set":
            data[at : at + len(more)] = more
        elif kind == "cut":
            del data[at : at + 1 + more[0]]
        elif kind == "insert":
            data[at:at] = TOKENS[more[0] % len(TOKENS)]
        elif kind == "double":
            data[at:at] = data[at : at + 20]
        else:
            data[at : at + len(more)] = bytes(reversed(data[at : at + len(more)]))
    return bytes(data)


@pytest.mark.parametrize("form", BODIES)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(changes=mutations, length=st.one_of(st.none(), st.integers(-5, 2000)))
def test_mutated_it_is_answered_too(client: Any, form: str, changes: Any, length: int | None) -> None:
    headers = {} if length is None or form != "binary" else {"inference-header-content-length": str(length)}
    answer = ask(client, form, mutated(BODIES[form][2], changes), headers)
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "inputs",
                    "instances",
                    "dataframe_split",
                    "data",
                    "columns",
                    "name",
                    "shape",
                    "datatype",
                    "parameters",
                    "binary_data_size",
                    "outputs",
                    "id",
                    "rooms",
                    "size",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@pytest.mark.parametrize("form", ["json", "instances", "split", "inputs", "infer"])
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(value=json_values, name=st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records"]))
def test_any_json_is_answered(client: Any, form: str, value: Any, name: str) -> None:
    for body in (value, {name: value}):
        assert ask(client, form, json.dumps(body).encode()).status_code < 500


def test_a_large_body_that_is_broken_late(client: Any) -> None:
    """A slice is only read when its turn comes."""
    good = json.dumps(ROWS[0]).encode()
    for bad in (b'{"size": 1e999}', b'{"town": "\xff"}'):
        answer = ask(client, "json", b"[" + b",".join([good] * 2000 + [bad]) + b"]")
        assert answer.status_code == 400, answer.text
    lines = CSV.splitlines()
    answer = ask(client, "csv", "\n".join([lines[0], *lines[1:2] * 2000, 'true,3,"a"b,,']).encode())
    assert answer.status_code == 400
    assert "line 2002" in answer.json()["detail"]
