"""The Prefect flow `score`: brings a bundle and scores files with it, a task for each, with retries and artifacts.

`schedule` makes deployments of it; a worker imports this module, so it needs `fairlead[prefect]` and nothing else.
Layer L3; imports prefect when it is imported, `job` and what is below it.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from logging import Logger, LoggerAdapter, LogRecord
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

from fairlead import config
from fairlead.batch import job, templates
from fairlead.batch.dates import moments_of, zone_of
from fairlead.batch.formats.form import FormatName
from fairlead.batch.plan import is_database
from fairlead.batch.progress import Counter
from fairlead.batch.report import FileReport, Report
from fairlead.bundle import sources
from fairlead.bundle.obtain import Obtained, obtain
from fairlead.errors import FairleadError
from fairlead.extras import require

require("prefect", "prefect")  # names the extra, before the imports that fail without it

from httpx import HTTPError  # noqa: E402  # after `require`
from prefect import Task, flow, get_run_logger, task  # noqa: E402  # after `require`
from prefect.artifacts import (  # noqa: E402  # after `require`
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402  # after `require`
from prefect.client.schemas.objects import State, TaskRun  # noqa: E402  # after `require`
from prefect.logging import get_logger  # noqa: E402  # after `require`
from prefect.runtime import deployment, flow_run  # noqa: E402  # after `require`
from prefect.states import Failed  # noqa: E402  # after `require`
from prefect.tasks import exponential_backoff  # noqa: E402  # after `require`
from pydantic import Field  # noqa: E402  # after `require`

_TELL_EVERY_S = 2.0
_ENGINE_LOGGERS = ("flow_runs", "engine")

_Logger = Logger | LoggerAdapter[Logger]


@flow(name="fairlead-score", description="Score files with a fairlead bundle.")
def score(
    bundle: str,
    input: str,
    output: str,
    date: str | None = None,
    keep: list[str] | None = None,
    format: FormatName | None = None,
    resume: bool = True,
    max_rejects: int | None = None,
    shift: int = 0,
    timezone: str | None = None,
    query: str | None = None,
    retries: Annotated[int, Field(ge=0, le=50)] = 3,
    retry_delay_s: Annotated[float, Field(ge=0)] = 30.0,
) -> tuple[Report, ...] | State[Any]:
    """Score files, as `fairlead score` does.

    Parameters
    ----------
    bundle : a path of the worker's machine, or where one lives, such as ``models:/rides@champion``.
    input, output : paths, globs, templates as for `job.score`.
    date : what fills the templates, such as ``2026-10``, or a range such as ``2026-01..2026-06``; None for the time
        that the run was scheduled for.
    keep : the columns of the input to keep; None for all.
    format : of outputs whose name does not tell it.
    resume : skip what an earlier run has done.
    max_rejects : more rejected rows than these fail a file, or all that are found for a date.
    shift : by how many of the templates' finest unit the scheduled time is moved: -1 for the month before.
    timezone : of the month, day and hour of the scheduled time; None for UTC.
    query : what to ask a database.
    retries : how often a task is tried again after what may pass, such as a registry that is away.
    retry_delay_s : before the first of these; doubled each time.

    Returns
    -------
    A report for each date. A run that fails ends in a state with fairlead's message.
    """
    options = job.ScoreOptions(
        keep=None if keep is None else tuple(keep), query=query, format=format, resume=resume, max_rejects=max_rejects
    )
    try:
        scheduled = flow_run.scheduled_start_time.astimezone(zone_of(timezone))
        moments = moments_of("" if is_database(input) else input, output, date, scheduled, shift)
        run = partial(_run, retries, retry_delay_s)
        found: Obtained = run(fetch_bundle, sources.parse(bundle).text, bundle)
        try:
            reports: tuple[Report, ...] = tuple(
                run(score_files, _shown(input, moment), str(found.path), input, output, moment, options)
                for moment in moments or (None,)
            )
        finally:
            found.release()
    except FairleadError as error:
        # The engine raises what a state failed with to its own caller, and logs that as a crash.
        for name in _ENGINE_LOGGERS:
            get_logger(name).addFilter(_is_told)
        return _failed(error)
    _tabulate(reports)
    return reports


def _may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether to try again: not after a mistake of the user's, which would be one again."""
    del task, run
    return isinstance(state.data, FairleadError) and state.data.retryable


def _run(retries: int, delay_s: float, one: Task[Any, Any], *arguments: Any) -> Any:
    """Run a task; give what it made, or raise what it failed with."""
    tried: Any = one.with_options(retries=retries, retry_delay_seconds=exponential_backoff(delay_s))
    return tried(*arguments, return_state=True).result()


def _failed(error: FairleadError) -> State[Any]:
    """Make the state of what failed with a message of ours, which needs no traceback."""
    return Failed(message=str(error), data=error)


