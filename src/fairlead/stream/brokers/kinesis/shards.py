"""The shards of a stream and where to begin in each: parents before their children.

A shard that is split or merged closes, and its children go on with its keys. So a child is begun when all of its
parents' records are done; otherwise those of one key would come out of their order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

OLDEST = "TRIM_HORIZON"
SHARD_END = "SHARD_END"
TIME = "AT_TIMESTAMP "


class Shard(Struct, frozen=True):
    """A shard.

    Parameters
    ----------
    parents : that it was made from by a split or a merge; they may be gone.
    is_closed : whether nothing can be put into it any more.
    """

    id: str
    parents: tuple[str, ...] = ()
    is_closed: bool = False

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Shard:
        """Read what ListShards tells."""
        parents = (told.get("ParentShardId"), told.get("AdjacentParentShardId"))
        closed = "EndingSequenceNumber" in told["SequenceNumberRange"]
        return cls(told["ShardId"], tuple(parent for parent in parents if parent), closed)


def beginnings(
    shards: Sequence[Shard], known: Collection[str], start: Literal["oldest", "newest"], now_s: float
) -> list[tuple[Shard, str]]:
    """Tell where to begin in the shards that a group does not know yet, in the order to write that down.

    A descendant of a known one is begun at its oldest record, else what was put into it before it was found would be
    skipped. The newest of a new group is a time, not LATEST, which would be another one each time it is asked for: what
    came between a copy's death and its successor would be skipped.

    Parameters
    ----------
    shards : all that there are, by their id.
    known : ids of those that the group has begun or left out.
    now_s : the time of `shards`, in seconds since 1970.
    """
    by_id = {shard.id: shard for shard in shards}
    heirs: set[str] = set()
    for shard in shards:  # an id is higher than its parents'
        if any(parent in known or parent in heirs for parent in shard.parents):
            heirs.add(shard.id)
    new = [shard for shard in by_id.values() if shard.id not in known]
    if start == "oldest":
        return [(shard, OLDEST) for shard in new]
    fresh = [(shard, SHARD_END if shard.is_closed else f"{TIME}{now_s:.0f}") for shard in new if shard.id not in heirs]
    # Children first: were this broken off after a parent, its children would count as heirs the next time.
    return [*reversed(fresh), *((shard, OLDEST) for shard in new if shard.id in heirs)]
