"""Events that can never be scored, told whole: why, from where, and the bytes as they came.

Layer L3; imports msgspec.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec

from fairlead.schema import Problem
from fairlead.stream.events import Reason, short_key
from fairlead.stream.overflow import Overflow, Stored
from fairlead.stream.records import Message, Record

_encode = msgspec.json.Encoder().encode
# Characters of what is told shorter.
_CUT = 200


class DeadLetters:
    """Makes the messages of events that are given up.

    Parameters
    ----------
    source : the address that events come from, without a password.
    max_message_bytes : as of the sink that takes them.
    overflow : takes what is larger; None where there is no place for it.
    """

    def __init__(self, source: str, max_message_bytes: int | None, overflow: Overflow | None) -> None:
        self._source = source
        self._max_bytes = max_message_bytes
        self._overflow = overflow

    def message(self, record: Record, reason: Reason, model: str, version: str, output: bytes | None = None) -> Message:
        """Tell an event, with its own bytes, or where they lie if they are too many.

        Parameters
        ----------
        model, version : that refused it.
        output : its answer, if that is what cannot be published.

        Raises
        ------
        BrokerUnavailable
            When what is too large cannot be kept now.
        """
        told: dict[str, Any] = {
            "idempotency_key": record.key,
            "code": reason.code,
            "reason": reason.detail,
            "problems": reason.problems,
            "model": model,
            "version": version,
            "from": self._source,
            "partition": record.partition,
            "partition_key": short_key(record.partition_key),
            "arrived_at": None if record.arrived_at_s is None else _rfc3339(record.arrived_at_s),
            "failed_at": _rfc3339(None),
        }
        if output is not None:
            told["output"] = self._stored(output)
        whole = self._message(record, {**told, "data": b64encode(record.data).decode()})
        if self._fits(whole):
            return whole
        short = self._message(record, {**told, "data": None, "stored": self._stored(record.data)})
        if self._fits(short):
            return short
        # Very many problems, each told, or names as long as the event.
        few = {**told, "reason": reason.detail[:_CUT], "problems": [_cut(one) for one in reason.problems[:3]]}
        return self._message(record, {**few, "data": None, "stored": self._stored(record.data)})

    def _message(self, record: Record, told: dict[str, Any]) -> Message:
        return Message(_encode(told), record.key, short_key(record.partition_key))

    def _fits(self, message: Message) -> bool:
        return self._max_bytes is None or message.size_bytes <= self._max_bytes

    def _stored(self, data: bytes) -> Stored | None:
        return None if self._overflow is None else self._overflow.store(data)


def _cut(problem: Problem) -> Problem:
    return Problem(problem.path[:_CUT], problem.expected[:_CUT], problem.got)


def _rfc3339(at_s: float | None) -> str:
    at = datetime.now(UTC) if at_s is None else datetime.fromtimestamp(at_s, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
