"""Requests of gateways through the handler, called here: they are answered as `POST /predict` is."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fairlead.errors import InputError, MissingExtra
from fairlead.stream.aws_lambda.function import Function
from lambda_runtime import RIDE

pytestmark = pytest.mark.xdist_group("aws_lambda")

Make = Callable[[dict[str, str]], Function]
Request = Callable[..., dict[str, Any]]
DURATION = {"ride_duration": pytest.approx(20.0)}
JSON = {"Content-Type": "application/json", "Host": "rides.example.org"}
ARROW = "application/vnd.apache.arrow.stream"


def rest(method: str, path: str, body: str | None, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    """Make an event of a REST API, or of an HTTP API with payloads of version 1.0.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway.html
    """
    query = more.pop("query", "")
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": pairs or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in pairs.items()} or None,
        "pathParameters": {"proxy": path[1:]},
        "stageVariables": None,
        "requestContext": {"stage": "prod", "httpMethod": method, "identity": {"sourceIp": "10.0.0.1"}},
        "body": body,
        "isBase64Encoded": False,
        **more,
    }


def http(method: str, path: str, body: str | None, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    """Make an event of an HTTP API, and of a function URL.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    stage = more.pop("stage", "$default")
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": more.pop("query", ""),
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {"stage": stage, "http": {"method": method, "path": path, "sourceIp": "10.0.0.1"}},
        "isBase64Encoded": False,
        **more,
    }
    return event if body is None else {**event, "body": body}


def balanced(method: str, path: str, body: str | None, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    """Make an event of an application load balancer.

    Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
    """
    query = more.pop("query", "")
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/rides/1"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": dict(pair.split("=") for pair in query.split("&") if pair),
        "headers": {name.lower(): value for name, value in headers.items()},
        "body": body or "",
        "isBase64Encoded": False,
        **more,
    }


@pytest.fixture(params=[rest, http, balanced])
def request_of(request: pytest.FixtureRequest) -> Request:
    made: Request = request.param
    return made


@pytest.fixture
def web(function: Make, rides_bundle: Path) -> Function:
    return function({"MODEL_LOCATION": str(rides_bundle)})


def body_of(answer: dict[str, Any]) -> bytes:
    text: str = answer["body"]
    return base64.b64decode(text) if answer["isBase64Encoded"] else text.encode()


def test_a_ride_an_array_and_a_query_are_answered(web: Function, request_of: Request) -> None:
    one = web.answer(request_of("POST", "/predict", json.dumps(RIDE), JSON), None)
    assert (one["statusCode"], json.loads(one["body"]), one["isBase64Encoded"]) == (200, DURATION, False)
    assert one["headers"]["x-model-version"]
    many = web.answer(request_of("POST", "/predict", json.dumps([RIDE] * 200), JSON), None)
    assert json.loads(many["body"]) == [DURATION] * 200
    query = "&".join(f"{name}={value}" for name, value in RIDE.items())
    asked = web.answer(request_of("GET", "/predict", None, JSON, query=query), None)
    assert json.loads(asked["body"]) == DURATION


def test_a_refusal_is_a_problem_in_plain_text(web: Function, request_of: Request) -> None:
    answer = web.answer(request_of("POST", "/predict", json.dumps({**RIDE, "trip_distance": "far"}), JSON), None)
    assert answer["statusCode"] == 422
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert not answer["isBase64Encoded"]
    [problem] = json.loads(answer["body"])["errors"]
    assert problem == {"path": "$.trip_distance", "expected": "a number", "got": "a string"}
    assert web.answer(request_of("POST", "/predict", "{", JSON), None)["statusCode"] == 400
    assert web.answer(request_of("GET", "/nowhere", None, JSON), None)["statusCode"] == 404
    assert web.answer(request_of("DELETE", "/predict", None, JSON), None)["statusCode"] == 405


def test_compressed_and_binary_bodies_go_as_base64_in_and_out(web: Function, request_of: Request) -> None:
    packed = base64.b64encode(gzip.compress(json.dumps([RIDE]).encode())).decode()
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = web.answer(request_of("POST", "/predict", packed, headers, isBase64Encoded=True), None)
    assert json.loads(answer["body"]) == [DURATION]

    table = pa.Table.from_pylist([RIDE] * 3)
    sent = io.BytesIO()
    with pa.ipc.new_stream(sent, table.schema) as writer:
        writer.write_table(table)
    data = base64.b64encode(sent.getvalue()).decode()
    headers = {"Content-Type": ARROW, "Accept": ARROW}
    answer = web.answer(request_of("POST", "/predict", data, headers, isBase64Encoded=True), None)
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"] == ARROW
    assert answer["isBase64Encoded"]
    assert pa.ipc.open_stream(body_of(answer)).read_all().to_pylist() == [DURATION] * 3


def test_probes_the_page_and_the_description_are_there(web: Function, request_of: Request) -> None:
    for path, part in (
        ("/livez", b'"live"'),
        ("/readyz", b'"ready"'),
        ("/docs", b"<html"),
        ("/docs/swagger-ui-bundle.js", b"SwaggerUI"),
        ("/", b"rides"),
        ("/openapi.json", b"ride_duration"),
        ("/metrics", b"fairlead_"),
    ):
        answer = web.answer(request_of("GET", path, None, {"Accept": "*/*"}), None)
        assert answer["statusCode"] == 200, path
        assert part in body_of(answer), path


def test_the_name_of_a_stage_is_no_part_of_the_path(web: Function) -> None:
    for path in ("/prod/predict", "/predict"):
        answer = web.answer(http("POST", path, json.dumps(RIDE), JSON, stage="prod"), None)
        assert json.loads(answer["body"]) == DURATION
    assert web.answer(http("POST", "/production/predict", "{}", JSON, stage="prod"), None)["statusCode"] == 404


def test_a_model_that_is_slow_or_fails_is_answered_too(function: Make, moody_bundle: Path) -> None:
    web = function({"MODEL_LOCATION": str(moody_bundle)})
    for distance, status in ((2, 200), (13, 500), (3, 200)):
        answer = web.answer(http("POST", "/predict", json.dumps({"trip_distance": distance}), JSON), None)
        assert answer["statusCode"] == status
    assert json.loads(answer["body"]) == {"ride_duration": 6.0}


def test_without_mangum_its_extra_is_named(function: Make, rides_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mangum", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fairlead\[lambda\]'"):
        function({"MODEL_LOCATION": str(rides_bundle)}).answer(http("GET", "/livez", None, JSON), None)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"requestContext": {"routeKey": "$connect", "connectionId": "a"}, "isBase64Encoded": False}, "an object with"),
        ({"requestContext": {"http": {"method": "GET"}}}, "an object with requestContext"),
        ({"requestContext": "elb", "httpMethod": "GET"}, "an object with requestContext, httpMethod"),
        ({"Records": [{"cf": {}}]}, "Records with cf"),
        ({"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {}}]}, "Records of aws:dynamodb"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "Records of aws:sns"),
        ({"Records": {}}, "an object with Records"),
        ({"trip_distance": 3.66}, "an object with trip_distance"),
        ({}, "an object with nothing in it"),
        ([RIDE], "no object but list"),
        (None, "no object but NoneType"),
    ],
)
def test_what_is_neither_is_told_of(function: Make, event: object, told: str) -> None:
    with pytest.raises(InputError, match=rf"^event: expected events of Kinesis .* got {told}"):
        function({}).answer(event, None)
