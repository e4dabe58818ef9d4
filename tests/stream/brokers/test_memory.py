from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import memory
from fairlead.stream.records import Lag, Message

ADDRESS = Address.parse("memory://rides")


@pytest.fixture
def stream() -> Iterator[memory.Stream]:
    yield memory.stream("rides")
    memory.forget("rides")


def source(**options: Any) -> memory.MemorySource:
    return memory.open_source(ADDRESS, SourceOptions(**options))


def messages(*numbers: int) -> list[Message]:
    return [Message(b"%d" % number, str(number), "p") for number in numbers]


def test_what_was_published_is_read_in_its_order(stream: memory.Stream) -> None:
    async def work() -> None:
        sink = memory.open_sink(ADDRESS, {})
        await sink.start()
        await sink.publish(messages(1, 2, 3))
        one = source()
        await one.start()
        first = await one.receive(2, 60)
        assert [(each.data, each.key, each.partition, each.partition_key) for each in first] == [
            (b"1", "rides/0", "rides", "p"),
            (b"2", "rides/1", "rides", "p"),
        ]
        assert [each.data for each in await one.receive(2, 0)] == [b"3"]
        stream.close()
        assert (await one.receive(2, 60), one.is_over) == ([], True)
        await sink.close()
        await one.close()

    asyncio.run(work())


def test_a_batch_waits_for_more(stream: memory.Stream) -> None:
    async def work() -> None:
        one = source()
        await one.start()
        receiving = asyncio.create_task(one.receive(3, 60))
        await asyncio.sleep(0)
        for number in (1, 2, 3):
            assert not receiving.done()
            stream.publish(messages(number))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len(await receiving) == 3
        stream.publish(messages(4))
        assert len(await one.receive(3, 0.01)) == 1
        stream.publish(messages(5))
        receiving = asyncio.create_task(one.receive(3, 60))
        await asyncio.sleep(0)
        stream.close()
        assert len(await receiving) == 1

    asyncio.run(work())


def test_what_is_not_committed_is_handed_out_again(stream: memory.Stream) -> None:
    async def work() -> None:
        stream.publish(messages(1, 2, 3))
        one = source()
        await one.start()
        assert one.lag() == [Lag("rides", 3)]
        await one.commit(await one.receive(2, 0))
        await one.receive(2, 0)
        assert one.lag() == [Lag("rides", 1)]
        await one.start()
        assert [each.data for each in await one.receive(9, 0)] == [b"3"]
        other = source(group="other")
        await other.start()
        assert len(await other.receive(9, 0)) == 3

    asyncio.run(work())


def test_a_new_group_may_begin_at_the_end(stream: memory.Stream) -> None:
    async def work() -> None:
        stream.publish(messages(1, 2))
        one = source(start="newest")
        await one.start()
        stream.publish(messages(3))
        assert [each.data for each in await one.receive(9, 0)] == [b"3"]
        again = source(start="newest")
        await again.start()
        assert [each.data for each in await again.receive(9, 0)] == [b"3"]

    asyncio.run(work())


def test_receiving_may_be_cancelled_without_a_loss(stream: memory.Stream) -> None:
    async def work() -> None:
        one = source()
        await one.start()
        stream.publish(messages(1))
        receiving = asyncio.create_task(one.receive(3, 60))
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert len(await one.receive(3, 0)) == 1

    asyncio.run(work())
