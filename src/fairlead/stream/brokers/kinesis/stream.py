"""A stream of Kinesis by its address: `kinesis://STREAM?region=eu-west-1`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import Struct

from fairlead.errors import BrokerError, ConfigError
from fairlead.stream.address import Address
from fairlead.stream.brokers.kinesis.client import Client, InvalidArgument
from fairlead.stream.brokers.kinesis.shards import TIME, Shard

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Read(Struct, frozen=True):
    """What one call of GetRecords gave.

    Parameters
    ----------
    records : as boto3 gives them.
    iterator : for the next call; None when the shard was closed and is read to its end.
    behind_s : how far the last of them is behind the newest.
    """

    records: Sequence[Mapping[str, Any]]
    iterator: str | None
    behind_s: float


class Stream:
    """A stream, asked in the calling thread. Its methods raise as `Client.ask`."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        address.check_options("region")
        self.name = address.netloc
        if address.path or not _NAME.fullmatch(self.name):
            raise ConfigError(f"{address}: expected kinesis://STREAM, a name of letters, digits, and any of _.-")
        self.region = address.options.get("region")
        self._client = Client("kinesis", str(address), environ, self.region)

    def shards(self) -> tuple[list[Shard], float]:
        """List the shards, closed ones whose records are still kept included; and the time there, in s since 1970."""
        found: list[Shard] = []
        asked: dict[str, Any] = {"StreamName": self.name}
        while True:
            answer = self._client.ask("list_shards", asked, "Shards")
            found += map(Shard.of, answer["Shards"])
            if not (token := answer.get("NextToken")):
                return sorted(found, key=lambda shard: shard.id), _time_s(answer)
            asked = {"NextToken": token}

    def iterator(self, shard_id: str, checkpoint: str) -> str:
        """Ask for an iterator that begins after a checkpoint."""
        how: dict[str, Any]
        if checkpoint.startswith(TIME):
            how = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": float(checkpoint.removeprefix(TIME))}
        elif checkpoint[:1].isdigit():
            how = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": checkpoint}
        else:
            how = {"ShardIteratorType": checkpoint}  # TRIM_HORIZON, or LATEST as the KCL writes it
        asked = {"StreamName": self.name, "ShardId": shard_id, **how}
        try:
            return str(self._client.ask("get_shard_iterator", asked, "ShardIterator")["ShardIterator"])
        except InvalidArgument as error:
            raise BrokerError(
                f"{error}: was the stream made anew? Then read it as another group, or delete this one's checkpoints"
            ) from error

    def read(self, iterator: str, max_records: int) -> Read:
        """Read some records."""
        answer = self._client.ask("get_records", {"ShardIterator": iterator, "Limit": max_records}, "Records")
        behind_s = answer.get("MillisBehindLatest", 0) / 1000
        return Read(answer["Records"], answer.get("NextShardIterator"), behind_s)

    def is_gone(self, shard_id: str) -> bool:
        """Whether a shard is no more, its records being too old; raises `Missing` when the whole stream is."""
        return all(shard.id != shard_id for shard in self.shards()[0])

    def put(self, entries: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Put entries; gives an answer for each, with an ``ErrorCode`` where it failed."""
        asked = {"StreamName": self.name, "Records": entries}
        answers: Sequence[Mapping[str, Any]] = self._client.ask("put_records", asked, "Records")["Records"]
        return answers

    def check(self) -> None:
        """Raise when there is no such stream, or no right to ask for it."""
        self._client.ask("describe_stream_summary", {"StreamName": self.name})

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


def _time_s(answer: Mapping[str, Any]) -> float:
    """Read the service's clock off an answer; ours may differ from it."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return (parsedate_to_datetime(date) if date else datetime.now().astimezone()).timestamp()
