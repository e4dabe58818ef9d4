"""Several processes for one server, and the parent that keeps their number.

Two kinds: workers, which speak HTTP on one socket, and the processes of isolated models. Not uvicorn's
supervisor: that one looks for signals and deaths every half second, ends its workers as killed, and
leaves them behind, with the port, when it is killed itself. This one sleeps until something happens.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from fairlead.errors import FairleadError, ServeError
from fairlead.monitor import logs
from fairlead.web import control, server
from fairlead.web.models import Listing
from fairlead.web.server import Plan

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics

# Before another try for a process that could not even start; each time twice as long, up to the latter.
RESTART_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 8.0
# Beyond the time that requests have to finish: then whoever still hangs is killed.
_END_S = 2.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
logger = logging.getLogger("fairlead.web")
# A fork would copy the threads' locks of onnxruntime without the threads.
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class _Kind:
    """What a child is, and how another is made.

    Parameters
    ----------
    model : that it runs in isolation; None for a worker.
    target, arguments : what it runs; a line is added, to tell that it has started and, for a worker, to talk.
    """

    model: str | None
    target: Callable[..., None]
    arguments: tuple[object, ...]

    @property
    def what(self) -> str:
        """What it is, for people."""
        return "worker" if self.model is None else f"model process of {self.model}"


class _Child:
    """A process to be kept running: another takes its place when it dies.

    Attributes
    ----------
    process : the one that runs now, or did.
    line : to it.
    is_up : whether it has told that it has started.
    start_at_s : when, on the clock of `time.monotonic`, to start another; None while one runs.
    """

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        self.start_at_s: float | None = None
        self._pause_s = 0.0
        self.start()

    def start(self) -> None:
        self.line, line = _context.Pipe()
        name = f"fairlead-{self.kind.model or 'worker'}"
        self.process: SpawnProcess = _context.Process(
            target=self.kind.target, args=(*self.kind.arguments, line), name=name
        )
        # Held up until the child knows what to do with them: while Python starts, Ctrl-C is a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            line.close()
        self.start_at_s = None
        self.is_up = False

    def look(self) -> None:
        """See whether it has told that it is up."""
        if not self.is_up and self.line.poll():
            try:
                self.line.recv_bytes()
            except (EOFError, ConnectionResetError):
                return  # it died before
            self.is_up = True
            self._pause_s = 0.0

    def bury(self) -> None:
        """Let go of a dead one, and choose when to start another: at once, if it could start at all."""
        self.process.close()
        self.line.close()
        if not self.is_up:
            self._pause_s = min(max(RESTART_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        self.start_at_s = time.monotonic() + self._pause_s


def supervise(plan: Plan, listings: Sequence[Listing], listener: socket.socket, on_started: Callable[[], None]) -> None:
    """Keep the plan's processes running until SIGINT or SIGTERM, then let them finish.

    Parameters
    ----------
    listings : of the plan's models, in its order.
    listener : a socket that listens already.
    on_started : called once, when all workers take requests.

    Raises
    ------
    ServeError
        When one cannot even start.
    """
    stop, stopper = _context.Pipe(duplex=False)
    before = {number: signal.signal(number, lambda *_: stopper.send_bytes(b"stop")) for number in _SIGNALS}
    children: list[_Child] = []
    try:
        # One by one, so that those who have started are known when another cannot.
        for kind in _kinds(plan, listings, listener):
            children.append(_Child(kind))  # noqa: PERF401
        _keep(children, stop, on_started, _metrics(plan))
    finally:
        # With the parent's own copy open, clients would still get into the queue, to be thrown out at the end.
        listener.close()
        _end(children, plan)
        for number, handler in before.items():
            signal.signal(number, handler)


def _metrics(plan: Plan) -> Metrics | None:
    if not plan.web.metrics:
        return None
    from fairlead.monitor.metrics import Metrics

    return Metrics(plan.run_directory)


def _kinds(plan: Plan, listings: Sequence[Listing], listener: socket.socket) -> list[_Kind]:
    kinds = []
    for model, listing in zip(plan.models, listings, strict=True):
        if model.isolation == "process":
            kinds += [_Kind(listing.name, _run_model, (plan, listing, number)) for number in range(model.processes)]
    return [*kinds, *[_Kind(None, _work, (plan, listener))] * plan.web.workers]


def _keep(
    children: Sequence[_Child], stop: Connection, on_started: Callable[[], None], metrics: Metrics | None
) -> None:
    announced = False
    parent = control.Parent()
    while True:
        ready = _wait(children, stop)
        if stop.poll():
            return
        for line in parent.lines.copy():
            if line in ready:
                parent.read(line)
        for child in children:
            if child.start_at_s is not None:
                if time.monotonic() >= child.start_at_s:
                    child.start()
                continue
            was_up = child.is_up
            child.look()
            if child.process.is_alive():
                if child.is_up and not was_up and child.kind.model is None:
                    parent.add(child.line)
                continue
            parent.remove(child.line)
            if not announced:
                raise ServeError(
                    f"a {child.kind.what} ended with exit code {child.process.exitcode} before it could serve: its "
                    "own message is above"
                )
            _report_death(child, metrics)
            child.bury()
        if not announced and all(child.is_up for child in children):
            announced = True
            on_started()


def _wait(children: Sequence[_Child], stop: Connection) -> list[Any]:
    """Sleep until there is something to do; give what there is something of."""
    running = [child for child in children if child.start_at_s is None]
    starts_s = [child.start_at_s for child in children if child.start_at_s is not None]
    timeout_s = max(0.0, min(starts_s) - time.monotonic()) if starts_s else None
    sentinels = [child.process.sentinel for child in running]
    lines = [child.line for child in running if not child.is_up or child.kind.model is None]
    return wait([stop, *sentinels, *lines], timeout_s)


def _report_death(child: _Child, metrics: Metrics | None) -> None:
    pid, code = child.process.pid, child.process.exitcode
    why = " (a batch ran longer than requests may take)" if code == -signal.SIGALRM else ""
    logger.error("%s %s died with exit code %s%s: starting another", child.kind.what, pid, code, why)
    if metrics is not None:
        if child.kind.model is not None:
            metrics.model_process_died(child.kind.model)
        elif pid is not None:
            metrics.worker_died(pid)


def _end(children: Sequence[_Child], plan: Plan) -> None:
    """Let the workers finish, then end the models' processes; kill what does not come to an end."""
    running = [child for child in children if child.start_at_s is None]
    workers = [child.process for child in running if child.kind.model is None]
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + plan.web.drain_s + plan.web.shutdown_timeout_s + _END_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            logger.error("worker %s did not end in time: killing it", worker.pid)
    for child in running:
        if child.process.is_alive():
            child.process.kill()
    for child in running:
        child.process.join()


def _work(plan: Plan, listener: socket.socket, line: Connection) -> None:
    """Be one worker: load the bundles, tell the parent, answer until told to stop."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        logs.configure(plan.web.log_format)
        _, run = server.prepare(plan, line)
        run(listener, lambda: line.send_bytes(b"started"))
    except FairleadError as error:
        sys.exit(f"fairlead: {error}")
    except KeyboardInterrupt:
        # Ctrl-C while still loading: the parent got it too and ends.
        pass
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        # The parent, who made it, would have removed it.
        shutil.rmtree(plan.run_directory, ignore_errors=True)


def _run_model(plan: Plan, listing: Listing, number: int, line: Connection) -> None:
    """Be one process of a model."""
    from fairlead.web import isolation

    isolation.main(
        isolation.ModelProcess(
            name=listing.name,
            bundle=listing.path,
            digest=listing.digest,
            number=number,
            run_directory=plan.run_directory,
            log_format=plan.web.log_format,
            limit_s=plan.web.timeout_s,
            linger_s=plan.web.drain_s + plan.web.shutdown_timeout_s + _END_S,
        ),
        line,
    )


def _follow_parent() -> None:
    """End with the parent, even when it was killed: nobody else would ever free the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
