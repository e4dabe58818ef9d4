"""What a broker has to be able to do: a `Source` is read from, a `Sink` is written to.

Both live on one event loop. Layer L3; imports nothing third-party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from fairlead.errors import BrokerUnavailable
from fairlead.stream.records import Lag, Message, Record


@dataclass(frozen=True)
class SourceOptions:
    """How to read a stream.

    Parameters
    ----------
    group : under which name copies of a consumer share the work.
    start : where a group begins that has read nothing yet.
    max_records : events in one batch: about so many more are worth being fetched ahead.
    checkpoints : where a source keeps how far it is whose broker does not: a SQLite file, or ``dynamodb://TABLE``.
    lease_s : after what time of silence another copy takes over a shard.
    environ : where credentials, regions and endpoints stand.
    """

    group: str = "fairlead"
    start: Literal["oldest", "newest"] = "oldest"
    max_records: int = 500
    checkpoints: Path | str = ""
    lease_s: float = 10.0
    environ: Mapping[str, str] = field(default_factory=dict)


class Unpublished(BrokerUnavailable):
    """Not all messages could be published; another try may do.

    Parameters
    ----------
    reason : why.
    rest : messages that may not have been published, in their order.
    """

    def __init__(self, reason: str, rest: Sequence[Message]) -> None:
        super().__init__(reason)
        self.rest = tuple(rest)


class Source(Protocol):
    """Where events come from. Each is handed out again, here or elsewhere, until it is committed.

    Attributes
    ----------
    is_over : whether nothing more will come, as at the end of a file.
    """

    is_over: bool

    async def start(self) -> None:
        """Connect, and begin to fetch.

        Raises
        ------
        BrokerError
            When there is no such stream, or no right to it; `BrokerUnavailable` when another try may do.
        """
        ...

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        """Wait for events: at least one, then as many as come within `max_wait_s` of the first, at most `max_records`.

        Returns empty when `is_over`, and now and then else. In the order of each partition. May be cancelled without
        a loss.

        Raises
        ------
        BrokerUnavailable
            When the broker is away; call again later, which goes on where it was.
        """
        ...

    async def commit(self, records: Sequence[Record]) -> None:
        """Tell that all these are done, never to be handed out again. Called in the order of `receive`.

        What belongs to another copy of the consumer by now is passed over: that one does it again.

        Raises
        ------
        BrokerUnavailable
            When that may not have been kept; call again later.
        """
        ...

    def lag(self) -> list[Lag]:
        """Tell how far it is behind, as it was last known; without asking anybody."""
        ...

    async def close(self) -> None:
        """Let go of everything; what is not committed is handed out again. Never raises."""
        ...


class Sink(Protocol):
    """Where messages are published.

    Attributes
    ----------
    max_message_bytes : of a message's data and partition key together; None where there is no limit.
    """

    max_message_bytes: int | None

    async def start(self) -> None:
        """Connect; raises as `Source.start`."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages, those of one partition key in their order; return when the broker has them for good.

        The idempotency key goes along where the broker has a place for it besides the data.

        Raises
        ------
        Unpublished
            When that is not known of all.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Never raises."""
        ...
