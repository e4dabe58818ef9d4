"""NATS JetStream, on a real server with a store on disk."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.broker import Source, SourceOptions, Unpublished
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.records import Message, Record
from nats_server import NatsServer, started_nats
from stories import WAIT_S, data, messages, received, run, sink_of, source_of, told_to_be_away, until

pytestmark = pytest.mark.xdist_group("nats_server")


async def nothing_comes(source: Source, wait_s: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(wait_s):
            await source.receive(1, 0)


def test_goes_out_and_comes_in_with_its_key_headers_and_order(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/round.new?stream=ROUND&declare=true"

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        before_s = time.time()
        await sink.publish(messages(2500))
        source = await source_of(stack, f"nats://{nats_server.hosts}/round.new")
        records = await received(source, 2500)
        assert data(records) == list(range(2500))
        assert [record.key for record in records] == [f"ROUND/{number}" for number in range(1, 2501)]
        assert {(record.partition, record.partition_key) for record in records} == {("ROUND", "")}
        assert records[7].headers["nats-msg-id"] == "in/7"
        assert before_s - 1 < (records[0].arrived_at_s or 0) < time.time() + 1
        (lag,) = source.lag()
        assert (lag.partition, lag.records) == ("ROUND", 2500)
        assert 0 <= lag.age_s < WAIT_S
        await source.commit(records)
        (lag,) = source.lag()
        assert (lag.records, lag.age_s) == (0, None)

    run(story)


def test_a_message_under_a_key_that_is_there_is_not_kept_again(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/once?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        await sink.publish(messages(20))
        await sink.publish(messages(30, first=10))
        source = await source_of(stack, address)
        assert data(await received(source, 30)) == list(range(30))
        await nothing_comes(source, 0.3)

    run(story)


def test_what_was_fetched_ahead_but_not_committed_comes_again(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/ahead?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(40))
        first = await source_of(stack, address)
        records = await received(first, 20, max_records=10)
        await first.commit(records[:10])
        await first.close()
        again = await received(await source_of(stack, address), 30)
        assert sorted(data(again)) == list(range(10, 40))
        keys = {record.data: record.key for record in again}
        assert all(keys[record.data] == record.key for record in records[10:])

    run(story)


_COPY = """
import asyncio, sys
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source

async def main():
    source = open_source(sys.argv[1], SourceOptions())
    await source.start()
    await source.commit(await source.receive(10, 5))
    await source.receive(10, 5)
    print("holds", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_share_of_a_killed_copy_is_taken_over(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/kill?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(50))
        copied = f"nats://{nats_server.hosts}/kill?ack_wait=1"
        with subprocess.Popen([sys.executable, "-c", _COPY, copied], stdout=subprocess.PIPE) as copy:
            assert copy.stdout is not None
            try:
                assert await asyncio.to_thread(copy.stdout.readline) == b"holds\n"
            finally:
                copy.kill()
        again = await received(await source_of(stack, copied), 40)
        assert sorted(data(again)) == list(range(10, 50))

    run(story)


def test_what_is_worked_on_for_long_is_handed_to_nobody_else(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/slow?declare=true&ack_wait=0.3"

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address.replace("&ack_wait=0.3", ""))).publish(messages(30))
        slow = await source_of(stack, address)
        held = await received(slow, 30)
        other = await source_of(stack, address)
        await nothing_comes(other, 1.0)
        await slow.commit(held)
        await slow.commit(held)  # a second time does no harm
        await nothing_comes(other, 0.5)

    run(story)


