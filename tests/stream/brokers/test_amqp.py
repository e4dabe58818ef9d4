from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from aio_pika.abc import AbstractChannel

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.broker import SourceOptions, Unpublished
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.brokers.amqp.source import Tags
from fairlead.stream.records import Message, Record
from proxy import proxy_to
from rabbitmq import RabbitServer, put
from reading import reading, received, received_until_away, until, writing

T = TypeVar("T")
# A copy that takes what it can get, says so, and works on it until it is ended.
HOLDER = """
import asyncio, sys
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source

async def main():
    source = open_source(sys.argv[1], SourceOptions(max_records=10))
    await source.start()
    records = await source.receive(4, 1)
    await source.commit(records[:1])
    print(*(record.data.decode() for record in records), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def asked(server: RabbitServer, ask: Callable[[AbstractChannel], Awaitable[T]]) -> T:
    """Ask the server with a client of the tests' own."""

    async def run() -> T:
        import aio_pika

        connection = await aio_pika.connect(server.url("%2F"))
        async with connection:
            return await ask(await connection.channel())

    return asyncio.run(run())


def ready(server: RabbitServer, queue: str) -> int:
    """How many messages wait in a queue that no copy was given."""

    async def ask(channel: AbstractChannel) -> int:
        declared = await channel.declare_queue(queue, passive=True)
        return int(declared.declaration_result.message_count or 0)

    return asked(server, ask)


def bodies(count: int, first: int = 0) -> list[bytes]:
    return [f"{number}".encode() for number in range(first, first + count)]


def test_gives_what_was_published_in_order_and_for_good(rabbit_server: RabbitServer) -> None:
    messages = [Message(bytes([number, 0, 255, 10]), f"rides/{number}", f"driver-{number % 2}") for number in range(50)]
    messages.append(Message(b"", "rides/empty"))
    messages.append(Message(os.urandom(2 * 2**20), "rides/large"))
    messages.append(Message(b"x", "long" * 100))

    async def run() -> list[Record]:
        url = rabbit_server.url("there?declare=true")
        async with writing(url) as sink, reading(url) as source:
            await sink.publish(messages)
            records = await received(source, len(messages))
            await until(lambda: source.lag()[0].records == 0)
            return records

    *records, long = asyncio.run(run())
    assert [record.data for record in records] == [message.data for message in messages[:-1]]
    assert [record.partition_key for record in records] == [message.partition_key for message in messages[:-1]]
    assert [record.key for record in records] == [f"there/{message.key}" for message in messages[:-1]]
    assert long.key == f"there/{hashlib.sha256(b'long' * 100).hexdigest()}"
    assert long.headers == {"idempotency_key": "long" * 100}
    assert {record.partition for record in records} == {"there"}
    assert all(abs((record.arrived_at_s or 0) - time.time()) < 60 for record in records)
    assert ready(rabbit_server, "there") == 0


def test_takes_messages_as_others_write_them(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "forms", [b"\xff"], headers={"Trace": "abc", "Tries": 3, "partition_key": "k"}, message_id="m")

    async def run() -> list[Record]:
        async with reading(rabbit_server.url("%2F/forms")) as source:
            return await received(source, 1)

    (record,) = asyncio.run(run())
    assert (record.data, record.key, record.partition_key) == (b"\xff", "forms/m", "k")
    assert record.headers == {"trace": "abc", "tries": "3", "partition_key": "k"}
    assert record.arrived_at_s is None


def test_names_a_message_without_an_id_by_what_it_says() -> None:
    from aiormq import spec
    from aiormq.abc import DeliveredMessage
    from pamqp.header import ContentHeader

    from fairlead.stream.brokers.amqp.messages import record

    def delivered(body: bytes, tag: int) -> Any:
        frame = spec.Basic.Deliver(delivery_tag=tag)
        return DeliveredMessage(frame, ContentHeader(properties=spec.Basic.Properties()), body, None)

    one, again, two = (record("q", delivered(body, tag), 1) for tag, body in enumerate([b"a", b"a", b"b"]))
    assert one.key == again.key == f"q/{hashlib.sha256(b'a').hexdigest()}"
    assert two.key != one.key


def test_what_is_not_committed_comes_again_at_once(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "again", bodies(30))

    async def run() -> tuple[list[Record], list[Record]]:
        async with reading(rabbit_server.url("again"), max_records=10) as source:
            records = await received(source, 12, commit=False)
            await source.commit(records[:5])
        async with reading(rabbit_server.url("again"), max_records=10) as source:
            return records, await received(source, 25)

    before, after = asyncio.run(run())
    assert [record.data for record in after] == bodies(25, first=5)
    assert [record.key for record in before[5:]] == [record.key for record in after[:7]]


