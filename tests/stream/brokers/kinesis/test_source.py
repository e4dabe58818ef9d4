from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source
from fairlead.stream.brokers.kinesis import KinesisSource, reader
from fairlead.stream.records import Record
from kinesis import Between, Forward, Kinesalite, KinesisServer
from proxy import proxy_to

WITHIN_S = 20
# So many keys that each of a few shards has some.
KEYS = [f"ride-{number}" for number in range(12)]


def options(server: Any, path: Path | str, **others: Any) -> SourceOptions:
    return SourceOptions(environ=server.environ, checkpoints=path, **{"lease_s": 1.0} | others)


@asynccontextmanager
async def reading(name: str, how: SourceOptions) -> AsyncIterator[KinesisSource]:
    source = open_source(f"kinesis://{name}", how)
    assert isinstance(source, KinesisSource)
    try:
        await source.start()
        yield source
    finally:
        await source.close()


async def take(source: KinesisSource, enough: Callable[[list[Record]], bool], *, commit: bool = True) -> list[Record]:
    """Receive, and commit, until it is enough; try again as the loop does."""
    taken: list[Record] = []
    async with asyncio.timeout(WITHIN_S):
        while not enough(taken):
            try:
                records = await source.receive(100, 0)
                if commit:
                    await source.commit(records)
            except BrokerUnavailable:
                await asyncio.sleep(0.02)
            else:
                taken += records
    return taken


async def finish(source: KinesisSource, count: int, *, commit: bool = True) -> list[Record]:
    return await take(source, lambda taken: len(taken) >= count, commit=commit)


def by_key(records: Sequence[Record]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for record in records:
        found[record.partition_key].append(record.data.decode())
    return dict(found)


def rides(first: int, last: int) -> list[tuple[str, str]]:
    return [(key, f"{key} {number:03}") for number in range(first, last) for key in KEYS]


def expected(first: int, last: int) -> dict[str, list[str]]:
    return {key: [f"{key} {number:03}" for number in range(first, last)] for key in KEYS}


@pytest.mark.parametrize("which", ["kinesalite_server", "moto_kinesis"])
def test_what_is_put_is_received_in_the_order_of_its_key(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: KinesisServer = request.getfixturevalue(which)
    name = server.stream(3)
    server.put(name, rides(0, 20))

    async def run() -> list[Record]:
        async with reading(name, options(server, tmp_path / "checkpoints.db")) as source:
            records = await finish(source, 240)
            assert {lag.partition for lag in source.lag()} == {f"{name}/shardId-00000000000{n}" for n in range(3)}
            assert all(lag.age_s is not None for lag in source.lag())
            return records

    records = asyncio.run(run())
    assert by_key(records) == expected(0, 20)
    assert len({record.key for record in records}) == 240
    record = records[0]
    assert record.key == f"{record.partition}/{record.position[1]}"
    assert record.partition.startswith(f"{name}/shardId-")
    assert record.arrived_at_s is not None
    assert abs(record.arrived_at_s - time.time()) < 60


def test_it_goes_on_after_what_was_committed(kinesalite_server: Kinesalite, tmp_path: Path) -> None:
    name = kinesalite_server.stream(2)
    kinesalite_server.put(name, rides(0, 5))
    how = options(kinesalite_server, tmp_path / "new" / "checkpoints.db", max_records=7)

    async def run() -> tuple[list[Record], list[Record]]:
        async with reading(name, how) as source:
            done: list[Record] = []
            while len(done) < 30:
                done += (records := await source.receive(7, 0.1))
                await source.commit(records)
            await source.receive(7, 0)  # and dies before these are done
        async with reading(name, how) as source:
            return done, await finish(source, 60 - len(done))

    before, after = asyncio.run(run())
    assert by_key([*before, *after]) == expected(0, 5)
    assert not {record.key for record in before} & {record.key for record in after}


def test_a_redelivered_record_has_the_same_key(kinesalite_server: Kinesalite, tmp_path: Path) -> None:
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 3))
    how = options(kinesalite_server, tmp_path / "checkpoints.db")

    async def run() -> list[dict[bytes, str]]:
        found = []
        for _ in range(2):
            async with reading(name, how) as source:
                found.append({record.data: record.key for record in await finish(source, 36, commit=False)})
        return found

    one, two = asyncio.run(run())
    assert one == two


