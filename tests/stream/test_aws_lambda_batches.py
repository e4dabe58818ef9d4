"""Batches of Kinesis through the handler, called here: bad input, and faults of streams and models."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable, ModelFailed
from fairlead.stream.aws_lambda.function import Function
from fairlead.stream.aws_lambda.kinesis_events import Batch
from fairlead.stream.broker import SourceOptions, Unpublished
from fairlead.stream.brokers import open_source
from kinesis import Between, Forward, KinesisServer
from lambda_runtime import (
    ENVELOPE,
    RIDE,
    SHARD,
    key_of,
    kinesis_event,
    ride,
)
from proxy import proxy_to

pytestmark = pytest.mark.xdist_group("aws_lambda")

Make = Callable[[dict[str, str]], Function]
REPORTS = {"FAIRLEAD_STREAM_REPORT_BATCH_ITEM_FAILURES": "true"}
POISON: dict[str, object] = {
    "not_base64": "no base64!",
    "not_utf8": b'{"ride": {"PULocationID": "\xff"}}',
    "not_json": b"{ride",
    "empty": b"",
    "a list": [ride(1)],
    "no ride": {"ride_id": 1},
    "a list for a ride": {"ride": [RIDE], "ride_id": 1},
    "no id": {"ride": RIDE},
    "a missing key": {"ride": {"PULocationID": 130, "DOLocationID": 205}, "ride_id": 1},
    "NaN": b'{"ride": {"PULocationID": 130, "DOLocationID": 205, "trip_distance": NaN}, "ride_id": 1}',
    "a number in a string": ride(1, trip_distance="3.66"),
    "null": ride(1, trip_distance=None),
    "2 MB": ride(1, note="x" * 2_000_000),
}
CODES = {
    "not_base64": "not_base64",
    "not_utf8": "not_utf8",
    "not_json": "not_json",
    "empty": "not_json",
    "NaN": "not_json",
    "2 MB": "too_large",
}


@pytest.fixture
def between_moto(moto_kinesis: KinesisServer) -> Iterator[Between]:
    proxy = Between(moto_kinesis)
    yield proxy
    proxy.close()


@pytest.fixture
def stream(moto_kinesis: KinesisServer) -> str:
    return moto_kinesis.stream()


@pytest.fixture
def dead(moto_kinesis: KinesisServer) -> str:
    return moto_kinesis.stream()


def published(server: KinesisServer, stream: str) -> list[dict[str, Any]]:
    return [json.loads(data) for shard in server.read(stream).values() for _, data in shard]


def ids(answer: dict[str, Any]) -> list[int]:
    return [one["prediction"]["ride_id"] for one in answer["predictions"]]


def among_good(*bad: object) -> dict[str, Any]:
    """Make an event in which a good ride stands before and behind each other record."""
    payloads: list[object] = [ride(0)]
    for place, one in enumerate(bad, 1):
        payloads += [one, ride(place)]
    return kinesis_event(*payloads)


def test_each_poison_record_is_one_dead_letter_and_the_rest_is_answered(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, stream: str, dead: str, tmp_path: Path
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}", "FAIRLEAD_STREAM_OVERFLOW": str(tmp_path)}
    answers = function(moto_kinesis.environ | ENVELOPE | own | letters | REPORTS)
    event = among_good(*POISON.values())
    answer = answers.answer(event, None)
    assert ids(answer) == list(range(len(POISON) + 1))
    assert answer["batchItemFailures"] == []
    assert [one["prediction"]["ride_id"] for one in published(moto_kinesis, stream)] == ids(answer)
    told = published(moto_kinesis, dead)
    assert [one["idempotency_key"] for one in told] == [key_of(2 * place + 2) for place in range(len(POISON))]
    assert [one["code"] for one in told] == [CODES.get(name, "invalid") for name in POISON]
    assert {one["from"] for one in told} == {"kinesis://ride_events"}
    for letter, (name, payload) in zip(told, POISON.items(), strict=True):
        came = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        if isinstance(payload, str):
            came = payload.encode()
        if name == "2 MB":
            assert Path(letter["stored"]["at"]).read_bytes() == came
        else:
            assert base64.b64decode(letter["data"]) == came


def test_without_a_stream_dead_letters_are_lines_of_the_log_without_values(
    function: Make, rides_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = function(ENVELOPE | {"MODEL_LOCATION": str(rides_bundle)})
    answer = answers.answer(among_good(ride(1, trip_distance="s3cret"), "s3cret?"), None)
    assert ids(answer) == [0, 1, 2]
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert lines[0] == f"{key_of(2)}: invalid: trip_distance: expected a number, got a string, at $.ride.trip_distance"
    assert lines[1].startswith(f"{key_of(4)}: not_base64: ")
    assert "s3cret" not in caplog.text
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    answers.answer(kinesis_event(ride(1)), None)
    assert len(warnings) == 1
    assert "neither PREDICTIONS_STREAM_NAME nor stream.to is set" in warnings[0]
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize("given", [None, 5, {}, "Ä"])
def test_data_that_is_no_text_or_no_base64_is_refused(given: object) -> None:
    batch = Batch.of([{"kinesis": {"data": given}}])
    assert batch.refused[0].code == "not_base64"


def test_a_record_without_a_number_has_a_key_of_its_own() -> None:
    one, other = (base64.b64encode(text).decode() for text in (b"1", b"2"))
    records = Batch.of([{"kinesis": {"data": data}} for data in (one, other)]).records
    assert records[0].key != records[1].key
    assert records[0].key == Batch.of([{"kinesis": {"data": one}}]).records[0].key


def test_keys_are_those_of_every_other_reader_of_the_stream(
    moto_kinesis: KinesisServer, stream: str, tmp_path: Path
) -> None:
    moto_kinesis.put(stream, [("a", "1"), ("b", "2")])
    iterator = moto_kinesis.client.get_shard_iterator(
        StreamName=stream, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    told = moto_kinesis.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    given = [
        {
            "kinesis": {
                "data": base64.b64encode(one["Data"]).decode(),
                "sequenceNumber": one["SequenceNumber"],
                "partitionKey": one["PartitionKey"],
                "approximateArrivalTimestamp": one["ApproximateArrivalTimestamp"].timestamp(),
            },
            "eventID": f"{SHARD}:{one['SequenceNumber']}",
            # A consumer with enhanced fan-out is named behind the stream.
            "eventSourceARN": f"{told}/consumer/rides:1654161514",
        }
        for one in moto_kinesis.client.get_records(ShardIterator=iterator)["Records"]
    ]

    async def read() -> list[Any]:
        options = SourceOptions(checkpoints=tmp_path / "checkpoints.sqlite", environ=moto_kinesis.environ)
        source = open_source(f"kinesis://{stream}", options)
        await source.start()
        found: list[Any] = []
        while len(found) < 2:
            found += await source.receive(2, 0.01)
        await source.close()
        return found

    def facts(record: Any) -> tuple[Any, ...]:
        return record.key, record.partition, record.partition_key, record.data

    assert list(map(facts, Batch.of(given).records)) == list(map(facts, asyncio.run(read())))


def test_a_client_is_made_once_and_asked_once_a_batch(
    function: Make, rides_bundle: Path, between_moto: Between, stream: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    answers = function(between_moto.environ | ENVELOPE | own)
    for start in (0, 100, 200):
        assert ids(answers.answer(kinesis_event(*map(ride, range(start, start + 100))), None))[0] == start
    assert between_moto.calls == ["PutRecords"] * 3


def test_stream_to_goes_over_the_variable_of_the_course(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, stream: str, dead: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": dead}
    to = {"FAIRLEAD_STREAM_TO": f"kinesis://{stream}?region=us-east-1"}
    function(moto_kinesis.environ | ENVELOPE | own | to).answer(kinesis_event(ride(7)), None)
    assert [one["prediction"]["ride_id"] for one in published(moto_kinesis, stream)] == [7]
    assert published(moto_kinesis, dead) == []


def refusing(*ride_ids: int, times: int = 10**6) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Make a rule: entries of these rides are throttled, that many times; the others go in."""
    left = dict.fromkeys(map(str, ride_ids), times)

    def rule(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        entries = body["Records"]
        refused = {i for i, entry in enumerate(entries) if left.get(entry["PartitionKey"], 0) > 0}
        good = [entry for i, entry in enumerate(entries) if i not in refused]
        status, told = forward({**body, "Records": good}) if good else (200, {"Records": []})
        answers = iter(told["Records"])
        throttled = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "as the test wants it"}
        found = [throttled if i in refused else next(answers) for i in range(len(entries))]
        for i in refused:
            left[entries[i]["PartitionKey"]] -= 1
        return status, {"FailedRecordCount": len(refused), "Records": found}

    return rule


