from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.repository.deployments import Deployment
from fairlead.stream.broker import SourceOptions, Unpublished
from fairlead.stream.brokers.memory import MemorySink, MemorySource, Stream
from fairlead.stream.consumer import Consumer
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.envelope import Envelope
from fairlead.stream.models import Models
from fairlead.stream.overflow import Overflow, Stored, open_overflow
from fairlead.stream.progress import Progress, Step
from fairlead.stream.records import Message, Record
from fairlead.stream.retry import Retry
from streams import Pricers, event, models_of, variant

ENVELOPE = Envelope((), ("id",))
AWAY = BrokerUnavailable("it is away")


@dataclass
class Script:
    """What streams do, and what is to fail of it.

    Attributes
    ----------
    told : what was done, in order.
    failing : by what is done, the errors it raises first.
    holds : by what is done, what it waits for.
    """

    told: list[tuple[str, list[int]]] = field(default_factory=list)
    failing: defaultdict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    holds: dict[str, asyncio.Event] = field(default_factory=dict)

    async def do(self, step: str, places: Sequence[int] = ()) -> None:
        if step in self.holds:
            await self.holds[step].wait()
        if self.failing[step]:
            raise self.failing[step].pop(0)
        self.told.append((step, list(places)))

    def all(self, step: str) -> list[int]:
        return [place for done, places in self.told if done == step for place in places]


class ScriptedSource(MemorySource):
    """A stream in memory whose reading fails as a script says."""

    def __init__(self, stream: Stream, script: Script) -> None:
        super().__init__(stream, SourceOptions())
        self._script = script

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        if self._script.failing["receive"]:
            raise self._script.failing["receive"].pop(0)
        found = await super().receive(max_records, max_wait_s)
        self._script.told.append(("receive", [one.position for one in found]))
        return found

    async def commit(self, records: Sequence[Record]) -> None:
        await self._script.do("commit", [one.position for one in records])
        await super().commit(records)


class ScriptedSink(MemorySink):
    """A stream in memory whose writing fails as a script says."""

    def __init__(self, stream: Stream, script: Script, step: str) -> None:
        super().__init__(stream)
        self._script = script
        self._step = step

    async def publish(self, messages: Sequence[Message]) -> None:
        failing = self._script.failing[self._step]
        if failing and isinstance(failing[0], Unpublished):
            rest = {one.key for one in failing[0].rest}
            done = [one for one in messages if one.key not in rest]
            await super().publish(done)
            self._script.told.append((self._step, [place_of(one) for one in done]))
            raise failing.pop(0)
        await self._script.do(self._step, [place_of(one) for one in messages])
        await super().publish(messages)


def place_of(message: Message) -> int:
    return int(message.key.partition("/")[2])


class Scene:
    """A consumer between streams in memory; to be made on a loop."""

    def __init__(self, models: Models, max_records: int = 2, overflow: Overflow | None = None) -> None:
        self.script = Script()
        self.input, self.output, self.dead = Stream("in"), Stream("out"), Stream("dead")
        self.source = ScriptedSource(self.input, self.script)
        self.sink = ScriptedSink(self.output, self.script, "publish")
        self.progress = Progress("price", None, self.source.lag)
        self.progress.waits_for("")
        self.models = models
        self.consumer = Consumer(
            self.source,
            self.sink,
            ScriptedSink(self.dead, self.script, "dead_letter"),
            DeadLetters("memory://in", None, overflow),
            models,
            self.progress,
            Retry(self.progress),
            max_records,
            0,
        )

    def add(self, *events: bytes) -> None:
        self.input.publish([Message(one, "") for one in events])

    def fill(self, count: int) -> None:
        """Add events that all are answered, and no more."""
        self.add(*map(event, range(count)))
        self.input.close()

    async def run(self, within_s: float = 20) -> None:
        await self.source.start()
        await asyncio.wait_for(self.consumer.run(), within_s)

    def answers(self) -> list[Any]:
        return [json.loads(one.data) for one in self.output.messages]

    def ids(self) -> list[int]:
        return [one["prediction"]["id"] for one in self.answers()]

    @property
    def committed(self) -> int:
        return self.input.committed.get("fairlead", 0)


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.stream.retry._FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("fairlead.stream.retry._LONGEST_PAUSE_S", 0.01)


