from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.broker import Sink, Source, SourceOptions, Unpublished
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.records import Message, Record
from proxy import proxy_to
from reading import WAIT_S, reading, received, received_until_away, until, writing
from redis_server import PASSWORD, QUOTED, RedisServer

GROUP = "fairlead"
# A copy that takes what it can get, says so, and works on it until it is ended.
HOLDER = """
import asyncio, sys
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source

async def main():
    source = open_source(sys.argv[1], SourceOptions(lease_s=float(sys.argv[2]), max_records=10))
    await source.start()
    records = await source.receive(4, 1)
    await source.commit(records[:1])
    print(*(record.data.decode() for record in records), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def started_and_published(sink: Sink, message: Message) -> None:
    await sink.start()
    await sink.publish([message])


async def persistently(call: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await call()
            except BrokerUnavailable:
                await asyncio.sleep(0.02)


def add(server: RedisServer, stream: str, count: int, first: int = 0) -> list[bytes]:
    bodies = [f"{number}".encode() for number in range(first, first + count)]
    for body in bodies:
        server.client.xadd(stream, {"data": body})
    return bodies


def given(server: RedisServer, stream: str) -> int:
    """How many entries copies have that are not done."""
    return int(server.client.xpending(stream, GROUP)["pending"])


def test_gives_what_was_published_in_order_and_for_good(redis_server: RedisServer) -> None:
    messages = [Message(bytes([number, 0, 255, 10]), f"rides/{number}", f"driver-{number % 2}") for number in range(50)]
    messages.append(Message(b"", "rides/empty"))
    messages.append(Message(os.urandom(2 * 2**20), "rides/large"))

    async def run() -> list[Record]:
        async with writing(redis_server.url("there")) as sink, reading(redis_server.url("there")) as source:
            await sink.publish(messages)
            records = await received(source, len(messages))
            await until(lambda: source.lag() and source.lag()[0].records is not None)
            return records

    records = asyncio.run(run())
    assert [record.data for record in records] == [message.data for message in messages]
    assert [record.partition_key for record in records] == [message.partition_key for message in messages]
    assert [record.headers for record in records] == [{"idempotency_key": message.key} for message in messages]
    ids = [entry_id.decode() for entry_id, _ in redis_server.client.xrange("there")]
    assert [record.key for record in records] == [f"there/{entry_id}" for entry_id in ids]
    assert {record.partition for record in records} == {"there"}
    assert all(abs((record.arrived_at_s or 0) - time.time()) < 60 for record in records)
    assert given(redis_server, "there") == 0
    assert redis_server.client.xinfo_consumers("there", GROUP) == []


def test_takes_events_as_others_write_them(redis_server: RedisServer) -> None:
    client = redis_server.client
    client.xadd("forms", {"data": b"\xff\x00", "Trace": "abc", "partition_key": "k"})
    client.xadd("forms", {"distance": "1.5", "odd": b"\xff"})

    async def run() -> list[Record]:
        from faststream.redis import RedisBroker

        async with RedisBroker(redis_server.url(""), logger=None) as broker:
            await broker.publish(b"packed", stream="forms", headers={"Trace": "def"})
        async with reading(redis_server.url("forms")) as source:
            return await received(source, 3)

    one, two, three = asyncio.run(run())
    assert (one.data, one.headers, one.partition_key) == (b"\xff\x00", {"trace": "abc"}, "k")
    assert msgspec.json.decode(two.data) == {"distance": "1.5", "odd": "\\xff"}
    assert two.headers == {}
    assert three.data == b"packed"
    assert three.headers["trace"] == "def"


def test_begins_with_the_newest_only_when_told_so(redis_server: RedisServer) -> None:
    add(redis_server, "begin", 3)

    async def run() -> list[bytes]:
        async with reading(redis_server.url("begin"), start="newest", group="late") as source:
            add(redis_server, "begin", 1, first=3)
            return [record.data for record in await received(source, 1)]

    assert asyncio.run(run()) == [b"3"]


def test_what_is_not_committed_comes_again_at_once(redis_server: RedisServer) -> None:
    bodies = add(redis_server, "again", 30)

    async def run() -> tuple[list[Record], list[Record]]:
        async with reading(redis_server.url("again"), max_records=10) as source:
            records = await received(source, 12, commit=False)
            await source.commit(records[:5])
        async with reading(redis_server.url("again"), max_records=10, lease_s=600) as source:
            return records, await received(source, 25)

    before, after = asyncio.run(run())
    assert sorted(record.data for record in after) == sorted(bodies[5:])
    assert {record.key for record in before[5:]} <= {record.key for record in after}


def test_receive_may_be_cancelled(redis_server: RedisServer) -> None:
    bodies = add(redis_server, "cancelled", 200)

    async def run() -> list[bytes]:
        async with reading(redis_server.url("cancelled"), max_records=10) as source:
            found: list[bytes] = []
            async with asyncio.timeout(WAIT_S):
                while len(found) < len(bodies):
                    try:
                        async with asyncio.timeout(0.005):
                            found += [record.data for record in await source.receive(7, 0.001)]
                    except TimeoutError:
                        await asyncio.sleep(0)
            return found

    assert asyncio.run(run()) == bodies


def test_a_killed_copy_is_taken_over(redis_server: RedisServer) -> None:
    bodies = add(redis_server, "killed", 20)
    url = redis_server.url("killed")
    with subprocess.Popen([sys.executable, "-c", HOLDER, url, "0.6"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().split() == bodies[:4]
        # It had fetched ten, then ten more; one of them is deleted meanwhile.
        holder.send_signal(signal.SIGKILL)
    gone = redis_server.client.xpending_range("killed", GROUP, "-", "+", 20)[5]["message_id"]
    redis_server.client.xdel("killed", gone)

    async def run() -> list[Record]:
        async with reading(url, lease_s=0.6, max_records=10) as source:
            records = await received(source, 18)
            await until(lambda: len(redis_server.client.xinfo_consumers("killed", GROUP)) == 1)
            return records

    records = asyncio.run(run())
    expected = [body for place, body in enumerate(bodies) if place not in (0, 6)]
    assert sorted(record.data for record in records) == sorted(expected)
    assert given(redis_server, "killed") == 0


def test_a_slow_copy_is_not_robbed(redis_server: RedisServer) -> None:
    add(redis_server, "slow", 30)

    async def run() -> None:
        url = redis_server.url("slow")
        async with reading(url, lease_s=0.3, max_records=10) as slow:
            mine = await received(slow, 5, commit=False)
            await until(lambda: given(redis_server, "slow") == 30)
            async with reading(url, lease_s=0.3, max_records=10) as other:
                await until(
                    lambda: redis_server.client.xpending_range("slow", GROUP, "-", "+", 1, idle=1000)
                )  # three leases and more
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(other.receive(1, 0), 0.3)
                await slow.commit(mine)
                assert len(await received(slow, 25)) == 25

    asyncio.run(run())


def test_two_copies_share(redis_server: RedisServer) -> None:
    bodies = add(redis_server, "shared", 300)

    async def some(source: Source) -> list[bytes]:
        return [record.data for record in await received(source, 40)]

    async def run() -> list[bytes]:
        url = redis_server.url("shared")
        async with reading(url, max_records=10) as one, reading(url, max_records=10) as two:
            found = await asyncio.gather(some(one), some(two))
            rest = await asyncio.gather(
                *(self_until_empty(source) for source in (one, two)),
            )
            return [body for part in (*found, *rest) for body in part]

    async def self_until_empty(source: Source) -> list[bytes]:
        found: list[bytes] = []
        while given(redis_server, "shared") or redis_server.client.xinfo_groups("shared")[0]["lag"]:
            try:
                records = await asyncio.wait_for(source.receive(10, 0), 0.2)
            except TimeoutError:
                continue
            found += [record.data for record in records]
            await source.commit(records)
        return found

    assert sorted(asyncio.run(run())) == sorted(bodies)


def test_outlives_a_restart_of_the_server(redis_server: RedisServer) -> None:
    bodies = add(redis_server, "restart", 40)
    messages = [Message(body, f"out/{body.decode()}") for body in bodies]

    async def run() -> list[Record]:
        url = redis_server.url("restart")
        async with reading(url, max_records=10) as source, writing(redis_server.url("restarted")) as sink:
            await sink.publish(messages[:5])
            records = await received(source, 7, commit=False)
            redis_server.kill()
            try:
                with pytest.raises(Unpublished) as caught:
                    await sink.publish(messages[5:])
                assert list(caught.value.rest) == messages[5:]
                with pytest.raises(BrokerUnavailable):
                    await source.commit(records)
                with pytest.raises(BrokerUnavailable):
                    await received_until_away(source, records)
                await open_source(url, SourceOptions()).close()
            finally:
                redis_server.start()
            # As the loop does: a connection that nobody used meanwhile finds out only now.
            await persistently(lambda: sink.publish(messages[5:]))
            await persistently(lambda: source.commit(records))
            return records + await received(source, len(bodies) - len(records))

    records = asyncio.run(run())
    assert [record.data for record in records] == bodies
    assert given(redis_server, "restart") == 0
    # Nothing is missing, and none comes a second time but with those that followed it.
    out = [fields[b"data"] for _, fields in redis_server.client.xrange("restarted")]
    assert out[-35:] == bodies[5:]
    assert set(out) == set(bodies)


def test_an_answer_that_was_lost_comes_again(redis_server: RedisServer) -> None:
    redis_server.client.xgroup_create("lost", GROUP, mkstream=True)

    async def run(port: int, cut: Callable[[], None]) -> list[bytes]:
        async with reading(f"redis://:{QUOTED}@127.0.0.1:{port}/lost", lease_s=600) as source:
            await until(source.lag)
            cut()
            with redis_server.client.pipeline() as pipeline:
                for number in range(20):
                    pipeline.xadd("lost", {"data": f"{number}"})
                pipeline.execute()
            with pytest.raises(BrokerUnavailable):
                await asyncio.wait_for(source.receive(20, 0), WAIT_S)
            # They are this copy's, which lives: nobody else would ever take them over.
            assert given(redis_server, "lost") == 20
            return [record.data for record in await received(source, 20)]

    with proxy_to(f"http://127.0.0.1:{redis_server.port}") as proxy:
        port = int(proxy.url.rpartition(":")[2])
        found = asyncio.run(run(port, lambda: proxy.fail("truncate", after_bytes=100, times=1)))
    assert found == [f"{number}".encode() for number in range(20)]
    assert given(redis_server, "lost") == 0


def test_begins_again_when_the_stream_was_deleted(redis_server: RedisServer) -> None:
    add(redis_server, "deleted", 3)

    async def run() -> list[bytes]:
        async with reading(redis_server.url("deleted"), start="newest") as source:
            redis_server.client.delete("deleted")
            add(redis_server, "deleted", 3, first=3)
            return [record.data for record in await received(source, 3)]

    assert asyncio.run(run()) == [b"3", b"4", b"5"]


def test_fetches_no_more_than_there_is_room_for(redis_server: RedisServer) -> None:
    add(redis_server, "full", 200)

    async def run() -> None:
        async with reading(redis_server.url("full"), max_records=10) as source:
            await until(lambda: given(redis_server, "full") >= 20)
            for _ in range(5):
                await received(source, 10, commit=True)
                assert given(redis_server, "full") <= 30

    asyncio.run(run())


def test_a_full_server_takes_all_or_nothing(redis_server: RedisServer) -> None:
    messages = [Message(b"x", f"{number}") for number in range(10)]

    async def run() -> None:
        async with writing(redis_server.url("oom")) as sink:
            redis_server.client.config_set("maxmemory", "1")
            try:
                with pytest.raises(Unpublished, match="maxmemory") as caught:
                    await sink.publish(messages)
            finally:
                redis_server.client.config_set("maxmemory", "0")
            assert list(caught.value.rest) == messages
            assert redis_server.client.xlen("oom") == 0
            await sink.publish(caught.value.rest)

    asyncio.run(run())
    assert redis_server.client.xlen("oom") == 10


def test_keeps_about_so_many_entries(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with writing(redis_server.url("trimmed?maxlen=100")) as sink:
            await sink.publish([Message(b"x", f"{number}") for number in range(1000)])

    asyncio.run(run())
    assert 100 <= redis_server.client.xlen("trimmed") < 300


def test_says_what_is_wrong(redis_server: RedisServer, free_port: int) -> None:
    redis_server.client.set("text", "x")
    wrong = {
        redis_server.url("text"): "expected a stream",
        redis_server.url("x", ":n0tthis"): "refused the login",
        f"redis://127.0.0.1:{redis_server.port}/x": "refused the login",
        redis_server.url("x?db=99"): "out of range",
        f"redis://127.0.0.1:{free_port}/x": "does not answer",
    }

    async def run(url: str, expected: str) -> None:
        started = time.monotonic()
        source = open_source(url, SourceOptions())
        with pytest.raises(BrokerError, match=expected) as caught:
            await source.start()
        assert isinstance(caught.value, BrokerUnavailable) == (expected == "does not answer")
        assert "n0tthis" not in str(caught.value)
        assert PASSWORD not in str(caught.value)
        await source.close()
        assert time.monotonic() - started < 6
        sink = open_sink(url, {})
        with pytest.raises(BrokerError, match=expected) as caught:
            await started_and_published(sink, Message(b"secret data", "key"))
        assert "secret" not in str(caught.value)
        await sink.close()

    for url, expected in wrong.items():
        asyncio.run(run(url, expected))
    assert open_sink(redis_server.url("x"), {}).max_message_bytes == 512 * 2**20


@pytest.mark.parametrize(
    "url",
    ["redis://host", "redis://host/", "redis://one,two/x", "redis://host/a/b", "redis://host/x?db=a", "redis:///x",
     "redis://host/x?maxlen=many", "redis://host/x?what=1"],
)  # fmt: skip
def test_refuses_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(url, {})


def test_has_no_maxlen_to_read_with() -> None:
    with pytest.raises(ConfigError, match="no such option: maxlen"):
        open_source("redis://host/x?maxlen=1", SourceOptions())
