"""Messages put into a stream of Kinesis, in the calling thread: for the `Sink`, and for a Lambda, which has no loop."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Mapping, Sequence

from fairlead.errors import BrokerUnavailable
from fairlead.stream.address import Address
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers.kinesis.client import pause_s
from fairlead.stream.brokers.kinesis.stream import Stream
from fairlead.stream.records import Message

# Source: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
_MAX_ENTRIES = 500
_MAX_CALL_BYTES = 5 * 1024 * 1024
_MAX_ENTRY_BYTES = 1024 * 1024
_MAX_KEY_CHARACTERS = 256
# A message's key may stand in for its partition key, which counts: four bytes a character at most.
MAX_MESSAGE_BYTES = _MAX_ENTRY_BYTES - 4 * _MAX_KEY_CHARACTERS
_TRIES = 5


class Writer:
    """Puts messages into a stream.

    PutRecords keeps no order when an entry fails. So a call holds one message of each partition key, and the next one
    of a key goes out when the one before is in.

    Parameters
    ----------
    address : of the stream.
    environ : where credentials, region and endpoint stand.
    """

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        self._stream = Stream(address, environ)
        self._where = str(address)

    def check(self) -> None:
        """See whether the stream is there; needs the right to DescribeStreamSummary.

        Raises
        ------
        BrokerError
            When it is not; `BrokerUnavailable` when another try may do.
        """
        self._stream.check()

    def put(self, messages: Sequence[Message]) -> None:
        """Put messages, those of one partition key in their order.

        Raises
        ------
        Unpublished
            After some tries in a row of which nothing came, with what is left.
        BrokerError
            When no other try will do.
        """
        waiting = _Waiting(messages)
        tries = 0
        while wave := waiting.wave():
            try:
                answers = self._stream.put([_entry(messages[index]) for index in wave])
                failed = [index for index, told in zip(wave, answers, strict=True) if told.get("ErrorCode")]
                reason = next((f"{told['ErrorCode']}" for told in answers if told.get("ErrorCode")), "")
            except BrokerUnavailable as error:
                failed, reason = wave, str(error)
            tries = 0 if len(failed) < len(wave) else tries + 1
            waiting.settle(wave, failed)
            if tries >= _TRIES:
                rest = waiting.rest()
                raise Unpublished(f"{self._where}: {len(rest)} of {len(messages)} are not in: {reason}", rest)
            if failed:
                time.sleep(pause_s(max(1, tries)))

    def close(self) -> None:
        """Close its connections."""
        self._stream.close()


class _Waiting:
    """Messages that are not in yet, by their index: a queue for each partition key."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._queues: dict[str, deque[int]] = {}
        for index, message in enumerate(messages):
            self._queues.setdefault(_partition_key(message), deque()).append(index)
        self._turn = deque(self._queues)

    def wave(self) -> list[int]:
        """Pick the messages of the next call: the first of each of as many keys as it may hold."""
        wave: list[int] = []
        free_bytes = _MAX_CALL_BYTES
        for key in self._turn:
            index = self._queues[key][0]
            free_bytes -= len(self._messages[index].data) + len(key.encode())
            if (wave and free_bytes < 0) or len(wave) == _MAX_ENTRIES:
                break
            wave.append(index)
        return wave

    def settle(self, wave: Sequence[int], failed: Sequence[int]) -> None:
        """Take out what is in; a key with more messages queues up again, one that failed keeps its turn."""
        keys = [self._turn.popleft() for _ in wave]
        again = set(failed)
        for key, index in zip(keys, wave, strict=True):
            if index not in again:
                self._queues[key].popleft()
                if self._queues[key]:
                    self._turn.append(key)
        self._turn.extendleft(key for key, index in reversed([*zip(keys, wave, strict=True)]) if index in again)

    def rest(self) -> list[Message]:
        """Give all that is not in, in its order."""
        return [self._messages[index] for index in sorted(index for queue in self._queues.values() for index in queue)]


def _partition_key(message: Message) -> str:
    """Give what Kinesis parts messages by: at most 256 characters, so that longer ones are told by their digest."""
    key = message.partition_key or message.key
    return key if len(key) <= _MAX_KEY_CHARACTERS else hashlib.sha256(key.encode()).hexdigest()


def _entry(message: Message) -> dict[str, object]:
    return {"Data": message.data, "PartitionKey": _partition_key(message)}
