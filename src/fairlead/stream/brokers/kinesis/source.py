"""A stream of Kinesis as a source: its shards shared by leases, each read by a task of its own."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from fairlead.errors import BrokerUnavailable
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers.kinesis.client import pause_s
from fairlead.stream.brokers.kinesis.holdings import Holdings
from fairlead.stream.brokers.kinesis.leases import Lease, Leases
from fairlead.stream.brokers.kinesis.reader import Reader
from fairlead.stream.brokers.kinesis.shards import SHARD_END, beginnings
from fairlead.stream.brokers.kinesis.stream import Stream
from fairlead.stream.brokers.kinesis.threads import Threads
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Lag, Record

# New shards are looked for when one has ended, and as often as this, for those of a copy that died in between.
_LIST_EVERY_S = 30.0
_ROUNDS_PER_LEASE = 3
_READ_AT_ONCE = 8
_WRITE_AT_ONCE = 4


class KinesisSource:
    """See `Source`.

    Parameters
    ----------
    leases : of this stream and group.
    """

    is_over = False

    def __init__(self, stream: Stream, leases: Leases, options: SourceOptions) -> None:
        self._stream = stream
        self._leases = leases
        self._options = options
        self._inbox = Inbox(2 * options.max_records)
        self._reading = Threads(_READ_AT_ONCE)
        self._writing = Threads(_WRITE_AT_ONCE)
        self._holdings = Holdings(leases, options.lease_s, self._writing)
        self._readers: dict[str, Reader] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._numbers = itertools.count()
        self._keeping: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_closing = False
        self._list_at_s = 0.0

    async def start(self) -> None:
        await self._writing.run(self._leases.open)
        await self._list_shards()
        await self._round()
        self._keeping = asyncio.create_task(self._guard(self._keep))

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        return await self._inbox.take(max_records, max_wait_s)

    async def commit(self, records: Sequence[Record]) -> None:
        last = {record.partition: record for record in records}
        outcomes = await asyncio.gather(*map(self._commit, last.values()), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def lag(self) -> list[Lag]:
        return [Lag(reader.partition, age_s=reader.behind_s) for reader in self._readers.values()]

    async def close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._keeping is not None:
            # Not cancelled at once: what it is about to take would be held by nobody.
            await asyncio.wait([self._keeping], timeout=self._options.lease_s)
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        held = list(self._readers)
        for shard in held:
            await self._stop(shard)
        releases = asyncio.gather(*map(self._holdings.release, held), return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(releases, self._options.lease_s)
        await self._writing.run(self._leases.close)
        self._stream.close()

    async def _commit(self, record: Record) -> None:
        number, sequence = record.position
        reader = self._readers.get(record.partition.rpartition("/")[2])
        if reader is None or reader.number != number:
            return  # the shard was lost since; whoever has it now does this record again
        if not await self._holdings.keep(reader.shard, sequence):
            await self._stop(reader.shard)
            return
        reader.done = sequence
        await self._end(reader)

    async def _end(self, reader: Reader) -> None:
        """Write down that a shard is read to its end, if it is, and look for its children."""
        if not self._is_ended(reader):
            return
        if await self._holdings.keep(reader.shard, SHARD_END):
            self._ended.add(reader.shard)
        self._readers.pop(reader.shard, None)
        self._tasks.pop(reader.shard, None)
        self._list_at_s = 0.0
        self._wake.set()

    def _is_ended(self, reader: Reader) -> bool:
        return reader.is_done and self._readers.get(reader.shard) is reader

    async def _keep(self) -> None:
        while not self._is_closing:
            try:
                await self._round()
                if time.monotonic() > self._list_at_s:
                    self._list_at_s = time.monotonic() + _LIST_EVERY_S  # before: a shard may end meanwhile
                    await self._list_shards()
                    await self._round()
            except BrokerUnavailable as error:
                self._list_at_s = 0.0
                await self._inbox.fail(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._options.lease_s / _ROUNDS_PER_LEASE)
            self._wake.clear()

    async def _list_shards(self) -> None:
        """Write down leases for new shards, and forget those of shards that are no more."""
        shards, now_s = await self._reading.run(self._stream.shards)
        known = {lease.shard: lease for lease in await self._writing.run(self._leases.all)}
        for shard, begin in beginnings(shards, known, self._options.start, now_s):
            await self._writing.run(self._leases.create, Lease(shard.id, begin, shard.parents))
        gone = known.keys() - {shard.id for shard in shards}
        for shard_id in gone:
            if shards and known[shard_id].checkpoint == SHARD_END:
                await self._writing.run(self._leases.delete, shard_id)

    async def _round(self) -> None:
        held = await self._holdings.round()
        for shard in self._readers.keys() - held.keys():
            await self._stop(shard)
        for shard in held.keys() - self._readers.keys() - self._ended:
            which = (self._stream, held[shard], next(self._numbers))
            reader = Reader(*which, self._inbox, self._options.max_records, self._reading)
            self._readers[shard] = reader
            self._tasks[shard] = asyncio.create_task(self._guard(partial(self._read, reader)))

    async def _read(self, reader: Reader) -> None:
        await reader.run()
        tries = 0
        while self._is_ended(reader):  # else the commit of its last record writes that down
            try:
                await self._end(reader)
            except BrokerUnavailable as error:
                tries += 1
                await self._inbox.fail(error)
                await asyncio.sleep(pause_s(tries))

    async def _stop(self, shard: str) -> None:
        """Read a shard no more, and forget what waits of it."""
        reader, task = self._readers.pop(shard, None), self._tasks.pop(shard, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if reader is not None:
            await self._inbox.discard(reader.partition)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have what goes on beside the loop end it when it fails for good, whatever else still works."""
        try:
            await work()
        except Exception as error:
            await self._inbox.fail(error)
