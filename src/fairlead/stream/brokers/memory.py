"""Streams in this process's memory, for tests and benchmarks: ``memory://NAME``.

Each has one partition, and keeps all that was published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from fairlead.errors import ConfigError
from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions
from fairlead.stream.records import Lag, Message, Record


class Stream:
    """A stream.

    Parameters
    ----------
    name : of it.

    Attributes
    ----------
    messages : that were published, in order.
    committed : how many of the first are done, by group.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Message] = []
        self.committed: dict[str, int] = {}
        self.is_closed = False
        self._changed = asyncio.Event()

    def publish(self, messages: Sequence[Message]) -> None:
        """Add messages."""
        self.messages.extend(messages)
        self._wake()

    def close(self) -> None:
        """Let readers end when they have read all."""
        self.is_closed = True
        self._wake()

    async def wait(self) -> None:
        """Return when there is something new."""
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


_streams: dict[str, Stream] = {}


def stream(name: str) -> Stream:
    """Give the stream of a name, which is made when it is first asked for."""
    return _streams.setdefault(name, Stream(name))


def forget(name: str) -> None:
    """Let go of a stream."""
    _streams.pop(name, None)


def open_source(address: Address, options: SourceOptions) -> MemorySource:
    """Read the stream that an address names."""
    return MemorySource(_named(address), options)


def open_sink(address: Address, environ: Mapping[str, str]) -> MemorySink:
    """Write to the stream that an address names."""
    return MemorySink(_named(address))


def _named(address: Address) -> Stream:
    address.check_options()
    if address.path or not address.netloc:
        raise ConfigError(f"{address}: expected memory://NAME")
    return stream(address.netloc)


class MemorySource:
    """Reads a stream. See `Source`."""

    def __init__(self, stream: Stream, options: SourceOptions) -> None:
        self.is_over = False
        self._stream = stream
        self._group = options.group
        self._start = 0 if options.start == "oldest" else len(stream.messages)
        self._position = 0

    async def start(self) -> None:
        self._position = self._stream.committed.setdefault(self._group, self._start)

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        stream = self._stream
        while len(stream.messages) == self._position:
            if stream.is_closed:
                self.is_over = True
                return []
            await stream.wait()
        if max_wait_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(max_wait_s):
                    while len(stream.messages) - self._position < max_records and not stream.is_closed:
                        await stream.wait()
        start, name = self._position, stream.name
        messages = stream.messages[start : start + max_records]
        self._position += len(messages)
        return [
            Record(one.data, f"{name}/{place}", name, place, one.partition_key)
            for place, one in enumerate(messages, start)
        ]

    async def commit(self, records: Sequence[Record]) -> None:
        self._stream.committed[self._group] = records[-1].position + 1

    def lag(self) -> list[Lag]:
        return [Lag(self._stream.name, len(self._stream.messages) - self._stream.committed.get(self._group, 0))]

    async def close(self) -> None:
        pass


class MemorySink:
    """Writes a stream. See `Sink`."""

    max_message_bytes: int | None = None

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def start(self) -> None:
        pass

    async def publish(self, messages: Sequence[Message]) -> None:
        self._stream.publish(messages)

    async def close(self) -> None:
        pass