def test_groups_read_the_same_stream_each_for_itself(kinesalite_server: Kinesalite, tmp_path: Path) -> None:
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 3))

    async def run() -> None:
        for group in ("one", "two"):
            async with reading(name, options(kinesalite_server, tmp_path / "both.db", group=group)) as source:
                assert by_key(await finish(source, 36)) == expected(0, 3)

    asyncio.run(run())


@pytest.mark.parametrize("commit_at_once", [True, False], ids=["committed", "slow"])
def test_a_child_comes_after_all_of_its_parents(
    kinesalite_server: Kinesalite, tmp_path: Path, commit_at_once: bool
) -> None:
    """A split and a merge while it is read; a shard's children are begun when its records are committed."""
    name = kinesalite_server.stream()
    first = "shardId-000000000000"
    how = options(kinesalite_server, tmp_path / "checkpoints.db")

    async def run() -> list[Record]:
        async with reading(name, how) as source:
            kinesalite_server.put(name, rides(0, 5))
            taken = await finish(source, 60)
            kinesalite_server.put(name, rides(5, 10))
            kinesalite_server.split(name, first)
            kinesalite_server.put(name, rides(10, 15))
            if not commit_at_once:
                taken += await finish(source, 60, commit=False)
                with contextlib.suppress(TimeoutError):
                    assert not await asyncio.wait_for(source.receive(10, 0), 0.7), "begun before its parents were done"
                await source.commit(taken)
            taken += await finish(source, 180 - len(taken))
            kinesalite_server.merge(name, "shardId-000000000001", "shardId-000000000002")
            kinesalite_server.put(name, rides(15, 20))
            return taken + await finish(source, 60)

    records = asyncio.run(run())
    assert by_key(records) == expected(0, 20)
    assert len({record.partition for record in records}) == 4


def test_a_resharded_stream_is_read_from_the_beginning(kinesalite_server: Kinesalite, tmp_path: Path) -> None:
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 5))
    kinesalite_server.split(name, "shardId-000000000000")
    kinesalite_server.put(name, rides(5, 10))

    async def run() -> list[Record]:
        async with reading(name, options(kinesalite_server, tmp_path / "checkpoints.db")) as source:
            return await finish(source, 120)

    assert by_key(asyncio.run(run())) == expected(0, 10)


def test_newest_begins_where_the_group_began_not_where_a_copy_did(moto_kinesis: KinesisServer, tmp_path: Path) -> None:
    name = moto_kinesis.stream(2)
    how = options(moto_kinesis, tmp_path / "checkpoints.db", start="newest")
    moto_kinesis.put(name, rides(0, 2))
    put_s = time.time()
    while int(time.time()) == int(put_s):  # the service tells its time in whole seconds
        time.sleep(0.01)

    async def run() -> list[Record]:
        async with reading(name, how):
            pass  # the first copy dies before it has read anything
        moto_kinesis.put(name, rides(2, 4))
        async with reading(name, how) as source:
            return await finish(source, 24)

    assert by_key(asyncio.run(run())) == expected(2, 4)


def test_an_expired_iterator_is_got_again(own_kinesalite: Kinesalite, tmp_path: Path) -> None:
    name = own_kinesalite.stream()
    own_kinesalite.put(name, rides(0, 2))

    async def run() -> list[Record]:
        async with reading(name, options(own_kinesalite, tmp_path / "checkpoints.db")) as source:
            taken = await finish(source, 24)
            own_kinesalite.forward()
            own_kinesalite.put(name, rides(2, 4))
            return taken + await finish(source, 24)

    assert by_key(asyncio.run(run())) == expected(0, 4)


def test_a_server_that_was_away(own_kinesalite: Kinesalite, tmp_path: Path) -> None:
    name = own_kinesalite.stream(2)
    own_kinesalite.put(name, rides(0, 2))

    async def run() -> list[Record]:
        async with reading(name, options(own_kinesalite, tmp_path / "checkpoints.db")) as source:
            taken = await finish(source, 24)
            own_kinesalite.end()
            with pytest.raises(BrokerUnavailable, match=r"no connection to http://127\.0\.0\.1|broke off"):
                await asyncio.wait_for(source.receive(10, 0), WITHIN_S)
            own_kinesalite.begin()
            own_kinesalite.put(name, rides(2, 4))
            return taken + await finish(source, 24)

    assert by_key(asyncio.run(run())) == expected(0, 4)


