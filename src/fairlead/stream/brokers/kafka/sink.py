"""A topic as a sink, written by an idempotent producer.

Such a producer repeats what a broker did not answer until it does, without doubling it and in order. So a message
that has no answer in time is neither lost nor sent again here: its answer is waited for in the next call.
Layer L3; imports aiokafka and FastStream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiokafka import errors as kafka_errors
from faststream.kafka import KafkaBroker

from fairlead.errors import BrokerError
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers.kafka.cluster import REQUEST_S, Cluster
from fairlead.stream.records import Message

_CLOSE_S = 2.0
_BATCH_BYTES = 256 * 1024
# For the headers, and for what Kafka writes around a message.
_AROUND_BYTES = 48_000


class KafkaSink:
    """A topic. See `Sink`.

    Parameters
    ----------
    cluster : where it is.
    max_message_bytes : that it takes.
    """

    def __init__(self, cluster: Cluster, max_message_bytes: int) -> None:
        self.max_message_bytes: int | None = max_message_bytes
        self._max_request_bytes = max_message_bytes + _AROUND_BYTES
        self._cluster = cluster
        self._broker: KafkaBroker | None = None
        self._sent: dict[str, asyncio.Future[Any]] = {}

    async def start(self) -> None:
        await self._open()

    async def publish(self, messages: Sequence[Message]) -> None:
        failure = await self._send(messages)
        waiting = [self._sent[message.key] for message in messages if message.key in self._sent]
        if waiting:
            await asyncio.wait(waiting, timeout=REQUEST_S)
        failures = [found for answer in waiting if answer.done() and (found := answer.exception())]
        rest = [message for message in messages if not self._is_answered(message.key)]
        self._sent = {key: answer for key, answer in self._sent.items() if not answer.done()}
        if failures:
            # What follows a message that a producer has given up would be refused for its number.
            failure = failures[0]
            await self._drop()
        if failure is not None and not (told := self._cluster.told(failure)).retryable:
            raise told
        if rest:
            reason = self._cluster.told(failure or TimeoutError("no answer from the brokers"))
            raise Unpublished(f"{len(rest)} of {len(messages)} messages are not known to be kept: {reason}", rest)

    async def close(self) -> None:
        await self._drop()

    def _is_answered(self, key: str) -> bool:
        answer = self._sent.get(key)
        return answer is not None and answer.done() and answer.exception() is None

    async def _send(self, messages: Sequence[Message]) -> BaseException | None:
        """Hand messages to the producer, and give what came between."""
        try:
            async with asyncio.timeout(REQUEST_S):
                broker = self._broker or await self._open()
                for message in messages:
                    if message.key not in self._sent:
                        self._sent[message.key] = await self._hand(broker, message)
        except (kafka_errors.KafkaError, BrokerError, OSError, TimeoutError) as error:
            return error
        return None

    async def _hand(self, broker: KafkaBroker, message: Message) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = await broker.publish(
            message.data,
            self._cluster.topic,
            key=message.partition_key.encode() or None,
            headers={"idempotency-key": message.key},
            correlation_id=message.key,
            no_confirm=True,
        )
        # One that nobody waits for any more is no fault that asyncio should complain of.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return answer

    async def _open(self) -> KafkaBroker:
        await self._cluster.check()
        broker = KafkaBroker(
            list(self._cluster.servers),
            security=self._cluster.security,
            request_timeout_ms=int(REQUEST_S * 1000),
            acks="all",
            enable_idempotence=True,
            max_request_size=self._max_request_bytes,
            max_batch_size=_BATCH_BYTES,
            apply_types=False,
            logger=None,
        )
        try:
            await broker.start()
        except (kafka_errors.KafkaError, OSError) as error:
            raise self._cluster.told(error) from error
        self._broker = broker
        return broker

    async def _drop(self) -> None:
        broker, self._broker = self._broker, None
        self._sent = {}
        if broker is None:
            return
        producer = _producer(broker)
        with suppress(Exception):
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await broker.stop()
            finally:
                # An idempotent producer does not stop while a broker is away and something is unanswered.
                producer._message_accumulator.fail_all(kafka_errors.ProducerClosed())
                await producer._sender.close()
                await producer.client.close()


def _producer(broker: KafkaBroker) -> Any:
    """Give aiokafka's producer, for which FastStream has no public name."""
    held: Any = broker.config.producer
    return held._producer.producer
