"""One shard, read in its order."""

from __future__ import annotations

import asyncio
import time

from fairlead.errors import BrokerUnavailable
from fairlead.stream.brokers.kinesis.client import IteratorExpired, Missing, Throttled, pause_s
from fairlead.stream.brokers.kinesis.leases import Lease
from fairlead.stream.brokers.kinesis.stream import Read, Stream
from fairlead.stream.brokers.kinesis.threads import Threads
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Record

# A shard answers five calls a second, to all its readers together.
_EACH_S = 0.2
_IDLE_S = 0.5
# A shard takes up to a thousand records a second: less than this in a call would fall behind for ever.
_LEAST_RECORDS = 500
_MOST_RECORDS = 10_000
# After so much silence of the shard, or of ours because the output is slow, it adds to how far we are behind.
_SILENT_S = 5.0
# It is usual to be throttled now and then; after so many times it is worth being told.
_THROTTLED_TIMES = 5


class Reader:
    """Reads a shard from a checkpoint to its end, if it has one, into an inbox.

    Parameters
    ----------
    lease : says which shard, and from where.
    number : tells this reader's records from those of another one of the same shard.
    max_records : of one batch.

    Attributes
    ----------
    shard : its id.
    done : the sequence number of the last record that was committed; None before the first.
    """

    def __init__(
        self, stream: Stream, lease: Lease, number: int, inbox: Inbox, max_records: int, threads: Threads
    ) -> None:
        self.shard = lease.shard
        self.partition = f"{stream.name}/{lease.shard}"
        self.number = number
        self.done: str | None = None
        self._stream = stream
        self._begin = lease.checkpoint
        self._handed_out: str | None = None
        self._is_at_end = False
        self._inbox = inbox
        self._max_records = max_records
        self._threads = threads
        self._behind_s: float | None = None
        self._answered_s = 0.0

    @property
    def is_done(self) -> bool:
        """Whether the shard was closed, and all of its records are committed."""
        return self._is_at_end and self.done == self._handed_out

    @property
    def behind_s(self) -> float | None:
        """How far what was read last is behind the newest; None before the first answer."""
        silent_s = time.monotonic() - self._answered_s
        return self._behind_s if self._behind_s is None or silent_s < _SILENT_S else self._behind_s + silent_s

    async def run(self) -> None:
        """Read until the shard's end.

        Raises
        ------
        BrokerError
            When no other try may do. Until then trouble is told through the inbox, and tried again.
        """
        iterator: str | None = None
        at_once = min(_MOST_RECORDS, max(_LEAST_RECORDS, self._max_records))
        tries = 0
        while True:
            asked_s = time.monotonic()
            try:
                if iterator is None:
                    iterator = await self._threads.run(
                        self._stream.iterator, self.shard, self._handed_out or self._begin
                    )
                read = await self._threads.run(self._stream.read, iterator, at_once)
            except IteratorExpired:
                iterator = None  # another one, from after the last that was handed out
                tries += 1
            except BrokerUnavailable as error:
                tries += 1
                if not isinstance(error, Throttled) or tries >= _THROTTLED_TIMES:
                    await self._inbox.fail(error)
            except Missing:
                if not await self._is_gone():
                    raise
                break
            else:
                tries = 0
                await self._hand_out(read)
                if (iterator := read.iterator) is None:
                    break
                pause = _EACH_S if read.records or read.behind_s else _IDLE_S
                await asyncio.sleep(max(0.0, asked_s + pause - time.monotonic()))
                continue
            await asyncio.sleep(pause_s(tries))
        self._is_at_end = True

    async def _hand_out(self, read: Read) -> None:
        self._behind_s, self._answered_s = read.behind_s, time.monotonic()
        records = [
            Record(
                data=told["Data"],
                key=f"{self.partition}/{told['SequenceNumber']}",
                partition=self.partition,
                position=(self.number, told["SequenceNumber"]),
                partition_key=told["PartitionKey"],
                arrived_at_s=told["ApproximateArrivalTimestamp"].timestamp(),
            )
            for told in read.records
        ]
        for start in range(0, len(records), self._max_records):
            batch = records[start : start + self._max_records]
            self._handed_out = batch[-1].position[1]
            await self._inbox.put(batch)

    async def _is_gone(self) -> bool:
        """Whether the shard is too old to be kept, unlike its stream."""
        while True:
            try:
                return await self._threads.run(self._stream.is_gone, self.shard)
            except BrokerUnavailable as error:
                await self._inbox.fail(error)
                await asyncio.sleep(_IDLE_S)
