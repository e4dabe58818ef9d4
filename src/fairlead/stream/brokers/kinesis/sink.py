"""A stream of Kinesis as a sink."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.stream.brokers.kinesis.threads import Threads
from fairlead.stream.brokers.kinesis.writer import MAX_MESSAGE_BYTES, Writer
from fairlead.stream.records import Message


class KinesisSink:
    """See `Sink`. There is no place for the idempotency key but the data."""

    max_message_bytes: int | None = MAX_MESSAGE_BYTES

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._threads = Threads(1)

    async def start(self) -> None:
        await self._threads.run(self._writer.check)

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._threads.run(self._writer.put, messages)

    async def close(self) -> None:
        await self._threads.run(self._writer.close)