def test_copies_share_the_work(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/share?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        copies = [await source_of(stack, address, max_records=20) for _ in range(2)]
        await sink.publish(messages(400))
        seen: list[str] = []
        took = [0, 0]
        while len(seen) < 400:
            for number, copy in enumerate(copies):
                if len(copy._inbox):
                    records = await copy.receive(20, 0)
                    seen += [record.key for record in records]
                    took[number] += len(records)
                    await copy.commit(records)
            await asyncio.sleep(0)
        assert len(set(seen)) == 400
        assert all(took)

    run(story)


def test_a_server_that_was_away_loses_nothing() -> None:
    async def story(stack: AsyncExitStack) -> None:
        server = stack.enter_context(started_nats())
        address = f"nats://{server.hosts}/away?declare=true"
        sink = await sink_of(stack, address)
        source = await source_of(stack, address)
        await sink.publish(messages(30))
        records = await received(source, 30)
        await source.commit(records[:10])
        server.stop()
        rest: Sequence[Message] = messages(40, first=30)
        with pytest.raises(Unpublished) as caught:
            await sink.publish(rest)
        assert caught.value.rest == tuple(rest)
        with pytest.raises(BrokerUnavailable):
            await source.receive(1, 0)
        with pytest.raises(BrokerUnavailable):
            await source.commit(records[10:20])
        server.start()
        while rest:
            try:
                await sink.publish(rest)
                rest = ()
            except Unpublished as error:
                rest = error.rest
        assert data(await received(source, 10)) == list(range(30, 40))
        left: Sequence[Record] = records[10:20]
        while left:
            with suppress(BrokerUnavailable):
                await source.commit(left)
                left = ()
        await source.close()
        again = await received(await source_of(stack, address), 20)
        assert sorted(data(again)) == list(range(20, 40))

    run(story)


def test_a_server_that_was_killed_loses_nothing_that_was_not_committed() -> None:
    async def story(stack: AsyncExitStack) -> None:
        server = stack.enter_context(started_nats())
        address = f"nats://{server.hosts}/killed?declare=true"
        sink = await sink_of(stack, address)
        source = await source_of(stack, f"{address}&ack_wait=1")
        await sink.publish(messages(30))
        await source.commit((await received(source, 30))[:10])
        server.kill()
        server.start()
        await source.close()
        other = await source_of(stack, address, group="other")
        assert data(await received(other, 30)) == list(range(30))
        # A killed server may have forgotten the last acknowledgements, and hand those out again.
        again = await source_of(stack, address)
        seen: set[int] = set()
        while not seen >= set(range(10, 30)):
            seen |= set(data(await received(again, 1)))

    run(story)


def test_a_consumer_that_somebody_deletes_is_made_again(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.stream.brokers.nats.source._FIRST_S", 0.2)
    address = f"nats://{nats_server.hosts}/deleted?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        await sink.publish(messages(10))
        source = await source_of(stack, address)
        await source.commit(await received(source, 10))
        await source._client.jetstream().delete_consumer("deleted", "fairlead")
        await sink.publish(messages(20, first=10))
        # It begins anew: better twice than never.
        assert data(await received(source, 20)) == list(range(20))

    run(story)


def test_fetches_no_more_ahead_than_is_bounded(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/bound?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        await (await sink_of(stack, address)).publish(messages(500))
        source = await source_of(stack, address, max_records=20)
        await until(lambda: len(source._inbox) >= 20)
        first = await source.receive(5, 0)
        await until(lambda: len(source._inbox) >= 20)
        assert len(source._inbox) <= 40
        assert data(first + await received(source, 495, max_records=20)) == list(range(500))

    run(story)


def test_newest_begins_behind_what_is_there_and_then_skips_nothing(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/late.>?declare=true&stream=LATE"

    async def story(stack: AsyncExitStack) -> None:
        first = await source_of(stack, address, group="early")
        sink = await sink_of(stack, f"nats://{nats_server.hosts}/late.one")
        await sink.publish(messages(10))
        late = await source_of(stack, address, group="late", start="newest")
        await sink.publish(messages(20, first=10))
        records = await received(late, 10)
        assert data(records) == list(range(10, 20))
        assert {record.partition_key for record in records} == {"late.one"}
        await late.close()
        again = await source_of(stack, address, group="late", start="newest")
        assert sorted(data(await received(again, 10))) == list(range(10, 20))
        assert data(await received(first, 20)) == list(range(20))

    run(story)


def test_messages_up_to_the_limit_pass_and_larger_ones_say_so(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/large?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        sink = await sink_of(stack, address)
        assert sink.max_message_bytes == 1024 * 1024 - 4096
        large = b"x" * sink.max_message_bytes
        await sink.publish([Message(large, f"k{number}") for number in range(8)])
        records = await received(await source_of(stack, address), 8)
        assert {record.data for record in records} == {large}
        with pytest.raises(BrokerError, match="maximum payload") as caught:
            await sink.publish([Message(b"x" * 1_100_000, "k")])
        assert not caught.value.retryable

    run(story)


def test_a_stream_that_is_not_there_is_told_with_how_to_make_it(nats_server: NatsServer) -> None:
    async def story(stack: AsyncExitStack) -> None:
        for query in ("", "?stream=NONE"):
            address = f"nats://{nats_server.hosts}/no.such{query}"
            for opened in (open_source(address, SourceOptions()), open_sink(address, {})):
                stack.push_async_callback(opened.close)
                with pytest.raises(BrokerError, match=r"nats stream add \w+ --subjects no\.such`, or .*declare=true"):
                    await opened.start()

    run(story)


def test_a_consumer_of_another_kind_is_refused(nats_server: NatsServer) -> None:
    address = f"nats://{nats_server.hosts}/kind.>?declare=true"

    async def story(stack: AsyncExitStack) -> None:
        await source_of(stack, f"nats://{nats_server.hosts}/kept?declare=true")
        await source_of(stack, address, group="mine")
        other = open_source(f"nats://{nats_server.hosts}/kind.one", SourceOptions(group="mine"))
        stack.push_async_callback(other.close)
        with pytest.raises(BrokerError, match=r"found one of kind\.>: take another group"):
            await other.start()
        with pytest.raises(BrokerError, match="expected kind__ to keep kept, found that kept does"):
            await sink_of(stack, f"nats://{nats_server.hosts}/kept?stream=kind__")

    run(story)


def test_a_login_is_needed_and_never_shown() -> None:
    async def story(stack: AsyncExitStack) -> None:
        server = stack.enter_context(started_nats("--user", "me", "--pass", "s3cret/word"))
        source = await source_of(stack, f"nats://me:s3cret%2Fword@{server.hosts}/login?declare=true")
        assert source.lag()[0].records == 0
        wrong = open_source(f"nats://me:wr0ng@{server.hosts}/login", SourceOptions())
        stack.push_async_callback(wrong.close)
        with pytest.raises(BrokerError, match="uthorization") as caught:
            await wrong.start()
        assert not caught.value.retryable
        assert "wr0ng" not in str(caught.value)
        token = stack.enter_context(started_nats("--auth", "t0ken"))
        await source_of(stack, f"nats://t0ken@{token.hosts}/login?declare=true")

    run(story)


def test_a_server_that_is_away_is_told_soon(free_port: int) -> None:
    address = f"nats://me:s3cret@127.0.0.1:{free_port}/rides"
    told_to_be_away(address, f"127.0.0.1:{free_port}/rides", "s3cret")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nats:///rides", "expected nats://HOST:4222/SUBJECT"),
        ("nats://one", "expected nats://HOST:4222/SUBJECT"),
        ("nats://one/a b", "expected nats://HOST:4222/SUBJECT"),
        ("nats://one/rides?durable=x", "no such option: durable"),
        ("nats://one/rides?declare=yes", "declare: expected true or false, got 'yes'"),
        ("nats://one/rides?tls=true&ca=/no/such/file", "ca: expected a file of certificates"),
        ("nats://one/rides?ack_wait=long", "ack_wait: expected a number above zero"),
        ("nats://one/rides?max_ack_pending=0", "max_ack_pending: expected a number above zero"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        open_source(address, SourceOptions())


def test_a_sink_writes_to_one_subject_and_a_group_is_a_plain_name() -> None:
    with pytest.raises(ConfigError, match="without"):
        open_sink("nats://one/rides.>", {})
    with pytest.raises(ConfigError, match="expected a group of letters"):
        open_source("nats://one/rides", SourceOptions(group="a.b"))
