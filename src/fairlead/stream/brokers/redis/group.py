"""A consumer group of a Redis stream: join it, show that one lives, take over from those that do not.

A consumer that has asked Redis nothing for a while is dead: what it was given is claimed, and its name is deleted.
Each asks often, however long its events take, so that nobody takes what another still works on.

Layer L3; imports redis and faststream.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from fairlead.stream.brokers.redis.connection import Connection
from fairlead.stream.records import Lag

Entry = tuple[bytes, dict[bytes, bytes]]

# Holds what a consumer let go of when it was closed; anybody may take it at once.
_RELEASED = "fairlead-released"
# So old that it is older than any lease.
_RELEASED_MS = 30 * 24 * 3600 * 1000
# After all that there is. The very last ID will not do: Redis takes it for `>`, and gives new entries.
_AFTER_ALL = "18446744073709551615-0"
_PAGE = 1000
# In one step, since a consumer that is deleted loses what it was given in between.
_DELETE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return -1
"""


class Group:
    """A copy's part in a group.

    Parameters
    ----------
    connection : to the stream.
    name : the group's.
    lease_s : after what time of silence a consumer is dead.
    """

    def __init__(self, connection: Connection, name: str, lease_s: float) -> None:
        self._connection = connection
        self._stream = connection.stream
        self._name = name
        self._lease_ms = int(lease_s * 1000)
        self._me = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    async def join(self, start: str) -> None:
        """Make the group, and the stream, unless they are there; `start` is the first entry of a new group."""
        try:
            await self._connection.client.xgroup_create(self._stream, self._name, id=start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read(self, after: str, count: int, wait_s: float | None = None) -> Sequence[Entry]:
        """Read new entries with ``>``, else those that this consumer was given, after an entry."""
        block = None if wait_s is None else int(wait_s * 1000)
        answer: Any = await self._connection.client.xreadgroup(
            self._name, self._me, {self._stream: after}, count=count, block=block
        )
        # One stream and its entries, which redis-py gives as a list or a dictionary.
        return next(iter(dict(answer).values()), ())

    async def done(self, ids: Sequence[str]) -> None:
        """Tell that entries are done, whoever they belong to by now."""
        if ids:
            await self._connection.client.xack(self._stream, self._name, *ids)

    async def live(self) -> None:
        """Show that this consumer lives: Redis notes when one asks, here for nothing.

        To wait for new entries does not show it: before Redis 7.2 only an answer counted.
        """
        await self.read(_AFTER_ALL, 1)

    async def dead(self) -> list[str]:
        """Name the consumers whose entries may be taken over."""
        found: list[dict[str, Any]] = await self._connection.client.xinfo_consumers(self._stream, self._name)
        names = ((one["name"].decode(), one["idle"] > self._lease_ms) for one in found)
        return [name for name, is_silent in names if name != self._me and (is_silent or name == _RELEASED)]

    async def take_over(self, consumer: str, count: int) -> tuple[Sequence[Entry], bool]:
        """Claim entries of a dead consumer, in their order; when none is left delete it, and tell so."""
        client = self._connection.client
        ids = await self._pending(consumer, count)
        if not ids:
            await client.eval(_DELETE, 1, self._stream, self._name, consumer)
            return (), True
        # Of two that claim the same only one gets it, since that makes it young again.
        claimed: Any = await client.xclaim(self._stream, self._name, self._me, self._lease_ms, ids)
        return [entry for entry in claimed if entry[0] is not None], not claimed

    async def release(self) -> None:
        """Let anybody take what this consumer was given and has not done, and leave the group."""
        client = self._connection.client
        while ids := await self._pending(self._me, _PAGE):
            await client.xclaim(self._stream, self._name, _RELEASED, 0, ids, idle=_RELEASED_MS, justid=True)
        await client.eval(_DELETE, 1, self._stream, self._name, self._me)

    async def _pending(self, consumer: str, count: int) -> list[Any]:
        found: list[dict[str, Any]] = await self._connection.client.xpending_range(
            self._stream, self._name, min="-", max="+", count=count, consumername=consumer
        )
        return [one["message_id"] for one in found]

    async def lag(self) -> Lag:
        """Ask how many entries the group has not done, and how old the oldest is that somebody was given."""
        pipeline = self._connection.client.pipeline(transaction=False)
        pipeline.xinfo_groups(self._stream)
        pipeline.xpending(self._stream, self._name)
        pipeline.time()
        groups, pending, (now_s, _) = await pipeline.execute()
        ahead = next((one.get("lag") for one in groups if one["name"] == self._name.encode()), None)
        age_s: float | None = None
        if pending["pending"]:
            age_s = max(0.0, now_s - int(pending["min"].partition(b"-")[0]) / 1000)
        elif ahead == 0:
            age_s = 0.0
        records = None if ahead is None else ahead + pending["pending"]
        return Lag(partition=self._stream, records=records, age_s=age_s)
