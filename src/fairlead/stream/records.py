"""What is received and what is published, whatever the broker.

Layer L3; imports msgspec only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Record(Struct, frozen=True, gc=False):
    """An event as its broker handed it over.

    Parameters
    ----------
    data : the bytes, as they were sent.
    key : names the event for good, as ``rides/shardId-000000000000/49590338…``: the same after a redelivery. It goes
        along with every output as its idempotency key.
    partition : within which order is kept, such as a shard, or a topic and its partition.
    position : where it stands there, in a form that only its source reads.
    partition_key : what its producer parted events by, empty where it did not.
    arrived_at_s : when the broker took it, in seconds since 1970; None where that is not told.
    headers : that came with it, names in small letters.
    """

    data: bytes
    key: str
    partition: str
    position: Any = None
    partition_key: str = ""
    arrived_at_s: float | None = None
    headers: Mapping[str, str] = {}


class Message(Struct, frozen=True, gc=False):
    """What is to be published.

    Parameters
    ----------
    data : the bytes.
    key : the idempotency key: two messages under one key say the same.
    partition_key : messages with the same one are published in their order; empty leaves the partition to the broker.
    """

    data: bytes
    key: str
    partition_key: str = ""

    @property
    def size_bytes(self) -> int:
        """Count the data and the partition key, as brokers do."""
        return len(self.data) + len(self.partition_key.encode(errors="surrogatepass"))


class Lag(Struct, frozen=True):
    """How far a source is behind in one partition.

    Parameters
    ----------
    partition : its name.
    records : that wait there; None where the broker does not tell.
    age_s : of the oldest that waits, in seconds; None where the broker does not tell.
    """

    partition: str
    records: int | None = None
    age_s: float | None = None
