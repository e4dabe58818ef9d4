from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions, Unpublished
from fairlead.stream.brokers import file
from fairlead.stream.records import Lag, Message, Record


def source(folder: Path, query: str = "", **options: Any) -> file.FileSource:
    address = Address.parse(f"file://{folder}/in.jsonl{query}")
    return file.open_source(address, SourceOptions(checkpoints=folder / "checkpoints.sqlite", **options))


def reading(folder: Path, do: Callable[[file.FileSource], Awaitable[Any]], query: str = "", **options: Any) -> Any:
    """Do something with a source that is started and closed."""

    async def work() -> Any:
        one = source(folder, query, **options)
        try:
            await one.start()
            return await do(one)
        finally:
            await one.close()

    return asyncio.run(work())


async def all_of(one: file.FileSource) -> list[Record]:
    """Receive until the end."""
    found: list[Record] = []
    while not one.is_over:
        found += await one.receive(2, 0)
    return found


def lines(folder: Path, *texts: bytes) -> None:
    with (folder / "in.jsonl").open("ab") as opened:
        opened.write(b"".join(texts))


@pytest.mark.parametrize("query", ["?follow=yes", "?follow="], ids=str)
def test_whether_to_follow_is_true_or_false(tmp_path: Path, query: str) -> None:
    with pytest.raises(ConfigError, match="follow: expected true or false"):
        source(tmp_path, query)


def test_a_table_is_no_place_for_the_checkpoints_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoints: expected a SQLite file"):
        file.open_source(Address.parse("file://x"), SourceOptions(checkpoints="dynamodb://table"))


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path, b"1\n")
    for text in ("file://in.jsonl", f"file://../{tmp_path.name}/in.jsonl", f"file://{tmp_path}/in.jsonl"):
        one = file.open_source(Address.parse(text), SourceOptions(checkpoints=tmp_path / text[-12:].replace("/", "-")))

        async def work(one: file.FileSource = one) -> None:
            await one.start()
            assert len(await all_of(one)) == 1
            await one.close()

        asyncio.run(work())


def test_lines_are_events_and_their_places_are_their_keys(tmp_path: Path) -> None:
    lines(tmp_path, b'{"a":1}\n', b"\n", b"  \n", b"\xff\x00\r\n", b"last")
    found = reading(tmp_path, all_of)
    assert [(one.data, one.key) for one in found] == [
        (b'{"a":1}', "in.jsonl/0"),
        (b"\xff\x00", "in.jsonl/12"),
        (b"last", "in.jsonl/16"),
    ]
    assert {one.partition for one in found} == {str(tmp_path / "in.jsonl")}


def test_it_goes_on_after_what_was_committed(tmp_path: Path) -> None:
    lines(tmp_path, *(b"%d\n" % number for number in range(5)))

    async def half(one: file.FileSource) -> None:
        await one.commit(await one.receive(2, 0))
        await one.receive(2, 0)  # which nobody commits
        assert one.lag() == [Lag(str(tmp_path / "in.jsonl"))]

    reading(tmp_path, half)
    assert [one.data for one in reading(tmp_path, all_of)] == [b"2", b"3", b"4"]
    assert len(reading(tmp_path, all_of, group="other")) == 5
    lines(tmp_path, b"5\n")
    assert len(reading(tmp_path, all_of)) == 4


def test_a_new_group_may_begin_at_the_end_and_misses_nothing_from_then_on(tmp_path: Path) -> None:
    lines(tmp_path, b"0\n")
    assert reading(tmp_path, all_of, start="newest") == []
    lines(tmp_path, b"1\n")  # which comes when the first is dead and had committed nothing
    assert [one.data for one in reading(tmp_path, all_of, start="newest")] == [b"1"]


def test_a_file_is_followed_as_it_grows(tmp_path: Path) -> None:
    lines(tmp_path, b"0\n1\nha")

    async def follow(one: file.FileSource) -> None:
        assert [each.data for each in await one.receive(9, 0)] == [b"0", b"1"]
        assert (await one.receive(9, 0), one.is_over) == ([], False)
        lines(tmp_path, b"lf\n")
        assert [(each.data, each.key) for each in await one.receive(9, 0)] == [(b"half", "in.jsonl/4")]

    reading(tmp_path, follow, "?follow=true")