@pytest.mark.parametrize("after_bytes", [0, 450, 1200], ids=["no answer", "in an answer", "in a later one"])
def test_a_connection_that_is_cut(kinesalite_server: Kinesalite, tmp_path: Path, after_bytes: int) -> None:
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 2))

    async def run() -> list[Record]:
        with proxy_to(kinesalite_server.url) as network:
            environ = kinesalite_server.environ | {"AWS_ENDPOINT_URL_KINESIS": network.url}
            how = SourceOptions(environ=environ, checkpoints=tmp_path / "checkpoints.db")
            async with reading(name, how) as source:
                network.fail("truncate", after_bytes, times=2)
                taken = await finish(source, 24)
                kinesalite_server.put(name, rides(2, 4))
                return taken + await finish(source, 24)

    assert by_key(asyncio.run(run())) == expected(0, 4)


def test_an_answer_that_broke_off_is_no_end_of_a_shard(
    kinesalite_server: Kinesalite, between: Between, tmp_path: Path
) -> None:
    """botocore gives what is left of it, without an error: nothing at all, where the body is not whole."""
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 2))
    whole = {"ListShards": 0, "GetShardIterator": 0, "GetRecords": 0}

    def rule(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        whole[operation] += 1
        return (200, {}) if whole[operation] % 2 else forward(body)

    async def run() -> list[Record]:
        with pytest.raises(BrokerUnavailable, match="the answer to list_shards broke off"):
            await start(f"kinesis://{name}", options(between, tmp_path / "checkpoints.db"))
        async with reading(name, options(between, tmp_path / "checkpoints.db")) as source:
            taken = await finish(source, 24)
            kinesalite_server.put(name, rides(2, 4))
            return taken + await finish(source, 24)

    between.rule = rule
    assert by_key(asyncio.run(run())) == expected(0, 4)


@pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator", "ListShards"])
def test_throttling_is_waited_out(
    kinesalite_server: Kinesalite, between: Between, tmp_path: Path, operation: str
) -> None:
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 2))
    code = "LimitExceededException" if operation == "ListShards" else "ProvisionedThroughputExceededException"
    between.refuse(operation, code, times=3)

    async def run() -> list[Record]:
        source = open_source(f"kinesis://{name}", options(between, tmp_path / "checkpoints.db"))
        assert isinstance(source, KinesisSource)
        while True:
            with contextlib.suppress(BrokerUnavailable):
                await source.start()
                break
        records = await finish(source, 24)
        await source.close()
        return records

    assert by_key(asyncio.run(run())) == expected(0, 2)
    assert between.calls.count(operation) > 3


def test_a_slow_output_slows_the_input_and_tells_how_late_it_is(
    kinesalite_server: Kinesalite, between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_SILENT_S", 0.2)
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 10))

    async def run() -> None:
        async with reading(name, options(between, tmp_path / "checkpoints.db", max_records=10)) as source:
            await source.receive(10, 0)
            calls = -1
            while calls != (calls := between.calls.count("GetRecords")):
                await asyncio.sleep(0.3)
            assert calls == 1
            (lag,) = source.lag()
            assert lag.age_s is not None
            assert lag.age_s >= 0.3
            assert len(await finish(source, 110)) == 110

    asyncio.run(run())


def test_receive_may_be_cancelled(kinesalite_server: Kinesalite, tmp_path: Path) -> None:
    name = kinesalite_server.stream()

    async def run() -> list[Record]:
        async with reading(name, options(kinesalite_server, tmp_path / "checkpoints.db")) as source:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(source.receive(10, 5), 0.05)
            kinesalite_server.put(name, rides(0, 1))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(source.receive(100, 5), 0.6)  # while it waits for more
            return await finish(source, 12)

    assert by_key(asyncio.run(run())) == expected(0, 1)


async def start(text: str, how: SourceOptions) -> None:
    source = open_source(text, how)
    try:
        await source.start()
    finally:
        await source.close()


