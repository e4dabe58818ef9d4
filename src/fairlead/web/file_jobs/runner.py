"""The process that runs jobs, one beside each service.

As `python -m fairlead.web.file_jobs.runner SETTINGS LOG_FORMAT [METRICS_DIRECTORY]`.

It looks at the directory some times a second, and lives as long as its standard input is open. Of several on one
directory, as while one service takes the place of another, one runs jobs and the others wait. What it is told before
the end, ``stop``, says that the service ends by its own will: its jobs go on with the next start. When the service was
killed they do so too, but not for ever, since it may have been a job that it died of.
"""

from __future__ import annotations

import hashlib
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from fairlead.bundle.manifest import DESCRIPTOR
from fairlead.config import JobsSettings
from fairlead.monitor import logs
from fairlead.monitor.metrics import Metrics
from fairlead.web.file_jobs.directory import JobDirectory
from fairlead.web.file_jobs.records import OVER, Fate, Job
from fairlead.web.file_jobs.roots import NotAllowed, Roots
from fairlead.web.file_jobs.scoring import Scoring, score_command

STOP = b"stop\n"
_LOOK_S = 0.2
# After something that may pass: no space, no process to be had.
_PAUSE_S = 5.0
# A job that was under way at so many sudden ends of the service may be their cause.
_MOST_BEGUN = 5

logger = logging.getLogger("fairlead.web.jobs")