def test_acknowledges_only_up_to_what_is_not_done() -> None:
    tags = Tags(7)
    assert tags.done([(7, 2), (7, 3), (6, 1)]) == 0
    assert tags.done([(7, 1)]) == 3
    assert tags.done([(7, 5)]) == 0
    assert tags.done([(7, 4)]) == 5


def test_a_killed_copy_is_taken_over(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "killed", bodies(30))
    url = rabbit_server.url("killed")
    with subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().split() == bodies(4)

        async def run() -> list[Record]:
            async with reading(url, max_records=100) as source:
                mine = await received(source, 9)  # the other was given twenty and one, and has done one
                holder.send_signal(signal.SIGKILL)
                return mine + await received(source, 20)

        records = asyncio.run(run())
    assert sorted(int(record.data) for record in records) == list(range(1, 30))
    assert ready(rabbit_server, "killed") == 0


def test_two_copies_share(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "shared", bodies(100))

    async def run() -> list[bytes]:
        url = rabbit_server.url("shared")
        async with reading(url, max_records=10) as one, reading(url, max_records=10) as two:
            first = await received(one, 20, commit=False)
            other = await received(two, 20, commit=False)
            await one.commit(first)
            await two.commit(other)
            found = first + other
            while len(found) < 100:
                for source in (one, two):
                    try:
                        some = await asyncio.wait_for(source.receive(10, 0), 0.1)
                    except TimeoutError:
                        continue
                    await source.commit(some)
                    found += some
            return [record.data for record in found]

    assert sorted(asyncio.run(run())) == sorted(bodies(100))


def test_outlives_a_restart_of_the_server(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "restart", bodies(30))
    messages = [Message(body, f"out/{body.decode()}") for body in bodies(30)]

    async def run() -> tuple[list[Record], list[Record], list[Record]]:
        url, out = rabbit_server.url("restart"), rabbit_server.url("restarted?declare=true")
        async with reading(url, max_records=10) as source, writing(out) as sink:
            await sink.publish(messages[:5])
            done = await received(source, 7)
            held = await received(source, 3, commit=False)
            await asyncio.to_thread(rabbit_server.kill)
            try:
                with pytest.raises(Unpublished) as caught:
                    await sink.publish(messages[5:])
                assert list(caught.value.rest) == messages[5:]
                with pytest.raises(BrokerUnavailable):
                    await received_until_away(source, held)
            finally:
                await asyncio.to_thread(rabbit_server.start)
            await source.commit(held)  # passed over: they come again
            while True:
                try:
                    await sink.publish(caught.value.rest)
                except Unpublished:
                    continue
                break
            again = await received(source, 30 - 7)
            while b"29" not in {record.data for record in again}:
                again += await received(source, 1)
        async with reading(rabbit_server.url("restarted")) as source:
            return done, again, await received(source, 30)

    done, again, out = asyncio.run(run())
    # RabbitMQ confirms no acknowledgement: what was done last may come again, with the key that it had.
    assert {record.data for record in again} >= set(bodies(30)[7:])
    keys = {record.data: record.key for record in done}
    assert all(record.key == keys.get(record.data, record.key) for record in again)
    assert [record.data for record in out] == bodies(30)


def test_connects_again_when_the_connection_is_cut(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "cut", bodies(30))

    async def run(port: int, cut: Callable[[], None]) -> tuple[list[Record], list[Record]]:
        async with reading(f"amqp://guest:guest@127.0.0.1:{port}/cut", max_records=10) as source:
            before = await received(source, 5, commit=False)
            cut()
            await asyncio.to_thread(put, rabbit_server, "cut", bodies(1, first=30))
            with pytest.raises(BrokerUnavailable):
                await received_until_away(source, [])
            await source.commit(before)  # of a connection that is no more
            return before, await received(source, 31)

    with proxy_to(f"http://127.0.0.1:{rabbit_server.port}") as proxy:
        port = int(proxy.url.rpartition(":")[2])
        before, after = asyncio.run(run(port, lambda: proxy.fail("truncate", times=1)))
    assert [record.data for record in after] == bodies(31)
    assert [record.key for record in before] == [record.key for record in after[:5]]
    assert ready(rabbit_server, "cut") == 0


def test_fetches_no_more_than_there_is_room_for(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "full", bodies(100))

    async def run() -> None:
        async with reading(rabbit_server.url("full"), max_records=10) as source:
            await until(lambda: len(source._inbox) == 20)
            assert await asyncio.to_thread(ready, rabbit_server, "full") == 80
            await received(source, 10)
            await until(lambda: len(source._inbox) == 20)
            assert await asyncio.to_thread(ready, rabbit_server, "full") == 70

    asyncio.run(run())


