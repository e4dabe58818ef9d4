"""Stories of sources and sinks, for tests of brokers: told within a time, everything closed at their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from fairlead.errors import BrokerUnavailable
from fairlead.stream.broker import Sink, Source, SourceOptions
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.records import Message, Record

WAIT_S = 30.0
# Where nobody listens; more than one try and less than a user's patience.
SOON_S = 6.0


def run(story: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
    async def told() -> None:
        async with asyncio.timeout(WAIT_S), AsyncExitStack() as stack:
            await story(stack)

    asyncio.run(told())


async def source_of(stack: AsyncExitStack, address: str, **options: Any) -> Any:
    source: Source = open_source(address, SourceOptions(**options))
    stack.push_async_callback(source.close)
    await source.start()
    return source


async def sink_of(stack: AsyncExitStack, address: str) -> Sink:
    sink = open_sink(address, {})
    stack.push_async_callback(sink.close)
    await sink.start()
    return sink


def told_to_be_away(address: str, where: str, secret: str) -> None:
    """See that a broker where nobody listens is named as such, soon, and without the password."""

    async def story(stack: AsyncExitStack) -> None:
        for opened in (open_source(address, SourceOptions()), open_sink(address, {})):
            stack.push_async_callback(opened.close)
            with pytest.raises(BrokerUnavailable, match=where) as caught:
                async with asyncio.timeout(SOON_S):
                    await opened.start()
            assert secret not in str(caught.value)

    run(story)


async def received(source: Source, count: int, max_records: int = 100) -> list[Record]:
    records: list[Record] = []
    while len(records) < count:
        with suppress(BrokerUnavailable):  # as the loop does, which asks again
            records += await source.receive(min(max_records, count - len(records)), 0.05)
    return records


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.02)


def messages(count: int, *, partition_keys: int = 1, first: int = 0) -> list[Message]:
    return [Message(b"%d" % number, f"in/{number}", f"p{number % partition_keys}") for number in range(first, count)]


def data(records: Sequence[Record]) -> list[int]:
    return [int(record.data) for record in records]
