"""One `fairlead score` process: its command, its beginning, and what its end means.

The process yields to what answers requests, and goes with the runner, even when that is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fairlead.bundle.processes import end_with, yield_to_all
from fairlead.monitor.run_directory import DIRECTORY_VARIABLE
from fairlead.web.file_jobs.records import Job

# How long a process that was told to end may take.
GRACE_S = 3.0
_KEPT_BYTES = 16 * 1024
_SHOWN_CHARACTERS = 2000


def score_command(job: Job, status: Path) -> list[str]:
    """Give the command line that does a job.

    Parameters
    ----------
    status : where the process tells how far it is.
    """
    order = job.order
    given = {
        "keep": None if order.keep is None else ",".join(order.keep),
        "date": order.date,
        "backfill": order.backfill,
        "format": order.format,
        "max-rejects": order.max_rejects,
        "status-file": status,
    }
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    resume = ["--resume"] if order.resume else []
    # Nothing of a request is taken for a flag.
    paths = ["--", job.bundle, order.input, order.output]
    return [sys.executable, "-P", "-m", "fairlead", "score", *resume, *flags, *paths]


class Scoring:
    """A process that scores.

    Parameters
    ----------
    job : that it does.
    command : its command line.
    lock : descriptor that it inherits, and keeps open as long as it lives.

    Attributes
    ----------
    output : descriptor that can be read when it has written something, or ended.
    is_silent : whether it will write nothing more.
    """

    def __init__(self, job: Job, command: Sequence[str], lock: int) -> None:
        self.job = job
        self._told_at_s: float | None = None
        self._written = b""
        parent = os.getpid()

        def begin() -> None:
            yield_to_all()
            end_with(parent)

        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # What counts requests is not for it.
            env={name: value for name, value in os.environ.items() if name != DIRECTORY_VARIABLE},
            process_group=0,
            pass_fds=(lock,),
            preexec_fn=begin,  # noqa: PLW1509  # the runner has one thread
        )
        assert self._process.stderr is not None
        self.output = self._process.stderr.fileno()
        os.set_blocking(self.output, False)
        self.is_silent = False

    def read(self) -> None:
        """Take in what it has written; only the end of that is kept."""
        with suppress(BlockingIOError):
            while not self.is_silent:
                data = os.read(self.output, _KEPT_BYTES)
                self._written = (self._written + data)[-_KEPT_BYTES:]
                self.is_silent = not data

    def end(self) -> None:
        """Ask it to end, and have it ended when it takes too long."""
        now_s = time.monotonic()
        if self._told_at_s is None:
            self._told_at_s = now_s
            # Not through `Popen`, which would take its exit code along if it has just ended.
            os.kill(self._process.pid, signal.SIGTERM)
        elif now_s - self._told_at_s > GRACE_S:
            self.kill()

    def exit_code(self) -> int | None:
        """Give its exit code, negative for a signal; None while it lives."""
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        # Before its number may be another's: whatever it has started goes too.
        self.kill()
        self.read()
        code = self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code

    def reason(self, code: int, error: str | None) -> str:
        """Say why it failed, by its exit code and by what it said."""
        written = self._written.decode(errors="replace").strip().splitlines()
        said = error or (written[-1].removeprefix("fairlead: ") if written else "")
        if code == -signal.SIGKILL:
            how = "the process was killed, as a system does that runs out of memory"
        elif code < 0:
            how = f"the process was ended by signal {-code}"
        elif said and code == 2:
            return said[:_SHOWN_CHARACTERS]
        else:
            how = f"the process ended with exit code {code}"
        return f"{how}: {said}"[:_SHOWN_CHARACTERS] if said else how

    def kill(self) -> None:
        """End it, and whatever it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
