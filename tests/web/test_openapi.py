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

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], churn_bundle: Path, price_bundle: Path) -> Any:
    return in_process(churn_bundle, price_bundle)


@pytest.fixture(scope="module")
def document(client: Any) -> Any:
    return client.get("/openapi.json").json()


def conforms(document: Any, schema: Any, value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_it_is_valid(document: Any, in_process: Callable[..., Any], churn_bundle: Path) -> None:
    validate(document)
    alone = in_process(churn_bundle).get("/openapi.json").json()
    validate(alone)
    assert set(document["paths"]) == {"/models/churn/predict", "/models/price/predict", "/livez", "/readyz"}
    assert set(alone["paths"]) - set(document["paths"]) == {"/predict"}


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
    described = document["paths"][path][method]["responses"][str(response.status_code)]["content"]
    conforms(document, described[response.headers["content-type"]]["schema"], response.json())


def test_what_the_description_refuses_the_service_refuses(document: Any, client: Any) -> None:
    schema = document["paths"]["/models/price/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    good = {"size": 3.5, "town": "Delft"}
    records = [good, {"size": 3.5}, {**good, "town": "Paris"}, {**good, "more": 1}, {**good, "size": None}]
    for record in records:
        accepted = client.post("/models/price/predict", json=record).status_code == 200
        validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
        assert validator.is_valid(record) == accepted == (record is good)
