"""A topic as a source, read as one member of a group.

FastStream connects, joins the group and holds the consumer, acknowledging nothing itself. Its own loop around a
handler is not used: between its taking records and its calling a handler, a partition may be taken away and given
back, and nobody could tell that the records are those from before. Layer L3; imports aiokafka and FastStream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka import errors as kafka_errors
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from fairlead.errors import BrokerUnavailable
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers.kafka.cluster import REQUEST_S, START_S, Cluster
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Lag, Record

_JOIN_S = 60.0
_RETRY_S = 0.5
# So long with no record, and the broker is asked whether it is there.
_IDLE_S = 3.0
# A slow output holds up the fetching for as long as it lasts; heartbeats tell that this copy is alive.
_MAX_POLL_S = 3600.0


class KafkaSource:
    """A topic. See `Source`.

    Parameters
    ----------
    cluster : where it is.
    options : the group, where it begins, and how much is fetched ahead.
    """

    is_over = False

    def __init__(self, cluster: Cluster, options: SourceOptions) -> None:
        self._cluster = cluster
        self._options = options
        self._inbox = Inbox(options.max_records)
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        # Counts how often partitions were taken away: what was fetched before is not ours to commit any more.
        self._generation = 0
        self._next: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        partitions = await self._cluster.check()
        if self._options.start == "newest":
            await self._cluster.begin_at_end(self._options.group, partitions)
        self._task = asyncio.create_task(self._fetch())

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        return await self._inbox.take(max_records, max_wait_s)

    async def commit(self, records: Sequence[Record]) -> None:
        offsets: dict[TopicPartition, int] = {}
        for record in records:
            generation, partition, offset = record.position
            if generation == self._generation:
                offsets[partition] = offset + 1
        if not offsets or self._consumer is None:
            return
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._consumer.commit(offsets)
        except (kafka_errors.CommitFailedError, kafka_errors.IllegalStateError):
            return  # moved to another copy, which does it again
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise self._cluster.told(error) from error
        self._next |= offsets

    def lag(self) -> list[Lag]:
        if self._consumer is None:
            return []
        found = []
        for partition in sorted(self._consumer.assignment()):
            end = self._consumer.highwater(partition)
            waiting = None if end is None else max(0, end - self._next.get(partition, end))
            found.append(Lag(_name(partition), waiting))
        return found

    async def close(self) -> None:
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * START_S)

    async def revoke(self) -> None:
        """Forget what was fetched: from now on, what is not committed is handed out again, here or elsewhere."""
        self._generation += 1
        held, self._next = list(self._next), {}
        for partition in held:
            await self._inbox.discard(_name(partition))

    async def _fetch(self) -> None:
        while True:
            try:
                await self._consume()
            except Exception as error:  # whatever it is, whoever receives has to know
                await self.revoke()
                await self._inbox.fail(self._cluster.told(error))
            await asyncio.sleep(_RETRY_S)

    async def _consume(self) -> None:
        broker = KafkaBroker(
            list(self._cluster.servers),
            security=self._cluster.security,
            request_timeout_ms=int(REQUEST_S * 1000),
            consumer_only=True,
            apply_types=False,
            logger=None,
        )
        lease_ms = int(self._options.lease_s * 1000)
        subscriber = broker.subscriber(
            self._cluster.topic,
            batch=True,
            group_id=self._options.group,
            # Where a new group begins is settled at the start; from then on nothing may be skipped.
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            isolation_level="read_committed",
            session_timeout_ms=lease_ms,
            heartbeat_interval_ms=lease_ms // 4,
            max_poll_interval_ms=int(_MAX_POLL_S * 1000),
            listener=_Listener(self),
        )
        try:
            async with asyncio.timeout(_JOIN_S):
                await broker.start()
            assert subscriber.consumer is not None
            self._consumer = subscriber.consumer
            await self._poll(subscriber.consumer)
        finally:
            self._consumer = None
            with suppress(Exception):
                async with asyncio.timeout(START_S):
                    await broker.stop()

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        heard_s = time.monotonic()
        while True:
            await self._inbox.put(())  # waits for room
            fetched: dict[TopicPartition, list[ConsumerRecord]] = {}
            # The limit is for a group that cannot agree; nothing is lost, as records leave the consumer at the end.
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * _IDLE_S):
                    fetched = await consumer.getmany(
                        timeout_ms=int(_IDLE_S * 1000), max_records=self._options.max_records
                    )
            # No other task has run since the records left the consumer: they are of this generation. And the inbox
            # has room and serves in turn, so that a later `discard` finds them there.
            await self._inbox.put(self._records(fetched))
            if fetched:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s >= _IDLE_S:
                await self._ask(consumer)
                heard_s = time.monotonic()

    async def _ask(self, consumer: AIOKafkaConsumer) -> None:
        """Find out whether nothing comes because nothing is there; the consumer itself says nothing, and reconnects."""
        partitions = list(consumer.assignment())
        try:
            async with asyncio.timeout(START_S):
                await (consumer.end_offsets(partitions) if partitions else consumer.topics())
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            told = self._cluster.told(error)
            await self._inbox.fail(told if told.retryable else BrokerUnavailable(str(told)))

    def _records(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> list[Record]:
        records = []
        for partition, messages in fetched.items():
            self._next.setdefault(partition, messages[0].offset)
            name = _name(partition)
            records += [self._record(message, name, partition) for message in messages]
        return records

    def _record(self, message: ConsumerRecord, name: str, partition: TopicPartition) -> Record:
        return Record(
            data=message.value or b"",
            key=f"{name}/{message.offset}",
            partition=name,
            position=(self._generation, partition, message.offset),
            partition_key=_text(message.key),
            arrived_at_s=message.timestamp / 1000,
            headers={header.lower(): _text(value) for header, value in message.headers},
        )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Hears that partitions go to other copies, before they get them. All are taken, and some given back."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._source.revoke()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        pass


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _text(value: bytes | None) -> str:
    if value is None:
        return ""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
