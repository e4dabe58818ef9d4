"""Who reads which shard, and how far it is: a table that all copies of a consumer write to.

A copy owns a shard as long as it raises the lease's counter. One whose counter stands still for `lease_s`, by the
clock of whoever watches, is taken to be dead. Every write names the owner, or the counter, that it expects: of two
copies one gets the lease, and one that lost it can no longer tell how far it is.

Source: the lease table of the Kinesis Client Library,
https://docs.aws.amazon.com/streams/latest/dev/shared-throughput-kcl-consumers.html
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import Protocol

from msgspec import Struct

from fairlead.stream.brokers.kinesis.shards import SHARD_END


class Lease(Struct, frozen=True):
    """What is written down about a shard.

    Parameters
    ----------
    shard : its id.
    checkpoint : the last sequence number that is done, or ``TRIM_HORIZON``, ``SHARD_END``, or ``AT_TIMESTAMP`` and a
        time.
    parents : of the shard.
    owner : the copy that reads it; None for nobody.
    counter : goes up while its owner lives.
    """

    shard: str
    checkpoint: str
    parents: tuple[str, ...] = ()
    owner: str | None = None
    counter: int = 0


class Leases(Protocol):
    """A table of leases, of one group and stream. Called in threads; raises `BrokerError` and its kinds."""

    def open(self) -> None:
        """Connect, and make the table when it is missing."""
        ...

    def all(self) -> list[Lease]:
        """Read the leases as they are now."""
        ...

    def create(self, lease: Lease) -> None:
        """Write a lease down, unless there is one for its shard."""
        ...

    def take(self, seen: Lease, owner: str) -> Lease | None:
        """Make a lease one's own and give it as it is then; None when its owner or counter are not as seen any more."""
        ...

    def renew(self, shard: str, owner: str) -> bool:
        """Raise the counter; False when the lease is not one's own any more."""
        ...

    def keep(self, shard: str, owner: str, checkpoint: str) -> bool:
        """Write down how far one is; False, and nothing written, when the lease is not one's own any more."""
        ...

    def release(self, shard: str, owner: str) -> None:
        """Let go of a lease, if it is one's own."""
        ...

    def delete(self, shard: str) -> None:
        """Forget a lease."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Watch:
    """Tells from how long a lease's counter stood still whether its owner is dead.

    Parameters
    ----------
    lease_s : for how long it has to.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._seen: dict[str, tuple[str | None, int, float]] = {}

    def dead(self, leases: Sequence[Lease]) -> set[str]:
        """Look at all leases; give the shards of those whose owner is dead."""
        now = time.monotonic()
        before, self._seen = self._seen, {}
        for lease in leases:
            owner, counter, since = before.get(lease.shard, (None, -1, now))
            if (owner, counter) != (lease.owner, lease.counter):
                since = now
            self._seen[lease.shard] = (lease.owner, lease.counter, since)
        return {shard for shard, (owner, _, since) in self._seen.items() if owner and now - since > self._lease_s}


def readable(leases: Sequence[Lease]) -> list[Lease]:
    """Pick the leases of shards that are to be read now: not those at their end, nor those whose parents are not."""
    unfinished = {lease.shard for lease in leases if lease.checkpoint != SHARD_END}
    return [lease for lease in leases if lease.shard in unfinished and unfinished.isdisjoint(lease.parents)]


def fair(leases: Sequence[Lease], dead: set[str], me: str) -> list[Lease]:
    """Choose the leases to take now, so that each copy comes to its share.

    Free ones are taken up to the share. Where there is none, one is stolen from the copy that has most, when that has
    two more: then no lease goes to and fro.
    """
    free = [lease for lease in leases if lease.owner is None or (lease.shard in dead and lease.owner != me)]
    held = Counter(lease.owner for lease in leases if lease.owner and lease.shard not in dead)
    share = ceil(len(leases) / len({*held, me}))
    if free:
        random.shuffle(free)  # copies that look at the same time should not want the same ones
        return free[: max(0, share - held[me])]
    if held and max(held.values()) - held[me] >= 2:
        busiest = max(held, key=lambda owner: held[owner])
        return [random.choice([lease for lease in leases if lease.owner == busiest and lease.shard not in dead])]
    return []
