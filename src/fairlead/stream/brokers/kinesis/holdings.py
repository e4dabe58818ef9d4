"""The shards that this copy of a consumer holds: kept, taken over, and shared out, one round after the other."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket

from fairlead.stream.brokers.kinesis.leases import Lease, Leases, Watch, fair, readable
from fairlead.stream.brokers.kinesis.threads import Threads


class Holdings:
    """What this copy holds.

    Parameters
    ----------
    leases : the table; its methods are called in threads.
    lease_s : after what time of silence a copy is dead.

    Attributes
    ----------
    owner : the name of this copy, which no other has, nor itself the next time.
    """

    def __init__(self, leases: Leases, lease_s: float, threads: Threads) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._leases = leases
        self._watch = Watch(lease_s)
        self._threads = threads

    async def round(self) -> dict[str, Lease]:
        """Renew what is held, take what is due; give the leases that are held now, by their shard.

        Raises
        ------
        BrokerError
            When the table cannot be reached; what could be renewed is.
        """
        leases = await self._threads.run(self._leases.all)
        mine = [lease.shard for lease in leases if lease.owner == self.owner]
        renewed = await asyncio.gather(*map(self._renew, mine), return_exceptions=True)
        for outcome in renewed:  # after all were tried: one that fails must not let the others lapse
            if isinstance(outcome, BaseException):
                raise outcome
        kept = {shard for shard, is_kept in zip(mine, renewed, strict=True) if is_kept}
        open_ = readable(leases)
        held = {lease.shard: lease for lease in open_ if lease.shard in kept}
        dead = self._watch.dead(leases) - kept
        for lease in fair(open_, dead, self.owner):
            taken = await self._threads.run(self._leases.take, lease, self.owner)
            if taken is not None:
                held[taken.shard] = taken
        return held

    async def _renew(self, shard: str) -> bool:
        return await self._threads.run(self._leases.renew, shard, self.owner)

    async def keep(self, shard: str, checkpoint: str) -> bool:
        """Write down how far one is; False when another copy holds the shard by now."""
        return await self._threads.run(self._leases.keep, shard, self.owner, checkpoint)

    async def release(self, shard: str) -> None:
        """Let go of a shard, for another copy to take it at once."""
        await self._threads.run(self._leases.release, shard, self.owner)
