"""Locks between processes and between threads: `flock` on a file, gone with the process that held it.

Layer L1; imports errors and `disk`.

Source: flock(2). A lock belongs to the open file, so that two threads that open it apart exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from fairlead.bundle.disk import told

_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.2


class Lock(AbstractContextManager["Lock"]):
    """A lock that is held until `release`, or until the process ends in whatever way.

    Parameters
    ----------
    descriptor : of the open file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._descriptor >= 0:
            # A process that was forked meanwhile has the same open file: closing ours would not be enough.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1


def try_lock(path: Path, *, shared: bool = False) -> Lock | None:
    """Take a lock if nobody is in the way.

    Parameters
    ----------
    path : of the lock file; made if there is none.
    shared : others may share it, and only an exclusive one is in the way.

    Raises
    ------
    CacheError
        When the file cannot be made or opened.
    """
    while True:
        with told(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Whoever held it before may have removed the file: a lock on that one would exclude nobody.
        if is_at(descriptor, path):
            return Lock(descriptor)
        os.close(descriptor)


def wait_lock(path: Path, timeout_s: float, on_wait: Callable[[], None], *, shared: bool = False) -> Lock | None:
    """Take a lock, waiting for those who hold it.

    Parameters
    ----------
    on_wait : is called once, when there is somebody to wait for.

    Returns
    -------
    None when it was not to be had in time.
    """
    end = time.monotonic() + timeout_s
    pause_s = 0.0
    while (lock := try_lock(path, shared=shared)) is None:
        if time.monotonic() >= end:
            return None
        if not pause_s:
            on_wait()
        pause_s = min(2 * pause_s + _SHORTEST_PAUSE_S, _LONGEST_PAUSE_S)
        time.sleep(pause_s)
    return lock


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
