"""What each form refuses, with which words, at which place."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

ARROW = "application/vnd.apache.arrow.stream"
GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
BAD = {"tenure": "x", "charges": 1, "contract": None}


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], churn_bundle: Path) -> Any:
    return in_process(churn_bundle)


@pytest.fixture(scope="module")
def flowers(in_process: Callable[..., Any], flower_bundle: Path) -> Any:
    return in_process(flower_bundle)


def problems(answer: Any, status: int = 422) -> list[tuple[str, str, str]]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [(one["path"], one["expected"], one["got"]) for one in answer.json()["errors"]]


def csv(client: Any, text: str | bytes, content_type: str = "text/csv") -> Any:
    return client.post("/predict", content=text, headers={"content-type": content_type})


def test_csv_values(client: Any) -> None:
    text = "contract,tenure,charges,more\nyearly,x,1e999,1\n\nmonthly,1.0,,2\nyearly,,2,3\n"
    assert problems(csv(client, text)) == [
        ("$[0].tenure", "an integer", "text that is not one"),
        ("$[0].charges", "a number", "a number too large"),
        ("$[2].tenure", "an integer", "null"),
    ]


def test_csv_lines(client: Any) -> None:
    text = 'contract,tenure\n"a\nb",1\r\n\n"c",1,2\nd\n'
    assert problems(csv(client, text)) == [
        ("$[1]", "2 fields", "3 on line 5"),
        ("$[2]", "2 fields", "1 on line 6"),
    ]


def test_csv_columns(client: Any) -> None:
    assert problems(csv(client, "charges,charges,other\n1,2,3\n")) == [
        ("$.tenure", "a column of int", "none"),
        ("$.charges", "a column of float", "2 columns"),
        ("$.contract", "a column of string", "none"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "a header that names the features"),
        (b"\n\r\n", "a header that names the features"),
        (b"tenure,contract\n1,\xff\n", "CSV in UTF-8, got another byte at 18"),
        (b'tenure,contract\n1,"a\n', "a quote on line 2 is never closed"),
        (b'tenure,contract\n1,a\n2,"c"d""\n', "on line 3"),
        (b'tenure,contract\n1,a"b\n2,c"d\n', "on line 2"),
        (b"tenure,contract\n1,a\rb\n", "on line 2"),
        (b"tenure,contract\n1," + b"a" * 200_000 + b"\n", "a field is too long, on line 2"),
    ],
)
def test_no_csv(client: Any, text: bytes, told: str) -> None:
    answer = csv(client, text)
    assert problems(answer, 400) == []
    assert told in answer.json()["detail"]


def test_csv_of_another_charset(client: Any) -> None:
    assert csv(client, "tenure,contract\n1,a\n", "text/csv; charset=latin-1").status_code == 415
    assert csv(client, "tenure,contract\n1,a\n", 'text/csv; charset="UTF-8"').status_code == 200


def test_csv_without_rows(client: Any) -> None:
    assert csv(client, "tenure,contract\n").json() == []
    assert csv(client, "", "text/csv; header=absent").json() == []


def test_csv_where_other_columns_are_forbidden(in_process: Callable[..., Any], price_bundle: Path) -> None:
    assert problems(csv(in_process(price_bundle), "size,town,more\n1,Delft,2\n")) == [
        ("$.more", "no such column", "one")
    ]


def stream(table: pa.Table, **how: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**how)) as written:
        written.write_table(table)
    return bytes(out.getvalue())


def arrow(client: Any, content: bytes) -> Any:
    return client.post("/predict", content=content, headers={"content-type": ARROW})


def test_arrow_columns_and_rows(client: Any) -> None:
    table = pa.table({"tenure": ["a"], "charges": [1.0]})
    assert problems(arrow(client, stream(table))) == [
        ("$.tenure", "a column of int", "one of string"),
        ("$.contract", "a column of string", "none"),
    ]
    table = pa.table({"tenure": [1, None, 3], "contract": ["a", "b", None]})
    assert problems(arrow(client, stream(table))) == [
        ("$[1].tenure", "an integer", "null"),
        ("$[2].contract", "a string", "null"),
    ]


def test_arrow_dates_beyond_python(in_process: Callable[..., Any], house_bundle: Path) -> None:
    columns = {"is_new": [True], "rooms": [1], "size": [1.0], "town": ["a"]}
    table = pa.table({**columns, "sold": pa.array([2**62], pa.timestamp("us"))})
    assert problems(arrow(in_process(house_bundle), stream(table))) == [
        ("$[0].sold", "a date and time (RFC 3339)", "another date")
    ]


def bombs() -> dict[str, bytes]:
    zeros = pa.table({"tenure": pa.array([0] * 3_000_000), "contract": pa.array(["a"] * 3_000_000).dictionary_encode()})
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int8()), ["a" * 100_000])
    words = pa.table({"tenure": pa.array([0] * 100_000, pa.int8()), "contract": shared})
    return {"compression": stream(zeros, compression="zstd"), "a dictionary": stream(words)}


@pytest.mark.parametrize("kind", ["compression", "a dictionary"])
def test_arrow_that_grows(client: Any, kind: str) -> None:
    body = bombs()[kind]
    assert len(body) < 1_000_000
    assert problems(arrow(client, body), 413) == []


def test_arrow_of_rows_that_take_no_room(client: Any) -> None:
    table = pa.table({"tenure": pa.nulls(100_000_000), "contract": pa.nulls(100_000_000)})
    assert problems(arrow(client, stream(table)), 400) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"ARROW1\0\0" * 9])
def test_no_arrow(client: Any, content: bytes) -> None:
    assert problems(arrow(client, content), 400) == []


def instances(client: Any, body: Any) -> Any:
    return client.post("/v1/models/churn:predict", json=body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([GOOD], [("$", "an object", "an array")]),
        ({}, [("$.instances", "an array of records", "nothing")]),
        ({"instances": GOOD}, [("$.instances", "an array of records", "an object")]),
        ({"instances": [GOOD, 3]}, [("$.instances[1]", "an object", "an integer")]),
        (
            {"instances": [GOOD, BAD]},
            [
                ("$.instances[1].tenure", "an integer", "a string"),
                ("$.instances[1].contract", "a string", "null"),
            ],
        ),
        (
            {"instances": [list(GOOD.values()), list(BAD.values())]},
            [("$.instances[1][0]", "an integer", "a string"), ("$.instances[1][2]", "a string", "null")],
        ),
        ({"instances": [[1, 2]]}, [("$.instances[0]", "an array of 3 values", "an array of 2")]),
    ],
)
def test_instances(client: Any, body: Any, expected: Any) -> None:
    answer = instances(client, body)
    assert problems(answer) == expected
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("$", "exactly one of dataframe_split, dataframe_records, instances, inputs", "none")]),
        (
            {"inputs": [], "instances": []},
            [("$", "exactly one of dataframe_split, dataframe_records, instances, inputs", "2 of them")],
        ),
        ({"dataframe_split": []}, [("$.dataframe_split", "an object with columns and data", "an array")]),
        ({"dataframe_split": {}}, [("$.dataframe_split.data", "an array of rows", "nothing")]),
        (
            {"dataframe_split": {"columns": ["tenure"], "data": []}},
            [("$.dataframe_split.data.contract", "a column of string", "none")],
        ),
        (
            {"dataframe_split": {"columns": ["contract", "tenure"], "data": [["a", 1], ["b", "x"], 3]}},
            [("$.dataframe_split.data[2]", "an array of 2 values", "an integer")],
        ),
        (
            {"dataframe_split": {"columns": ["contract", "tenure"], "data": [["a", 1], ["b", "x"]]}},
            [("$.dataframe_split.data[1][1]", "an integer", "a string")],
        ),
        (
            {"dataframe_split": {"data": [[1]]}},
            [("$.dataframe_split.data[0]", "an array of 3 values", "an array of 1")],
        ),
        ({"dataframe_records": [[1]]}, [("$.dataframe_records[0]", "an object", "an array")]),
        ({"dataframe_records": [BAD, GOOD, {}]}, None),
        (
            {"inputs": {"tenure": [1], "contract": ["a", "b"]}},
            [("$.inputs.contract", "an array of 1 values, as the first", "an array of 2")],
        ),
        ({"inputs": {"tenure": ["x"], "contract": ["a"]}}, [("$.inputs.tenure[0]", "an integer", "a string")]),
        ({"inputs": {"tenure": 1, "contract": ["a"]}}, [("$.inputs.tenure", "an array", "an integer")]),
        ({"inputs": 3}, [("$.inputs", "an array, or an object of columns", "an integer")]),
        ({"inputs": {"tenure": "x", "contract": "a"}}, [("$.inputs.tenure", "an integer", "a string")]),
    ],
)
def test_invocations(client: Any, body: Any, expected: Any) -> None:
    found = problems(client.post("/invocations", json=body))
    if expected is None:
        expected = [
            ("$.dataframe_records[0].tenure", "an integer", "a string"),
            ("$.dataframe_records[0].contract", "a string", "null"),
            ("$.dataframe_records[2].tenure", "an integer", "nothing"),
            ("$.dataframe_records[2].contract", "a string", "nothing"),
        ]
    assert found == expected


def test_one_record_as_inputs(client: Any) -> None:
    assert len(client.post("/invocations", json={"inputs": GOOD}).json()["predictions"]) == 1


def test_nan_is_null_where_other_servers_take_it(client: Any) -> None:
    body = '{"dataframe_records": [{"tenure": 1, "charges": NaN, "contract": "NaN"}]}'
    null = client.post("/invocations", json=json.loads(body.replace("NaN,", "null,"))).json()
    headers = {"content-type": "application/json"}
    assert client.post("/invocations", content=body, headers=headers).json() == null
    assert client.post("/predict", content=body, headers=headers).status_code == 400
    for wrong in ("Infinity", "-Infinity", "nan"):
        assert (
            client.post("/invocations", content=body.replace("NaN,", wrong + ","), headers=headers).status_code == 400
        )
    missing = problems(client.post("/invocations", content=body.replace(": 1,", ": NaN,"), headers=headers))
    assert missing == [("$.dataframe_records[0].tenure", "an integer", "null")]


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data, **more}


TENURE, CONTRACT = tensor("tenure", "INT64", [1, 2]), tensor("contract", "BYTES", ["a", "b"])


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([TENURE], [("$.inputs.contract", "a tensor of BYTES", "none")]),
        ([TENURE, CONTRACT, TENURE], [("$.inputs[2].name", "a tensor a feature", "a second one")]),
        ([tensor("tenure", "FP64", [1.0, 2.0]), CONTRACT], [("$.inputs[0].datatype", None, "FP64")]),
        ([tensor("tenure", "int", [1, 2]), CONTRACT], [("$.inputs[0].datatype", None, "another")]),
        (
            [tensor("tenure", "INT8", [1, "x"]), tensor("contract", "BYTES", ["a", 2])],
            [
                ("$.inputs[0].data[1]", "an integer of 8 bits", "a string"),
                ("$.inputs[1].data[1]", "a string", "an integer"),
            ],
        ),
        (
            [tensor("tenure", "INT8", [300, 2]), CONTRACT],
            [("$.inputs[0].data[0]", "an integer of 8 bits", "an integer")],
        ),
        (
            [tensor("tenure", "INT64", [1, None]), CONTRACT],
            [("$.inputs[0].data[1]", "an integer", "null")],
        ),
        (
            [tensor("tenure", "UINT64", [1, 2**63]), CONTRACT],
            [("$.inputs[0].data[1]", "an integer", "an integer beyond 64 bits")],
        ),
        (
            [tensor("tenure", "INT64", [1, 2, 3], [2]), CONTRACT],
            [("$.inputs[0].data", "2 elements, as the shape says", "3")],
        ),
        ([tensor("tenure", "INT64", [1, 2, 3]), CONTRACT], [("$.inputs[1].shape", "3 rows, as the first", "2")]),
        (
            [tensor("tenure", "INT64", [1, 2], [1, 2]), CONTRACT],
            [("$.inputs[0].shape", "[n] or [n, 1]", "2 dimensions, or wider ones")],
        ),
        ([{**TENURE, "data": 3}, CONTRACT], [("$.inputs[0].data", "an array", "an integer")]),
        (
            [{**TENURE, "data": [[[1], [2]]]}, CONTRACT],
            [("$.inputs[0].data", "an array of at most 2 dimensions", "more")],
        ),
        ([{"name": "tenure"}, CONTRACT], [("$.inputs[0].shape", "a value", "nothing")]),
        ([{**TENURE, "shape": [-2]}, CONTRACT], [("$.inputs[0].shape[0]", "a value in range", "another")]),
        (
            [{k: v for k, v in TENURE.items() if k != "data"}, CONTRACT],
            [("$.inputs[0].data", "an array, or parameters.binary_data_size", "neither")],
        ),
        (
            [{**TENURE, "parameters": {"binary_data_size": 9}}, CONTRACT],
            [("$.inputs[0].parameters.binary_data_size", None, "another value")],
        ),
        (
            [{**TENURE, "parameters": {"shared_memory_region": "x"}}, CONTRACT],
            [("$.inputs[0].parameters.shared_memory_region", "data in the request", "shared memory")],
        ),
    ],
)
def test_tensors(client: Any, inputs: Any, expected: Any) -> None:
    answer = client.post("/v2/models/churn/infer", json={"inputs": inputs})
    found = problems(answer)
    assert [(path, got) for path, _, got in found] == [(path, got) for path, _, got in expected]
    assert all(wanted in (None, said) for (_, said, _), (_, wanted, _) in zip(found, expected, strict=True))
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ({"name": "other"}, "$.outputs[0].name"),
        ({"name": "churn", "parameters": {"classification": 2}}, "$.outputs[0].parameters.classification"),
        (
            {"name": "churn", "parameters": {"shared_memory_region": "a"}},
            "$.outputs[0].parameters.shared_memory_region",
        ),
    ],
)
def test_outputs(client: Any, output: Any, path: str) -> None:
    body = {"inputs": [TENURE, CONTRACT], "outputs": [output]}
    assert [one[0] for one in problems(client.post("/v2/models/churn/infer", json=body))] == [path]


def test_a_matrix(flowers: Any) -> None:
    def ask(*values: Any, shape: list[int] | None = None, datatype: str = "FP64") -> Any:
        inputs = [tensor("x", datatype, list(values), shape or [len(values) // 4, 4])]
        return problems(flowers.post("/v2/models/flower/infer", json={"inputs": inputs}))

    assert ask(1, 3, 2, 1, 2, 3.5, None, 1) == [
        ("$.inputs[0].data[4]", "a boolean", "a number"),
        ("$.inputs[0].data[5]", "an integer", "a number"),
        ("$.inputs[0].data[6]", "a number", "null"),
    ]
    assert ask(1, 2, 3, shape=[1, 3]) == [("$.inputs[0].shape", "[n, 4], a column a feature", "another width")]
    assert ask("a", "b", "c", "d", datatype="BYTES") == [("$.inputs[0].datatype", "one of numbers", "BYTES")]


def binary(client: Any, inputs: Any, tail: bytes, length: int | str | None = None) -> Any:
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"inference-header-content-length": str(len(head) if length is None else length)}
    return client.post("/v2/models/churn/infer", content=head + tail, headers=headers)


def sized(name: str, datatype: str, size: int, n_rows: int = 1) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [n_rows], "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("first", "tail", "expected"),
    [
        (sized("tenure", "INT64", 7), b"1234567", ("$.inputs[0].data", "whole elements of 8 bytes", "a part of one")),
        (sized("tenure", "INT64", 16), b"12345678" * 2, ("$.inputs[0].data", "1 elements, as the shape says", "2")),
        (sized("contract", "BYTES", 3), b"\1\0\0", ("$.inputs[0].data[0]", "a length and as many bytes", "fewer")),
        (sized("contract", "BYTES", 5), b"\2\0\0\0a", ("$.inputs[0].data[0]", "a length and as many bytes", "fewer")),
        (sized("contract", "BYTES", 5), b"\1\0\0\0\xff", ("$.inputs[0].data[0]", "a string in UTF-8", "other bytes")),
    ],
)
def test_bytes(client: Any, first: Any, tail: bytes, expected: Any) -> None:
    other = tensor("contract", "BYTES", ["a"]) if first["name"] == "tenure" else tensor("tenure", "INT64", [1])
    assert problems(binary(client, [first, other], tail)) == [expected]


def test_bools_of_other_bytes(flowers: Any) -> None:
    inputs = [sized("is_wild", "BOOL", 1), *(tensor(n, "INT64", [1]) for n in ("petals", "length", "width"))]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = flowers.post("/v2/models/flower/infer", content=head + b"\2", headers=headers)
    assert problems(answer) == [("$.inputs[0].data[0]", "a byte 0 or 1", "another")]


def test_lengths_that_do_not_add_up(client: Any) -> None:
    whole = [sized("tenure", "INT64", 8), tensor("contract", "BYTES", ["a"])]
    one = struct.pack("<q", 1)
    assert binary(client, whole, one).status_code == 200
    assert problems(binary(client, whole, one + b"x"), 400) == []
    for length in (-1, "x", 10**6, 10**30, ""):
        assert problems(binary(client, whole, one, length), 400) == []


def test_content_types(client: Any) -> None:
    for path in ("/predict", "/invocations", "/v1/models/churn:predict", "/v2/models/churn/infer"):
        answer = client.post(path, content=b"{}", headers={"content-type": "text/plain"})
        assert problems(answer, 415) == []
        assert "application/json" in answer.headers["accept"]
        assert client.get(path.replace("/predict", "/models/churn/invocations")).status_code == 405