def _is_told(record: LogRecord) -> bool:
    """Leave out tracebacks of what has been told with a message of ours."""
    return record.exc_info is None or not isinstance(record.exc_info[1], FairleadError)


@task(task_run_name="fetch {shown}", cache_policy=NO_CACHE, retry_condition_fn=_may_pass)
def fetch_bundle(shown: str, source: str) -> Obtained | State[Any]:
    """Have a bundle of any source on this machine, through the cache; `shown` is the source without a secret."""
    logger = get_run_logger()
    try:
        found = obtain(source, config.read(None, os.environ, {}).cache, os.environ, _Steps(logger))
    except FairleadError as error:
        return _failed(error)
    for warning in found.warnings:
        logger.warning(warning)
    logger.info("%s is %s version %s, digest %s", shown, found.name, found.version, found.digest[:12])
    return found


@task(task_run_name="score {shown}", cache_policy=NO_CACHE, retry_condition_fn=_may_pass)
def score_files(
    shown: str, bundle: str, input: str, output: str, moment: datetime | None, options: job.ScoreOptions
) -> Report | State[Any]:
    """Score what a path, a glob or, for a date, a template names; `shown` is what it is called."""
    del shown
    dates = () if moment is None else (moment,)
    try:
        return job.score(Path(bundle), input, output, replace(options, dates=dates), _Watched(get_run_logger()))
    except FairleadError as error:
        return _failed(error)


def _shown(input: str, moment: datetime | None) -> str:
    """Name what is scored, without a database's password."""
    return "a query" if is_database(input) else templates.fill(input, moment or datetime.min)


class _Steps:
    """Logs what `obtain` does."""

    def __init__(self, logger: _Logger) -> None:
        self._logger = logger

    def step(self, text: str) -> None:
        self._logger.info("%s …", text)

    def bytes(self, done: int, total: int | None) -> None: ...


class _Watched(Counter):
    """Tells Prefect how far a task is: lines in its log, and an artifact with a bar that moves.

    Parameters
    ----------
    logger : of the task's run.
    """

    def __init__(self, logger: _Logger) -> None:
        super().__init__()
        self._logger = logger
        self._artifact = cast(UUID, create_progress_artifact(0.0, _key("progress"), "nothing read yet"))
        self._told = time.monotonic()

    def began(self, input: str, output: str, n_rows: int | None) -> None:
        super().began(input, output, n_rows)
        self._logger.info("%s: scoring %s, to %s", input, _rows(n_rows), output)

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        super().advanced(rows_in, rejects, share)
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._tell(self.status.share or 0.0)

    def finished(self, file: FileReport) -> None:
        super().finished(file)
        if file.skipped:
            self._logger.info("%s: done before, as %s", file.input, file.output)
        else:
            self._logger.info(
                "%s: %s in, %s out, %s rejected, in %.1f s",
                file.input, _rows(file.rows_in), f"{file.rows_out:,}", f"{file.rejects:,}", file.duration_s,
            )  # fmt: skip
        if file.rejects:
            self._logger.warning("%s: see %s for what was rejected", file.input, file.rejects_file)
        self._tell(0.0)

    def _tell(self, share: float) -> None:
        """Move the bar; what is scored does not depend on it, so a server that is away for a while is no failure."""
        status = self.status
        percent = 100 * (status.files_done + share) / max(status.files, 1)
        text = (
            f"{status.files_done} of {status.files} files, {status.rows_in:,} rows, {status.rows_per_s:,.0f} a second, "
            f"{status.rejects:,} rejected"
        )
        try:
            update_progress_artifact(self._artifact, percent, text)
        except HTTPError as error:
            self._logger.warning("the progress cannot be told: %s", error)
        self._told = time.monotonic()


def _tabulate(reports: tuple[Report, ...]) -> None:
    """Make a table of the files."""
    rows = [
        {
            "file": file.input,
            "output": file.output,
            "rows in": file.rows_in,
            "rows out": file.rows_out,
            "rejects": file.rejects,
            "seconds": round(file.duration_s, 2),
            "rows/s": round(file.rows_in / max(file.duration_s, 1e-9)),
            "done before": "yes" if file.skipped else "no",
        }
        for report in reports
        for file in report.files
    ]
    first = reports[0]
    create_table_artifact(rows, _key("files"), f"scored with {first.name} version {first.version}")


def _key(what: str) -> str:
    """Name an artifact after the deployment, so that its page holds what came of each run; Prefect takes [a-z0-9-]."""
    name = re.sub("[^a-z0-9]+", "-", (deployment.name or "score").lower()).strip("-")
    return f"fairlead-{name}-{what}"


def _rows(count: int | None) -> str:
    return "rows" if count is None else f"{count:,} rows"