@pytest.mark.parametrize("which", ["kinesalite_server", "moto_kinesis"])
def test_a_stream_that_is_not_there(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: KinesisServer = request.getfixturevalue(which)
    with pytest.raises(BrokerError, match=r"kinesis://nowhere: not found at http.*see its name and region") as caught:
        asyncio.run(start("kinesis://nowhere", options(server, tmp_path / "checkpoints.db")))
    assert not caught.value.retryable


def test_a_stream_that_is_deleted_ends_it(kinesalite_server: Kinesalite, tmp_path: Path) -> None:
    name = kinesalite_server.stream(2)

    async def run() -> None:
        async with reading(name, options(kinesalite_server, tmp_path / "checkpoints.db")) as source:
            kinesalite_server.client.delete_stream(StreamName=name)
            async with asyncio.timeout(WITHIN_S):
                while True:
                    with contextlib.suppress(BrokerUnavailable):
                        await source.receive(10, 0)

    with pytest.raises(BrokerError, match="not found at"):
        asyncio.run(run())


def test_a_stream_that_was_made_anew(own_kinesalite: Kinesalite, tmp_path: Path) -> None:
    name = own_kinesalite.stream()
    own_kinesalite.put(name, rides(0, 1))
    how = options(own_kinesalite, tmp_path / "checkpoints.db")

    async def run() -> None:
        async with reading(name, how) as source:
            await finish(source, 12)
        own_kinesalite.forward()  # a stream's numbers tell when it was made
        own_kinesalite.client.delete_stream(StreamName=name)
        with contextlib.suppress(own_kinesalite.client.exceptions.ResourceNotFoundException):
            while own_kinesalite.client.describe_stream(StreamName=name):
                await asyncio.sleep(0.01)
        own_kinesalite.client.create_stream(StreamName=name, ShardCount=1)
        own_kinesalite.settle(name)
        async with reading(name, how) as source:
            await finish(source, 1)

    with pytest.raises(BrokerError, match="was the stream made anew") as caught:
        asyncio.run(run())
    assert not caught.value.retryable


def test_a_list_of_shards_in_parts(kinesalite_server: Kinesalite, between: Between, tmp_path: Path) -> None:
    name = kinesalite_server.stream(3)
    kinesalite_server.put(name, rides(0, 2))

    def rule(operation: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
        if operation != "ListShards":
            return forward(body)
        assert ("NextToken" in body) != ("StreamName" in body)
        first = int(body.get("NextToken", 0))
        shards = forward({"StreamName": name})[1]["Shards"][first:]
        return 200, {"Shards": shards[:1]} | ({"NextToken": str(first + 1)} if shards[1:] else {})

    between.rule = rule

    async def run() -> list[Record]:
        async with reading(name, options(between, tmp_path / "checkpoints.db")) as source:
            return await finish(source, 24)

    assert by_key(asyncio.run(run())) == expected(0, 2)


def test_no_right(kinesalite_server: Kinesalite, between: Between, tmp_path: Path) -> None:
    name = kinesalite_server.stream()
    between.refuse("ListShards", "AccessDeniedException", times=1)
    with pytest.raises(
        BrokerError, match=r"refuses the credentials \(AccessDeniedException\).*as the test wants"
    ) as no:
        asyncio.run(start(f"kinesis://{name}", options(between, tmp_path / "checkpoints.db")))
    assert not no.value.retryable


def test_nobody_there_to_ask(free_port: int, tmp_path: Path) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "eu-west-1"}
    environ["AWS_ENDPOINT_URL_KINESIS"] = f"http://127.0.0.1:{free_port}"
    how = SourceOptions(environ=environ, checkpoints=tmp_path / "checkpoints.db")
    with pytest.raises(BrokerUnavailable, match=f"no connection to http://127.0.0.1:{free_port}"):
        asyncio.run(start("kinesis://rides", how))


@pytest.mark.parametrize("wrong", ["kinesis://", "kinesis://a/b", "kinesis://a b", "kinesis://rides?zone=a"])
def test_a_wrong_address(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kinesis://.*: "):
        open_source(wrong, SourceOptions(checkpoints=tmp_path / "checkpoints.db"))


@pytest.mark.parametrize("wrong", ["", "redis://there", "dynamodb://a", "dynamodb://leases?layout=mine"])
def test_wrong_checkpoints(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        open_source("kinesis://rides", SourceOptions(checkpoints=wrong))


def test_no_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    environ = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    with pytest.raises(BrokerError, match=r"no region: set AWS_REGION"):
        asyncio.run(start("kinesis://rides", SourceOptions(environ=environ, checkpoints=tmp_path / "checkpoints.db")))
