from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.address import Address
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers import open_sink
from fairlead.stream.brokers.kinesis import Writer
from fairlead.stream.records import Message
from kinesis import Between, Forward, Kinesalite, KinesisServer

MIB = 1024 * 1024


@contextlib.contextmanager
def writing(server: Any, name: str) -> Iterator[Writer]:
    writer = Writer(Address.parse(f"kinesis://{name}"), server.environ)
    try:
        yield writer
    finally:
        writer.close()


def messages(count: int, keys: int) -> list[Message]:
    return [Message(f"{number:04}".encode(), f"key {number}", f"ride {number % keys}") for number in range(count)]


def by_key(found: dict[str, list[tuple[str, str]]]) -> dict[str, list[str]]:
    kept = defaultdict(list)
    for records in found.values():
        for key, data in records:
            kept[key].append(data)
    return dict(kept)


def in_order(count: int, keys: int) -> dict[str, list[str]]:
    return {f"ride {key}": [f"{number:04}" for number in range(key, count, keys)] for key in range(keys)}


@pytest.mark.parametrize("which", ["kinesalite_server", "moto_kinesis"])
def test_a_sink_publishes_in_the_order_of_each_key(which: str, request: pytest.FixtureRequest) -> None:
    server: KinesisServer = request.getfixturevalue(which)
    name = server.stream(2)

    async def run() -> None:
        sink = open_sink(f"kinesis://{name}?region=us-east-1", server.environ)
        await sink.start()
        await sink.publish([])
        await sink.publish(messages(60, 7))
        await sink.close()

    asyncio.run(run())
    assert by_key(server.read(name)) == in_order(60, 7)


def test_a_call_holds_no_more_than_it_may(kinesalite_server: Kinesalite, between: Between) -> None:
    """500 entries and 5 MiB; and one message of each partition key."""
    name = kinesalite_server.stream()
    calls: list[tuple[int, int, int]] = []

    def watch(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        entries = body["Records"]
        keys = [entry["PartitionKey"] for entry in entries]
        calls.append((len(entries), len(set(keys)), sum(len(entry["Data"]) * 3 // 4 for entry in entries)))
        return forward(body)

    between.rule = watch
    with writing(between, name) as writer:
        writer.put(messages(600, 550))
        writer.put([Message(b"x" * (MIB - 1024), "same " + "x" * 250, f"{number}") for number in range(6)])
    assert [count for count, _, _ in calls] == [500, 100, 5, 1]
    assert all(count == keys for count, keys, _ in calls)
    assert all(size <= 5 * MIB + 3 * count for count, _, size in calls)


def test_the_largest_message_fits(kinesalite_server: Kinesalite) -> None:
    name = kinesalite_server.stream()
    sink = open_sink(f"kinesis://{name}", kinesalite_server.environ)
    assert sink.max_message_bytes is not None
    largest = Message(b"x" * sink.max_message_bytes, "ö" * 256)
    with writing(kinesalite_server, name) as writer:
        writer.put([largest])
    asyncio.run(sink.close())
    assert [len(data) for _, data in kinesalite_server.read(name)["shardId-000000000000"]] == [len(largest.data)]


def test_what_stands_in_for_a_partition_key(kinesalite_server: Kinesalite) -> None:
    name = kinesalite_server.stream()
    with writing(kinesalite_server, name) as writer:
        writer.put([Message(b"none", "the key"), Message(b"long", "k", "x" * 300), Message(b"again", "k", "x" * 300)])
    kept = by_key(kinesalite_server.read(name))
    assert kept.pop("the key") == ["none"]
    ((key, data),) = kept.items()
    assert data == ["long", "again"]
    assert len(key) == 64


def test_entries_that_fail_are_put_again_in_their_order(kinesalite_server: Kinesalite, between: Between) -> None:
    name = kinesalite_server.stream(2)
    sent: list[str] = []

    def fail_some(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        """Let every third entry fail, which is what a shard that is too busy does."""
        passed = [entry for number, entry in enumerate(body["Records"]) if number % 3]
        sent.extend(entry["Data"] for entry in passed)
        done = iter(forward(body | {"Records": passed})[1]["Records"] if passed else [])
        refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
        told = [next(done) if number % 3 else refused for number in range(len(body["Records"]))]
        if not passed:  # the last one gets in at last
            sent.extend(entry["Data"] for entry in body["Records"])
            return forward(body)
        return 200, {"FailedRecordCount": len(told) - len(passed), "Records": told}

    between.rule = fail_some
    with writing(between, name) as writer:
        writer.put(messages(20, 4))
    assert by_key(kinesalite_server.read(name)) == in_order(20, 4)
    assert len(sent) == len(set(sent)) == 20


def test_what_cannot_be_put_is_given_back_in_its_order(kinesalite_server: Kinesalite, between: Between) -> None:
    name = kinesalite_server.stream()
    busy = "ProvisionedThroughputExceededException"

    def fail_one(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        passed = [entry for entry in body["Records"] if entry["PartitionKey"] != "ride 2"]
        done = iter(forward(body | {"Records": passed})[1]["Records"] if passed else [])
        told = [next(done) if e["PartitionKey"] != "ride 2" else {"ErrorCode": busy} for e in body["Records"]]
        return 200, {"FailedRecordCount": len(told) - len(passed), "Records": told}

    between.rule = fail_one
    given = messages(12, 4)
    with writing(between, name) as writer, pytest.raises(Unpublished, match=f"3 of 12 are not in: {busy}") as caught:
        writer.put(given)
    assert list(caught.value.rest) == given[2::4]
    between.rule = None
    with writing(between, name) as writer:
        writer.put(caught.value.rest)
    assert by_key(kinesalite_server.read(name)) == in_order(12, 4)


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "InternalFailure"])
def test_a_call_that_fails_is_made_again(kinesalite_server: Kinesalite, between: Between, code: str) -> None:
    name = kinesalite_server.stream()
    between.refuse("PutRecords", code, times=2)
    with writing(between, name) as writer:
        writer.put(messages(5, 5))
    assert by_key(kinesalite_server.read(name)) == in_order(5, 5)
    assert between.calls.count("PutRecords") == 3


def test_a_server_that_was_away(own_kinesalite: Kinesalite) -> None:
    name = own_kinesalite.stream()
    with writing(own_kinesalite, name) as writer:
        writer.put(messages(2, 2))
        own_kinesalite.end()
        with pytest.raises(Unpublished, match="no connection to") as caught:
            writer.put(messages(4, 4)[2:])
        own_kinesalite.begin()
        writer.put(caught.value.rest)
    kept = by_key(own_kinesalite.read(name))
    assert sorted(data for one in kept.values() for data in one) == ["0000", "0001", "0002", "0003"]


def test_a_stream_that_is_not_there(kinesalite_server: Kinesalite) -> None:
    with writing(kinesalite_server, "nowhere") as writer:
        for call in (writer.check, lambda: writer.put(messages(1, 1))):
            with pytest.raises(BrokerError, match=r"kinesis://nowhere: not found at .*see its name and region") as no:
                call()
            assert not isinstance(no.value, BrokerUnavailable)


def test_no_credentials(kinesalite_server: Kinesalite, between: Between) -> None:
    name = kinesalite_server.stream()
    between.refuse("PutRecords", "UnrecognizedClientException", times=1)
    with (
        writing(between, name) as writer,
        pytest.raises(BrokerError, match=r"refuses the credentials .*AWS_ACCESS") as no,
    ):
        writer.put(messages(1, 1))
    assert not isinstance(no.value, BrokerUnavailable)
