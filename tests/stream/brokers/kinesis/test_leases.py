from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.address import Address
from fairlead.stream.brokers.kinesis import leases as leases_module
from fairlead.stream.brokers.kinesis.dynamodb_leases import DynamoLeases
from fairlead.stream.brokers.kinesis.leases import Lease, Leases, Watch, fair, readable
from fairlead.stream.brokers.kinesis.sqlite_leases import SqliteLeases
from kinesis import KinesisServer


class Table:
    """Opens leases of one table, each time as another copy would."""

    def __init__(self, where: Path | str, environ: dict[str, str]) -> None:
        self._where = where
        self._environ = environ
        self._opened: list[Leases] = []

    def open(self, group: str = "fairlead", stream: str = "rides", options: str = "") -> Leases:
        made: Leases
        if isinstance(self._where, Path):
            made = SqliteLeases(self._where, group, stream)
        else:
            made = DynamoLeases(Address.parse(self._where + options), group, stream, self._environ, None)
        made.open()
        self._opened.append(made)
        return made

    def close(self) -> None:
        for one in self._opened:
            one.close()


@pytest.fixture(params=["sqlite", "dynamodb"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    if request.param == "sqlite":
        made = Table(tmp_path / "leases.db", {})
    else:
        server: KinesisServer = request.getfixturevalue("moto_kinesis")
        made = Table(f"dynamodb://{tmp_path.name}", server.environ)
    yield made
    made.close()


def test_a_lease_changes_hands(table: Table) -> None:
    one, two = table.open(), table.open()
    assert one.all() == []
    one.create(Lease("s1", "TRIM_HORIZON", ("s0", "s00")))
    two.create(Lease("s1", "LATEST"))  # is too late
    (seen,) = two.all()
    assert seen == Lease("s1", "TRIM_HORIZON", ("s0", "s00"), None, 0)

    taken = one.take(seen, "me")
    assert taken == Lease("s1", "TRIM_HORIZON", ("s0", "s00"), "me", 1)
    assert two.take(seen, "you") is None
    assert one.renew("s1", "me")
    assert one.keep("s1", "me", "4711")
    assert two.all() == [Lease("s1", "4711", ("s0", "s00"), "me", 2)]

    stolen = two.take(two.all()[0], "you")
    assert stolen is not None
    assert stolen.checkpoint == "4711"
    assert not one.renew("s1", "me")
    assert not one.keep("s1", "me", "4712")
    one.release("s1", "me")
    assert two.keep("s1", "you", "4713")
    two.release("s1", "you")
    assert one.all() == [Lease("s1", "4713", ("s0", "s00"), None, 4)]


def test_a_shard_at_its_end_is_taken_by_nobody(table: Table) -> None:
    one = table.open()
    one.create(Lease("s1", "SHARD_END"))
    (seen,) = one.all()
    assert one.take(seen, "me") is None
    one.delete("s1")
    assert one.all() == []


def test_groups_and_streams_share_a_table(table: Table) -> None:
    homes = [("a", "b"), ("a", "c"), ("b", "b"), ("a/b", "b"), ("a/b/b", "c")]
    opened = [table.open(*home) for home in homes]
    for number, one in enumerate(opened):
        one.create(Lease("s1", str(number)))
    assert [[lease.checkpoint for lease in one.all()] for one in opened] == [[str(n)] for n in range(len(homes))]


def test_of_many_that_want_a_lease_one_gets_it(table: Table) -> None:
    copies = [table.open() for _ in range(4)]
    copies[0].create(Lease("s1", "TRIM_HORIZON"))
    (seen,) = copies[0].all()
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda number: copies[number].take(seen, f"copy {number}"), range(4)))
    assert sum(lease is not None for lease in got) == 1