@pytest.fixture(autouse=True)
def _nothing_unheard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where the event loop had to tell of an error that nobody waited for."""
    yield
    gc.collect(1)
    told = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [one.getMessage() for one in told if one.name == "asyncio"] == []


@pytest.fixture
def scene(bundle: Path) -> Callable[..., Any]:
    """Play a scene: ``scene(do, max_records=2)``."""

    def play(do: Callable[[Scene], Awaitable[None]], **how: Any) -> Scene:
        async def work() -> Scene:
            one = Scene(await models_of(bundle, ENVELOPE), **how)
            await do(one)
            return one

        return asyncio.run(work())

    return play


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.001)


def test_everything_is_answered_in_its_order_and_then_committed(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.fill(11)
        await one.run()

    one = scene(do)
    assert one.ids() == list(range(11))
    assert [(answer["idempotency_key"], answer["version"]) for answer in one.answers()] == [
        (f"in/{number}", "1") for number in range(11)
    ]
    assert [message.partition_key for message in one.output.messages] == [str(number) for number in range(11)]
    assert one.script.all("commit") == list(range(11))
    assert (one.committed, one.progress.records, one.progress.retries) == (11, 11, 0)
    nothing_was_skipped(one.script)


def nothing_was_skipped(script: Script) -> None:
    """Check that what was committed had been published before, in its order."""
    published: set[int] = set()
    for step, places in script.told:
        if step in ("publish", "dead_letter"):
            published |= set(places)
        if step == "commit":
            assert set(places) <= published
    assert script.all("commit") == sorted(script.all("commit"))


def test_poison_is_a_dead_letter_before_it_is_committed(scene: Any) -> None:
    bad = [b"rubbish", b"[]", event(0, size="x"), b"\xff", event(1, size=13), b""]

    async def do(one: Scene) -> None:
        for number, data in enumerate(bad):
            one.add(event(number), data)
        one.input.close()
        await one.run()

    one = scene(do, max_records=5)
    assert one.ids() == list(range(6))
    letters = [json.loads(message.data) for message in one.dead.messages]
    assert [base64.b64decode(letter["data"]) for letter in letters] == bad
    assert [letter["code"] for letter in letters] == [
        "not_json", "invalid", "invalid", "not_utf8", "model_failed", "not_json",
    ]  # fmt: skip
    assert [letter["idempotency_key"] for letter in letters] == [f"in/{2 * number + 1}" for number in range(6)]
    assert {letter["from"] for letter in letters} == {"memory://in"}
    nothing_was_skipped(one.script)
    assert (one.committed, one.progress.records, one.progress.dead_letters) == (12, 12, 6)


def test_what_was_not_published_is_published_again_and_nothing_else(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.failing["publish"] = [
            Unpublished("busy", [Message(b"", f"in/{place}") for place in (1, 3)]),
            AWAY,
            Unpublished("busy", [Message(b"", "in/3")]),
        ]
        one.fill(6)
        await one.run()

    one = scene(do, max_records=4)
    # What a sink gives as the rest is what is published again, as it gave it.
    assert one.script.all("publish") == [0, 2, 1, 3, 4, 5]
    assert one.committed == 6
    assert one.progress.retries == 3
    assert one.progress.status().status == "ready"
    nothing_was_skipped(one.script)


@pytest.mark.parametrize("step", ["receive", "publish", "commit"])
def test_a_broker_that_is_away_is_waited_for(scene: Any, step: str) -> None:
    seen: list[str] = []

    async def do(one: Scene) -> None:
        one.script.failing[step] = [AWAY] * 5
        one.fill(6)
        running = asyncio.create_task(one.run())
        await until(lambda: one.progress.status().reason)
        seen.append(one.progress.status().reason)
        await running

    one = scene(do)
    assert seen == [f"{step}: it is away"]
    assert one.ids() == list(range(6))
    assert (one.committed, one.progress.retries, one.progress.status().status) == (6, 5, "ready")
    nothing_was_skipped(one.script)


def test_dead_letters_that_cannot_be_written_hold_up_the_commit(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.failing["dead_letter"] = [AWAY] * 3
        one.add(event(0), b"rubbish", event(2))
        one.input.close()
        await one.run()

    one = scene(do, max_records=3)
    assert [step for step, _ in one.script.told if step != "receive"] == ["publish", "dead_letter", "commit"]
    assert len(one.dead.messages) == 1


@pytest.mark.parametrize("step", ["receive", "publish", "dead_letter", "commit"])
def test_what_no_other_try_would_mend_ends_it(scene: Any, step: str) -> None:
    async def do(one: Scene) -> None:
        one.script.failing[step] = [AWAY, BrokerError("no such stream")]
        one.add(*[event(0), b"rubbish"] * 10)
        with pytest.raises(BrokerError, match="no such stream") as caught:
            await one.run()
        assert type(caught.value) is BrokerError
        # Nothing goes on behind it.
        told = len(one.script.told)
        await asyncio.sleep(0.02)
        assert len(one.script.told) == told
        assert {task.get_coro().__name__ for task in asyncio.all_tasks()} == {"work"}

    one = scene(do)
    assert one.committed == 0


def test_a_slow_output_slows_the_input(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.holds["publish"] = asyncio.Event()
        one.add(*map(event, range(200)))
        running = asyncio.create_task(one.run())
        await until(lambda: len(one.script.all("receive")) >= 6)
        for _ in range(50):
            await asyncio.sleep(0.001)
        # Three batches are under way, and one waits.
        assert len(one.script.all("receive")) <= 4 * 2
        one.input.close()
        one.script.holds["publish"].set()
        await running

    assert scene(do).ids() == list(range(200))


def test_it_scores_while_it_publishes(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.holds["publish"] = asyncio.Event()
        one.fill(20)
        running = asyncio.create_task(one.run())
        await until(lambda: len(one.script.all("receive")) > 2)
        assert one.script.all("publish") == []
        one.script.holds["publish"].set()
        await running

    scene(do)


def test_stopping_commits_what_was_received_and_takes_no_more(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.holds["publish"] = asyncio.Event()
        one.script.failing["commit"] = [AWAY, AWAY]
        one.add(*map(event, range(200)))
        running = asyncio.create_task(one.run())
        await until(lambda: len(one.script.all("receive")) >= 6)
        one.consumer.stop()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not running.done()
        one.script.holds["publish"].set()
        await running

    one = scene(do)
    assert 4 <= one.committed <= 8
    # What it had in hand and was not answered is for the next one.
    assert one.ids() == list(range(one.committed)) == one.script.all("commit")


@pytest.mark.parametrize("when", ["before", "idle", "away"])
def test_stopping_what_waits_ends_it_at_once(scene: Any, when: str) -> None:
    async def do(one: Scene) -> None:
        if when == "away":
            one.script.failing["receive"] = [AWAY] * 100_000
        if when == "before":
            one.add(event(1))
            one.consumer.stop()
        running = asyncio.create_task(one.run())
        if when == "away":
            await until(lambda: one.progress.retries)
        elif when == "idle":
            await asyncio.sleep(0.01)
            assert not running.done()
        one.consumer.stop()
        await asyncio.wait_for(running, 2)

    one = scene(do)
    assert (one.committed, one.ids()) == (0, [])


def test_what_receiving_could_not_do_matters_no_more_once_it_stops(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.failing["receive"] = [BrokerError("no such stream")]
        one.consumer.stop()
        await one.run()

    assert scene(do).committed == 0


def test_cancelling_ends_everything_and_commits_nothing_more(scene: Any) -> None:
    async def do(one: Scene) -> None:
        one.script.holds["publish"] = asyncio.Event()
        one.add(*map(event, range(50)))
        running = asyncio.create_task(one.run())
        await until(lambda: len(one.script.all("receive")) >= 6)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1
        # Another consumer does it all.
        one.script.holds.clear()
        one.input.close()
        after = Scene(one.models)
        after.input = one.input
        after.source = ScriptedSource(one.input, after.script)
        after.consumer._source = after.source
        await after.run()
        assert after.ids() == list(range(50))

    assert scene(do).committed == 50


def test_a_model_that_fails_for_a_while_is_asked_again(scene: Any, pricers: Pricers) -> None:
    async def do(one: Scene) -> None:
        pricers.fail("1")
        one.add(event(0), event(1), b"rubbish")
        one.input.close()
        running = asyncio.create_task(one.run())
        await until(lambda: one.progress.retries)
        assert one.progress.status().reason == "score: the model raised ValueError: no price"
        pricers.fail()
        await running

    one = scene(do, max_records=3)
    assert one.ids() == [0, 1]
    assert len(one.dead.messages) == 1
    assert (one.committed, one.progress.status().status) == (3, "ready")


def test_a_model_that_goes_on_failing_does_not_hold_up_the_stream(scene: Any, pricers: Pricers) -> None:
    async def do(one: Scene) -> None:
        pricers.fail("1")
        one.fill(4)
        await one.run()
        pricers.fail()

    one = scene(do)
    assert [json.loads(message.data)["code"] for message in one.dead.messages] == ["model_failed"] * 4
    assert (one.committed, one.ids()) == (4, [])
    assert one.progress.retries == 4  # each batch is tried three times


def test_it_waits_for_a_model(bundle: Path) -> None:
    async def work() -> None:
        models = Models("price", ENVELOPE, 1000)
        one = Scene(models)
        one.fill(3)
        running = asyncio.create_task(one.run())
        await until(lambda: len(one.script.all("receive")) == 3)
        await asyncio.sleep(0.01)
        assert one.ids() == []
        served = Deployment(name="price", stable=variant(bundle))
        await models.prepare(served)
        await models.serve(served)
        await running
        assert one.ids() == [0, 1, 2]

    asyncio.run(work())


def test_a_new_version_answers_from_the_next_batch_on(pricers: Pricers) -> None:
    bundles = [pricers.build("1"), pricers.build("2")]

    async def work() -> None:
        models = await models_of(bundles[0], ENVELOPE)
        one = Scene(models)
        one.add(*map(event, range(10)))
        running = asyncio.create_task(one.run())
        await until(lambda: len(one.ids()) == 10)
        served = Deployment(name="price", stable=variant(bundles[1]))
        await models.prepare(served)
        await models.serve(served)
        one.add(*map(event, range(10, 20)))
        one.input.close()
        await running
        assert one.ids() == list(range(20))
        assert [answer["version"] for answer in one.answers()] == ["1"] * 10 + ["2"] * 10
        assert [answer["prediction"]["price"] for answer in one.answers()][10:] == [
            2 * (n + 0.5) for n in range(10, 20)
        ]

    asyncio.run(work())


def test_an_answer_over_the_limit_is_a_dead_letter(scene: Any, tmp_path: Path) -> None:
    async def do(one: Scene) -> None:
        one.sink.max_message_bytes = 200
        one.add(event(0), event(1, id="x" * 300), event(2))
        one.input.close()
        await one.run()

    one = scene(do, max_records=3, overflow=open_overflow(str(tmp_path / "overflow"), {}))
    assert one.ids() == [0, 2]
    (letter,) = [json.loads(message.data) for message in one.dead.messages]
    assert letter["code"] == "output_too_large"
    assert letter["reason"].startswith("expected an answer of at most 200 bytes, got 4")
    output = json.loads(Path(letter["output"]["at"]).read_bytes())
    assert output["prediction"] == {"price": 1.5, "id": "x" * 300}
    assert base64.b64decode(letter["data"]) == event(1, id="x" * 300)
    assert one.committed == 3


class Full:
    """A place that is full for a while, and what comes then."""

    def __init__(self, times: int, then: Callable[[], None] = lambda: None) -> None:
        self.left = times
        self._then = then

    def store(self, data: bytes) -> Stored:
        self.left -= 1
        if self.left == 0:
            self._then()
        if self.left >= 0:
            raise BrokerUnavailable("the disk is full")
        return Stored("here", len(data), "")


def test_what_cannot_be_kept_aside_is_waited_for(scene: Any) -> None:
    place = Full(5)

    async def do(one: Scene) -> None:
        one.sink.max_message_bytes = 200
        one.add(event(0), event(1, id="x" * 300))
        one.input.close()
        await one.run()

    one = scene(do, overflow=place)
    assert (one.ids(), len(one.dead.messages), one.committed, one.progress.retries) == ([0], 1, 2, 5)
    assert place.left == -1


def test_a_model_has_its_tries_whatever_else_was_waited_for(scene: Any, pricers: Pricers) -> None:
    async def do(one: Scene) -> None:
        tell = one.progress.failed

        def mend(step: Step, reason: str) -> None:
            tell(step, reason)
            if "no price" in reason:
                pricers.fail()

        one.progress.failed = mend
        one.sink.max_message_bytes = 200
        one.add(event(0), event(1, id="x" * 300))
        one.input.close()
        await one.run()

    one = scene(do, overflow=Full(5, lambda: pricers.fail("1")))
    assert [json.loads(message.data)["code"] for message in one.dead.messages] == ["output_too_large"]
    assert (one.ids(), one.committed, one.progress.retries) == ([0], 2, 6)
