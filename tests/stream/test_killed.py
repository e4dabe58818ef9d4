"""Kill -9 again and again over ten thousand records: every record is answered, none is lost, and none has two keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fairlead.repository.compatibility import answer_difference
from killing import Forks, keep_killing
from kinesis import KinesisServer
from redis_server import RedisServer

RECORDS, KILLS = 10_000, 100
# Of a consumer that takes longest to start, since it has three clients of AWS to make.
KILLS_ON_KINESIS = 20
HOME = {"size": 100.0, "rooms": 3, "town": "Delft"}
EVENTS = [json.dumps({"home": HOME | {"size": 20.0 + i % 150}, "id": i}) for i in range(RECORDS)]
_decode = msgspec.json.Decoder(msgspec.defstruct("Answer", [("idempotency_key", str), ("prediction", Any)])).decode


def settings_for(address: str, to: str, dead_letter: str, state: Path) -> dict[str, Any]:
    return {
        "from_": address,
        "to": to,
        "dead_letter": dead_letter,
        "features": "home",
        "id": "id",
        "max_records": 15,
        "max_wait_s": 0.0,
        "lease_s": 0.06,
        "port": 0,
        "state_directory": str(state),
    }


def check(answers: list[Any]) -> None:
    """See that each record was answered, and that answers to one have one key and say the same."""
    by_key: dict[str, list[Any]] = {}
    for answer in answers:
        by_key.setdefault(answer.idempotency_key, []).append(answer.prediction)
    assert Counter(first["id"] for first, *_ in by_key.values()) == Counter(range(RECORDS))
    # In batches of other sizes the last bit of a number may be another.
    assert [one for one in by_key.values() if any(answer_difference(one[0], other) > 1e-12 for other in one)] == []


class Answers:
    """What was published so far.

    Attributes
    ----------
    found : all answers.
    keys : of these, each once.
    """

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.keys: set[str] = set()

    def __call__(self) -> int:
        """Look what is new; give the number of records that are answered."""
        for data in self.new():
            self.found.append(_decode(data))
            self.keys.add(self.found[-1].idempotency_key)
        return len(self.keys)

    def new(self) -> Iterator[bytes]:
        raise NotImplementedError


class RedisAnswers(Answers):
    def __init__(self, server: RedisServer, stream: str) -> None:
        super().__init__()
        self._server = server
        self._stream = stream
        self._after = "-"

    def new(self) -> Iterator[bytes]:
        entries: Any = self._server.client.xrange(self._stream, min=self._after)
        for entry_id, fields in entries:
            self._after = f"({entry_id.decode()}"
            yield fields[b"data"]


class KinesisAnswers(Answers):
    """Of a stream of one shard."""

    def __init__(self, server: KinesisServer, stream: str) -> None:
        super().__init__()
        self._client = server.client
        asked = {"StreamName": stream, "ShardId": server.shards(stream)[0]["ShardId"]}
        self._iterator = self._client.get_shard_iterator(**asked, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]

    def new(self) -> Iterator[bytes]:
        answer = self._client.get_records(ShardIterator=self._iterator)
        self._iterator = answer["NextShardIterator"]
        yield from (record["Data"] for record in answer["Records"])


def test_redis_loses_nothing(redis_server: RedisServer, compiled_bundle: Path, tmp_path: Path) -> None:
    pipe = redis_server.client.pipeline(transaction=False)
    for event in EVENTS:
        pipe.xadd("killed", {"data": event})
    pipe.execute()
    addresses = [redis_server.url(name) for name in ("killed", "killed-answers", "killed-dead")]
    answers = RedisAnswers(redis_server, "killed-answers")

    def is_settled() -> bool:
        [group] = redis_server.client.xinfo_groups("killed")
        return (group["pending"], group["lag"]) == (0, 0)

    with Forks(compiled_bundle, settings_for(*addresses, tmp_path), {}) as forks:
        keep_killing(forks, answers, is_settled, RECORDS, KILLS)
    check(answers.found)
    assert redis_server.client.xlen("killed-dead") == 0


def test_kinesis_loses_nothing(kinesalite_server: KinesisServer, compiled_bundle: Path, tmp_path: Path) -> None:
    events, to, dead = kinesalite_server.stream(shards=2), kinesalite_server.stream(), kinesalite_server.stream()
    kinesalite_server.put(events, [(str(i), event) for i, event in enumerate(EVENTS)])
    addresses = [f"kinesis://{name}" for name in (events, to, dead)]
    answers = KinesisAnswers(kinesalite_server, to)
    with Forks(compiled_bundle, settings_for(*addresses, tmp_path), kinesalite_server.environ) as forks:
        keep_killing(forks, answers, lambda: True, RECORDS, KILLS_ON_KINESIS)
    check(answers.found)
    assert not any(kinesalite_server.read(dead).values())
