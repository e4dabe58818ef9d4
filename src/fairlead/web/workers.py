"""Several processes for one server, and the parent that keeps their number.

Two kinds: workers, which speak HTTP on one socket, and the processes of isolated models. Not uvicorn's
supervisor: that one looks for signals and deaths every half second, ends its workers as killed, and
leaves them behind, with the port, when it is killed itself. This one sleeps until something happens.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fairlead.errors import FairleadError, ServeError
from fairlead.monitor import logs
from fairlead.web import server
from fairlead.web.models import Listing
from fairlead.web.server import Plan

RESTART_PAUSE_S = 1.0
# Beyond the time that requests have to finish: then whoever still hangs is killed.
_END_S = 2.0

logger = logging.getLogger("fairlead.web")
# A fork would copy the threads' locks of onnxruntime without the threads.
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class _Kind:
    """What a child is, and how another is made.

    Parameters
    ----------
    name : for people; of a model's process, the model's.
    target, arguments : what it runs; a pipe to tell that it has started is added.
    """

    name: str
    target: Callable[..., None]
    arguments: tuple[object, ...]

    @property
    def is_worker(self) -> bool:
        return self.target is _work

    def start(self) -> _Child:
        started, starter = _context.Pipe(duplex=False)
        process = _context.Process(target=self.target, args=(*self.arguments, starter), name=f"fairlead-{self.name}")
        process.start()
        starter.close()
        return _Child(self, process, started)


@dataclass
class _Child:
    kind: _Kind
    process: SpawnProcess
    started: Connection
    is_up: bool = False

    def look(self) -> None:
        """See whether it has told that it is up."""
        if not self.is_up and self.started.poll():
            try:
                self.started.recv_bytes()
            except EOFError:
                return  # it died before
            self.is_up = True


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
    before = {
        number: signal.signal(number, lambda *_: stopper.send_bytes(b"stop"))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    children: list[_Child] = []
    try:
        # One by one, so that those who have started are known when another cannot.
        for kind in _kinds(plan, listings, listener):
            children.append(kind.start())  # noqa: PERF401
        _keep(children, stop, on_started)
    finally:
        # With the parent's own copy open, clients would still get into the queue, to be thrown out at the end.
        listener.close()
        _end(children, plan)
        for number, handler in before.items():
            signal.signal(number, handler)


def _kinds(plan: Plan, listings: Sequence[Listing], listener: socket.socket) -> list[_Kind]:
    kinds = []
    for model, listing in zip(plan.models, listings, strict=True):
        if model.isolation == "process":
            for number in range(model.processes):
                arguments = (listing.path, listing.name, number, plan.run_directory, plan.web.log_format)
                kinds.append(_Kind(listing.name, _run_model, arguments))
    return [*kinds, *[_Kind("worker", _work, (plan, listener))] * plan.web.workers]


def _keep(children: list[_Child], stop: Connection, on_started: Callable[[], None]) -> None:
    announced = False
    while True:
        sentinels = [child.process.sentinel for child in children]
        wait([stop, *sentinels, *(child.started for child in children if not child.is_up)])
        if stop.poll():
            return
        for index, child in enumerate(children):
            child.look()
            if not child.process.is_alive():
                if not announced:
                    raise ServeError(
                        f"a {child.kind.name} process ended with exit code {child.process.exitcode} before it could "
                        "serve: its own message is above"
                    )
                _report_death(child)
                if not child.is_up:
                    time.sleep(RESTART_PAUSE_S)
                children[index] = child.kind.start()
        if not announced and all(child.is_up for child in children):
            announced = True
            on_started()


def _report_death(child: _Child) -> None:
    pid, code = child.process.pid, child.process.exitcode
    logger.error("%s process %s died with exit code %s: starting another", child.kind.name, pid, code)


def _end(children: Sequence[_Child], plan: Plan) -> None:
    """Let the workers finish, then end the models' processes; kill what does not come to an end."""
    workers = [child for child in children if child.kind.is_worker]
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + plan.web.drain_s + plan.web.shutdown_timeout_s + _END_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    for child in children:
        if child.process.is_alive():
            if child.kind.is_worker:
                logger.error("worker process %s did not end in time: killing it", child.process.pid)
            child.process.kill()
    for child in children:
        child.process.join()


def _work(plan: Plan, listener: socket.socket, starter: Connection) -> None:
    """Be one worker: load the bundles, tell the parent, answer until told to stop."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        logs.configure(plan.web.log_format)
        _, run = server.prepare(plan)
        run(listener, lambda: starter.send_bytes(b"started"))
    except FairleadError as error:
        sys.exit(f"fairlead: {error}")
    except KeyboardInterrupt:
        # Ctrl-C while still loading: the parent got it too and ends.
        pass


def _run_model(bundle: Path, name: str, number: int, run_directory: Path, log_format: str, starter: Connection) -> None:
    """Be one process of a model."""
    from fairlead.web import isolation

    isolation.main(bundle, isolation.socket_path(run_directory, name, number), log_format, starter)


def _follow_parent() -> None:
    """End with the parent, even when it was killed: nobody else would ever free the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
