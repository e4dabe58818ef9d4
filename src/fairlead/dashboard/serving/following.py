"""Shows what is in the stores now: a store that was replaced is tried in a process of its own, then loaded here.

`trial` is that process. Nothing that fails in it changes what is shown.

Layer L3; imports nothing of explainerdashboard.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import msgspec

from fairlead.dashboard.boards.trial import TIMEOUT_S, Tried, command_for
from fairlead.dashboard.serving.shelf import Shelf, find
from fairlead.dashboard.store import identity
from fairlead.errors import DashboardError

LOOK_S = 1.0
_NICENESS = 19
_PART_BYTES = 65_536
_SHOWN = 5

logger = logging.getLogger("fairlead.dashboard")


class Trial(Protocol):
    """A store that is being tried."""

    def result(self) -> tuple[bool, str | None]:
        """Tell whether it is over, and what is wrong with the store, if anything."""

    def close(self) -> None:
        """End it, if it is not over."""


class ProcessTrial:
    """A process that verifies a store, loads it and visits its page, at the lowest priority.

    Parameters
    ----------
    path : of the store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._until_s = time.monotonic() + TIMEOUT_S
        self._process = subprocess.Popen(
            command_for(path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        assert self._process.stdout is not None
        self._answer: IO[bytes] = self._process.stdout
        os.set_blocking(self._answer.fileno(), False)
        self._told = b""

    def result(self) -> tuple[bool, str | None]:
        # Not the exit code: gunicorn takes that of every child.
        with suppress(BlockingIOError):
            while part := os.read(self._answer.fileno(), _PART_BYTES):
                self._told += part
            self.close()
            return True, self._reason()
        if time.monotonic() > self._until_s:
            self.close()
            return True, f"{self._path}: did not come to an end of its trial in {TIMEOUT_S:g} s"
        return False, None

    def _reason(self) -> str | None:
        try:
            tried = msgspec.json.decode(self._told, type=Tried)
        except msgspec.MsgspecError:
            return f"{self._path}: the process that tried it ended without a word: killed, or crashed by what is in it"
        return "\n".join(tried.failed[:_SHOWN]) or None

    def close(self) -> None:
        self._answer.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


class Follower:
    """Keeps a shelf at what the stores hold.

    Parameters
    ----------
    places : stores, and folders of stores, in which some may come and go.
    shelf : holds what was found there at the start.
    begin : begins to try a store.
    """

    def __init__(self, places: Sequence[Path], shelf: Shelf, begin: Callable[[Path], Trial] = ProcessTrial) -> None:
        self._places = tuple(places)
        self._shelf = shelf
        self._begin = begin
        self._seen = {shown.name: shown.version or identity(shown.path) for shown in shelf.all()}
        self._trial: tuple[str, Path, str, Trial] | None = None
        self._told_wrong: str | None = None
        self._is_hurried = False

    def hurry(self) -> None:
        """Have every store tried and loaded again, changed or not, at the next turn; safe in a signal's handler."""
        self._is_hurried = True

    def turn(self) -> bool:
        """Look at the stores, and go on with what is begun; quick but for loading a store that was tried.

        What the system refuses, such as another process, is told once and tried again at the next turn.

        Returns
        -------
        Whether what is shown, or told of it, has changed.
        """
        if self._is_hurried:
            self._is_hurried = False
            self._seen.clear()
        try:
            stores = find(self._places)
        except (DashboardError, OSError) as error:
            self._stay(error)
            return False
        has_changed = False
        for shown in self._shelf.all():
            if shown.name not in stores:
                self._shelf.drop(shown.name)
                self._seen.pop(shown.name, None)
                logger.info("dashboard %s is gone", shown.name)
                has_changed = True
        if self._trial is not None:
            has_changed |= self._go_on(stores)
        for name, path in stores.items():
            if self._trial is not None:
                break  # one at a time
            has_changed |= self._look(name, path)
        return has_changed

    def _look(self, name: str, path: Path) -> bool:
        now = identity(path)
        if name in self._seen and self._seen[name] == now:
            return False
        if now is None:
            self._seen[name] = now
            self._shelf.fault(name, path, f"{path}: there is no dashboard store here any more: build it again")
            return True
        try:
            self._trial = (name, path, now, self._begin(path))
        except OSError as error:
            self._stay(error)
        return False

    def _stay(self, error: Exception) -> None:
        if str(error) != self._told_wrong:
            self._told_wrong = str(error)
            logger.error("what is shown stays as it is: %s", error)

    def _go_on(self, stores: dict[str, Path]) -> bool:
        assert self._trial is not None
        name, path, version, trial = self._trial
        if stores.get(name) != path or identity(path) != version:
            # Replaced once more meanwhile.
            self.close()
            return False
        is_over, reason = trial.result()
        if not is_over:
            return False
        self._trial = self._told_wrong = None
        self._seen[name] = version
        if reason is not None:
            self._shelf.fault(name, path, reason)
        elif self._shelf.bring(name, path):
            logger.info("dashboard %s is shown as it is now", name)
        return True

    def close(self) -> None:
        """End what is being tried."""
        if self._trial is not None:
            self._trial[3].close()
            self._trial = None


class FollowingThread:
    """Follows in a thread of this process, from the first request on: a server may have forked before it.

    Parameters
    ----------
    follower : does the work.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._pid: int | None = None
        self._starting = threading.Lock()

    def ensure(self) -> None:
        """Start it in this process, if it does not run here yet."""
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="fairlead-following", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._follower.turn()
            except Exception:
                logger.exception("stores cannot be followed for now")
            time.sleep(LOOK_S)
