"""Several processes that answer on one socket, and the parent that keeps their number.

Not uvicorn's supervisor: that one looks for signals and deaths every half second, ends its workers as
killed, and leaves them behind, with the port, when it is killed itself. This one sleeps until something
happens.
"""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fairlead.errors import FairleadError, ServeError
from fairlead.web import server

RESTART_PAUSE_S = 1.0

logger = logging.getLogger("fairlead.web")
# A fork would copy the threads' locks of onnxruntime without the threads.
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Plan:
    """What each worker does.

    Parameters
    ----------
    bundles : what to load.
    settings : how to serve.
    listener : a socket that listens already.
    """

    bundles: tuple[Path, ...]
    settings: server.Settings
    listener: socket.socket


@dataclass
class _Worker:
    process: SpawnProcess
    started: Connection
    is_up: bool = False


def supervise(plan: Plan, count: int, on_started: Callable[[], None]) -> None:
    """Keep `count` workers running until SIGINT or SIGTERM, then let them finish.

    Parameters
    ----------
    on_started : called once, when all workers take requests.

    Raises
    ------
    ServeError
        When one cannot even start.
    """
    logging.config.dictConfig(server.LOGGING)
    stop, stopper = _context.Pipe(duplex=False)
    before = {
        number: signal.signal(number, lambda *_: stopper.send_bytes(b"stop"))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    workers: list[_Worker] = []
    try:
        workers += [_start(plan) for _ in range(count)]
        _keep(plan, workers, stop, on_started)
    finally:
        # With the parent's own copy open, clients would still get into the queue, to be thrown out at the end.
        plan.listener.close()
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep(plan: Plan, workers: list[_Worker], stop: Connection, on_started: Callable[[], None]) -> None:
    announced = False
    while True:
        sentinels = [worker.process.sentinel for worker in workers]
        wait([stop, *sentinels, *(worker.started for worker in workers if not worker.is_up)])
        if stop.poll():
            return
        for worker in workers:
            if not worker.is_up and worker.started.poll():
                worker.is_up = _has_started(worker.started)
        for index, worker in enumerate(workers):
            if not worker.process.is_alive():
                if not announced:
                    raise ServeError(
                        f"a worker ended with exit code {worker.process.exitcode} before it could serve: "
                        "its own message is above"
                    )
                logger.error("worker %s died with exit code %s: starting another", *_obituary(worker))
                if not worker.is_up:
                    time.sleep(RESTART_PAUSE_S)
                workers[index] = _start(plan)
        if not announced and all(worker.is_up for worker in workers):
            announced = True
            on_started()


def _start(plan: Plan) -> _Worker:
    started, starter = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(plan, starter), name="fairlead-worker")
    process.start()
    starter.close()
    return _Worker(process, started)


def _has_started(started: Connection) -> bool:
    try:
        started.recv_bytes()
    except EOFError:
        return False
    return True


def _obituary(worker: _Worker) -> tuple[int | None, int | None]:
    return worker.process.pid, worker.process.exitcode


def _work(plan: Plan, starter: Connection) -> None:
    """Be one worker: load the bundles, tell the parent, answer until told to stop."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        _, run = server.prepare(plan.bundles, plan.settings)
        run(plan.listener, lambda: starter.send_bytes(b"started"))
    except FairleadError as error:
        sys.exit(f"fairlead: {error}")
    except KeyboardInterrupt:
        # Ctrl-C while still loading: the parent got it too and ends.
        pass


def _follow_parent() -> None:
    """End with the parent, even when it was killed: nobody else would ever free the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
