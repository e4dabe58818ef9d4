"""Sources and sinks as tests of brokers use them: opened and closed, read until so many have come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fairlead.errors import BrokerUnavailable
from fairlead.stream.broker import Sink, Source, SourceOptions
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.records import Record

WAIT_S = 30


@asynccontextmanager
async def reading(url: str, **options: Any) -> AsyncIterator[Source]:
    source = open_source(url, SourceOptions(**options))
    await source.start()
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Sink]:
    sink = open_sink(url, {})
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


async def received(source: Source, count: int, *, commit: bool = True) -> list[Record]:
    """Receive so many records, over whatever a broker that is away raises."""
    records: list[Record] = []
    async with asyncio.timeout(WAIT_S):
        while len(records) < count:
            try:
                some = await source.receive(count - len(records), 0.05)
            except BrokerUnavailable:
                continue
            if commit:
                await source.commit(some)
            records += some
    return records


async def received_until_away(source: Source, records: list[Record]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            records += await source.receive(10, 0)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.02)