@pytest.mark.parametrize("data", [b"", b"1\n"], ids=["cut off", "cut and written to"])
@pytest.mark.parametrize("query", ["", "?follow=true"], ids=["read", "followed"])
def test_a_file_that_is_cut_is_told(tmp_path: Path, data: bytes, query: str) -> None:
    lines(tmp_path, b"111\n222\n")

    async def cut(one: file.FileSource) -> None:
        await one.receive(9, 0)
        (tmp_path / "in.jsonl").write_bytes(data)
        with pytest.raises(BrokerError, match=f"that was cut to {len(data)} bytes when 8 were read"):
            await one.receive(9, 0)
        (tmp_path / "in.jsonl").write_bytes(b"")

    reading(tmp_path, cut, query)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_taken_away_is_told_when_all_of_it_was_read(tmp_path: Path, replaced: bool) -> None:
    lines(tmp_path, b"1\n2\n")

    async def take(one: file.FileSource) -> None:
        await one.receive(1, 0)
        (tmp_path / "in.jsonl").rename(tmp_path / "in.jsonl.1")
        if replaced:
            lines(tmp_path, b"3\n")
        assert [each.data for each in await one.receive(9, 0)] == [b"2"]
        with pytest.raises(BrokerError, match="expected a file that only grows, it was taken away"):
            await one.receive(9, 0)

    reading(tmp_path, take, "?follow=true")


def test_a_shorter_file_than_was_read_is_refused(tmp_path: Path) -> None:
    lines(tmp_path, b"1\n2\n")

    async def read(one: file.FileSource) -> None:
        await one.commit(await one.receive(9, 0))

    reading(tmp_path, read)
    (tmp_path / "in.jsonl").write_bytes(b"1\n")
    with pytest.raises(BrokerError, match="expected the 4 bytes that the group fairlead has read, and more, got 2"):
        reading(tmp_path, all_of)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"in\.jsonl: cannot be read: No such file"):
        reading(tmp_path, all_of)
    (tmp_path / "in.jsonl").mkdir()
    with pytest.raises(BrokerError, match=r"in\.jsonl: cannot be read: Is a directory"):
        reading(tmp_path, all_of)


def test_a_start_that_fails_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.stream.checkpoints._BUSY_S", 0.01)
    lines(tmp_path, b"1\n")
    assert reading(tmp_path, all_of)
    holder = sqlite3.connect(tmp_path / "checkpoints.sqlite", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")

    async def work() -> None:
        one = source(tmp_path, start="newest", group="new")
        with pytest.raises(BrokerUnavailable):
            await one.start()
        holder.close()
        await one.start()
        await one.close()

    asyncio.run(work())


def sink(path: Path) -> file.FileSink:
    return file.open_sink(Address.parse(f"file://{path}"), {})


def messages(*texts: bytes) -> list[Message]:
    return [Message(text, f"k/{number}") for number, text in enumerate(texts)]


def test_messages_are_lines(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "out.jsonl"

    async def work() -> None:
        one = sink(out)
        await one.start()
        await one.publish(messages(b"1", b"2"))
        await one.publish(messages(b"3"))
        await one.close()
        await one.close()
        out.write_bytes(out.read_bytes() + b"of another, who was killed")
        again = sink(out)
        await again.start()
        await again.publish(messages(b"4"))
        await again.close()

    asyncio.run(work())
    assert out.read_bytes() == b"1\n2\n3\nof another, who was killed\n4\n"


@pytest.mark.parametrize("place", ["file/below.jsonl", "folder"])
def test_what_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BrokerError, match="cannot be written to") as caught:
        asyncio.run(sink(tmp_path / place).start())
    assert not caught.value.retryable


def test_a_batch_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def work() -> None:
        one = sink(out)
        await one.start()
        await one.publish(messages(b"1"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(Unpublished, match="cannot be written to: File too large") as caught:
                await one.publish(messages(b"2", b"x" * 5000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.rest == tuple(messages(b"2", b"x" * 5000))
        assert caught.value.retryable
        assert out.read_bytes() == b"1\n"
        await one.publish(caught.value.rest)
        await one.close()

    asyncio.run(work())
    assert len(out.read_bytes()) == 2 + 2 + 5001


def test_several_may_write_to_one_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    def write(number: int) -> None:
        async def work() -> None:
            one = sink(out)
            await one.start()
            for turn in range(10):
                await one.publish(messages(*(b"%d %d %d" % (number, turn, place) for place in range(20))))
            await one.close()

        asyncio.run(work())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = out.read_bytes().splitlines()
    assert len(found) == 600
    # Each batch is together, and those of one writer are in their order.
    assert [found[place] for place in range(0, 600, 20)] == [one for one in found if one.endswith(b" 0")]
    for number in range(3):
        own = [one for one in found if one.startswith(b"%d " % number)]
        assert own == [b"%d %d %d" % (number, turn, place) for turn in range(10) for place in range(20)]
    assert out.stat().st_size == sum(len(one) + 1 for one in found)
