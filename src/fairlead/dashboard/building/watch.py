"""Keeps stores current: builds one anew when what it was made of changes, and leaves the old one up until then.

The build is a process of its own, which proves what it made before it puts it in place; whoever serves the store sees
that by itself. What cannot be built is told beside the store, in a file that the server shows on the dashboard's page.

Files are looked at twice a second rather than through the kernel's notices, which do not come from network disks and
from volumes of containers. Registries are asked now and then, in a thread, since they may be slow to answer.

Layer L3.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fairlead.dashboard.building.inputs import Inputs
from fairlead.dashboard.store import Store, identity
from fairlead.dashboard.trouble import Trouble
from fairlead.errors import DashboardError

logger = logging.getLogger("fairlead.dashboard")

# A change is followed by others until whoever writes is done: so long a silence ends it.
QUIET_S = 1.0
REFRESH_S = 30.0
_LOOK_S = 0.5
_END_S = 10.0
# Before a build that failed is tried again though nothing changed that is watched: a database may be back, or a file
# there that was not. Each time twice as long, up to the latter.
_PAUSE_S = 30.0
_LONGEST_PAUSE_S = 600.0
_MAX_REASON = 2000


def watch(
    stores: Sequence[Path], stop: threading.Event, quiet_s: float = QUIET_S, refresh_s: float = REFRESH_S
) -> None:
    """Watch what stores were built from, until it is time to stop.

    Parameters
    ----------
    stores : as `build.build` made them.
    stop : set by whoever wants an end; a build under way is ended.
    quiet_s : for how long the inputs have to be left alone before a build begins.
    refresh_s : how often a registry is asked whether a model's address stands for another version.

    Raises
    ------
    DashboardError
        When one is no store.
    """
    watched = [_Watched(path, quiet_s) for path in stores]
    if any(one.inputs.address is not None for one in watched):
        threading.Thread(target=_ask, args=(watched, stop, refresh_s), name="fairlead-asking", daemon=True).start()
    try:
        while not stop.wait(_LOOK_S):
            for one in watched:
                one.go_on()
    finally:
        for one in watched:
            one.end()


def _ask(watched: Sequence[_Watched], stop: threading.Event, refresh_s: float) -> None:
    while True:
        for one in watched:
            try:
                one.inputs.ask()
            except Exception:
                logger.exception("%s: cannot be asked for a newer version", one.inputs.address)
        if stop.wait(refresh_s):
            return


class _Watched:
    """A store, and how far its next build is.

    Parameters
    ----------
    path : of the store.
    quiet_s : as for `watch`.
    """

    def __init__(self, path: Path, quiet_s: float) -> None:
        store = Store.open(path)
        self.inputs = Inputs(store.manifest)
        self._path = store.path
        self._quiet_s = quiet_s
        self._identity = identity(path)
        self._due_s: float | None = None
        self._pause_s = _PAUSE_S
        self._process: subprocess.Popen[bytes] | None = None
        # What a build says. Neither a pipe, which nobody reads, nor a disk, which may be full, holds it up.
        self._told = os.memfd_create("fairlead-build")
        watched = [*map(str, self.inputs.files), *([self.inputs.address] if self.inputs.address else [])]
        logger.info("%s: watches %s", path.name, ", ".join(watched))

    def go_on(self) -> None:
        """Look at the inputs, begin a build that is due, and take what one has come to."""
        now_s = time.monotonic()
        if self._process is None:
            self._reopen()
        if self.inputs.have_changed():
            self._due_s, self._pause_s = now_s + self._quiet_s, _PAUSE_S
            if self._process is not None:
                logger.info("%s: changed again while it was built", self._path.name)
                self._end_process()
        if self._process is not None and self._process.poll() is not None:
            self._take(self._process.returncode, now_s)
        if self._process is None and self._due_s is not None and now_s >= self._due_s:
            self._begin(now_s)

    def _reopen(self) -> None:
        """See what the store is made of by now: whoever builds it anew may make it of something else."""
        now = identity(self._path)
        if now is None or now == self._identity:
            return
        with suppress(DashboardError):
            self.inputs = Inputs(Store.open(self._path).manifest, self.inputs.seen)
        self._identity = now

    def _begin(self, now_s: float) -> None:
        logger.info("%s: is built anew", self._path.name)
        self._due_s = None
        os.ftruncate(self._told, 0)
        os.lseek(self._told, 0, os.SEEK_SET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fairlead", "dashboard", "rebuild", str(self._path)],
                stdin=subprocess.DEVNULL,
                stdout=self._told,
                stderr=self._told,
            )
        except OSError as error:
            self._fail(f"no process can be started for the build: {error.strerror}", now_s)

    def _take(self, code: int, now_s: float) -> None:
        self._process = None
        if code == 0:
            self._pause_s = _PAUSE_S
            logger.info("%s: built anew", self._path.name)
            return
        said = os.pread(self._told, os.fstat(self._told).st_size, 0).decode(errors="replace").strip()
        self._fail(_reason(code, said), now_s)

    def _fail(self, reason: str, now_s: float) -> None:
        logger.error("%s: stays as it was: %s", self._path.name, reason)
        self._due_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        try:
            Trouble(reason).write(self._path)
        except OSError as error:
            logger.error("%s: that cannot be told on its page: %s", self._path.name, error)

    def end(self) -> None:
        """End a build that nobody waits for any more; what it wrote goes with it."""
        self._end_process()
        os.close(self._told)

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _reason(code: int, said: str) -> str:
    """Say why a build failed: its last message is its error, unless it was ended."""
    if code < 0:
        cause = ", maybe for want of memory" if -code == signal.SIGKILL else ""
        return f"the build was ended by {signal.Signals(-code).name}{cause}"
    last = said.rpartition("\nfairlead: ")[2].removeprefix("fairlead: ")[:_MAX_REASON]
    return last or f"the build ended with exit code {code}"
