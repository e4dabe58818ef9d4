"""Where a model runs: on the event loop, or in a thread; in a process of its own see `isolation`.

A compiled model takes less time than the way to a thread, a native one would hold up everything else.
Which it is, is measured at start, on the bundle's own example.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Literal, Protocol

from fairlead.errors import ModelFailed
from fairlead.predict.predictor import Answers, Predictor
from fairlead.predict.validate import Row

Done = Callable[[Answers | Exception, int], None]

# An engine that takes longer for one row gets a thread.
LOOP_LIMIT_NS = 1_000_000
_MANY_ROWS = 64
_WARM_UP = 3
_TURNS = 5


@dataclass(frozen=True)
class Cost:
    """How long a batch takes.

    Parameters
    ----------
    fixed_ns, row_ns : nanoseconds whatever the batch, and for each of its rows.
    """

    fixed_ns: float
    row_ns: float

    def of(self, n_rows: int) -> float:
        """Nanoseconds for a batch of `n_rows`."""
        return self.fixed_ns + self.row_ns * n_rows

    def rows_in(self, budget_ns: float) -> int:
        """How many rows fit into a time; at least one."""
        return max(1, int((budget_ns - self.fixed_ns) / self.row_ns))


@dataclass(frozen=True)
class Placement:
    """Where a bundle's engine is best run.

    Parameters
    ----------
    place : ``loop`` or ``thread``.
    cost : as measured on this machine.
    """

    place: Literal["loop", "thread"]
    cost: Cost

    def __str__(self) -> str:
        where = "on the event loop" if self.place == "loop" else "in a thread of its own"
        return f"one row takes {self.cost.of(1) / 1e6:.3g} ms: runs {where}"


def place(predictor: Predictor, example: object) -> Placement:
    """Measure a predictor on a record, and decide where it is run.

    Without a record that it takes it is held to be slow. So is a function of the user's own, whatever it
    takes on the example: it may wait for anything.
    """
    manifest = predictor.manifest
    rows = predictor.intake.check([example]).rows
    cost = _measure(predictor, rows[0]) if rows else Cost(0.0, 2.0 * LOOP_LIMIT_NS)
    is_theirs = manifest.kind == "function" or manifest.code is not None
    return Placement("loop" if cost.of(1) < LOOP_LIMIT_NS and not is_theirs else "thread", cost)


def _measure(predictor: Predictor, row: Row) -> Cost:
    """Run one row, and many at once, to learn what a batch will cost; this also warms the engine up."""
    for _ in range(_WARM_UP):
        predictor.answer([row])
    one = _median_ns(predictor, [row])
    if one > 100 * LOOP_LIMIT_NS:
        # So slow a model would hold up the start; that rows cost the same each is the safe guess.
        return Cost(0.0, one)
    many = _median_ns(predictor, [row] * _MANY_ROWS)
    row_ns = max((many - one) / (_MANY_ROWS - 1), 1.0)
    return Cost(max(one - row_ns, 0.0), row_ns)


def _median_ns(predictor: Predictor, rows: Sequence[Row]) -> float:
    taken = []
    for _ in range(_TURNS):
        start = perf_counter_ns()
        predictor.answer(rows)
        taken.append(perf_counter_ns() - start)
        if taken[-1] > 20 * LOOP_LIMIT_NS:
            break
    return float(sorted(taken)[len(taken) // 2])


class Runner(Protocol):
    """Runs batches of rows.

    Attributes
    ----------
    place : ``loop``, ``thread`` or ``process``, for people.
    slots : how many batches it takes at a time.
    """

    @property
    def place(self) -> str: ...

    @property
    def slots(self) -> int: ...

    def run(self, rows: Sequence[Row], done: Done) -> None:
        """Run a batch and call `done` on the event loop, with the answers or the error, and how long it took in ns."""
        ...

    def start(self) -> None:
        """Begin, on the event loop."""
        ...

    def close(self) -> None:
        """Let go of what it holds; what still runs may not finish."""
        ...


@dataclass(frozen=True)
class Running:
    """An engine that is loaded.

    Parameters
    ----------
    runner : runs its batches.
    cost : what they take, as measured.
    unseen : gives how often a value outside the categories came, by feature.
    """

    runner: Runner
    cost: Cost
    unseen: Callable[[], Mapping[str, int]]


class LoopRunner:
    """Runs at once, in the caller."""

    place = "loop"
    slots = 1

    def __init__(self, predictor: Predictor) -> None:
        self._answer = predictor.answer

    def start(self) -> None:
        pass

    def run(self, rows: Sequence[Row], done: Done) -> None:
        start = perf_counter_ns()
        try:
            answers: Answers | Exception = self._answer(rows)
        except Exception as error:  # the model's own code may raise anything
            answers = error
        done(answers, perf_counter_ns() - start)

    def close(self) -> None:
        pass


class ThreadRunner:
    """Runs in one thread of its own: the user's object need not be safe for several.

    The thread is a daemon, unlike those of `concurrent.futures`: a model that hangs must not keep the
    process from ending.
    """

    place = "thread"
    slots = 1

    def __init__(self, predictor: Predictor) -> None:
        self._answer = predictor.answer
        self._name = predictor.name
        self._inbox: SimpleQueue[tuple[Sequence[Row], Done, asyncio.AbstractEventLoop] | None] = SimpleQueue()
        self._pid = 0

    def start(self) -> None:
        pass

    def run(self, rows: Sequence[Row], done: Done) -> None:
        if self._pid != os.getpid():  # a server may fork after it has loaded, and threads stay behind
            self._pid = os.getpid()
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._inbox.put((rows, done, asyncio.get_running_loop()))

    def close(self) -> None:
        self._inbox.put(None)

    def _work(self) -> None:
        while (batch := self._inbox.get()) is not None:
            rows, done, loop = batch
            start = perf_counter_ns()
            try:
                answers: Answers | Exception = self._answer(rows)
            except Exception as error:  # the model's own code may raise anything
                answers = error
            except BaseException as error:  # and must not end the thread, as `sys.exit` would
                answers = ModelFailed(f"the model raised {type(error).__name__}")
                answers.__cause__ = error
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(done, answers, perf_counter_ns() - start)
