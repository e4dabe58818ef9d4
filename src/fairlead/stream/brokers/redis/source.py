"""Reads a Redis stream as one consumer of a group.

FastStream's own subscriber is not used: it makes JSON of a batch and back, ends for good when the group is gone,
claims from consumers that live, and forgets what it was given when a connection breaks.

Layer L3; imports redis and faststream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from fairlead.errors import BrokerUnavailable
from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers.redis.connection import FAULTS, Connection
from fairlead.stream.brokers.redis.entries import record
from fairlead.stream.brokers.redis.group import Entry, Group
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Lag, Record

_LOG = logging.getLogger(__name__)
# How long a read waits for entries; then it looks whether a consumer died.
_READ_S = 1.0
_MAX_PAUSE_S = 2.0
_CLOSE_S = 2.0
_PATIENCE_S = 0.5


class RedisSource:
    """Gives entries as records, and acknowledges those that are committed."""

    is_over = False

    def __init__(self, address: Address, options: SourceOptions) -> None:
        self._connection = Connection(address)
        self._group = Group(self._connection, options.group, options.lease_s)
        self._options = options
        self._inbox = Inbox(options.max_records)
        # What this consumer was given and has not done, in that order.
        self._held: dict[str, None] = {}
        self._dead: list[str] = []
        # Whether Redis may have given us what we do not hold: an answer was lost.
        self._is_torn = False
        self._lag: list[Lag] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._connection.start()
        try:
            await self._group.join("0" if self._options.start == "oldest" else "$")
        except FAULTS as error:
            raise await self._connection.told(error) from error
        self._tasks = [asyncio.create_task(self._watched(work)) for work in (self._fetch, self._live)]

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        return await self._inbox.take(max_records, max_wait_s)

    async def commit(self, records: Sequence[Record]) -> None:
        ids = [record.position for record in records]
        try:
            await self._group.done(ids)
        except FAULTS as error:
            raise await self._connection.told(error) from error
        for entry_id in ids:
            self._held.pop(entry_id, None)

    def lag(self) -> list[Lag]:
        return self._lag

    async def close(self) -> None:
        left = set(self._tasks)
        while left:  # more than once: a call to Redis may swallow it when its answer comes at the same moment
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=_PATIENCE_S)
        if self._tasks:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_S):
                    await self._group.release()
        await self._connection.close()

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # a fault of ours must not look like an empty stream
            await self._inbox.fail(error)
            raise

    async def _fetch(self) -> None:
        """Fetch ahead, for as long as there is room."""
        pause_s = 0.1
        while True:
            try:
                records = self._taken(await self._read())
            except FAULTS as error:
                self._is_torn = True
                await self._inbox.fail(await self._connection.told(error))
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
            else:
                pause_s = 0.1
                if records:
                    await self._inbox.put(records)

    async def _read(self) -> Sequence[Entry]:
        count = self._options.max_records
        if self._is_torn:
            # A group that was there is gone with all that the stream had: whatever is there now is new.
            await self._group.join("0")
            lost = await self._lost()
            self._is_torn = False
            if lost:
                return lost
        while self._dead:
            name = self._dead[0]
            entries, is_gone = await self._group.take_over(name, count)
            if is_gone:
                self._dead = [other for other in self._dead if other != name]
            if entries:
                return entries
        return await self._group.read(">", count, _READ_S)

    async def _lost(self) -> list[Entry]:
        """Read what this consumer was given in an answer that never came."""
        found: list[Entry] = []
        gone: list[str] = []
        after = "0"
        while entries := await self._group.read(after, self._options.max_records):
            after = entries[-1][0].decode()
            found += [entry for entry in entries if entry[1] and entry[0].decode() not in self._held]
            gone += [entry[0].decode() for entry in entries if not entry[1]]
        if gone:
            _LOG.warning("%s: %d entries were deleted before they were done", self._connection.stream, len(gone))
            await self._group.done(gone)
        return found

    def _taken(self, entries: Sequence[Entry]) -> list[Record]:
        records = [record(self._connection.stream, *entry) for entry in entries]
        self._held.update((one.position, None) for one in records)
        return records

    async def _live(self) -> None:
        """Show that we live, and look who does not, whether or not there is room for more."""
        while True:
            try:
                await self._group.live()
                self._dead = await self._group.dead()
                self._lag = [await self._group.lag()]
            except FAULTS as error:
                told = await self._connection.told(error)
                if not isinstance(told, BrokerUnavailable):  # of what may pass, the reading tells
                    await self._inbox.fail(told)
            await asyncio.sleep(self._options.lease_s / 3)
