from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Record


def some(*numbers: int, partition: str = "p") -> list[Record]:
    return [Record(b"", str(number), partition) for number in numbers]


def keys(records: Sequence[Record]) -> list[int]:
    return [int(record.key) for record in records]


async def settled() -> None:
    """Let everything else run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_it_gives_records_in_their_order_and_no_more_than_asked_for() -> None:
    async def work() -> None:
        inbox = Inbox(10)
        await inbox.put(some(1, 2, 3))
        assert keys(await inbox.take(2, 60)) == [1, 2]
        assert keys(await inbox.take(2, 0)) == [3]
        assert len(inbox) == 0

    asyncio.run(work())


def test_it_waits_for_the_first_and_then_for_a_while() -> None:
    async def work() -> None:
        inbox = Inbox(10)
        taking = asyncio.create_task(inbox.take(3, 60))
        await settled()
        await inbox.put(some(1))
        await settled()
        assert not taking.done()
        await inbox.put(some(2, 3, 4))
        assert keys(await taking) == [1, 2, 3]
        assert keys(await inbox.take(3, 0.01)) == [4]

    asyncio.run(work())


def test_who_puts_waits_for_room() -> None:
    async def work() -> None:
        inbox = Inbox(2)
        await inbox.put(some(1, 2, 3))  # one may go beyond
        putting = asyncio.create_task(inbox.put(some(4)))
        await settled()
        assert (len(inbox), putting.done()) == (3, False)
        assert keys(await inbox.take(1, 0)) == [1]
        await settled()
        assert not putting.done()
        assert keys(await inbox.take(1, 0)) == [2]
        await putting
        assert keys(await inbox.take(9, 0)) == [3, 4]

    asyncio.run(work())


def test_taking_may_be_cancelled_without_a_loss() -> None:
    async def work() -> None:
        inbox = Inbox(10)
        for has_one in (False, True):
            if has_one:
                await inbox.put(some(1))
            taking = asyncio.create_task(inbox.take(5, 60))
            await settled()
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
        assert keys(await inbox.take(5, 0)) == [1]

    asyncio.run(work())


def test_taking_may_be_cancelled_as_a_record_comes() -> None:
    async def work() -> None:
        for turns in range(6):
            inbox = Inbox(10)
            taking = asyncio.create_task(inbox.take(5, 0))
            await settled()
            putting = asyncio.create_task(inbox.put(some(1)))
            for _ in range(turns):
                await asyncio.sleep(0)
            taking.cancel()
            got = await asyncio.gather(taking, return_exceptions=True)
            await putting
            if isinstance(got[0], BaseException):
                assert keys(await inbox.take(5, 0)) == [1]
            else:
                assert keys(got[0]) == [1]

    asyncio.run(work())


def test_an_error_comes_after_what_came_before_it_and_once() -> None:
    async def work() -> None:
        inbox = Inbox(10)
        await inbox.put(some(1))
        await inbox.fail(BrokerUnavailable("away"))
        assert keys(await inbox.take(5, 0)) == [1]
        with pytest.raises(BrokerUnavailable, match="away"):
            await inbox.take(5, 0)
        taking = asyncio.create_task(inbox.take(5, 0))
        await settled()
        assert not taking.done()
        await inbox.fail(BrokerUnavailable("again"))
        with pytest.raises(BrokerUnavailable, match="again"):
            await taking

    asyncio.run(work())


@pytest.mark.parametrize("error", [BrokerError("no such stream"), RuntimeError("a fault of ours")])
def test_an_error_for_good_is_heard_at_once_and_ever_after(error: Exception) -> None:
    async def work() -> None:
        inbox = Inbox(10)
        await inbox.put(some(1))
        await inbox.fail(error)
        await inbox.fail(BrokerUnavailable("away"))
        for _ in range(2):
            with pytest.raises(type(error), match=str(error)):
                await inbox.take(5, 0)

    asyncio.run(work())


def test_what_another_copy_reads_by_now_is_forgotten() -> None:
    async def work() -> None:
        inbox = Inbox(4)
        await inbox.put([*some(1, 2), *some(3, partition="other"), *some(4)])
        putting = asyncio.create_task(inbox.put(some(5, partition="other")))
        await settled()
        await inbox.discard("p")
        await putting  # there is room again
        assert keys(await inbox.take(9, 0)) == [3, 5]

    asyncio.run(work())


def test_taking_goes_on_when_what_it_saw_is_forgotten() -> None:
    async def work() -> None:
        inbox = Inbox(4)
        await inbox.put(some(1))
        taking = asyncio.create_task(inbox.take(2, 0.01))
        await settled()
        await inbox.discard("p")
        assert await taking == []

    asyncio.run(work())
