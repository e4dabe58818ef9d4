"""The queue in front of an engine: what is run together, what is refused, what is run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter_ns
from typing import Any

import pytest

from fairlead.errors import ModelFailed
from fairlead.predict.predictor import Answers
from fairlead.predict.validate import Row, Validated
from fairlead.schema import Problem
from fairlead.web.batching import Batcher, ClientGone, EngineDied
from fairlead.web.calls import Call
from fairlead.web.jobs import Job
from fairlead.web.problems import Refusal
from fairlead.web.runners import Cost, Done

BAD = -1


class Runner:
    """Doubles each row after `delay_s`; raises for a row that is BAD; says that a row took `row_ns`."""

    row_ns = 1000

    def __init__(self, place: str = "thread", slots: int = 1, delay_s: float = 0.0, deaths: int = 0) -> None:
        self.place, self.slots, self.delay_s, self.deaths = place, slots, delay_s, deaths
        self.batches: list[list[int]] = []
        self.is_closed = False

    def run(self, rows: Sequence[Row], done: Done) -> None:
        values = [row[0] for row in rows]
        self.batches.append(values)
        answers: Answers | Exception
        if self.deaths:
            self.deaths -= 1
            answers = EngineDied()
        elif BAD in values:
            answers = ModelFailed("bad")
        else:
            answers = [{"double": 2 * value} for value in values], {}
        if self.place == "loop":
            done(answers, self.row_ns * len(rows))
        else:
            took_ns = int(self.delay_s * 1e9) + self.row_ns * len(rows)
            asyncio.get_running_loop().call_later(self.delay_s, done, answers, took_ns)

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Slices:
    """Values that come in slices; negative ones are refused when their slice is taken."""

    def __init__(self, values: Sequence[int]) -> None:
        self.n_rows = len(values)
        self.values = values

    def take(self, start: int, stop: int) -> Validated:
        good = [place for place in range(start, stop) if self.values[place] >= 0]
        bad = {p: (Problem(f"$[{p}].x", "more", "less"),) for p in range(start, stop) if self.values[p] < 0}
        return Validated([(self.values[place],) for place in good], good, bad)


class Asked:
    """A job and its end."""

    def __init__(self, values: Sequence[int], timeout_s: float = 5.0, source: Slices | None = None) -> None:
        self.call = Call("POST", "/predict", b"", [], b"", None)
        rows = [] if source else [(value,) for value in values]
        self.job = Job(self.call, rows, self._finish, lambda answers: answers, source=source)
        self.job.deadline_ns = perf_counter_ns() + int(timeout_s * 1e9)
        self.over = asyncio.Event()
        self.ends = 0

    def _finish(self, job: Job) -> None:
        self.ends += 1
        self.over.set()

    async def answers(self) -> list[Any]:
        await asyncio.wait_for(self.over.wait(), 5)
        assert self.ends == 1
        if self.job.error is not None:
            raise self.job.error
        return [answer and answer["double"] for answer in self.job.answers]


def batcher(runner: Runner, max_queue_rows: int = 1000, row_ns: float = 1000.0, fixed_ns: float = 0.0) -> Batcher:
    return Batcher(runner, Cost(fixed_ns, row_ns), max_queue_rows)


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 20))

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_what_comes_in_one_turn_is_one_batch_and_an_idle_engine_runs_at_once() -> None:
    runner = Runner()
    queue = batcher(runner)
    asked = [Asked([value]) for value in range(5)]
    for one in asked:
        queue.submit(one.job)
    await asyncio.sleep(0)
    assert runner.batches == [[0, 1, 2, 3, 4]]
    assert [await one.answers() for one in asked] == [[0], [2], [4], [6], [8]]
    assert queue.is_idle


@on_a_loop
async def test_what_comes_while_the_engine_is_busy_is_the_next_batch() -> None:
    runner = Runner(delay_s=0.05)
    queue = batcher(runner)
    first = Asked([1])
    queue.submit(first.job)
    await asyncio.sleep(0.01)
    later = [Asked([2]), Asked([3, 4])]
    for one in later:
        queue.submit(one.job)
        await asyncio.sleep(0.005)
    assert runner.batches == [[1]]
    assert await later[1].answers() == [6, 8]
    assert runner.batches == [[1], [2, 3, 4]]


@on_a_loop
async def test_every_slot_is_used() -> None:
    runner = Runner(slots=2, delay_s=0.05)
    queue = batcher(runner, row_ns=60e6)  # one row fills a batch
    asked = [Asked([value]) for value in range(3)]
    for one in asked:
        queue.submit(one.job)
    await asyncio.sleep(0.01)
    assert runner.batches == [[0], [1]]
    assert [await one.answers() for one in asked] == [[0], [2], [4]]


@pytest.mark.parametrize("place", ["loop", "thread"])
def test_a_large_request_does_not_hold_up_a_small_one(place: str) -> None:
    @on_a_loop
    async def run() -> None:
        runner = Runner(place)
        runner.row_ns = 100_000
        queue = batcher(runner, max_queue_rows=10_000, row_ns=100_000.0)
        large = Asked(range(5000))
        queue.submit(large.job)
        await asyncio.sleep(0)
        small = Asked([7])
        queue.submit(small.job)
        assert await small.answers() == [14]
        assert not large.over.is_set()
        assert await large.answers() == [2 * value for value in range(5000)]
        assert max(map(len, runner.batches)) <= 500

    run()


@on_a_loop
async def test_slices_are_taken_when_their_turn_comes_and_bad_rows_are_told_by_place() -> None:
    values = [value if value % 100 else -1 for value in range(1000)]
    asked = Asked([], source=Slices(values))
    queue = batcher(Runner(), row_ns=1e6)
    queue.submit(asked.job)
    await asked.answers()
    assert sorted(asked.job.rejections) == list(range(0, 1000, 100))
    assert asked.job.rejections[300][0].path == "$[300].x"
    assert queue.is_idle


@on_a_loop
async def test_slices_of_good_rows_are_answered_in_order() -> None:
    runner = Runner()
    asked = Asked([], source=Slices(range(2000)))
    batcher(runner, row_ns=1e4).submit(asked.job)
    assert await asked.answers() == [2 * value for value in range(2000)]
    assert max(map(len, runner.batches)) <= 512


@on_a_loop
async def test_after_a_thousand_bad_rows_the_rest_is_not_looked_at() -> None:
    runner = Runner()
    asked = Asked([], source=Slices([-1] * 60_000))
    queue = batcher(runner)
    queue.submit(asked.job)
    await asked.answers()
    assert 1000 <= len(asked.job.rejections) == asked.job.n_checked < 2000
    assert runner.batches == []
    assert queue.is_idle


@on_a_loop
async def test_a_request_of_more_rows_than_any_may_have_is_refused() -> None:
    queue = batcher(Runner(), max_queue_rows=10)
    with pytest.raises(Refusal, match="at most 65536 records") as caught:
        queue.submit(Asked([], source=Slices(range(65_537))).job)
    assert caught.value.status == 413


@on_a_loop
async def test_batches_become_smaller_when_rows_take_longer_than_was_measured_and_larger_when_not() -> None:
    runner = Runner()
    runner.row_ns = 5_000_000
    queue = batcher(runner, max_queue_rows=100_000)  # a row was held to take a microsecond
    asked = Asked(range(2000))
    queue.submit(asked.job)
    await asked.answers()
    sizes = [len(batch) for batch in runner.batches]
    assert sizes[0] <= 64
    assert max(sizes[3:]) <= 20
    queue.submit(Asked([1] * 10).job)
    with pytest.raises(Refusal, match="longer than this request may wait"):
        queue.submit(Asked([1], timeout_s=0.01).job)
    runner.row_ns, runner.batches = 1000, []
    asked = Asked(range(20_000))
    queue.submit(asked.job)
    await asked.answers()
    assert len(runner.batches[-2]) > 1000


@on_a_loop
async def test_slices_of_which_every_row_is_refused() -> None:
    asked = Asked([], source=Slices([-1] * 200))
    queue = batcher(Runner(), row_ns=1e6)
    queue.submit(asked.job)
    await asked.answers()
    assert len(asked.job.rejections) == 200
    assert queue.queued_rows == 0
    assert queue.is_idle


@on_a_loop
async def test_nothing_asked_is_answered_at_once() -> None:
    asked = Asked([])
    batcher(Runner()).submit(asked.job)
    assert await asked.answers() == []


@on_a_loop
async def test_only_the_bad_row_of_a_failed_batch_gets_the_error() -> None:
    runner = Runner()
    queue = batcher(runner)
    asked = [Asked([1]), Asked([2, BAD, 3]), Asked([4]), Asked([BAD]), Asked([5])]
    for one in asked:
        queue.submit(one.job)
    found = [await one.answers() for one in asked]
    assert (found[0], found[2], found[4]) == ([2], [8], [10])
    assert found[1] == [4, None, 6]
    assert [sorted(one.job.failures) for one in asked] == [[], [1], [], [0], []]
    assert isinstance(asked[3].job.failures[0], ModelFailed)
    assert queue.queued_rows == 0


@on_a_loop
async def test_a_batch_whose_process_died_is_run_again_and_nobody_notices() -> None:
    runner = Runner(deaths=2)
    queue = batcher(runner)
    asked = [Asked([1]), Asked([2])]
    for one in asked:
        queue.submit(one.job)
    assert [await one.answers() for one in asked] == [[2], [4]]
    assert runner.batches == [[1, 2], [1, 2], [1], [2]]


class Deadly(Runner):
    """A process that dies of a row that is BAD."""

    def run(self, rows: Sequence[Row], done: Done) -> None:
        self.deaths = int(any(row[0] == BAD for row in rows))
        super().run(rows, done)


@pytest.mark.parametrize("n_rows", [1, 3, 256, 4096])
def test_a_row_that_kills_every_process_is_found_after_a_few_deaths_and_refused(n_rows: int) -> None:
    @on_a_loop
    async def run() -> None:
        runner = Deadly()
        queue = batcher(runner, row_ns=1.0, max_queue_rows=10_000)
        asked = [Asked([BAD if value == n_rows // 2 else value]) for value in range(n_rows)]
        for one in asked:
            queue.submit(one.job)
        for value, one in enumerate(asked):
            assert await one.answers() == ([] if value == n_rows // 2 else [2 * value])
        assert "died each time" in str(asked[n_rows // 2].job.failures[0])
        assert sum(BAD in batch for batch in runner.batches) <= 5
        assert queue.is_idle

    run()


@on_a_loop
async def test_only_one_batch_that_may_kill_runs_at_a_time() -> None:
    runner = Deadly(slots=3, delay_s=0.02)
    queue = batcher(runner, row_ns=60e6)  # one row fills a batch
    asked = [Asked([BAD]) for _ in range(3)]
    for one in asked:
        queue.submit(one.job)
    await asyncio.sleep(0.05)  # each was run twice
    others = [Asked([value]) for value in range(20)]
    for one in others:
        queue.submit(one.job)
    for value, one in enumerate(others):
        assert await one.answers() == [2 * value]
    for one in asked:
        assert await one.answers() == []
    assert queue.is_idle


@on_a_loop
async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    queue = batcher(Runner(delay_s=0.05), max_queue_rows=10, row_ns=1e6)
    kept = [Asked([1] * 8), Asked([1])]
    for one in kept:
        queue.submit(one.job)
    with pytest.raises(Refusal, match="busy") as caught:
        queue.submit(Asked([1, 1]).job)
    assert caught.value.status == 503
    assert dict(caught.value.headers)[b"retry-after"] == b"1"
    for one in kept:
        await one.answers()
    # One request may be larger than the queue, when nothing waits.
    alone = Asked([1] * 20)
    queue.submit(alone.job)
    assert len(await alone.answers()) == 20


@on_a_loop
async def test_what_cannot_be_answered_in_time_is_refused_when_it_comes() -> None:
    queue = batcher(Runner(delay_s=0.2), row_ns=100e6)
    first = Asked([1] * 5)
    queue.submit(first.job)
    with pytest.raises(Refusal, match="longer than this request may wait"):
        queue.submit(Asked([1], timeout_s=0.4).job)
    patient = Asked([1])
    queue.submit(patient.job)
    assert await patient.answers() == [2]


@on_a_loop
async def test_what_waited_as_long_as_it_might_is_refused_and_never_run() -> None:
    runner = Runner(delay_s=0.3)
    queue = batcher(runner)
    first = Asked([1])
    queue.submit(first.job)
    await asyncio.sleep(0.01)
    hasty, patient = Asked([2], timeout_s=0.05), Asked([3])
    queue.submit(hasty.job)
    queue.submit(patient.job)
    with pytest.raises(Refusal, match="busy") as caught:
        await hasty.answers()
    assert caught.value.status == 503
    assert await patient.answers() == [6]
    assert runner.batches == [[1], [3]]
    assert queue.queued_rows == 0


@on_a_loop
async def test_what_runs_too_long_is_given_up_and_a_stuck_engine_takes_no_more() -> None:
    runner = Runner(delay_s=0.5)
    queue = Batcher(runner, Cost(0.0, 1000.0), 1000, stuck_after_s=0.2)
    asked = Asked([1], timeout_s=0.05)
    queue.submit(asked.job)
    with pytest.raises(Refusal) as caught:
        await asked.answers()
    assert caught.value.status == 504
    assert not queue.is_stuck  # a request in a hurry does not keep out the others
    await asyncio.sleep(0.25)
    assert queue.is_stuck
    with pytest.raises(Refusal, match="has not answered"):
        queue.submit(Asked([1]).job)
    await asyncio.sleep(0.4)
    assert not queue.is_stuck
    again = Asked([2], timeout_s=1)
    queue.submit(again.job)
    assert await again.answers() == [4]


@on_a_loop
async def test_what_is_late_no_longer_takes_room_in_the_queue_of_a_stuck_engine() -> None:
    queue = batcher(Runner(delay_s=0.5), max_queue_rows=10)
    first = Asked([1])
    queue.submit(first.job)
    await asyncio.sleep(0.01)
    late = [Asked([1], timeout_s=0.05) for _ in range(10)]
    for one in late:
        queue.submit(one.job)
    for one in late:
        with pytest.raises(Refusal, match="as long as it might"):
            await one.answers()
    assert queue.queued_rows == 0
    patient = Asked([2])
    queue.submit(patient.job)
    assert await patient.answers() == [4]


@on_a_loop
async def test_a_client_that_went_away_costs_nothing() -> None:
    runner = Runner()
    queue = batcher(runner)
    gone, here = Asked([1]), Asked([2])
    queue.submit(gone.job)
    queue.submit(here.job)
    gone.call.is_gone = True
    assert await here.answers() == [4]
    assert runner.batches == [[2]]
    with pytest.raises(ClientGone):
        await gone.answers()


@on_a_loop
async def test_closing_refuses_what_waits() -> None:
    runner = Runner(delay_s=0.2)
    queue = batcher(runner)
    running, waiting = Asked([1]), Asked([2])
    queue.submit(running.job)
    await asyncio.sleep(0)
    queue.submit(waiting.job)
    queue.close()
    for one in (running, waiting):
        with pytest.raises(Refusal) as caught:
            await one.answers()
        assert caught.value.status == 503
    assert runner.is_closed
    await asyncio.sleep(0.25)  # the answers that come after all are dropped


@on_a_loop
async def test_the_queue_counts_right_after_many_of_all_kinds() -> None:
    runner = Runner(slots=3, delay_s=0.001)
    queue = batcher(runner, row_ns=5e6)
    asked = [Asked([BAD if n % 17 == 0 else n] * (1 + n % 30)) for n in range(200)]
    accepted = []
    for n, one in enumerate(asked):
        try:
            queue.submit(one.job)
        except Refusal:
            continue
        accepted.append(one)
        one.call.is_gone = n % 13 == 0
        if n % 7 == 0:
            await asyncio.sleep(0.002)
    for one in accepted:
        try:
            found = await one.answers()
        except ClientGone:
            continue
        assert len(one.job.failures) + len([a for a in found if a is not None]) == one.job.n_rows
    assert len(accepted) > 50
    assert queue.queued_rows == 0
    assert queue.is_idle