class Runner:
    """Runs the jobs of a directory.

    Parameters
    ----------
    settings : with the directory, and with absolute roots.
    metrics : where jobs are counted; None where nobody wants it.
    command : gives the command line of a job and its status file.
    """

    def __init__(
        self,
        settings: JobsSettings,
        metrics: Metrics | None = None,
        command: Callable[[Job, Path], Sequence[str]] = score_command,
    ) -> None:
        assert settings.directory is not None
        self.directory = JobDirectory(Path(settings.directory))
        self._settings = settings
        self._roots = Roots(settings.roots)
        self._metrics = metrics
        self._command = command
        self._waiting: dict[str, tuple[Job, Fate]] = {}
        self._running: dict[str, tuple[Scoring, Fate]] = {}
        # What there was no space for yet.
        self._unwritten: dict[str, Fate] = {}
        self._ended_at: dict[str, datetime] = {}
        self._broken: set[str] = set()
        self._paused_until_s = 0.0

    def run(self, line: int) -> None:
        """Run jobs until a line closes, then end them.

        Parameters
        ----------
        line : descriptor that the service keeps open.
        """
        while (lock := self.directory.lock_runner()) is None:
            if select.select([line], [], [], _LOOK_S)[0]:
                return
        self.directory.remove_unfinished()
        while True:
            pause_s = _LOOK_S
            try:
                self.turn()
            except OSError:
                logger.exception("%s: cannot be used, and jobs do not run", self.directory.path)
                pause_s = _PAUSE_S
            heard = [scoring.output for scoring, _ in self._running.values() if not scoring.is_silent]
            if line in select.select([line, *heard], [], [], pause_s)[0]:
                break
        self.end(is_sudden=os.read(line, len(STOP)) != STOP)
        os.close(lock)

    def turn(self) -> None:
        """See to what has ended, is to be cancelled, is new, or is due."""
        for id, fate in list(self._unwritten.items()):
            self._settle(id, fate)
        for id, (scoring, fate) in list(self._running.items()):
            scoring.read()
            if self.directory.is_cancelled(id):
                scoring.end()
            if (code := scoring.exit_code()) is not None:
                del self._running[id]
                self._settle(id, self._judged(scoring, fate, code))
        self._take_up()
        for id, (job, fate) in sorted(self._waiting.items(), key=lambda one: one[1][0].made_at):
            if self.directory.is_cancelled(id):
                self._waiting.pop(id)
                self._settle(id, replace(fate, state="cancelled", ended_at=_now()))
            elif len(self._running) < self._settings.max_running and time.monotonic() >= self._paused_until_s:
                self._begin(job, fate)
        self._forget()
        if self._metrics is not None:
            self._metrics.jobs(len(self._waiting), len(self._running))

    def end(self, *, is_sudden: bool) -> None:
        """End all processes; their jobs go on when there is a runner again.

        Parameters
        ----------
        is_sudden : whether the service ended without a word.
        """
        while self._running:
            for id, (scoring, fate) in list(self._running.items()):
                scoring.read()
                if is_sudden:  # nobody is to find it alive when the next service begins
                    scoring.kill()
                else:
                    scoring.end()
                if (code := scoring.exit_code()) is None:
                    continue
                del self._running[id]
                if code == 0 or self.directory.is_cancelled(id):
                    self._settle(id, self._judged(scoring, fate, code))
                else:
                    self._settle(id, Fate(begun=fate.begun if is_sudden else fate.begun - 1))
            time.sleep(_LOOK_S / 10)

    def _take_up(self) -> None:
        """Find out about jobs that are new, or new to this process."""
        ids = set(self.directory.ids())
        for id in ids - self._waiting.keys() - self._running.keys() - self._ended_at.keys() - self._broken:
            job, fate = self.directory.job(id), self.directory.fate(id)
            if job is None:
                self._broken.add(id)
            elif fate.state in OVER:
                self._ended_at[id] = fate.ended_at or _now()
            elif id not in self._unwritten:
                self._waiting[id] = job, fate

    def _begin(self, job: Job, fate: Fate) -> None:
        """Start the process of a job, unless that must not be."""
        if (refusal := self._refusal(job, fate)) is not None:
            self._waiting.pop(job.id)
            self._settle(job.id, replace(fate, state="failed", ended_at=_now(), reason=refusal))
            return
        lock = None
        try:
            lock = self.directory.lock_job(job.id)
            if lock is None:  # the process of a runner that was killed is about to end
                return
            self.directory.status_path(job.id).unlink(missing_ok=True)
            begun = Fate("running", fate.begun + 1, _now())
            self.directory.put_fate(job.id, begun)
            command = self._command(job, self.directory.status_path(job.id))
            self._running[job.id] = Scoring(job, command, lock), begun
        except OSError as error:
            logger.error("job %s cannot be begun (again in %g s): %s", job.id, _PAUSE_S, error)
            self._paused_until_s = time.monotonic() + _PAUSE_S
            with suppress(OSError):
                self.directory.put_fate(job.id, fate)
            return
        finally:
            if lock is not None:  # the process has it now, if there is one
                os.close(lock)
        self._waiting.pop(job.id)
        logger.info("job %s of request %s runs", job.id, job.request_id)

    def _refusal(self, job: Job, fate: Fate) -> str | None:
        """Say why a job must not run; None when it may."""
        if fate.begun >= _MOST_BEGUN:
            return f"the service ended suddenly {fate.begun} times while this job ran: it is not tried again"
        for what, path in (("input", job.order.input), ("output", job.order.output)):
            try:
                self._roots.check(path)
            except NotAllowed as refused:
                return f"its {what} is not below one of jobs.roots any more: expected a path below, got {refused.got}"
            except OSError as error:
                return f"its {what} cannot be looked at: {error.strerror}"
        descriptor = Path(job.bundle, DESCRIPTOR)
        try:
            digest = hashlib.sha256(descriptor.read_bytes()).hexdigest()
        except OSError as error:
            return f"{job.bundle}: the bundle that was served when the job was made is gone: {error.strerror}"
        return None if digest == job.digest else _changed(job)

    def _judged(self, scoring: Scoring, fate: Fate, code: int) -> Fate:
        """Say what has become of a job whose process has ended."""
        job = scoring.job
        status = self.directory.status(job.id)
        over = replace(fate, ended_at=_now())
        if code == 0:
            used = status.report.get("digest") if status is not None and isinstance(status.report, dict) else None
            if used in (None, job.digest):
                return replace(over, state="done")
            return replace(over, state="failed", reason=_changed(job))
        if self.directory.is_cancelled(job.id):
            return replace(over, state="cancelled")
        return replace(over, state="failed", reason=scoring.reason(code, None if status is None else status.error))

    def _settle(self, id: str, fate: Fate) -> None:
        """Keep what has become of a job, later if it cannot be now."""
        try:
            self.directory.put_fate(id, fate)
        except FileNotFoundError:
            self._unwritten.pop(id, None)  # somebody has removed it
            return
        except OSError as error:
            if id not in self._unwritten:
                logger.error("job %s is %s, which cannot be kept yet: %s", id, fate.state, error)
            self._unwritten[id] = fate
            return
        self._unwritten.pop(id, None)
        if fate.state in OVER:
            self._ended_at[id] = fate.ended_at or _now()
            if self._metrics is not None:
                self._metrics.job_ended(fate.state)
        logger.log(
            logging.WARNING if fate.state == "failed" else logging.INFO,
            "job %s is %s%s",
            *(id, fate.state, f": {fate.reason}" if fate.reason else ""),
        )

    def _forget(self) -> None:
        past = _now() - timedelta(seconds=self._settings.keep_s)
        for id in [id for id, ended_at in self._ended_at.items() if ended_at < past]:
            self.directory.forget(id)
            del self._ended_at[id]


def _changed(job: Job) -> str:
    return f"{job.bundle}: the bundle changed since the job was made: order it again"


def _now() -> datetime:
    return datetime.now(UTC)


def main(settings: JobsSettings, log_format: logs.LogFormat, metrics: Path | None) -> None:
    """Be the process."""
    logs.configure(log_format)
    Runner(settings, None if metrics is None else Metrics(metrics)).run(sys.stdin.fileno())


if __name__ == "__main__":
    main(
        msgspec.json.decode(sys.argv[1], type=JobsSettings),
        msgspec.convert(sys.argv[2], logs.LogFormat),
        Path(sys.argv[3]) if len(sys.argv) > 3 else None,
    )