def test_entries_that_fail_once_are_put_again(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, between_moto: Between, stream: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    between_moto.rule = refusing(3, 5, times=1)
    answers = function(between_moto.environ | ENVELOPE | own | REPORTS)
    answer = answers.answer(kinesis_event(*map(ride, range(8))), None)
    assert ids(answer) == list(range(8))
    assert answer["batchItemFailures"] == []
    assert sorted(one["prediction"]["ride_id"] for one in published(moto_kinesis, stream)) == list(range(8))


def test_what_was_not_published_is_reported_lowest_first_and_poison_never(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, between_moto: Between, stream: str, dead: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}"}
    between_moto.rule = refusing(33, 31)
    answers = function(between_moto.environ | ENVELOPE | own | letters | REPORTS)
    # Numbered 9, 10, 11, …: as texts they have another order.
    event = kinesis_event(ride(31), "poison!", ride(32), ride(33), first=9)
    event["Records"].reverse()
    answer = answers.answer(event, None)
    assert answer["batchItemFailures"] == [{"itemIdentifier": "9"}, {"itemIdentifier": "12"}]
    assert ids(answer) == [32]
    assert [one["code"] for one in published(moto_kinesis, dead)] == ["not_base64"]


def test_what_was_not_published_is_raised_where_it_is_not_reported(
    function: Make, rides_bundle: Path, between_moto: Between, stream: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    answers = function(between_moto.environ | ENVELOPE | own)
    between_moto.refuse("PutRecords", "ProvisionedThroughputExceededException", 5)
    event = kinesis_event(ride(1), ride(2))
    with pytest.raises(Unpublished, match=f"kinesis://{stream}: 2 of 2 are not in"):
        answers.answer(event, None)
    assert ids(answers.answer(event, None)) == [1, 2]


def test_a_dead_letter_that_was_not_published_is_not_done(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, between_moto: Between, stream: str, dead: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}"}

    def rule(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        throttled = {"__type": "ProvisionedThroughputExceededException", "message": "as the test wants it"}
        return (400, throttled) if body["StreamName"] == dead else forward(body)

    between_moto.rule = rule
    answers = function(between_moto.environ | ENVELOPE | own | letters | REPORTS)
    event = kinesis_event(ride(1), "poison!", ride(3))
    answer = answers.answer(event, None)
    assert answer["batchItemFailures"] == [{"itemIdentifier": "2"}]
    assert ids(answer) == [1, 3]
    between_moto.rule = None
    assert answers.answer(event, None)["batchItemFailures"] == []


def test_a_dead_letter_that_is_too_large_and_cannot_be_kept_is_not_done(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, dead: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}"}
    own = {"MODEL_LOCATION": str(rides_bundle), "FAIRLEAD_STREAM_OVERFLOW": str(tmp_path / "file" / "below")}
    answers = function(moto_kinesis.environ | ENVELOPE | own | letters | REPORTS)
    answer = answers.answer(kinesis_event(ride(1), POISON["2 MB"], ride(3)), None)
    assert answer["batchItemFailures"] == [{"itemIdentifier": "2"}]
    assert ids(answer) == [1, 3]


def test_a_dead_letter_that_is_too_large_and_has_no_place_names_its_record(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, dead: str
) -> None:
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}"}
    answers = function(moto_kinesis.environ | ENVELOPE | {"MODEL_LOCATION": str(rides_bundle)} | letters)
    answers.answer(kinesis_event(POISON["2 MB"]), None)
    [letter] = published(moto_kinesis, dead)
    assert (letter["code"], letter["data"], letter["stored"]) == ("too_large", None, None)
    assert letter["idempotency_key"] == key_of(1)


def test_a_connection_that_breaks_is_made_anew(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, stream: str
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": stream}
    with proxy_to(moto_kinesis.url) as proxy:
        answers = function(moto_kinesis.environ | ENVELOPE | own | {"AWS_ENDPOINT_URL": proxy.url})
        answers.answer(kinesis_event(ride(1)), None)
        proxy.fail("truncate", times=1)
        assert ids(answers.answer(kinesis_event(ride(2), first=2), None)) == [2]
        answers.close()
    # The answer was lost, not what was asked: so it is there again, under the same key.
    keys = [one["idempotency_key"] for one in published(moto_kinesis, stream)]
    assert keys == [key_of(1), key_of(2), key_of(2)]


@pytest.mark.parametrize("reports", [{}, REPORTS])
def test_a_stream_that_is_not_there_is_an_error(
    function: Make, rides_bundle: Path, moto_kinesis: KinesisServer, reports: dict[str, str]
) -> None:
    own = {"MODEL_LOCATION": str(rides_bundle), "PREDICTIONS_STREAM_NAME": "nowhere"}
    answers = function(moto_kinesis.environ | ENVELOPE | own | reports)
    with pytest.raises(BrokerError, match="kinesis://nowhere: not found") as caught:
        answers.answer(kinesis_event(ride(1)), None)
    assert not isinstance(caught.value, BrokerUnavailable)


def moody(ride_id: int, distance: float) -> dict[str, Any]:
    return {"ride": {"trip_distance": distance}, "ride_id": ride_id}


def test_an_answer_that_is_too_large_is_a_dead_letter_and_so_is_a_ride_that_the_model_fails_for(
    function: Make, moody_bundle: Path, moto_kinesis: KinesisServer, stream: str, dead: str, tmp_path: Path
) -> None:
    own = {"MODEL_LOCATION": str(moody_bundle), "PREDICTIONS_STREAM_NAME": stream}
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}", "FAIRLEAD_STREAM_OVERFLOW": str(tmp_path)}
    answers = function(moto_kinesis.environ | ENVELOPE | own | letters | REPORTS)
    answer = answers.answer(kinesis_event(moody(1, 1.0), moody(2, 14.0), moody(3, 13.0), moody(4, 4.0)), None)
    assert ids(answer) == [1, 4]
    assert answer["batchItemFailures"] == []
    large, failed = published(moto_kinesis, dead)
    assert (large["code"], failed["code"]) == ("output_too_large", "model_failed")
    assert json.loads(Path(large["output"]["at"]).read_bytes())["prediction"]["ride_id"] == 2


def test_a_model_that_fails_for_a_whole_batch_is_tried_again_then_given_up(
    function: Make, moody_bundle: Path, moto_kinesis: KinesisServer, dead: str
) -> None:
    letters = {"FAIRLEAD_STREAM_DEAD_LETTER": f"kinesis://{dead}"}
    own = {"MODEL_LOCATION": str(moody_bundle)}
    answers = function(moto_kinesis.environ | ENVELOPE | own | letters | REPORTS)
    event = kinesis_event("poison!", {}, moody(3, 13.0), b"", moody(5, 13.0))
    failures = [{"itemIdentifier": "3"}, {"itemIdentifier": "5"}]
    assert answers.answer(event, None) == {"predictions": [], "batchItemFailures": failures}
    # Lambda goes on at the first of them.
    event["Records"] = event["Records"][2:]
    assert answers.answer(event, None) == {"predictions": [], "batchItemFailures": failures}
    codes = ["not_base64", "invalid", "not_json", "not_json"]
    assert [one["code"] for one in published(moto_kinesis, dead)] == codes
    assert answers.answer(event, None) == {"predictions": [], "batchItemFailures": []}
    assert [one["code"] for one in published(moto_kinesis, dead)][4:] == ["model_failed", "not_json", "model_failed"]


def test_a_model_that_fails_for_a_whole_batch_is_raised_where_it_is_not_reported(
    function: Make, moody_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = function(ENVELOPE | {"MODEL_LOCATION": str(moody_bundle)})
    event = kinesis_event(moody(1, 13.0), moody(2, 13.0))
    for _ in range(2):
        with pytest.raises(ModelFailed):
            answers.answer(event, None)
    assert answers.answer(event, None) == {"predictions": []}
    assert f"{key_of(2)}: model_failed: the model raised" in caplog.text
    # Another batch counts from the start.
    with pytest.raises(ModelFailed):
        answers.answer(kinesis_event(moody(1, 13.0), first=2), None)


def test_what_the_model_gives_is_json(function: Make, moody_bundle: Path) -> None:
    answers = function(ENVELOPE | {"MODEL_LOCATION": str(moody_bundle), "TEST_RUN": "yes"})
    [one] = answers.answer(kinesis_event(moody(1, 15.0)), None)["predictions"]
    assert one["prediction"]["ride_duration"] == [None]


def test_more_than_lambda_takes_is_published_and_left_out_of_the_answer(
    function: Make, moody_bundle: Path, moto_kinesis: KinesisServer, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = {"MODEL_LOCATION": str(moody_bundle), "PREDICTIONS_STREAM_NAME": stream}
    answers = function(moto_kinesis.environ | ENVELOPE | own | REPORTS)
    answer = answers.answer(kinesis_event(*(moody(i, 16.0) for i in range(10))), None)
    assert answer == {"predictions": [], "batchItemFailures": []}
    assert "left out of the answer" in caplog.text
    assert len(published(moto_kinesis, stream)) == 10
