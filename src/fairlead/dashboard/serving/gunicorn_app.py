"""Dashboards under gunicorn: its parent loads the boards, and workers are forked from it, so that all share them.

When a store was replaced, the parent loads it and forks new workers; those before get no more requests once the new
ones take them, and finish what they have. A worker that dies is forked anew in no time. Stock gunicorn would either
load nothing in its parent, or not be able to reload what it did; and it would end the old workers first.

Layer L3; imports gunicorn.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from fairlead.config import DashboardSettings
from fairlead.dashboard.boards.memory import settle
from fairlead.dashboard.serving.following import Follower
from fairlead.monitor.sockets import BACKLOG

# Longer than that of most proxies, so that the server is not the one to close a connection that is about to be used.
_KEEP_ALIVE_S = 75
# Before connections that nothing comes in on are closed, and between two looks at them, at a worker's end.
_IDLE_END_S = 1.0
_TICK_S = 0.2
# For the others of a worker that is ended because one page takes too long.
_STUCK_END_S = 2.0
# Before another try when a worker could not even start; each time twice as long, up to the latter.
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 8.0
_MEMORY = Path("/dev/shm")

logger = logging.getLogger("fairlead.dashboard")


def run(
    app: Any, follower: Follower, listener: socket.socket, settings: DashboardSettings, on_started: Callable[[], None]
) -> None:
    """Answer in forked workers until SIGTERM or SIGINT; SIGHUP has all stores loaded again.

    Parameters
    ----------
    app : the hub's WSGI app, with its boards loaded.
    listener : bound; it is taken over.
    on_started : called once, when all workers take requests.

    Raises
    ------
    SystemExit
        At the end, in this process and in each worker.
    """
    options = {
        "bind": [f"fd://{listener.detach()}"],
        "backlog": BACKLOG,
        "worker_class": _Worker,
        "workers": settings.workers,
        "threads": settings.threads,
        "timeout": math.ceil(settings.timeout_s),
        "graceful_timeout": math.ceil(settings.shutdown_timeout_s),
        "keepalive": _KEEP_ALIVE_S,
        "preload_app": True,
        "logger_class": _Log,
        "control_socket_disable": True,
        "forwarded_allow_ips": "",  # which proxies count is the gate's to say, and no path is anybody's
        "proc_name": "fairlead",
        # Workers tell that they live through a file, which a disk that is busy may hold up.
        "worker_tmp_dir": str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None,
    }
    _Arbiter(_Application(app, options), follower, on_started).run()


class _Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Has gunicorn's words go where fairlead's own go."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = self.access_log = logging.getLogger("fairlead.dashboard.gunicorn")
        self.error_log.setLevel(logging.WARNING)


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, app: Any, options: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._app


class _Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker that says when it takes requests, and comes to an end in time."""

    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._up = mmap.mmap(-1, 1)  # shared with the parent
        self._begun_s: dict[int, float] = {}
        self._end_s: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether it takes requests, or has."""
        return self._up[0] == 1

    def init_signals(self) -> None:
        super().init_signals()
        # A terminal sends these to the whole group: the parent tells its workers what is to be done.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def run(self) -> None:
        self._up[0] = 1
        os.kill(self.ppid, signal.SIGCHLD)  # wakes it up
        super().run()
        if self._begun_s:
            os._exit(1)  # threads that hang would keep the process

    def handle_request(self, req: Any, conn: Any) -> Any:
        thread = threading.get_ident()
        self._begun_s[thread] = time.monotonic()
        try:
            return super().handle_request(req, conn)
        finally:
            del self._begun_s[thread]

    def notify(self) -> None:
        super().notify()
        longest_s = max((time.monotonic() - begun_s for begun_s in self._begun_s.copy().values()), default=0.0)
        if self.alive and longest_s > self.cfg.timeout:
            logger.error("a page takes more than %g s: starting another worker", self.cfg.timeout)
            self.alive = False
            self._end_s = time.monotonic() + _STUCK_END_S

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if not self.alive:
            now_s = time.monotonic()
            if self._end_s is not None and now_s > self._end_s:
                os._exit(1)
            # Until then what is kept alive may still be used: closed at once, it would be just as a request comes in.
            for connection in self.keepalived_conns:
                connection.timeout = min(connection.timeout, now_s + _IDLE_END_S)
            timeout = min(timeout, _TICK_S)
        super().wait_for_and_dispatch_events(timeout)


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """The parent: keeps workers of the present generation, and ends those before when these are up.

    Parameters
    ----------
    app, follower, on_started : as for `run`.
    """

    def __init__(self, app: _Application, follower: Follower, on_started: Callable[[], None]) -> None:
        super().__init__(app)
        self._follower = follower
        self._on_started: Callable[[], None] | None = on_started
        # Workers up to this age are of a generation before.
        self._oldest_age = 0
        self._ended: set[int] = set()
        self._pause_s = 0.0
        self._not_before_s = 0.0
        settle()

    def reload(self) -> None:
        """Have all stores loaded again; new workers come when that is done."""
        self._follower.hurry()

    def handle_int(self) -> None:
        """Let workers finish, as after SIGTERM; a second one ends them at once."""
        raise StopIteration

    def manage_workers(self) -> None:
        if self._follower.turn():
            settle()
            self._oldest_age = self.worker_age
        present = self._present()
        if time.monotonic() >= self._not_before_s:
            for _ in range(self.num_workers - len(present)):
                self.spawn_worker()
            present = self._present()
        up = [worker for worker in present if worker.is_up]
        if len(up) < self.num_workers:
            return
        self._pause_s = 0.0
        if self._on_started is not None:
            self._on_started()
            self._on_started = None
        staying = {worker.pid for worker in up[-self.num_workers :]}
        for pid, worker in list(self.WORKERS.items()):
            # One that is not up yet may miss the signal.
            if pid not in staying and worker.is_up and pid not in self._ended:
                self._ended.add(pid)
                self.kill_worker(pid, signal.SIGTERM)

    def _present(self) -> list[_Worker]:
        found = [worker for pid, worker in self.WORKERS.items() if pid not in self._ended]
        return sorted((worker for worker in found if worker.age > self._oldest_age), key=lambda worker: worker.age)

    def reap_workers(self) -> None:
        before = dict(self.WORKERS)
        while True:
            try:
                super().reap_workers()
                break
            except HaltServer:
                if self._on_started is not None:
                    raise
                # Others answer, and another may start.
        died = {pid: worker for pid, worker in before.items() if pid not in self.WORKERS}
        self._ended -= died.keys()
        if any(not worker.is_up for worker in died.values()):
            self._pause_s = min(max(_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
            self._not_before_s = time.monotonic() + self._pause_s

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self._follower.close()
        super().halt(reason, exit_status)
