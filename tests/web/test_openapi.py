"""The description is valid, says what the schema says, and is what the service does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from fairlead.schema import Feature, Schema
from fairlead.web.json_schema import feature_schema, record_schema
from fairlead.web.openapi import document as document_of

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], churn_bundle: Path, price_bundle: Path) -> Any:
    return in_process(churn_bundle, price_bundle)


@pytest.fixture(scope="module")
def document(client: Any) -> Any:
    return client.get("/openapi.json").json()


def conforms(document: Any, schema: Any, value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def response_of(document: Any, path: str, method: str, status: int) -> Any:
    response = document["paths"][path][method]["responses"][str(status)]
    if reference := response.get("$ref"):
        response = document["components"]["responses"][reference.rsplit("/", 1)[1]]
    return response


def test_it_is_valid(document: Any, in_process: Callable[..., Any], churn_bundle: Path) -> None:
    validate(document)
    alone = in_process(churn_bundle).get("/openapi.json").json()
    validate(alone)
    assert set(alone["paths"]) - set(document["paths"]) == {"/predict", "/invocations"}
    assert {path for path in document["paths"] if "churn" in path} == {
        "/models/churn/predict",
        "/models/churn/invocations",
        "/v1/models/churn",
        "/v1/models/churn:predict",
        "/v2/models/churn",
        "/v2/models/churn/infer",
        "/v2/models/churn/ready",
        "/v2/models/churn/versions/1",
        "/v2/models/churn/versions/1/infer",
        "/v2/models/churn/versions/1/ready",
    }


def test_every_path_is_described_and_there(document: Any, client: Any) -> None:
    described = set(document["paths"])
    assert {path.decode() for path in client.app.endpoints} <= described
    left_out = ("/static/", "/docs/")
    plain = {route.path for route in client.app._rest.routes if not route.path.startswith(left_out)}
    per_model = {path for path in plain if "{name}" in path and "repository" not in path}
    assert plain - per_model <= described
    for path, item in document["paths"].items():
        for method in item:
            response = client.request(method.upper(), path.replace("{name}", "churn"))
            assert response.status_code not in (404, 405), path
        other = client.request("DELETE", path)
        assert other.status_code == 405
        assert {method.upper() for method in item} <= {name.strip() for name in other.headers["allow"].split(",")}


def test_keys_and_prefix_are_told(in_process: Callable[..., Any], churn_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"one sha256:{'0' * 64}\n")
    described = document_of([], needs_key=True, root="/churn")
    validate(described)
    assert described["servers"] == [{"url": "/churn"}]
    assert described["security"] == [{"bearer": []}, {"header": []}]
    assert described["paths"]["/livez"]["get"]["security"] == []
    client = in_process(churn_bundle, api_keys_file=str(keys))
    assert client.get("/openapi.json").status_code == 401
    for path, item in described["paths"].items():
        for method, operation in item.items():
            is_open = operation.get("security") == []
            answer = client.request(method.upper(), path.replace("{name}", "churn"))
            assert (answer.status_code != 401) == is_open, path


INFER = {
    "id": "7",
    "inputs": [
        {"name": "tenure", "shape": [1], "datatype": "INT64", "data": [41]},
        {"name": "charges", "shape": [1], "datatype": "FP64", "data": [None]},
        {"name": "contract", "shape": [1], "datatype": "BYTES", "data": ["yearly"]},
    ],
}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/v2/models/churn/infer", INFER),
        ("post", "/v2/models/churn/versions/1/infer", {**INFER, "outputs": [{"name": "churn"}]}),
        ("post", "/v2/models/churn/infer", {**INFER, "parameters": {"binary_data_output": True}}),
        ("post", "/v2/models/churn/infer", {}),
        ("post", "/v2/models/churn/infer", None),
        ("post", "/v1/models/churn:predict", {"instances": [GOOD, list(GOOD.values())]}),
        ("post", "/v1/models/churn:predict", {"instances": [{}]}),
        ("post", "/models/churn/invocations", {"dataframe_records": [GOOD]}),
        ("post", "/models/churn/invocations", {"inputs": {name: [value] for name, value in GOOD.items()}}),
        ("post", "/models/churn/invocations", {}),
        ("get", "/v2", None),
        ("get", "/v2/models/churn", None),
        ("get", "/v2/models/price", None),
        ("get", "/v2/models/churn/ready", None),
        ("get", "/v1/models/churn", None),
        ("get", "/v1/models", None),
        ("get", "/v2/health/live", None),
        ("get", "/v2/health/ready", None),
        ("post", "/v2/repository/index", None),
        ("post", "/v2/repository/index", {"ready": True}),
        ("post", "/v2/repository/index", {"ready": 1}),
        ("post", "/v2/repository/models/{name}/load", None),
        ("get", "/livez", None),
        ("get", "/readyz", None),
        ("get", "/ping", None),
        ("get", "/version", None),
        ("get", "/metrics", None),
        ("get", "/", None),
        ("get", "/docs", None),
        ("get", "/openapi.json", None),
    ],
)
def test_other_protocols_answers_conform(client: Any, document: Any, method: str, path: str, body: Any) -> None:
    response = client.request(method.upper(), path.replace("{name}", "churn"), json=body)
    described = response_of(document, path, method, response.status_code)
    media_type = response.headers["content-type"].split(";")[0]
    if content := described.get("content"):
        schema = content[media_type]["schema"]
        if media_type.endswith("json"):
            conforms(document, schema, response.json())
        else:
            assert schema["type"] == "string"
    if "json" in media_type and body and response.status_code == 200:
        wanted = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
        conforms(document, wanted, body)


def test_every_example_is_answered(document: Any, client: Any) -> None:
    count = 0
    for path, item in document["paths"].items():
        for content in item.get("post", {}).get("requestBody", {}).get("content", {}).values():
            for example in content.get("examples", {}).values():
                answer = client.post(path, json=example["value"])
                assert answer.status_code == 200, (path, answer.text)
                conforms(document, content["schema"], example["value"])
                count += 1
    assert count == 2 * 6  # of each model: one and several records, tensors twice, instances, a frame


def test_a_feature_is_described() -> None:
    feature = Feature(name="age", type="float", nullable=True, default=None, minimum=1, maximum=9, unit="years")
    assert feature_schema(feature, closed=False) == {
        "type": ["number", "null"],
        "format": "double",
        "default": None,
        "description": "Unit: years. Seen in training: from 1 to 9.",
    }
    town = Feature(name="town", type="string", categories=("Delft", "Gouda"), nullable=True)
    assert feature_schema(town, closed=True)["enum"] == ["Delft", "Gouda", None]
    opened = feature_schema(town, closed=False)
    assert "enum" not in opened
    assert opened["x-categories"] == ["Delft", "Gouda"]
    many = Feature(name="town", type="int", categories=tuple(range(51)))
    assert "x-categories" not in feature_schema(many, closed=False)


def test_a_record_is_described() -> None:
    features = (Feature(name="a", type="int"), Feature(name="b", type="bool", default=True))
    assert record_schema(Schema(features=features))["required"] == ["a"]
    assert "additionalProperties" not in record_schema(Schema(features=features))
    assert record_schema(Schema(features=features, extra="forbid"))["additionalProperties"] is False


def test_the_predictions_are_described(document: Any) -> None:
    churn = document["components"]["schemas"]["churn.prediction"]["properties"]
    assert churn["prediction"] == {"type": "integer", "enum": [0, 1]}
    assert set(churn["probabilities"]["properties"]) == {"0", "1"}
    assert churn["churn_probability"]["maximum"] == 1
    assert churn["churn"]["type"] == "boolean"
    price = document["components"]["schemas"]["price.prediction"]["properties"]
    assert price["price"] == {"type": "number"}
    assert price["is_dear"]["type"] == "boolean"


def test_the_example_is_of_the_bundle_and_is_accepted(document: Any, client: Any) -> None:
    post = document["paths"]["/models/churn/predict"]["post"]
    for example in post["requestBody"]["content"]["application/json"]["examples"].values():
        assert client.post("/models/churn/predict", json=example["value"]).status_code == 200
    parameters = document["paths"]["/models/churn/predict"]["get"]["parameters"]
    query = {parameter["name"]: parameter["example"] for parameter in parameters}
    assert query == GOOD
    assert client.get("/models/churn/predict", params=query).status_code == 200
    assert {parameter["name"] for parameter in parameters if parameter["required"]} == {"tenure", "contract"}


@pytest.mark.parametrize(
    ("method", "body", "query"),
    [
        ("post", GOOD, None),
        ("post", [GOOD, GOOD], None),
        ("post", [], None),
        ("get", None, GOOD),
        ("post", {"tenure": "x"}, None),
        ("post", 3, None),
        ("get", None, {"tenure": "x"}),
    ],
)
def test_the_answers_conform(client: Any, document: Any, method: str, body: Any, query: Any) -> None:
    path = "/models/churn/predict"
    how = {"params": query} if method == "get" else {"json": body}
    response = client.request(method.upper(), path, **how)
    described = response_of(document, path, method, response.status_code)["content"]
    conforms(document, described[response.headers["content-type"]]["schema"], response.json())


def test_what_the_description_refuses_the_service_refuses(document: Any, client: Any) -> None:
    schema = document["paths"]["/models/price/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    good = {"size": 3.5, "town": "Delft"}
    records = [good, {"size": 3.5}, {**good, "town": "Paris"}, {**good, "more": 1}, {**good, "size": None}]
    for record in records:
        accepted = client.post("/models/price/predict", json=record).status_code == 200
        validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
        assert validator.is_valid(record) == accepted == (record is good)
