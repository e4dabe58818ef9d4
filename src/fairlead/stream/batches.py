"""What becomes of one batch: answers and dead letters, made on the event loop where that is quick, else beside it.

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from fairlead.repository.threads import in_thread
from fairlead.stream.broker import Sink
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.events import Reason
from fairlead.stream.records import Message, Record
from fairlead.stream.scoring import Scored, Team

# As long as this nothing else happens on the loop. A thread costs a fifth of the rate: it works with cold caches, and
# takes turns at the interpreter's lock.
_ON_LOOP_S = 0.02
# Of what a batch is expected to take, the share that the last one counts for.
_LAST_SHARE = 0.3


@dataclass(frozen=True)
class Refused:
    """An event without an answer.

    Parameters
    ----------
    record, reason : the event, and why.
    output : its answer, if that is what cannot be published.
    """

    record: Record
    reason: Reason
    output: bytes | None = None


@dataclass
class Batch:
    """What is to be published, and then committed.

    Parameters
    ----------
    records : that were received.
    messages : the answers.
    refused : events without one.
    dead_letters : the messages of these.
    """

    records: Sequence[Record]
    messages: list[Message] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)


class Scorer:
    """Makes of records what is to be published.

    Parameters
    ----------
    sink : says how large an answer may be; a larger one is a dead letter.
    dead_letters : makes their messages.
    """

    def __init__(self, sink: Sink, dead_letters: DeadLetters) -> None:
        self._sink = sink
        self._dead_letters = dead_letters
        # What an event takes. The first batch is a thread's, since nobody knows.
        self._each_s: float | None = None
        # Models of the user's need not be safe for several threads.
        self._turn = asyncio.Lock()

    async def score(self, team: Team, records: Sequence[Record], *, gives_up: bool) -> Batch:
        """Answer a batch.

        Parameters
        ----------
        gives_up : as of `Team.score`.

        Raises
        ------
        ModelFailed
            As `Team.score`.
        BrokerUnavailable
            When what is too large cannot be kept now.
        """
        async with self._turn:
            before_s, start_s = self._each_s, perf_counter()
            if team.is_compiled and before_s is not None and len(records) * before_s <= _ON_LOOP_S:
                batch = self._answered(team, records, gives_up)
            else:
                batch = await in_thread(partial(self._answered, team, records, gives_up), is_gentle=False)
            each_s = (perf_counter() - start_s) / len(records)
            self._each_s = each_s if before_s is None else before_s + (each_s - before_s) * _LAST_SHARE
        if batch.refused:
            # They may have to be written to a disk or to S3.
            batch.dead_letters = await in_thread(partial(self._letters, team, batch.refused))
        return batch

    def _answered(self, team: Team, records: Sequence[Record], gives_up: bool) -> Batch:
        batch = Batch(records)
        limit = self._sink.max_message_bytes
        for record, result in zip(records, team.score(records, gives_up=gives_up), strict=True):
            if not isinstance(result, Scored):
                batch.refused.append(Refused(record, result))
                continue
            message = team.message(result, record.key)
            if limit is None or message.size_bytes <= limit:
                batch.messages.append(message)
            else:
                size = f"expected an answer of at most {limit} bytes, got {message.size_bytes}"
                batch.refused.append(Refused(record, Reason("output_too_large", size), message.data))
        return batch

    def _letters(self, team: Team, refused: Sequence[Refused]) -> list[Message]:
        version = team.stable.variant.version
        make = self._dead_letters.message
        return [make(one.record, one.reason, team.name, version, one.output) for one in refused]
