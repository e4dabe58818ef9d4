"""Publishes to RabbitMQ.

Layer L3; imports aio-pika and faststream.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiormq import spec
from aiormq.abc import AbstractChannel
from aiormq.exceptions import PublishError

from fairlead.errors import BrokerUnavailable
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers.amqp.connection import Connection
from fairlead.stream.brokers.amqp.place import FAULTS, Place, meaning
from fairlead.stream.records import Message

# So long may RabbitMQ leave messages unconfirmed, as when its disk is full.
_CONFIRM_S = 60.0
# What AMQP calls a short string.
_MAX_ID_BYTES = 255
_PERSISTENT = 2


class AmqpSink:
    """Publishes persistent messages, and waits until RabbitMQ confirms each; the message id is the idempotency key.

    A key of more than 255 bytes does not fit there: then the id is its SHA-256, and the header ``idempotency_key``
    has it whole. A partition key is in the header ``partition_key``.
    """

    def __init__(self, place: Place, exchange: str, routing_key: str) -> None:
        # The limit that RabbitMQ comes with.
        self.max_message_bytes: int | None = 128 * 2**20
        self._place = place
        self._exchange = exchange
        self._routing_key = routing_key
        self._connection: Connection | None = None

    async def start(self) -> None:
        await self._opened()

    async def publish(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        try:
            channel = (await self._opened()).channel
        except BrokerUnavailable as error:
            raise Unpublished(str(error), messages) from error
        # FastStream and aio-pika would wait for each before the next.
        sending = [self._send(channel, message) for message in messages]
        answers = await asyncio.gather(*sending, return_exceptions=True)
        wrong = {message.key: answer for message, answer in zip(messages, answers, strict=True) if answer is not None}
        if wrong:
            await self._refuse(messages, wrong)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _opened(self) -> Connection:
        if self._connection is not None and self._connection.has_ended:
            await self.close()
        if self._connection is None:
            connection = await Connection.open(self._place)
            try:
                await self._look(connection)
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
        return self._connection

    async def _look(self, connection: Connection) -> None:
        """Find out now whether there is something to publish to."""
        if self._exchange:
            await connection.asked(connection.channel.exchange_declare(self._exchange, passive=True))
        else:
            await connection.declare()

    async def _send(self, channel: AbstractChannel, message: Message) -> None:
        await channel.basic_publish(
            message.data,
            exchange=self._exchange,
            routing_key=self._routing_key,
            properties=_properties(message),
            mandatory=True,
            timeout=_CONFIRM_S,
        )

    async def _refuse(self, messages: Sequence[Message], wrong: dict[str, BaseException]) -> None:
        """Raise for the first that failed; all from there on are to be published again, which keeps their order."""
        first = next(place for place, message in enumerate(messages) if message.key in wrong)
        error = wrong[messages[first].key]
        # aiormq cancels what waits for a confirmation when its connection ends.
        if not isinstance(error, (*FAULTS, asyncio.CancelledError)):
            raise error
        if isinstance(error, PublishError):
            text = f"{self._place.address}: a message reached no queue: make {self._routing_key}, or a binding to one"
            raise Unpublished(text, messages[first:]) from error
        if isinstance(error, TimeoutError):
            await self.close()  # what was not sent yet must not be sent beside the next try
        told = meaning(self._place, error)
        if isinstance(told, BrokerUnavailable):
            raise Unpublished(str(told), messages[first:]) from error
        raise told from error


def _properties(message: Message) -> spec.Basic.Properties:
    key = message.key.encode()
    headers: dict[str, Any] = {}
    if message.partition_key:
        headers["partition_key"] = message.partition_key
    if len(key) > _MAX_ID_BYTES:
        headers["idempotency_key"] = message.key
    return spec.Basic.Properties(
        message_id=message.key if len(key) <= _MAX_ID_BYTES else hashlib.sha256(key).hexdigest(),
        delivery_mode=_PERSISTENT,
        timestamp=datetime.now(UTC),
        headers=headers,
    )
