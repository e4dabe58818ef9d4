"""The one loop, for every broker: receive → score → publish → commit.

A few batches are under way at a time: while one is published, the next are scored. Nothing is committed before its
answers and dead letters are published, so that every event is answered at least once, and under the same key if more
than once.

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from itertools import count
from typing import TypeVar

from fairlead.errors import BrokerUnavailable, ModelFailed
from fairlead.stream.batches import Batch, Scorer
from fairlead.stream.broker import Sink, Source, Unpublished
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.models import Models
from fairlead.stream.progress import Progress, Step
from fairlead.stream.records import Message, Record
from fairlead.stream.retry import Retry

T = TypeVar("T")
# Batches that are scored, published or committed at a time.
_UNDER_WAY = 3
# How often a batch is tried for which the model raises as a whole.
_TRIES = 3


class Consumer:
    """Scores what comes, until it is stopped or nothing more comes.

    Parameters
    ----------
    source, sink, dead_letters : have been started.
    make_dead_letters : makes the messages for `dead_letters`.
    models : what answers.
    progress : told what is done.
    retry : tries again what failed.
    max_records, max_wait_s : of a batch.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dead_letters: Sink,
        make_dead_letters: DeadLetters,
        models: Models,
        progress: Progress,
        retry: Retry,
        max_records: int,
        max_wait_s: float,
    ) -> None:
        self._source = source
        self._sink = sink
        self._dead_letters = dead_letters
        self._scorer = Scorer(sink, make_dead_letters)
        self._models = models
        self._progress = progress
        self._retry = retry
        self._max_records = max_records
        self._max_wait_s = max_wait_s
        self._stopping = asyncio.Event()
        self._batches: asyncio.Queue[asyncio.Future[Batch] | None] = asyncio.Queue()
        self._under_way = asyncio.Semaphore(_UNDER_WAY)

    def stop(self) -> None:
        """Receive no more; `run` returns when what was received is committed."""
        self._stopping.set()

    async def run(self) -> None:
        """Run.

        Raises
        ------
        BrokerError
            When a stream cannot be used any more, which no other try would change.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._score_all())
                tasks.create_task(self._publish_all())
        except ExceptionGroup as group:  # the one that fails ends the other
            raise group.exceptions[0] from None
        finally:
            while not self._batches.empty():
                if (scoring := self._batches.get_nowait()) is not None:
                    scoring.cancel()

    async def _score_all(self) -> None:
        try:
            while (records := await self._receive()) is not None:
                if records:
                    await self._under_way.acquire()
                    await self._batches.put(asyncio.ensure_future(self._score(records)))
        finally:
            await self._batches.put(None)

    async def _publish_all(self) -> None:
        while (scoring := await self._batches.get()) is not None:
            batch = await scoring
            await self._publish("publish", self._sink, batch.messages)
            await self._publish("dead_letter", self._dead_letters, batch.dead_letters)
            await self._retry.until_done("commit", partial(self._source.commit, batch.records))
            self._under_way.release()
            self._progress.done(batch.records, [one.reason.code for one in batch.refused])
            self._models.tell()

    async def _receive(self) -> list[Record] | None:
        """Give the next batch, which may be empty; None when there is none any more."""
        if self._source.is_over:
            return None
        receive = partial(self._source.receive, self._max_records, self._max_wait_s)
        return await self._unless_stopped(self._retry.until_done("receive", receive))

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
        """Give what something gives, None when it is time to stop before that."""
        task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._stopping.is_set() else task.result()
        finally:
            stopping.cancel()
            if self._stopping.is_set() or not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)  # what it could not do matters no more

    async def _score(self, records: Sequence[Record]) -> Batch:
        model_failed = 0
        for tries in count(1):
            await self._models.wait()
            team = self._models.team
            assert team is not None
            try:
                batch = await self._scorer.score(team, records, gives_up=model_failed + 1 >= _TRIES)
            except (ModelFailed, BrokerUnavailable) as error:  # where what is too large goes may be away too
                model_failed += isinstance(error, ModelFailed)
                await self._retry.failed("score", error, tries)
                continue
            self._retry.succeeded("score", tries)
            return batch
        raise AssertionError  # `count` does not end

    async def _publish(self, step: Step, sink: Sink, messages: Sequence[Message]) -> None:
        rest = messages

        async def publish() -> None:
            nonlocal rest
            try:
                if rest:
                    await sink.publish(rest)
            except Unpublished as error:
                rest = error.rest
                raise

        await self._retry.until_done(step, publish)
