"""The directory of jobs: a folder for each, in which every file has one writer.

    ID/job.json      a worker, once: what is to be done
    ID/cancel        a worker: the wish to end it
    ID/fate.json     the runner: what has become of it
    ID/status.json   `fairlead score`: how far it is
    ID/lock          held by the process that scores, and gone with it

Files are put there whole, so that nobody reads half of one and a restart, or a loss of power, finds them as they were.

Source: flock(2)
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from fairlead.bundle.disk import replace_file, sync
from fairlead.web.file_jobs.records import OVER, Fate, Job, Status, View, view

T = TypeVar("T")
_ID = re.compile(r"[0-9a-f]{32}")
# While a job is made or goes; nobody takes such a folder for a job.
_UNFINISHED = ".{}"
_LOCK = ".lock"
_RUNNER = ".runner"

logger = logging.getLogger("fairlead.web.jobs")


class QueueFull(Exception):
    """As many jobs wait as may."""


class JobDirectory:
    """All jobs of a service; several processes may have one each for the same directory.

    Whatever reads gives None for a job that is not there, or not any more. Methods raise OSErrors as they come.

    Parameters
    ----------
    path : made by `prepare`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # What is over stays so.
        self._over: set[str] = set()

    def prepare(self) -> None:
        """Make the directory, for this user alone, if there is none."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ids(self) -> list[str]:
        """List all jobs."""
        return [name for name in os.listdir(self.path) if _ID.fullmatch(name)]  # noqa: PTH208  # five times a second

    def make(self, job: Job, max_queued: int) -> None:
        """Keep a job; it survives whatever happens from now on.

        Raises
        ------
        QueueFull
            When `max_queued` jobs wait already.
        """
        with self._locked():
            if sum(self._waits(id) for id in self.ids()) >= max_queued:
                raise QueueFull
            folder = self.path / _UNFINISHED.format(job.id)
            try:
                folder.mkdir(mode=0o700)
                replace_file(folder / "job.json", msgspec.json.encode(job))
                sync(folder)
                folder.rename(self.path / job.id)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            sync(self.path)

    def job(self, id: str) -> Job | None:
        """Read what was ordered."""
        return self._read(id, "job.json", Job)

    def fate(self, id: str) -> Fate:
        """Read what has become of a job."""
        return self._read(id, "fate.json", Fate) or Fate()

    def put_fate(self, id: str, fate: Fate) -> None:
        """Keep what has become of a job."""
        replace_file(self.path / id / "fate.json", msgspec.json.encode(fate))
        sync(self.path / id)

    def status(self, id: str) -> Status | None:
        """Read how far a job is."""
        return self._read(id, "status.json", Status)

    def status_path(self, id: str) -> Path:
        """Give the file that `fairlead score` is to write."""
        return self.path / id / "status.json"

    def cancel(self, id: str) -> None:
        """Wish a job to end."""
        with suppress(FileNotFoundError):
            (self.path / id / "cancel").touch()

    def is_cancelled(self, id: str) -> bool:
        """Whether somebody wishes a job to end."""
        return (self.path / id / "cancel").exists()

    def view(self, id: str) -> View | None:
        """Give what a client is told of a job."""
        job = self.job(id) if _ID.fullmatch(id) else None
        return None if job is None else view(job, self.fate(id), self.status(id))

    def forget(self, id: str) -> None:
        """Remove a job, in one step."""
        gone = self.path / _UNFINISHED.format(id)
        with suppress(FileNotFoundError):
            (self.path / id).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove what was left by processes that were killed while they made a job, or forgot one."""
        with self._locked():
            for name in os.listdir(self.path):  # noqa: PTH208  # names are all that is wanted
                if _ID.fullmatch(name.removeprefix(".")) and name.startswith("."):
                    shutil.rmtree(self.path / name, ignore_errors=True)

    def lock_runner(self) -> int | None:
        """Become the one process that runs these jobs, as long as the descriptor is open; None when another is."""
        return _try_lock(self.path / _RUNNER)

    def lock_job(self, id: str) -> int | None:
        """Take the lock of a job, for the process that scores to inherit; None while another has it."""
        return _try_lock(self.path / id / "lock")

    def _waits(self, id: str) -> bool:
        if id in self._over:
            return False
        state = self.fate(id).state
        if state in OVER:
            self._over.add(id)
        return state == "queued"

    def _read(self, id: str, name: str, kind: type[T]) -> T | None:
        path = self.path / id / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            logger.warning("%s: passed over: expected a %s: %s", path, kind.__name__.lower(), error)
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