def test_the_table_of_the_kinesis_client_library_is_read_and_written(
    moto_kinesis: KinesisServer, tmp_path: Path
) -> None:
    table = Table(f"dynamodb://{tmp_path.name}", moto_kinesis.environ)
    mine = table.open(options="?layout=kcl")
    dynamodb = moto_kinesis.service("dynamodb")
    item: dict[str, Any] = {
        "leaseKey": {"S": "shardId-000000000001"},
        "leaseOwner": {"S": "worker"},
        "leaseCounter": {"N": "17"},
        "checkpoint": {"S": "4959"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "2"},
        "parentShardId": {"SS": ["shardId-000000000000"]},
        "startingHashKey": {"S": "0"},
    }
    dynamodb.put_item(TableName=tmp_path.name, Item=item)

    (seen,) = mine.all()
    assert seen == Lease("shardId-000000000001", "4959", ("shardId-000000000000",), "worker", 17)
    assert mine.take(seen, "me") is not None
    assert mine.keep("shardId-000000000001", "me", "4960")
    (written,) = dynamodb.scan(TableName=tmp_path.name)["Items"]
    changes = {"leaseOwner": {"S": "me"}, "leaseCounter": {"N": "18"}, "checkpoint": {"S": "4960"}}
    assert written == item | changes | {"ownerSwitchesSinceCheckpoint": {"N": "0"}}
    dynamodb.close()
    table.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    path.write_text("no database at all, " * 100)
    with pytest.raises(BrokerError, match=r"checkpoints in .*leases\.db: expected a SQLite file") as caught:
        SqliteLeases(path, "g", "s").open()
    assert not isinstance(caught.value, BrokerUnavailable)


def test_only_a_counter_that_stands_still_tells_of_death(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: now)
    watch = Watch(lease_s=10)
    still, moving, free = Lease("a", "1", owner="x", counter=5), Lease("b", "1", owner="y"), Lease("c", "1")
    assert watch.dead([still, moving, free]) == set()
    now += 9
    moving = Lease("b", "1", owner="y", counter=1)
    assert watch.dead([still, moving, free]) == set()
    now += 2
    assert watch.dead([still, moving, free]) == {"a"}
    assert watch.dead([Lease("a", "1", owner="z", counter=5), moving, free]) == set()


def test_children_wait_for_their_parents() -> None:
    parent, child = Lease("0", "49"), Lease("1", "TRIM_HORIZON", ("0",))
    assert readable([parent, child]) == [parent]
    assert readable([Lease("0", "SHARD_END"), child]) == [child]
    assert readable([child]) == [child]  # the parent is too old to be known


@pytest.mark.parametrize(("shards", "copies"), [(1, 3), (4, 2), (4, 3), (7, 3), (12, 5), (3, 1)])
@pytest.mark.parametrize("order", range(3))
def test_copies_come_to_a_fair_share(shards: int, copies: int, order: int) -> None:
    """One that begins alone takes all; the others come to theirs one by one, and then nothing moves any more."""
    luck = random.Random(order)
    leases = [Lease(str(number), "1", owner="copy 0") for number in range(shards)]
    moves = 0
    for _ in range(3 * shards):
        names = [f"copy {number}" for number in range(copies)]
        luck.shuffle(names)
        before = moves
        for me in names:
            for wanted in fair(leases, set(), me):
                leases[leases.index(wanted)] = Lease(wanted.shard, "1", owner=me)
                moves += 1
        if moves == before:
            break
    held = Counter(lease.owner for lease in leases)
    counts = [held[f"copy {number}"] for number in range(copies)]
    assert max(counts) - min(counts) <= 1
    assert moves == before


def test_what_the_dead_and_the_gone_held_is_shared_out() -> None:
    owners = ["dead", "dead", "you", None, "me", None]
    leases = [Lease(str(number), "1", owner=owner) for number, owner in enumerate(owners)]
    wanted = fair(leases, {"0", "1"}, "me")
    assert len(wanted) == 2  # of six leases three are this one's, the other copy takes the rest
    assert {lease.shard for lease in wanted} <= {"0", "1", "3", "5"}
