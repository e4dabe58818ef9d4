"""Kafka as librdkafka's mock cluster speaks it: a real client, real TCP, real groups; the broker is one process."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

import stories
from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.broker import Source, SourceOptions, Unpublished
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.records import Message
from kafka_cluster import COORDINATOR_NOT_AVAILABLE, JOIN_GROUP, NOT_LEADER, OFFSET_COMMIT, PRODUCE, KafkaCluster
from stories import data, messages, received, run, sink_of, told_to_be_away, until

pytestmark = pytest.mark.xdist_group("kafka_cluster")

# A real broker takes no lease below 6 s; the mock takes any.
LEASE_S = 1.0


async def source_of(stack: AsyncExitStack, address: str, **options: Any) -> Source:
    group = address.rpartition("/")[2]  # one for each test
    source: Source = await stories.source_of(stack, address, **{"lease_s": LEASE_S, "group": group, **options})
    return source


def test_goes_out_and_comes_in_with_its_key_headers_and_order(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-round", 3)

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        before_s = time.time()
        await sink.publish(messages(2500, partition_keys=7))
        source = await source_of(stack, address)
        records = await received(source, 2500)
        by_key: dict[str, list[int]] = {}
        for record in records:
            assert record.key == f"{record.partition}/{record.position[2]}"
            assert record.headers["idempotency-key"] == f"in/{int(record.data)}"
            by_key.setdefault(record.partition_key, []).append(int(record.data))
        assert by_key == {f"p{key}": list(range(key, 2500, 7)) for key in range(7)}
        assert len({record.key for record in records}) == 2500
        assert {record.partition for record in records} <= {f"kafka-round/{each}" for each in range(3)}
        assert before_s - 1 < (records[0].arrived_at_s or 0) < time.time() + 1
        assert sum(lag.records or 0 for lag in source.lag()) == 2500
        await source.commit(records)
        assert [(lag.partition, lag.records) for lag in source.lag()] == [(f"kafka-round/{n}", 0) for n in range(3)]

    run(story)


def test_what_was_fetched_ahead_but_not_committed_comes_again(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-ahead", 1)

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(40))
        first = await source_of(stack, address)
        records = await received(first, 20, max_records=10)
        await first.commit(records[:10])
        await first.close()
        again = await received(await source_of(stack, address), 30)
        assert data(again) == list(range(10, 40))
        assert [record.key for record in again[:10]] == [record.key for record in records[10:]]

    run(story)


_COPY = """
import asyncio, sys
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source

