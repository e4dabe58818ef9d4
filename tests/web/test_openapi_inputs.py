"""What the description says of other protocols' requests is what the service takes, form by form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
COLUMNS = {name: [value] for name, value in GOOD.items()}
TENSORS = [
    {"name": "tenure", "shape": [1], "datatype": "INT64", "data": [41]},
    {"name": "charges", "shape": [1, 1], "datatype": "FP64", "data": [[None]]},
    {"name": "contract", "shape": [1], "datatype": "BYTES", "data": ["yearly"]},
]


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], churn_bundle: Path, price_bundle: Path) -> Any:
    return in_process(churn_bundle, price_bundle)


def is_described(client: Any, path: str, body: Any) -> bool:
    document = client.get("/openapi.json").json()
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return bool(jsonschema.Draft202012Validator({**schema, "components": document["components"]}).is_valid(body))


def tensor(place: int, **changes: Any) -> list[dict[str, Any]]:
    return [{**one, **changes} if place == number else one for number, one in enumerate(TENSORS)]


@pytest.mark.parametrize(
    ("inputs", "is_good"),
    [
        (TENSORS, True),
        (TENSORS[::-1], True),
        ([TENSORS[0], TENSORS[2]], True),  # charges has a default
        (TENSORS[1:], False),
        ([*TENSORS, TENSORS[0]], False),
        ([*TENSORS, {"name": "other", "shape": [1], "datatype": "BOOL", "data": [True]}], True),
        (tensor(0, datatype="INT8"), True),
        (tensor(0, datatype="FP64"), False),
        (tensor(0, datatype="INT8", data=[128]), False),
        (tensor(0, datatype="UINT8", data=[-1]), False),
        (tensor(0, data=[None]), False),
        (tensor(0, shape=[]), False),
        (tensor(0, shape=[1, 2], data=[1, 2]), False),
        (tensor(1, datatype="INT16", data=[3]), True),
        (tensor(1, data=["3"]), False),
        (tensor(2, data=[3]), False),
        (tensor(2, datatype="TEXT"), False),
    ],
)
def test_tensors(client: Any, inputs: Any, is_good: bool) -> None:
    path, body = "/v2/models/churn/infer", {"inputs": inputs}
    assert is_described(client, path, body) == is_good
    assert (client.post(path, json=body).status_code == 200) == is_good


@pytest.mark.parametrize(
    ("model", "form", "value", "is_good"),
    [
        ("churn", "inputs", COLUMNS, True),
        ("churn", "inputs", {name: [values] for name, values in COLUMNS.items()}, True),
        ("churn", "inputs", {**COLUMNS, "other": ["x"]}, True),
        ("churn", "inputs", {**COLUMNS, "other": "x"}, False),
        ("churn", "inputs", {**COLUMNS, "tenure": ["x"]}, False),
        ("churn", "inputs", {"tenure": [41], "contract": ["yearly"]}, True),
        ("churn", "inputs", {"tenure": [41]}, False),
        ("churn", "inputs", GOOD, True),
        ("churn", "inputs", {**GOOD, "other": []}, False),
        ("price", "inputs", {"size": [1], "town": ["Delft"]}, True),
        ("price", "inputs", {"size": [1], "town": ["Paris"]}, False),
        ("price", "inputs", {"size": [1], "town": ["Delft"], "other": [1]}, False),
        ("churn", "dataframe_split", {"data": [list(GOOD.values())]}, True),
        ("churn", "dataframe_split", {"columns": None, "data": []}, True),
        ("churn", "dataframe_split", {"data": [[41]]}, False),
        ("churn", "dataframe_split", {"columns": ["contract", "tenure"], "data": [["yearly", 41]]}, True),
        ("churn", "dataframe_split", {"columns": ["tenure"], "data": [[41]]}, False),
        ("churn", "dataframe_split", {"columns": ["tenure", "tenure", "contract"], "data": []}, False),
        ("churn", "dataframe_split", {"columns": 3, "data": []}, False),
        ("price", "dataframe_split", {"columns": ["town", "size", "other"], "data": []}, False),
        ("churn", "instances", [GOOD, list(GOOD.values())], True),
        ("churn", "instances", [[41, 1.5]], False),
    ],
)
def test_frames(client: Any, model: str, form: str, value: Any, is_good: bool) -> None:
    path, body = f"/models/{model}/invocations", {form: value}
    assert is_described(client, path, body) == is_good
    assert (client.post(path, json=body).status_code == 200) == is_good


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"name": "anything"}, True),
        ({"data": [[1, 2, 3, 4]]}, True),
        ({"datatype": "INT8"}, True),
        ({"datatype": "BOOL", "data": [True] * 4}, False),
        ({"shape": [1, 3], "data": [1, 2, 3]}, False),
        ({"data": [1, 2, 3, None]}, False),
    ],
)
def test_a_matrix(in_process: Callable[..., Any], iris_bundle: Path, changes: Any, is_good: bool) -> None:
    client = in_process(iris_bundle)
    path = "/v2/models/iris/infer"
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4], **changes}]}
    assert is_described(client, path, body) == is_good
    assert (client.post(path, json=body).status_code == 200) == is_good


def test_null_in_a_query_is_the_empty_value(client: Any) -> None:
    path = "/models/churn/predict"
    (charges,) = (
        p for p in client.get("/openapi.json").json()["paths"][path]["get"]["parameters"] if p["name"] == "charges"
    )
    assert charges["allowEmptyValue"] is True
    assert charges["schema"]["type"] == "number"
    assert "default" not in charges["schema"]
    query = {"tenure": "41", "contract": "yearly"}
    assert client.get(path, params={**query, "charges": ""}).status_code == 200
    assert client.get(path, params={**query, "charges": "null"}).status_code == 422
