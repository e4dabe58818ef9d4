"""Copies of a consumer that share the shards of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source
from fairlead.stream.brokers.kinesis import KinesisSource
from fairlead.stream.records import Record
from kinesis import Kinesalite, KinesisServer
from registry import clean_environ

WITHIN_S = 20
KEYS = [f"ride-{number}" for number in range(16)]


def rides(first: int, last: int) -> list[tuple[str, str]]:
    return [(key, f"{key}:{number:03}") for number in range(first, last) for key in KEYS]


@pytest.fixture(params=["sqlite", "dynamodb"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Give a place for checkpoints, and what is needed to reach it."""
    if request.param == "sqlite":
        return str(tmp_path / "checkpoints.db"), {}
    moto: KinesisServer = request.getfixturevalue("moto_kinesis")
    return f"dynamodb://{tmp_path.name}", {"AWS_ENDPOINT_URL_DYNAMODB": moto.url}


@asynccontextmanager
async def copies(name: str, *options: SourceOptions) -> AsyncIterator[list[KinesisSource]]:
    """Start copies, one after the other."""
    started: list[KinesisSource] = []
    try:
        for one in options:
            source = open_source(f"kinesis://{name}", one)
            assert isinstance(source, KinesisSource)
            started.append(source)
            await source.start()
        yield started
    finally:
        for source in started:
            await source.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not is_so():
            await asyncio.sleep(0.02)


async def take(source: KinesisSource, count: int) -> list[Record]:
    taken: list[Record] = []
    async with asyncio.timeout(WITHIN_S):
        while len(taken) < count:
            taken += await source.receive(100, 0)
    return taken


def held(source: KinesisSource) -> set[str]:
    return {lag.partition for lag in source.lag()}


def test_copies_share_the_shards_and_a_closed_one_gives_its_own_back(
    kinesalite_server: Kinesalite, checkpoints: tuple[str, dict[str, str]]
) -> None:
    name = kinesalite_server.stream(4)
    where, environ = checkpoints
    one = SourceOptions(environ=kinesalite_server.environ | environ, checkpoints=where, lease_s=1.5)

    async def run() -> None:
        async with copies(name, one, one, one) as sources:
            await until(lambda: sorted(len(held(source)) for source in sources) == [1, 1, 2])
            assert len(set().union(*map(held, sources))) == 4
            await sources[0].close()
            began_s = time.monotonic()
            await until(lambda: [len(held(source)) for source in sources[1:]] == [2, 2])
            assert time.monotonic() - began_s < 1.4, "given back, not waited for"

    asyncio.run(run())


def test_who_lost_a_shard_commits_nothing_of_it(
    kinesalite_server: Kinesalite, checkpoints: tuple[str, dict[str, str]]
) -> None:
    """A copy that hung, and does not know yet that another one took over."""
    name = kinesalite_server.stream()
    kinesalite_server.put(name, rides(0, 2))
    where, environ = checkpoints
    hung, quick = (
        SourceOptions(environ=kinesalite_server.environ | environ, checkpoints=where, lease_s=lease_s)
        for lease_s in (90.0, 0.6)
    )

    async def run() -> None:
        async with copies(name, hung, quick) as (slow, other):
            taken = await slow.receive(10, 0)
            await slow.commit(taken[:4])
            await until(lambda: bool(held(other)))
            again = await take(other, 28)
            assert [record.key for record in again[:6]] == [record.key for record in taken[4:]]
            await slow.commit(taken)
            assert held(slow) == set()
            with pytest.raises(TimeoutError):  # what waited there is the other's as well
                await asyncio.wait_for(slow.receive(10, 0), 0.2)
            await other.commit(again[:2])
            await slow.commit(taken)  # told once more, as after a failure
        async with copies(name, quick) as (after,):
            assert (await take(after, 26))[0].key == again[2].key

    asyncio.run(run())


class Copy:
    """A process of its own; see copy_of_consumer.py."""

    def __init__(self, name: str, where: str, output: Path, environ: dict[str, str]) -> None:
        script = Path(__file__).parent / "copy_of_consumer.py"
        self._output = output
        self.process = subprocess.Popen(
            [sys.executable, script, name, where, output],
            env=clean_environ() | environ,
            stdin=subprocess.PIPE,
        )

    def lines(self) -> list[list[str]]:
        if not self._output.exists():
            return []
        return [line.split() for line in self._output.read_text().splitlines()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WITHIN_S)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(WITHIN_S)


@contextlib.contextmanager
def ended(*processes: Copy) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.end()


def wait(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_copys_shards_are_taken_over(
    kinesalite_server: Kinesalite, checkpoints: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    name = kinesalite_server.stream(4)
    where, others = checkpoints
    environ = kinesalite_server.environ | others
    kinesalite_server.put(name, rides(0, 5))
    one, two = (Copy(name, where, tmp_path / output, environ) for output in ("one", "two"))
    with ended(one, two):
        numbers = iter(range(5, 1000))

        def both_had_some() -> bool:
            first = next(numbers)
            kinesalite_server.put(name, rides(first, first + 1))
            return all(len(copy.lines()) > 20 for copy in (one, two))

        wait(both_had_some)
        one.kill()
        last = next(numbers)
        kinesalite_server.put(name, rides(last, last + 1))
        put = {data for _, data in rides(0, last + 1)}
        wait(lambda: put <= {data for copy in (one, two) for _, data in copy.lines()})
        kept = one.lines() + two.lines()
    keys = {data: {key for key, other in kept if other == data} for data in put}
    assert all(len(found) == 1 for found in keys.values()), "a record that was read twice has one key"
