"""Models that are loaded by their first request, and let go when memory is needed.

Such a model is like any other: its records are checked, its requests admitted and put into its queue. Only its
engine comes later. While it is away the queue has no slot, so requests wait there as long as they may, and whoever
waits is answered in one batch when the engine is there. Where a budget is set, the engines that were used least
recently make room, each after its last batch. Everything but the loading happens on the event loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fairlead.errors import FairleadError
from fairlead.predict.validate import Row
from fairlead.repository.memory import (
    Grown,
    Ledger,
    Seen,
    forget_peak,
    give_back,
    keep_little,
    peak_bytes,
    resident_bytes,
)
from fairlead.repository.threads import in_thread
from fairlead.web.batching import Batcher, ClientGone
from fairlead.web.jobs import Job
from fairlead.web.problems import Refusal
from fairlead.web.runners import LOOP_LIMIT_NS, Cost, Done, Running

if TYPE_CHECKING:
    from fairlead.monitor.metrics import LoadResult, Metrics
    from fairlead.repository.deployments import Variant

# Before a model that could not be loaded is tried again; each time twice as long, up to the latter.
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
# Loads are measured, so they come one at a time; one that takes longer is not waited for by the others.
_ALONE_S = 2.0
# How long to wait for one of the loaded models to have nothing to do, before one is interrupted; how often to look.
_PATIENCE_S = 0.5
_LOOK_S = 0.005
_FOLDERS = re.compile(r"(?<![\w.])(?:/[^/\s:;,'\"()]+)*/(?=[^/\s])")

logger = logging.getLogger("fairlead.web")


class LazyRunner:
    """Runs batches while there is an engine, and has no slot else."""

    def __init__(self) -> None:
        self._running: Running | None = None
        self._is_held = False
        self._unseen: dict[str, int] = {}

    @property
    def is_loaded(self) -> bool:
        """Whether there is an engine."""
        return self._running is not None

    @property
    def place(self) -> str:
        return "thread" if self._running is None else self._running.runner.place

    @property
    def slots(self) -> int:
        return 0 if self._running is None or self._is_held else self._running.runner.slots

    def start(self) -> None:
        pass

    def run(self, rows: Sequence[Row], done: Done) -> None:
        assert self._running is not None
        self._running.runner.run(rows, done)

    def take(self, running: Running) -> None:
        """Run batches on an engine from now on."""
        self._running = running
        self._is_held = False

    def hold(self, is_held: bool) -> None:
        """Begin no batch any more, or do again."""
        self._is_held = is_held

    def close(self) -> None:
        if self._running is not None:
            self._unseen = self.unseen()
            self._running.runner.close()
            self._running = None

    def unseen(self) -> dict[str, int]:
        """Give how often a value outside the categories came, to all the engines there were, by feature."""
        now = {} if self._running is None else self._running.unseen()
        return {name: self._unseen.get(name, 0) + now.get(name, 0) for name in (*self._unseen, *now)}


class LazyBatcher(Batcher):
    """The queue in front of a model that is loaded when it is asked for.

    Parameters
    ----------
    name, variant : of the model.
    file_bytes : size of its files, by which its memory is guessed.
    load : verifies and loads it, in a thread; may raise anything.
    max_queue_rows : as for `Batcher`.

    Attributes
    ----------
    residents : loads it; set by who serves it.
    """

    runner: LazyRunner

    def __init__(
        self, name: str, variant: Variant, file_bytes: int, load: Callable[[], Running], max_queue_rows: int
    ) -> None:
        super().__init__(LazyRunner(), Cost(0.0, LOOP_LIMIT_NS), max_queue_rows)
        self.name = name
        self.variant = variant
        self.file_bytes = file_bytes
        self.load = load
        self.residents: Residents | None = None
        self._why = ""
        self._pause_s = 0.0
        self._again_at_s = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it answers, or will when it is asked."""
        return not (self._why or self.is_stuck)

    @property
    def is_wanted(self) -> bool:
        """Whether a client waits."""
        return bool(self._again) or any(not (job.is_over or job.call.is_gone) for job in self._queue)

    @property
    def is_running(self) -> bool:
        """Whether its engine computes."""
        return bool(self._running)

    def submit(self, job: Job) -> None:
        """Put a job into the queue, and have the model loaded if it is not.

        Raises
        ------
        Refusal
            ``not_ready`` for a while after a load has failed; and what `Batcher.submit` raises.
        """
        if self._why and perf_counter() < self._again_at_s:
            raise self._failed_refusal()
        super().submit(job)
        if not job.is_over:
            assert self.residents is not None
            self.residents.want(self)

    def take_in(self, running: Running) -> None:
        """Answer what waits with an engine that was loaded."""
        self._why, self._pause_s = "", 0.0
        self.runner.take(running)
        self.slots_changed(running.cost)

    def fail_load(self, error: Exception) -> None:
        """Refuse what waits because the model could not be loaded, and what comes until it is time to try again."""
        is_ours = not isinstance(error, FairleadError)
        self._why = "the server's log has the reason" if is_ours else self._told(error)
        self._pause_s = min(max(_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        self._again_at_s = perf_counter() + self._pause_s
        logger.error(
            "%s %s cannot be loaded (not tried again for %g s): %s",
            *(self.name, self.variant.version, self._pause_s, error),
            exc_info=error if is_ours else None,
        )
        waiting = [*self._queue, *(job for batch in self._again for job, _ in batch.pieces)]
        self._queue.clear()
        self._again.clear()
        self.queued_rows = 0
        self._cancel_alarm()
        for job in waiting:
            job.fail(ClientGone() if job.call.is_gone else self._failed_refusal())

    def hold(self, is_held: bool) -> None:
        """Begin no batch any more, or do again."""
        self.runner.hold(is_held)
        self.slots_changed(None)

    def close(self) -> None:
        if self.residents is not None:
            self.residents.forget(self)
        super().close()

    def _told(self, error: Exception) -> str:
        """Tell clients of an error, but not where on this machine things are."""
        path = self.variant.path
        return _FOLDERS.sub("", str(error).replace(f"{path}/", "").replace(path, self.name))

    def _failed_refusal(self) -> Refusal:
        wait_s = max(1, math.ceil(self._again_at_s - perf_counter()))
        detail = f"{self.name} could not be loaded: {self._why}"
        return Refusal("not_ready", detail, headers=[(b"retry-after", b"%d" % wait_s)])


class Residents:
    """The lazy models of this process that are loaded, within a budget.

    Parameters
    ----------
    budget_bytes : for all of them; None for no limit.
    timeout_s : for how long a model's batch is waited for.
    metrics : where loads and evictions are counted.
    """

    def __init__(self, budget_bytes: int | None, timeout_s: float, metrics: Metrics | None = None) -> None:
        self._ledger: Ledger | None = None
        if budget_bytes is not None:
            self._ledger = Ledger(budget_bytes)
            keep_little()
        self._timeout_s = timeout_s
        self._metrics = metrics
        # Those that are loaded, the least recently used first; and those that wait for it, or are being.
        self._loaded: dict[LazyBatcher, None] = {}
        self._coming: set[LazyBatcher] = set()
        self._work: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_working = False
        self._n_loading = 0
        self._told: set[str] = set()

    def want(self, model: LazyBatcher) -> None:
        """Take note that a model is used, and have it loaded if it is not."""
        if model in self._loaded:
            self._loaded[model] = self._loaded.pop(model)
        elif model not in self._coming:
            self._coming.add(model)
            self._do(lambda: self._load(model))

    def forget(self, model: LazyBatcher) -> None:
        """Take note that a model is out of service, and about to let go of its engine."""
        if model in self._loaded:
            del self._loaded[model]
            before = resident_bytes()
            self._do(lambda: self._book_gone(model, before))

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work.append(work)
        if not self._is_working:
            self._is_working = True
            self._start(self._work_off())

    async def _work_off(self) -> None:
        try:
            while self._work:
                try:
                    await self._work.popleft()()
                except Exception:
                    logger.exception("a model could not be loaded or let go")
        finally:
            self._is_working = False

    async def _load(self, model: LazyBatcher) -> None:
        loading = None
        try:
            if self._ledger is not None:
                await self._make_room(model, self._ledger.expected(model.variant.digest, model.file_bytes))
            if not model.is_wanted:  # they waited as long as they might, or went away
                return
            loading = self._start(self._bring(model))
        finally:
            if loading is None:
                self._coming.discard(model)
        await asyncio.wait([loading], timeout=_ALONE_S)
        if self._ledger is not None and model in self._loaded:
            await self._make_room(model)

    async def _bring(self, model: LazyBatcher) -> None:
        start_s, is_alone = perf_counter(), not self._n_loading
        self._n_loading += 1
        try:
            running, grown = await in_thread(lambda: _loaded(model.load))
        except Exception as error:
            self._count_load(model, "failed")
            model.fail_load(error)
            return
        finally:
            self._n_loading -= 1
            self._coming.discard(model)
        self._count_load(model, "loaded")
        if model.is_closed:
            running.runner.close()
            return
        shown = ""
        if self._ledger is not None:
            grown = replace(grown, is_rough=grown.is_rough or not is_alone)
            size = self._ledger.came(model, model.variant.digest, model.file_bytes, grown)
            shown = f", {size / 1e6:.1f} MB"
        self._loaded[model] = None
        logger.info("%s %s: loaded in %.3g s%s", *(model.name, model.variant.version, perf_counter() - start_s, shown))
        model.take_in(running)

    async def _make_room(self, model: LazyBatcher, coming: Seen | None = None) -> None:
        """Let the least recently used models go until there is room, or nobody is left to go."""
        assert self._ledger is not None
        passed: set[LazyBatcher] = {model}
        while self._ledger.lacks_room(resident_bytes(), coming):
            leaving = await self._next_to_go(passed)
            if leaving is None:
                self._tell_too_large(model)
                return
            await self._evict(leaving)

    async def _next_to_go(self, passed: set[LazyBatcher]) -> LazyBatcher | None:
        """Give the least recently used model that has nothing to do, or, if all have for long, one made to stop.

        Parameters
        ----------
        passed : not to be given; one that does not stop is added.
        """
        end_s = perf_counter() + _PATIENCE_S
        while others := [one for one in self._loaded if one not in passed]:
            for one in others:
                if one.is_idle:
                    return one
            if perf_counter() < end_s:
                await asyncio.sleep(_LOOK_S)
            elif await self._stopped(others[0]):
                return others[0]
            else:
                passed.add(others[0])
        return None

    async def _stopped(self, model: LazyBatcher) -> bool:
        """Have a model that is always busy begin nothing more, and wait for its batch."""
        model.hold(True)
        end_s = perf_counter() + self._timeout_s
        while model.is_running and perf_counter() < end_s:
            await asyncio.sleep(_LOOK_S)
        if model.is_running and not model.is_closed:
            model.hold(False)
        return not model.is_running and model in self._loaded

    async def _evict(self, model: LazyBatcher) -> None:
        before = resident_bytes()
        del self._loaded[model]
        model.runner.close()
        if not model.is_idle:
            self.want(model)
        await self._book_gone(model, before)
        if self._metrics is not None:
            self._metrics.model_evicted(model.name)
        logger.info("%s %s: let go, to make room", model.name, model.variant.version)

    async def _book_gone(self, model: LazyBatcher, before: int) -> None:
        if self._ledger is None:
            await in_thread(give_back)
            return
        size = self._ledger.size_of(model)
        await in_thread(lambda: _given_back(before, size))
        self._ledger.went(model, model.variant.digest, before, resident_bytes())

    def _tell_too_large(self, model: LazyBatcher) -> None:
        assert self._ledger is not None
        if self._loaded.keys() != {model} or model.variant.digest in self._told:
            return
        self._told.add(model.variant.digest)
        logger.warning(
            "%s %s: with it alone this process takes %.1f MB more than with no model loaded, and may take %.1f MB "
            "(its part of web.memory_budget_bytes): it is served all the same, one model at a time",
            *(model.name, model.variant.version),
            *(self._ledger.used(resident_bytes()) / 1e6, self._ledger.budget_bytes / 1e6),
        )

    def _count_load(self, model: LazyBatcher, result: LoadResult) -> None:
        if self._metrics is not None:
            self._metrics.model_loaded(model.name, result)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _loaded(load: Callable[[], Running]) -> tuple[Running, Grown]:
    """Load a model, and measure what it takes without what only the load took."""
    give_back()
    before, n_modules = resident_bytes(), len(sys.modules)
    is_watched = forget_peak()
    running = load()
    peak = peak_bytes() if is_watched else 0
    give_back()
    return running, Grown(before, resident_bytes(), peak, is_rough=len(sys.modules) > n_modules)


def _given_back(before: int, size: int) -> None:
    """Hand back what a model took; where little of it comes, it may hang in cycles of references."""
    give_back()
    if before - resident_bytes() < size / 2:
        gc.collect()
        give_back()
