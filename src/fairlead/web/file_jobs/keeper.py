"""Keeps the process that runs jobs beside a server: another takes its place when it dies, and it ends with the server.

It notices that end by its standard input, which the system closes even when the server is killed.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from fairlead.config import JobsSettings, WebSettings, is_address
from fairlead.errors import ConfigError
from fairlead.monitor.number_files import bury
from fairlead.repository.state import state_path
from fairlead.web.file_jobs.directory import JobDirectory
from fairlead.web.file_jobs.scoring import GRACE_S

# What `runner.STOP` is; here, for its module is run and must not be imported before.
_STOP = b"stop\n"
# Before another try for a process that did not last; each time twice as long, up to the latter.
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LASTED_S = 60.0
# Beyond the time that jobs have to end.
_END_S = 2.0

logger = logging.getLogger("fairlead.web.jobs")


def settled(
    jobs: JobsSettings | None, web: WebSettings, environ: Mapping[str, str], deployment: str
) -> JobsSettings | None:
    """Give the settings with absolute paths, and make the directory; None where no jobs are allowed.

    Parameters
    ----------
    deployment : as `fairlead.repository.state.deployment_key` gives it.

    Raises
    ------
    ConfigError
        When there is no place for jobs.
    """
    if jobs is None or not jobs.roots:
        return None
    if jobs.directory is not None:
        directory = Path(jobs.directory).absolute()
    elif (state := state_path(web.state_directory, environ, deployment)) is not None:
        directory = state.absolute().with_suffix(".jobs")
    else:
        raise ConfigError("jobs.directory: expected a directory, for this user has no home, got nothing")
    try:
        JobDirectory(directory).prepare()
    except OSError as error:
        raise ConfigError(f"jobs.directory: expected a directory to write to, got {directory}: {error}") from error
    roots = tuple(root if is_address(root) else str(Path(root).absolute()) for root in jobs.roots)
    return replace(jobs, roots=roots, directory=str(directory))


class Keeper(AbstractContextManager["Keeper"]):
    """Keeps a runner from `start` to the end of the context.

    Parameters
    ----------
    settings : as `settled` gives them; None for no jobs and no process.
    web : whether and how it logs and counts.
    run_directory : where it counts.
    """

    def __init__(self, settings: JobsSettings | None, web: WebSettings, run_directory: Path) -> None:
        self._metrics = run_directory if web.metrics else None
        self._command: Sequence[str] = ()
        if settings is not None:
            given = (msgspec.json.encode(settings).decode(), web.log_format)
            counted = () if self._metrics is None else (str(self._metrics),)
            self._command = (sys.executable, "-P", "-m", "fairlead.web.file_jobs.runner", *given, *counted)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the process; what may keep it from starting is logged, and tried again."""
        if self._command:
            self._thread = threading.Thread(target=self._keep, name="fairlead-jobs", daemon=True)
            self._thread.start()

    def __exit__(self, *error: object) -> None:
        """End the process, and wait until it has ended what runs."""
        self._ending.set()
        with self._lock:
            process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.write(_STOP)
                process.stdin.close()
            try:
                process.wait(GRACE_S + _END_S)
            except subprocess.TimeoutExpired:
                logger.error("the process that runs jobs did not end in time: killing it")
                process.kill()  # and the system what it has started
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        pause_s = _PAUSE_S / 2
        while not self._ending.is_set():
            began_s = time.monotonic()
            try:
                ended = self._run_once()
            except OSError as error:
                ended = f"cannot be started: {error}"
            if self._ending.is_set():
                return
            pause_s = _PAUSE_S if time.monotonic() - began_s > _LASTED_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            logger.error("the process that runs jobs %s: starting another in %g s", ended, pause_s)
            self._ending.wait(pause_s)

    def _run_once(self) -> str:
        with self._lock:
            if self._ending.is_set():
                return "was not started"
            self._process = subprocess.Popen(
                self._command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the server, which ends this one
            )
        code = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._metrics is not None:
            bury(self._metrics, self._process.pid)
        return f"ended with exit code {code}"