def test_says_when_its_queue_was_deleted(rabbit_server: RabbitServer) -> None:
    put(rabbit_server, "deleted", [])

    async def delete(channel: AbstractChannel) -> None:
        await channel.queue_delete("deleted")

    async def run() -> None:
        async with reading(rabbit_server.url("deleted")) as source:
            await asyncio.to_thread(asked, rabbit_server, delete)
            with pytest.raises(BrokerError, match="declare=true"):
                await received(source, 1)

    asyncio.run(run())


def test_publishes_what_a_full_queue_refused(rabbit_server: RabbitServer) -> None:
    async def limit(channel: AbstractChannel) -> None:
        await channel.declare_queue(
            "limited", durable=True, arguments={"x-max-length": 5, "x-overflow": "reject-publish"}
        )

    asked(rabbit_server, limit)
    messages = [Message(body, body.decode()) for body in bodies(20)]

    async def run() -> list[bytes]:
        url = rabbit_server.url("limited")
        async with writing(url) as sink:
            with pytest.raises(Unpublished) as caught:
                await sink.publish(messages)
            rest = caught.value.rest
            assert messages[-len(rest) :] == list(rest)
            async with reading(url) as source:
                found = await received(source, 20 - len(rest))
                await sink.publish(rest[:4])
                return [record.data for record in found + await received(source, 4)]

    found = asyncio.run(run())
    assert found == bodies(len(found))


def test_publishes_through_an_exchange(rabbit_server: RabbitServer) -> None:
    async def bind(channel: AbstractChannel) -> None:
        exchange = await channel.declare_exchange("rides", "direct", durable=True)
        queue = await channel.declare_queue("bound", durable=True)
        await queue.bind(exchange, "new")

    asked(rabbit_server, bind)

    async def run() -> None:
        message = Message(b"x", "key")
        async with writing(rabbit_server.url("any?exchange=rides&routing_key=new")) as sink:
            await sink.publish([message])
        async with writing(rabbit_server.url("any?exchange=rides&routing_key=old")) as sink:
            with pytest.raises(Unpublished, match="reached no queue") as caught:
                await sink.publish([message, message])
            assert caught.value.rest == (message, message)
        with pytest.raises(BrokerError, match="no exchange"):
            await open_sink(rabbit_server.url("any?exchange=none"), {}).start()

    asyncio.run(run())
    assert ready(rabbit_server, "bound") == 1


def test_says_what_is_wrong(rabbit_server: RabbitServer, free_port: int) -> None:
    wrong = {
        rabbit_server.url("missing"): "declare=true",
        rabbit_server.url("nowhere/x"): "no such virtual host",
        rabbit_server.url("x", "guest:n0tthis"): "refused the login",
        f"amqp://guest:n0tthis@127.0.0.1:{free_port}/x": "does not answer",
    }

    async def run(url: str, expected: str) -> None:
        started = time.monotonic()
        for end in (open_source(url, SourceOptions()), open_sink(url, {})):
            with pytest.raises(BrokerError, match=expected) as caught:
                await end.start()
            assert isinstance(caught.value, BrokerUnavailable) == (expected == "does not answer")
            assert "n0tthis" not in str(caught.value)
            await end.close()
        assert time.monotonic() - started < 6

    for url, expected in wrong.items():
        asyncio.run(run(url, expected))


def test_makes_a_queue_of_quorum(rabbit_server: RabbitServer) -> None:
    async def run() -> list[bytes]:
        url = rabbit_server.url("quorum?declare=true&quorum=true")
        async with writing(url) as sink, reading(url) as source:
            await sink.publish([Message(b"x", "key")])
            return [record.data for record in await received(source, 1)]

    assert asyncio.run(run()) == [b"x"]

    async def again() -> None:
        with pytest.raises(BrokerError, match="leave out declare"):
            await open_source(rabbit_server.url("quorum?declare=true"), SourceOptions()).start()

    asyncio.run(again())


@pytest.mark.parametrize(
    "url",
    ["amqp://host", "amqp://host/", "amqp://one,two/x", "amqp://host/a/b/c", "amqp://host/x?declare=1", "amqp:///x",
     "amqp://host:99999/x", "amqp://host/x?heartbeat=a", "amqp://host/x?what=1"],
)  # fmt: skip
def test_refuses_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(url, {})


def test_has_no_exchange_to_read_from() -> None:
    with pytest.raises(ConfigError, match="no such option: exchange"):
        open_source("amqp://host/x?exchange=a", SourceOptions())
