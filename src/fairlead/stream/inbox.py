"""What is fetched ahead: a bounded queue between the tasks that fetch and the loop that takes batches.

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from fairlead.errors import BrokerUnavailable
from fairlead.stream.records import Record

# A source that cannot fetch says so again within this time.
_QUIET_S = 10.0


class Inbox:
    """Holds records until they are taken, on one event loop.

    Parameters
    ----------
    max_records : that wait at most; whoever puts more waits. One put may go beyond it.
    """

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._records: deque[Record] = deque()
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._records)

    async def put(self, records: Sequence[Record]) -> None:
        """Add records, when there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._records) < self._max_records)
            self._records.extend(records)
            self._changed.notify_all()

    async def fail(self, error: Exception) -> None:
        """Have `take` raise an error: once it finds nothing else and once only, or from now on when it is for good."""
        async with self._changed:
            if not self._is_for_good:
                self._error = error
            self._changed.notify_all()

    async def discard(self, partition: str) -> None:
        """Forget what waits of a partition, which another copy of the consumer reads by now."""
        async with self._changed:
            self._records = deque(record for record in self._records if record.partition != partition)
            self._changed.notify_all()

    @property
    def _is_for_good(self) -> bool:
        """Whether another try would not help: then records that others still put here must not hide it."""
        return self._error is not None and not isinstance(self._error, BrokerUnavailable)

    async def take(self, max_records: int, max_wait_s: float) -> list[Record]:
        """Wait for a record, and then for more; as `Source.receive`. May be cancelled without a loss."""
        async with self._changed:
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._changed.wait_for(lambda: self._records or self._error is not None)
            except TimeoutError:
                return []  # and whoever waits knows that nothing is wrong any more
            error = self._error
            if error is not None and (self._is_for_good or not self._records):
                if not self._is_for_good:
                    self._error = None
                raise error
            if len(self._records) < max_records and max_wait_s:
                with suppress(TimeoutError):  # then it is as many as have come
                    async with asyncio.timeout(max_wait_s):
                        await self._changed.wait_for(lambda: len(self._records) >= max_records)
            taken = [self._records.popleft() for _ in range(min(max_records, len(self._records)))]
            self._changed.notify_all()
            return taken
