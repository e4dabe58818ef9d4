"""Writes to a Redis stream.

Layer L3; imports redis and faststream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from redis.exceptions import ResponseError

from fairlead.errors import BrokerUnavailable
from fairlead.stream.address import Address
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers.redis.connection import FAULTS, Connection
from fairlead.stream.records import Message

# Well below what Redis lets a client have in hand by default, 1 GiB.
_TOGETHER_BYTES = 16 * 2**20


class RedisSink:
    """Adds an entry for each message: the fields ``data``, ``idempotency_key`` and, unless empty, ``partition_key``."""

    def __init__(self, address: Address) -> None:
        # proto-max-bulk-len, as Redis comes.
        self.max_message_bytes: int | None = 512 * 2**20
        self._connection = Connection(address)
        self._head: list[str | bytes] = ["XADD", self._connection.stream]
        if "maxlen" in address.options:
            self._head += ["MAXLEN", "~", address.options["maxlen"]]
        self._head += ["*", "data"]

    async def start(self) -> None:
        await self._connection.start()

    async def publish(self, messages: Sequence[Message]) -> None:
        for start, stop in _together(messages):
            try:
                await self._add(messages[start:stop])
            except FAULTS as error:
                told = await self._connection.told(error)
                if not isinstance(told, BrokerUnavailable):
                    raise told from error
                raise Unpublished(str(told), messages[start:]) from error

    async def _add(self, messages: Sequence[Message]) -> None:
        # FastStream publishes one by one. As a transaction all are added or none, so that no order is broken.
        pipeline = self._connection.client.pipeline(transaction=True)
        for message in messages:
            fields = [message.data, "idempotency_key", message.key]
            if message.partition_key:
                fields += ["partition_key", message.partition_key]
            pipeline.execute_command(*self._head, *fields)
        for answer in await pipeline.execute(raise_on_error=False):
            if isinstance(answer, ResponseError):
                raise answer

    async def close(self) -> None:
        await self._connection.close()


def _together(messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """Give the bounds of what is added at once: as much as one transaction may hold, and at least one message."""
    start = size_bytes = 0
    for place, message in enumerate(messages):
        size_bytes += len(message.data)
        if size_bytes > _TOGETHER_BYTES and place > start:
            yield start, place
            start, size_bytes = place, len(message.data)
    if start < len(messages):
        yield start, len(messages)
