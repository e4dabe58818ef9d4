"""Batches without a timer and without tuning.

An idle engine runs at once; what arrived in the same turn of the event loop, or while the engine was
busy, is the next batch. The queue is bounded in rows and in time: what could not be answered before its
deadline is refused when it comes, not when it is too late. A request of many rows is cut, and takes its
place behind the others after each piece.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns

from fairlead.errors import ModelFailed
from fairlead.predict.predictor import Answers
from fairlead.predict.validate import Row
from fairlead.web.calls import Call
from fairlead.web.jobs import Job
from fairlead.web.problems import Refusal
from fairlead.web.runners import Cost, Runner

# How long one batch may hold up what comes after it: on the loop everything else waits for it too.
_LOOP_BUDGET_NS = 2_000_000
_BUDGET_NS = 50_000_000
_MAX_BATCH_ROWS = 4096
# Large requests are checked in slices of so many rows: that too holds up what comes after.
_SLICE_ROWS = 512
# A request may have more rows than may wait, when nothing waits, but not more than this.
_MOST_ROWS = 65536
# A batch whose process died is run again as it is, for it may have been chance; after so many deaths in so
# many parts, down to a row that gets one more try.
_DEATHS_BY_CHANCE = 2
_PARTS = 16
# How long after a look at what is late, by each request looked at, until the next look.
_LOOK_NS = 2_000
# For how long a batch runs on without anyone who waits before its engine counts as stuck.
_STUCK_AFTER_S = 1.0
# How much of the newest measurement goes into the running mean; to learn late that it takes longer costs more.
_NEWEST = 0.05
_NEWEST_LARGER = 0.3
# Where a measurement at start may mislead, batches begin with so many rows and become larger while they are quick.
_FIRST_BATCH_ROWS = 32


class EngineDied(Exception):
    """The process that ran a batch ended before it answered."""


class Batch:
    """Rows of one job or several that are run together."""

    __slots__ = ("deaths", "pieces", "rows", "started_ns")

    def __init__(self, pieces: list[tuple[Job, Sequence[int]]], rows: Sequence[Row]) -> None:
        self.pieces = pieces
        self.rows = rows
        self.deaths = 0
        self.started_ns = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return all(job.is_over for job, _ in self.pieces)

    def parts(self, n_parts: int) -> list[Batch]:
        """Split the rows evenly, through a job where need be; the first part may be of fewer rows."""
        size = -(-len(self.rows) // n_parts)
        starts = list(range(len(self.rows) - size, -size, -size))[::-1]
        return [self._between(max(start, 0), start + size) for start in starts]

    def _between(self, start: int, stop: int) -> Batch:
        pieces: list[tuple[Job, Sequence[int]]] = []
        seen = 0
        for job, places in self.pieces:
            part = places[max(start - seen, 0) : max(stop - seen, 0)]
            if part:
                pieces.append((job, part))
            seen += len(places)
        made = Batch(pieces, self.rows[start:stop])
        made.deaths = self.deaths
        return made

    def without_finished(self) -> Batch | None:
        """Leave out the jobs that are over; None when none is left."""
        if not any(job.is_over for job, _ in self.pieces):
            return self
        rows: list[Row] = []
        pieces = []
        start = 0
        for job, places in self.pieces:
            if not job.is_over:
                pieces.append((job, places))
                rows += self.rows[start : start + len(places)]
            start += len(places)
        kept = Batch(pieces, rows)
        kept.deaths = self.deaths
        return kept if pieces else None


class Batcher:
    """The queue in front of one model's engine. Everything happens on the event loop.

    Parameters
    ----------
    runner : where batches run.
    cost : what a batch takes, as measured at start; kept up to date while serving.
    max_queue_rows : rows that may wait; a request that is larger is taken only when nothing waits.
    stuck_after_s : for how long a batch may run on when nobody waits for it any more.

    Attributes
    ----------
    on_batch : told the rows, the nanoseconds and the calls of each batch.
    queued_rows : how many wait.
    is_stuck : whether every slot is taken by a batch that nobody waits for any more.
    is_closed : whether it is out of service.
    """

    def __init__(self, runner: Runner, cost: Cost, max_queue_rows: int, stuck_after_s: float = _STUCK_AFTER_S) -> None:
        self.runner = runner
        self.queued_rows = 0
        self._max_queue_rows = max_queue_rows
        self._stuck_after_ns = int(stuck_after_s * 1e9)
        self.on_batch: Callable[[int, int, Sequence[Call]], None] | None = None
        self._set_cost(cost)
        self._queue: deque[Job] = deque()
        self._again: deque[Batch] = deque()
        self._running: set[Batch] = set()
        self._running_rows = 0
        self.is_stuck = False
        self.is_closed = False
        self._is_armed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = math.inf

    def _set_cost(self, cost: Cost) -> None:
        self._budget_ns = _LOOP_BUDGET_NS if self.runner.place == "loop" else _BUDGET_NS
        # What is measured on one example may be far from what others take: the first batches show it.
        most = _MAX_BATCH_ROWS if self.runner.place == "loop" else _FIRST_BATCH_ROWS
        self._max_batch_rows = min(cost.rows_in(self._budget_ns), most)
        # What a row costs in a large batch: that is how fast a slot makes the queue shorter.
        self._row_ns = cost.of(self._max_batch_rows) / self._max_batch_rows

    def _wait_ns(self) -> float:
        """Guess how long what is here already will take."""
        return (self.queued_rows + self._running_rows) * self._row_ns / max(1, self.runner.slots)

    @property
    def is_ready(self) -> bool:
        """Whether the engine is there and answers."""
        return self.runner.slots > 0 and not self.is_stuck

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._queue or self._again or self._running)

    def submit(self, job: Job) -> None:
        """Put a job into the queue; it is finished before its deadline, one way or another.

        Raises
        ------
        Refusal
            ``overloaded`` when the queue is full, or as long as the job may wait or longer; ``too_large`` for
            more rows than any request may have; ``not_ready`` when it is closed.
        """
        if self.is_closed:
            raise _unloaded()
        if not job.n_rows:
            job.settle()
            return
        ahead = self.queued_rows
        most = max(self._max_queue_rows, _MOST_ROWS)
        if job.n_rows > most:
            raise Refusal("too_large", f"expected at most {most} records: send them in several requests")
        if self.is_stuck:
            raise self.refusal("the model has not answered for longer than requests may take")
        if ahead and ahead + job.n_rows > self._max_queue_rows:
            raise self.refusal(f"{ahead} rows wait already")
        if self._wait_ns() > job.deadline_ns - job.call.started_ns:
            raise self.refusal("the queue is longer than this request may wait")
        self.queued_rows = ahead + job.n_rows
        self._queue.append(job)
        if job.deadline_ns < self._alarm_ns:
            self._set_alarm(job.deadline_ns)
        self._arm()

    def refusal(self, why: str) -> Refusal:
        """Make the answer 503 that tells when to come again."""
        wait_s = math.ceil(self._wait_ns() / 1e9)
        headers = [(b"retry-after", b"%d" % max(1, wait_s))]
        return Refusal("overloaded", f"the server is busy: {why}", headers=headers)

    def close(self) -> None:
        """Refuse what waits, and let go of the engine."""
        self.is_closed = True
        self._cancel_alarm()
        for job in [*self._queue, *(job for batch in (*self._again, *self._running) for job, _ in batch.pieces)]:
            job.fail(_unloaded())
        self._queue.clear()
        self._again.clear()
        self.queued_rows = 0
        self.runner.close()

    def slots_changed(self, cost: Cost | None) -> None:
        """Take note that a slot has come, with what a batch costs there, or gone."""
        self.is_stuck = False
        if cost is not None:
            self._set_cost(cost)
        self._wake()

    def _wake(self) -> None:
        if self._queue or self._again:
            self._arm()

    def _arm(self) -> None:
        # What else arrives in this turn of the loop gets into the same batch.
        if not self._is_armed and len(self._running) < self.runner.slots:
            self._is_armed = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_armed = False
        while len(self._running) < self.runner.slots and (batch := self._take()) is not None:
            self._running.add(batch)
            self._running_rows += len(batch.rows)
            batch.started_ns = perf_counter_ns()
            self.runner.run(batch.rows, partial(self._done, batch))
            if self.runner.place == "loop":
                break  # others get their turn before the next batch

    def _take(self) -> Batch | None:
        while self._again:
            if self._again[0].deaths >= _DEATHS_BY_CHANCE and self._has_suspect():
                break  # one that may kill is enough at a time: others need processes too
            if (again := self._again.popleft().without_finished()) is not None:
                return again
        queue, room = self._queue, self._max_batch_rows
        pieces: list[tuple[Job, Sequence[int]]] = []
        rows: list[Row] = []
        waiting: list[Job] = []
        done_ns = perf_counter_ns() + min(room, self.queued_rows) * self._row_ns
        while queue and room > 0:
            job = queue.popleft()
            if job.call.is_gone:
                job.fail(ClientGone())
            if job.is_over:
                self.queued_rows -= job.n_rows - job.taken
                continue
            if job.deadline_ns < done_ns and not job.taken and len(queue) + len(pieces):
                # It would be run for nothing, while there are others.
                self.queued_rows -= job.n_rows
                job.fail(self.refusal("this request waited as long as it might"))
                continue
            n_rows = min(job.n_rows - job.taken, room, _SLICE_ROWS if job.source is not None else room)
            left = job.n_rows - job.taken
            try:
                taken, places = job.take(n_rows)
            except Exception as error:  # a slice of a large body may turn out to be broken
                self.queued_rows -= left
                job.fail(error)
                continue
            self.queued_rows -= n_rows
            room -= n_rows
            if places:
                pieces.append((job, places))
                rows += taken
            else:
                job.settle()  # the schema refused them all, and they may have been the last
            if job.taken < job.n_rows:
                waiting.append(job)
        queue.extend(waiting)
        if not pieces:
            if queue:
                self._arm()
            return None
        return Batch(pieces, rows)

    def _has_suspect(self) -> bool:
        return any(batch.deaths >= _DEATHS_BY_CHANCE for batch in self._running)

    def _done(self, batch: Batch, answers: Answers | Exception, took_ns: int) -> None:
        self._running.discard(batch)
        self._running_rows -= len(batch.rows)
        self.is_stuck = False
        if isinstance(answers, Exception):
            self._failed(batch, answers)
        else:
            self._learn(len(batch.rows), took_ns)
            if self.on_batch is not None:
                self.on_batch(len(batch.rows), took_ns, [job.call for job, _ in batch.pieces])
            self._share(batch, answers)
        self._wake()

    def _learn(self, n_rows: int, took_ns: int) -> None:
        most = self._max_batch_rows
        if took_ns > 2 * self._budget_ns:
            self._max_batch_rows = max(1, int(n_rows * self._budget_ns / took_ns))
        elif took_ns < self._budget_ns / 2 and n_rows >= most:
            self._max_batch_rows = min(2 * most, _MAX_BATCH_ROWS)
        # Small batches tell of the fixed cost, which a long queue pays once for many rows.
        if self.queued_rows or n_rows >= most // 2:
            row_ns = took_ns / n_rows
            self._row_ns += (_NEWEST_LARGER if row_ns > self._row_ns else _NEWEST) * (row_ns - self._row_ns)

    def _share(self, batch: Batch, answers: Answers) -> None:
        """Give every job its part."""
        found, late = answers
        start = 0
        for job, places in batch.pieces:
            stop = start + len(places)
            if not job.is_over:
                job.put(places, found if stop - start == len(found) else found[start:stop])
                if late:
                    for row in range(start, stop):
                        if row in late:
                            place = places[row - start]
                            job.rejections[place] = tuple(problem.moved(place) for problem in late[row])
                job.settle()
            start = stop

    def _failed(self, batch: Batch, error: Exception) -> None:
        """Run a failed batch again: whole, if its process died by chance, else in parts, down to the bad row."""
        n_parts = 2
        if isinstance(error, EngineDied):
            batch.deaths += 1
            n_parts = _PARTS if batch.deaths >= _DEATHS_BY_CHANCE else 1
            if batch.deaths > _DEATHS_BY_CHANCE and len(batch.rows) == 1:
                error = ModelFailed("the model's process died each time it ran this record")
                n_parts = 2
        if len(batch.rows) > 1 or isinstance(error, EngineDied):
            self._again.extendleft(reversed([batch] if n_parts == 1 else batch.parts(n_parts)))
            return
        job, places = batch.pieces[0]
        if not job.is_over:
            job.failures[places[0]] = error
            job.left -= 1
            job.settle()

    def _set_alarm(self, deadline_ns: float) -> None:
        self._cancel_alarm()
        self._alarm_ns = deadline_ns
        wait_s = max(0.0, (deadline_ns - perf_counter_ns()) / 1e9)
        self._alarm = asyncio.get_running_loop().call_later(wait_s, self._expire)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_ns = None, math.inf

    def _expire(self) -> None:
        """Refuse what is past its deadline; waiting ones were never begun, so that another try may do."""
        self._cancel_alarm()
        now_ns = perf_counter_ns()
        begun = {job for batch in (*self._running, *self._again) for job, _ in batch.pieces}
        jobs = [job for job in (*self._queue, *begun) if not job.is_over]
        for job in jobs:
            if job.deadline_ns <= now_ns:
                if job in begun or job.taken:
                    job.fail(Refusal("deadline", "the model did not answer in the time that this request had"))
                else:
                    job.fail(self.refusal("this request waited as long as it might"))
        # A request may be in more of a hurry than the model ever is: that alone does not make it stuck.
        stuck_at_ns = [batch.started_ns + self._stuck_after_ns for batch in self._running if batch.is_over]
        n_lost = sum(at_ns <= now_ns for at_ns in stuck_at_ns)
        self.is_stuck = 0 < self.runner.slots <= n_lost
        for job in self._queue:
            if job.is_over:
                self.queued_rows -= job.n_rows - job.taken
        self._queue = deque(job for job in self._queue if not job.is_over)
        left = [job.deadline_ns for job in jobs if not job.is_over]
        left += [at_ns for at_ns in stuck_at_ns if at_ns > now_ns]
        if left:
            # With many that wait, each for its own deadline, looking at all of them each time would be all there is.
            self._set_alarm(max(min(left), now_ns + _LOOK_NS * len(jobs)))


def _unloaded() -> Refusal:
    return Refusal("not_ready", "the model is being unloaded", headers=[(b"retry-after", b"1")])


class ClientGone(Exception):
    """The client closed the connection before its answer."""
