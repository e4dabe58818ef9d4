"""Who scores chunks: threads where the engine lets go of the interpreter's lock, processes where it does not.

Layer L3; imports predict.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fairlead.errors import FairleadError, ModelFailed

if TYPE_CHECKING:
    from fairlead.batch.formats.form import Piece, Reader
    from fairlead.batch.task import Task
    from fairlead.batch.work import Scored, Work
    from fairlead.bundle.read import Bundle
    from fairlead.predict.predictor import Predictor

# Threads of the libraries inside one of several processes.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Chunks that wait beyond those at work, so that nobody runs out of them.
_AHEAD = 2


class Crew(AbstractContextManager["Crew"]):
    """Scores chunks on several cores, in order.

    Parameters
    ----------
    executor : of threads or processes.
    n_workers : how many of them.
    call : scores a chunk, in one of them.
    abandon : lets go of what is at work, when a run ends before its end.
    """

    def __init__(
        self,
        executor: Executor,
        n_workers: int,
        call: Callable[[Any, Any], Any],
        abandon: Callable[[], object] = lambda: None,
    ) -> None:
        self._executor = executor
        self._n_ahead = n_workers + _AHEAD
        self._call = call
        self._abandon = abandon

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
        self._executor.shutdown(cancel_futures=True)

    def answer(self, record: dict[str, Any]) -> dict[str, Any]:
        """Predict one record that is known to be good."""
        found: dict[str, Any] = self._executor.submit(self._call, _One(), record).result()
        return found

    def score(
        self, task: Task, reader: Reader, work: Work, piece: Piece = None
    ) -> Iterator[tuple[Scored, float | None]]:
        """Score the chunks of an open input, or of a piece of it, some of them ahead of whoever takes the results.

        Raises
        ------
        ModelFailed
            When a process died over a chunk, too.
        """
        pending: deque[tuple[Future[Scored], float | None]] = deque()
        try:
            for chunk, share in reader.chunks(piece):
                pending.append((self._executor.submit(self._call, work, chunk), share))
                if len(pending) >= self._n_ahead:
                    yield _result(*pending.popleft())
            while pending:
                yield _result(*pending.popleft())
        except BrokenProcessPool as error:
            raise ModelFailed(
                "a process that scored was killed, or could not start: memory may be short, --workers 1 takes less"
            ) from error
        finally:
            for future, _ in pending:
                future.cancel()


def crew_of(bundle: Bundle, task: Task, n_workers: int) -> Crew:
    """Give those who score on this machine: threads where that is as good as processes.

    Parameters
    ----------
    task : the first of those that they will score.
    """
    from fairlead.predict.predictor import predictor_of

    item = task.item
    text = "jsonl" in (item.output_form.name, item.input_form and item.input_form.name)
    if bundle.manifest.engine == "onnx" and bundle.manifest.code is None and not text:
        return crew_of_threads(predictor_of(bundle), n_workers)
    return crew_of_processes(bundle.path, n_workers)


def crew_of_threads(predictor: Predictor, n_workers: int) -> Crew:
    """Let threads share a predictor: for an engine that computes without the interpreter's lock."""
    return Crew(ThreadPoolExecutor(n_workers, "score"), n_workers, lambda work, chunk: work.score(predictor, chunk))


def crew_of_processes(bundle: Path, n_workers: int) -> Crew:
    """Let each process have a predictor of its own: for what holds the interpreter's lock."""
    context = multiprocessing.get_context("spawn")
    # Whoever has the far end of this line ends when the near one is closed: in the middle of a chunk, too.
    near, far = context.Pipe()
    executor = ProcessPoolExecutor(n_workers, context, initializer=_begin, initargs=(str(bundle), n_workers, far))
    return Crew(executor, n_workers, _call, near.close)


class _One:
    """What is done with one record, in the place of `Work`."""

    def score(self, predictor: Predictor, record: dict[str, Any]) -> Any:
        return predictor.run([record]).predictions[0]


_predictor: Predictor | FairleadError | None = None


def _begin(bundle: str, n_workers: int, line: Connection) -> None:
    """Make the predictor of this process, which ends with its parent or the line to it."""
    global _predictor  # noqa: PLW0603  # a pool hands its processes nothing else that lasts
    # Ctrl-C reaches the whole group; the parent ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    if n_workers > 1:
        os.environ |= dict.fromkeys(_ONE_THREAD, "1")
    from fairlead.predict.predictor import load

    try:
        _predictor = load(bundle)
    except FairleadError as error:
        _predictor = error  # the pool would tell only that it is broken


def _end_with(line: Connection) -> None:
    """Wait for the end. A pool's process holds both ends of its queue, and would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a pool"
    wait([parent.sentinel, line])
    os._exit(1)


def _call(work: Work | _One, chunk: Any) -> Any:
    if isinstance(_predictor, FairleadError):
        raise _predictor
    assert _predictor is not None, "made by _begin"
    return work.score(_predictor, chunk)


def _result(future: Future[Scored], share: float | None) -> tuple[Scored, float | None]:
    return future.result(), share