async def main():
    source = open_source(sys.argv[1], SourceOptions(lease_s=float(sys.argv[2]), group="kafka-kill"))
    await source.start()
    await source.commit((await source.receive(10, 5))[:10])
    await source.receive(10, 5)
    print("holds", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_share_of_a_killed_copy_is_taken_over(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-kill", 1)

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(50))
        with subprocess.Popen([sys.executable, "-c", _COPY, address, str(LEASE_S)], stdout=subprocess.PIPE) as copy:
            assert copy.stdout is not None
            try:
                assert await asyncio.to_thread(copy.stdout.readline) == b"holds\n"
            finally:
                copy.kill()
        again = await received(await source_of(stack, address), 40)
        assert data(again) == list(range(10, 50))

    run(story)


def test_a_partition_that_moves_takes_what_was_not_committed_along(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-move", 4)

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(400, partition_keys=40))
        one = await source_of(stack, address, max_records=50)
        held = await received(one, 50)
        await one.commit(held[:20])
        # The mock refuses a member that asks for its share after the group's leader has parted them, where a broker
        # answers: so the leader, who joins again after the other one has come, hears of it late.
        kafka_cluster.delay_second(JOIN_GROUP, 300)
        two = await source_of(stack, address, max_records=50)
        await until(lambda: len(one.lag()) == len(two.lag()) == 2)
        await one.commit(held)  # passed over: all of it was fetched before the partitions were parted anew
        seen = {record.key for record in held[:20]}
        twice = 0
        while len(seen) < 400:
            for copy in (one, two):
                if any(lag.records != 0 for lag in copy.lag()):
                    records = await copy.receive(50, 0)
                    assert {record.partition for record in records} <= {lag.partition for lag in copy.lag()}
                    twice += len(seen & {record.key for record in records})
                    seen |= {record.key for record in records}
                    await copy.commit(records)
        assert twice == 0
        await one.close()
        await two.close()
        last = await source_of(stack, address)
        await until(lambda: len(last.lag()) == 4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await last.receive(1, 0)

    run(story)


def test_a_broker_that_was_away_loses_and_doubles_nothing(
    kafka_cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.stream.brokers.kafka.source._IDLE_S", 0.2)
    monkeypatch.setattr("fairlead.stream.brokers.kafka.source.START_S", 0.5)
    monkeypatch.setattr("fairlead.stream.brokers.kafka.source.REQUEST_S", 1.0)
    monkeypatch.setattr("fairlead.stream.brokers.kafka.sink.REQUEST_S", 0.5)
    address = kafka_cluster.make("kafka-away", 1)

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        source = await source_of(stack, address, lease_s=20.0)  # so the group still knows it afterwards
        await sink.publish(messages(10))
        records = await received(source, 10)
        stack.callback(kafka_cluster.start)
        kafka_cluster.stop()
        rest: Sequence[Message] = messages(20, first=10)
        with pytest.raises(Unpublished) as caught:
            await sink.publish(rest)
        assert caught.value.rest == tuple(rest)
        with pytest.raises(BrokerUnavailable):
            await source.receive(1, 0)
        with pytest.raises(BrokerUnavailable):
            await source.commit(records)
        kafka_cluster.start()
        while rest:
            try:
                await sink.publish(rest)
                rest = ()
            except Unpublished as error:
                rest = error.rest
        while records:
            with suppress(BrokerUnavailable):
                await source.commit(records)
                records = []
        more = await received(source, 10)
        assert data(more) == list(range(10, 20))
        await source.commit(more)
        await sink.publish(messages(21, first=20))
        assert data(await received(source, 1)) == [20]

    run(story)


def test_lets_go_of_a_broker_that_is_away(kafka_cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.stream.brokers.kafka.source.START_S", 0.5)
    monkeypatch.setattr("fairlead.stream.brokers.kafka.sink.REQUEST_S", 0.2)
    monkeypatch.setattr("fairlead.stream.brokers.kafka.sink._CLOSE_S", 0.5)
    address = kafka_cluster.make("kafka-close", 1)

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        source = await source_of(stack, address)
        await sink.publish(messages(10))
        await received(source, 10)
        stack.callback(kafka_cluster.start)
        kafka_cluster.stop()
        with pytest.raises(Unpublished):
            await sink.publish(messages(20, first=10))
        begun_s = time.monotonic()
        await sink.close()
        await source.close()
        assert time.monotonic() - begun_s < 5
        gc.collect()  # what is left open complains

    run(story)


def test_what_the_broker_refuses_for_now_is_asked_again(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-refused", 1)

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        kafka_cluster.fail(PRODUCE, NOT_LEADER, 2)
        await sink.publish(messages(30))
        source = await source_of(stack, address)
        records = await received(source, 30)
        assert data(records) == list(range(30))
        kafka_cluster.fail(OFFSET_COMMIT, COORDINATOR_NOT_AVAILABLE, 2)
        await source.commit(records[:29])
        await source.close()
        assert data(await received(await source_of(stack, address), 1)) == [29]

    run(story)


def test_fetches_no_more_ahead_than_is_bounded(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-bound", 1)

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(500))
        source: Any = await source_of(stack, address, max_records=20)
        await until(lambda: len(source._inbox) >= 20)
        first = await source.receive(5, 0)
        await until(lambda: len(source._inbox) >= 20)
        assert len(source._inbox) <= 40
        assert data(first + await received(source, 495, max_records=20)) == list(range(500))

    run(story)


def test_newest_is_settled_at_the_start_and_nothing_after_it_is_skipped(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-newest", 2)

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        await sink.publish(messages(10, partition_keys=5))
        first = await source_of(stack, address, start="newest", group="late")
        await sink.publish(messages(20, partition_keys=5, first=10))
        assert sorted(data(await received(first, 10))) == list(range(10, 20))
        await first.close()  # before anything was committed
        await sink.publish(messages(30, partition_keys=5, first=20))
        second = await source_of(stack, address, start="newest", group="late")
        assert sorted(data(await received(second, 20))) == list(range(10, 30))

    run(story)


def test_messages_up_to_the_limit_pass_and_larger_ones_say_what_to_do(kafka_cluster: KafkaCluster) -> None:
    address = kafka_cluster.make("kafka-large", 1)

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        assert sink.max_message_bytes == 1_000_000
        large = b"x" * (sink.max_message_bytes - 3)
        await sink.publish([Message(large, "k", "key")])
        (record,) = await received(await source_of(stack, address), 1)
        assert record.data == large
        with pytest.raises(BrokerError, match="max_message_bytes") as caught:
            await sink.publish([Message(b"x" * 1_100_000, "k2")])
        assert not caught.value.retryable
        other = await sink_of(stack, f"{address}?max_message_bytes=2000")
        assert other.max_message_bytes == 2000

    run(story)


def test_bytes_that_are_no_text_are_told_in_hex(kafka_cluster: KafkaCluster) -> None:
    from aiokafka import AIOKafkaProducer

    address = kafka_cluster.make("kafka-bytes", 1)

    async def story(stack: AsyncExitStack) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka_cluster.servers)
        await producer.start()
        stack.push_async_callback(producer.stop)
        await producer.send_and_wait("kafka-bytes", None, key=b"\xff\x01", headers=[("Trace", b"\xfe"), ("A", b"b")])
        await producer.send_and_wait("kafka-bytes", b"2")
        none, two = await received(await source_of(stack, address), 2)
        assert (none.data, none.partition_key, none.headers) == (b"", "ff01", {"trace": "fe", "a": "b"})
        assert (two.data, two.partition_key, two.headers) == (b"2", "", {})

    run(story)


def test_a_topic_that_is_not_there_is_told_and_not_made(kafka_cluster: KafkaCluster) -> None:
    address = f"kafka://{kafka_cluster.servers}/kafka-missing"

    async def story(stack: AsyncExitStack) -> None:
        for _ in range(2):
            for opened in (open_source(address, SourceOptions()), open_sink(address, {})):
                stack.push_async_callback(opened.close)
                with pytest.raises(BrokerError, match=r"kafka-topics\.sh --create --topic kafka-missing") as caught:
                    await opened.start()
                assert not caught.value.retryable

    run(story)


def test_a_broker_that_is_away_is_told_soon_and_without_the_password(free_port: int) -> None:
    address = f"kafka://me:s3cret@127.0.0.1:{free_port}/rides?security=sasl_plaintext"
    told_to_be_away(address, f"127.0.0.1:{free_port}/rides", "s3cret")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("kafka:///rides", "expected kafka://HOST:9092/TOPIC"),
        ("kafka://one:9092", "expected kafka://HOST:9092/TOPIC"),
        ("kafka://one/rides/new", "expected kafka://HOST:9092/TOPIC"),
        ("kafka://one/rides?compression=zstd", "no such option: compression"),
        ("kafka://one/rides?security=tls", "security: expected one of plaintext, ssl,"),
        ("kafka://a:b@one/rides?mechanism=gssapi", "mechanism: expected one of plain, scram-sha-256"),
        ("kafka://a:b@one/rides?security=ssl", "expected a login with security=sasl_ssl"),
        ("kafka://one/rides?security=sasl_ssl", "expected a login with security=sasl_ssl"),
        ("kafka://one/rides?security=ssl&ca=/no/such/file", "ca: expected a file of certificates"),
        ("kafka://one/rides?max_message_bytes=much", "expected a number of bytes"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        open_sink(address, {})


def test_several_brokers_and_a_login(kafka_cluster: KafkaCluster) -> None:
    source: Any = open_source("kafka://a:b%2Fc@one,two:9093/rides?mechanism=scram-sha-512", SourceOptions())
    cluster = source._cluster
    assert cluster.servers == ("one:9092", "two:9093")
    assert (cluster.security.username, cluster.security.password, cluster.security.use_ssl) == ("a", "b/c", True)
