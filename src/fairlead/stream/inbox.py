"""What is fetched ahead: a bounded queue between the tasks that fetch and the loop that takes batches.

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from fairlead.stream.records import Record

# A source that cannot fetch says so again within this time.
_QUIET_S = 5.0


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
        self._is_over = False
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
        """Have the next `take` that finds nothing else raise an error, once."""
        async with self._changed:
            self._error = error
            self._changed.notify_all()

    async def end(self) -> None:
        """Tell that no more will come."""
        async with self._changed:
            self._is_over = True
            self._changed.notify_all()

    async def discard(self, partition: str) -> None:
        """Forget what waits of a partition, which another copy of the consumer reads by now."""
        async with self._changed:
            self._records = deque(record for record in self._records if record.partition != partition)
            self._changed.notify_all()

    @property
    def is_over(self) -> bool:
        """Whether all was taken and no more will come."""
        return self._is_over and not self._records

    async def take(self, max_records: int, max_wait_s: float) -> list[Record]:
        """Wait for a record, and then for more; as `Source.receive`. May be cancelled without a loss."""
        async with self._changed:
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._changed.wait_for(lambda: self._records or self._error is not None or self._is_over)
            except TimeoutError:
                return []  # and whoever waits knows that nothing is wrong any more
            if not self._records and self._error is not None:
                error, self._error = self._error, None
                raise error
            if 0 < len(self._records) < max_records and max_wait_s and not self._is_over:
                try:
                    async with asyncio.timeout(max_wait_s):
                        await self._changed.wait_for(lambda: len(self._records) >= max_records or self._is_over)
                except TimeoutError:
                    pass  # then it is as many as have come
            taken = [self._records.popleft() for _ in range(min(max_records, len(self._records)))]
            self._changed.notify_all()
            return taken
