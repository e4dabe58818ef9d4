from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from fairlead.bundle import aws

SET = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "eu-west-1"}
ALL = {"AWS_ENDPOINT_URL": "http://all"}
S3 = {"AWS_ENDPOINT_URL_S3": "http://s3"}
KINESIS = {"AWS_ENDPOINT_URL_KINESIS": "http://kinesis"}
MLFLOW = {"MLFLOW_S3_ENDPOINT_URL": "http://mlflow"}


@pytest.mark.parametrize(
    ("service", "environ", "expected"),
    [
        ("s3", {}, "AWS"),
        ("s3", ALL | KINESIS, "http://all"),
        ("s3", ALL | S3, "http://s3"),
        ("s3", ALL | S3 | MLFLOW, "http://mlflow"),
        ("kinesis", ALL | S3 | MLFLOW, "http://all"),
        ("kinesis", ALL | KINESIS, "http://kinesis"),
        ("dynamodb", KINESIS | S3, "AWS"),
    ],
)
def test_a_service_is_reached_where_the_environment_says(service: str, environ: dict[str, str], expected: str) -> None:
    access = aws.Access(SET | environ, 1, 1, service)
    assert access.endpoint == expected
    with closing(access.client()) as client:
        own = f"https://{service}.eu-west-1.amazonaws.com"
        assert client.meta.endpoint_url == (own if expected == "AWS" else expected)


def test_a_region_of_its_own() -> None:
    for region, expected in ((None, "eu-west-1"), ("us-east-2", "us-east-2")):
        with closing(aws.Access(SET, 1, 1, "kinesis", region).client()) as client:
            assert client.meta.region_name == expected


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ProvisionedThroughputExceededException", 400, "away"),
        ("LimitExceededException", 400, "away"),
        ("InternalFailure", 500, "away"),
        ("UnrecognizedClientException", 400, "denied"),
        ("AccessDeniedException", 400, "denied"),
        ("ValidationException", 400, "other"),
        ("NoSuchKey", 404, "gone"),
    ],
)
def test_what_an_answer_means(code: str, status: int, kind: str) -> None:
    from botocore.exceptions import ClientError

    response: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert aws.Access(SET, 1, 1, "kinesis").trouble(ClientError(response, "PutRecords")).kind == kind
