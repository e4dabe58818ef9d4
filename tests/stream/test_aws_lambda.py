"""The handler in Lambda's own runtime: real processes, fed by a Runtime API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kinesis import Between, Forward, KinesisServer
from lambda_runtime import (
    ENVELOPE,
    InvocationError,
    LambdaProcess,
    key_of,
    kinesis_event,
    ride,
)
from registry import S3Server

pytestmark = pytest.mark.xdist_group("aws_lambda")

Start = Callable[[dict[str, str]], LambdaProcess]
# As the course prints it.
SEED_EVENT = json.loads("""
{
    "Records": [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "1",
                "sequenceNumber": "49630081666084879290581185630324770398608704880802529282",
                "data": "ewogICAgICAgICJyaWRlIjogewogICAgICAgICAgICAiUFVMb2NhdGlvbklEIjogMTMwLAogICAgICAgICAgICAiRE9Mb2NhdGlvbklEIjogMjA1LAogICAgICAgICAgICAidHJpcF9kaXN0YW5jZSI6IDMuNjYKICAgICAgICB9LCAKICAgICAgICAicmlkZV9pZCI6IDI1NgogICAgfQ==",
                "approximateArrivalTimestamp": 1654161514.132
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": "shardId-000000000000:49630081666084879290581185630324770398608704880802529282",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::XXXXXXXXX:role/lambda-kinesis-role",
            "awsRegion": "eu-west-1",
            "eventSourceARN": "arn:aws:kinesis:eu-west-1:XXXXXXXXX:stream/ride_events"
        }
    ]
}
""")  # noqa: E501  # as it is printed
SEED_KEY = "ride_events/shardId-000000000000/49630081666084879290581185630324770398608704880802529282"


@pytest.fixture(scope="session")
def predictions(moto_kinesis: KinesisServer) -> str:
    """Give the stream that the function writes to."""
    return moto_kinesis.stream()


@pytest.fixture(scope="session")
def scoring(start_lambda: Start, rides_bundle: Path, moto_kinesis: KinesisServer, predictions: str) -> LambdaProcess:
    """Give a function that publishes."""
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": predictions}
    return start_lambda(moto_kinesis.environ | ENVELOPE | own)


@pytest.fixture
def between_moto(moto_kinesis: KinesisServer) -> Iterator[Between]:
    proxy = Between(moto_kinesis)
    yield proxy
    proxy.close()


def test_the_courses_event_gives_the_courses_answer_and_is_published(
    scoring: LambdaProcess, moto_kinesis: KinesisServer, predictions: str
) -> None:
    answer = scoring.invoke(SEED_EVENT)
    [one] = answer["predictions"]
    assert answer == {"predictions": [one]}
    assert list(one) == ["model", "version", "prediction"]
    assert one["prediction"] == {"ride_duration": pytest.approx(20.0), "ride_id": 256}
    assert one["model"] == "rides"
    published = [(key, json.loads(data)) for shard in moto_kinesis.read(predictions).values() for key, data in shard]
    assert ("256", {**one, "idempotency_key": SEED_KEY}) in published


def test_a_test_run_answers_the_same_without_a_stream(
    start_lambda: Start, scoring: LambdaProcess, rides_bundle: Path
) -> None:
    # As `docker run` of the course has it, and no credentials.
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": "ride_predictions", "TEST_RUN": "True"}
    function = start_lambda({"AWS_DEFAULT_REGION": "eu-west-1", **ENVELOPE, **own})
    assert function.invoke(SEED_EVENT) == scoring.invoke(SEED_EVENT)
    assert "TEST_RUN is set" in function.log()


def test_the_same_function_answers_http(scoring: LambdaProcess) -> None:
    answer = scoring.invoke(
        {
            "version": "2.0",
            "rawPath": "/predict",
            "rawQueryString": "",
            "headers": {"content-type": "application/json"},
            "requestContext": {"http": {"method": "POST", "path": "/predict", "sourceIp": "10.0.0.1"}},
            "body": json.dumps(ride(1)["ride"]),
            "isBase64Encoded": False,
        }
    )
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"ride_duration": pytest.approx(20.0)}


def test_an_event_of_another_kind_is_told_of(scoring: LambdaProcess) -> None:
    with pytest.raises(InvocationError, match=r"expected events of Kinesis .*, got Records of aws:sqs"):
        scoring.invoke({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]})
    assert scoring.invoke({"Records": []}) == {"predictions": []}


def test_a_wrong_setting_is_an_error_of_the_start(start_lambda: Start, rides_bundle: Path) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "FAIRLEAD_STREAM_TO": "redis://localhost/rides"}
    function = start_lambda({**ENVELOPE, **own})
    assert function.failure["errorType"] == "ConfigError"
    assert function.failure["errorMessage"].startswith("stream.to: expected kinesis://STREAM")


def test_a_model_on_s3_is_kept_under_tmp_where_there_is_no_home(
    start_lambda: Start, s3_server: S3Server, rides_bundle: Path, tmp_path: Path
) -> None:
    own = {"MODEL_LOCATION": s3_server.put("lambda/rides", rides_bundle), "TEST_RUN": "1", "TMPDIR": str(tmp_path)}
    function = start_lambda(s3_server.environ | ENVELOPE | own | {"HOME": str(tmp_path / "none")})
    assert function.failure is None, function.log()
    assert (tmp_path / "fairlead" / "entries").is_dir()
    assert function.invoke(SEED_EVENT)["predictions"][0]["prediction"]["ride_id"] == 256


def test_a_batch_whose_function_was_killed_is_published_again_under_the_same_keys(
    start_lambda: Start, rides_bundle: Path, moto_kinesis: KinesisServer, between_moto: Between
) -> None:
    stream = moto_kinesis.stream()
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    first, second = (start_lambda(between_moto.environ | ENVELOPE | own) for _ in range(2))
    is_in, is_dead = threading.Event(), threading.Event()

    def rule(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        told = forward(body)
        is_in.set()
        is_dead.wait(20)
        return told

    between_moto.rule = rule
    event = kinesis_event(*map(ride, range(20)))
    first.api.put(event)
    assert is_in.wait(20)
    first.process.kill()
    first.process.wait()
    between_moto.rule = None
    is_dead.set()
    assert len(second.invoke(event)["predictions"]) == 20
    [shard] = moto_kinesis.read(stream).values()
    keys = [json.loads(data)["idempotency_key"] for _, data in shard]
    assert keys == [key_of(number) for number in range(1, 21)] * 2
