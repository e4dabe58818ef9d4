"""Makes Prefect run the scoring on a schedule: a deployment of the flow `prefect.score` on a work pool.

What is wrong with it is told now rather than at three in the morning. Layer L3; imports prefect when it is used.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import fairlead
from fairlead.batch import templates
from fairlead.batch.dates import moments_of, zone_of
from fairlead.batch.formats.form import FormatName
from fairlead.batch.places import scheme
from fairlead.batch.plan import is_database
from fairlead.bundle import sources
from fairlead.bundle.sources.models import ModelSource
from fairlead.config import is_class
from fairlead.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import WorkPool

_N_NEXT = 3
_POOL_TYPE = "process"
_FORBIDDEN = re.compile(r"[/%&<>]")


@dataclass(frozen=True)
class Parameters:
    """How the flow scores, see `prefect.score`."""

    date: str | None = None
    keep: tuple[str, ...] | None = None
    format: FormatName | None = None
    resume: bool = True
    max_rejects: int | None = None
    shift: int = 0
    query: str | None = None
    retries: int = 3
    retry_delay_s: float = 30.0


@dataclass(frozen=True)
class Scheduled:
    """A deployment.

    Parameters
    ----------
    deployment_id : Prefect's.
    name : as ``prefect deployment run`` takes it.
    is_new : whether there was none of that name.
    work_pool, work_pool_type : where its runs go.
    next_runs : the next times, with their zone.
    """

    deployment_id: str
    name: str
    is_new: bool
    work_pool: str
    work_pool_type: str
    next_runs: tuple[datetime, ...]


def schedule(
    bundle: str,
    input: str,
    output: str,
    cron: str,
    *,
    timezone: str | None = None,
    name: str | None = None,
    work_pool: str = "fairlead",
    parameters: Parameters = Parameters(),
) -> Scheduled:
    """Make a deployment that scores on a schedule, or bring that of the same name up to date.

    Parameters
    ----------
    bundle : any source; it is asked for at each run.
    input, output : as for `job.score`; what fills a template is the time that a run is scheduled for.
    cron : minute, hour, day, month, weekday.
    timezone : of `cron` and of the dates; None for UTC.
    name : the deployment's; None for the model's.
    work_pool : where a worker takes the runs from; made with the type ``process`` where there is none.

    Raises
    ------
    ConfigError
        For a wrong schedule, name or parameter, and when no Prefect server is set or answers.
    SourceError, InputError, OutputError
        For a bundle, input or output whose form is wrong.
    MissingExtra
        When prefect is not installed.
    """
    from fairlead.batch.prefect import score  # names the extra, before the imports that fail without it

    given = _given(bundle, input, output, parameters) | {"timezone": timezone}
    name = _named(name, bundle)
    next_runs = _dates(cron, timezone)

    from prefect.client.schemas.objects import VersionInfo
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    # Else Prefect looks for a git repository here, and takes its commit.
    version = VersionInfo(type="prefect:simple", version=fairlead.__version__)
    with _told(), _client() as client:
        pool = _work_pool(client, work_pool)
        deployment = RunnerDeployment.from_flow(
            score,
            name,
            schedule=Cron(cron, timezone=timezone or "UTC"),
            parameters=given,
            version=version.version,
            work_pool_name=pool.name,
            # Workers import it from where fairlead is installed: no code is fetched.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        is_new = not _exists(client, deployment.full_name)
        deployment_id = deployment.apply(version_info=version)
    return Scheduled(str(deployment_id), deployment.full_name, is_new, pool.name, pool.type, next_runs)


def _given(bundle: str, input: str, output: str, parameters: Parameters) -> dict[str, Any]:
    """Give the flow's parameters, with paths that mean the same from a worker's directory."""
    source = sources.parse(bundle)
    if isinstance(source, sources.LocalSource) and not is_class(bundle):
        bundle = str(source.path.absolute())
    template = "" if is_database(input) else input
    # Whatever the time will be: it says whether the templates can be filled.
    moments = moments_of(template, output, parameters.date, datetime.now(), parameters.shift)
    templates.check(template, output, moments)
    if is_database(input) != (parameters.query is not None):
        raise ConfigError("expected a database with a query, or files without: give both or neither")
    if is_database(input) and _has_password(input):
        raise ConfigError(
            "expected a database's address without its password, which Prefect would show to everybody: "
            "set PGPASSWORD or PGPASSFILE where the worker runs"
        )
    if parameters.shift and (parameters.date or not moments):
        raise ConfigError(
            f"shift {parameters.shift}: expected a template without a date, for the scheduled time to fill: "
            "leave one of them out"
        )
    keep = None if parameters.keep is None else list(parameters.keep)
    return {"bundle": bundle, "input": _absolute(input), "output": _absolute(output)} | (
        asdict(parameters) | {"keep": keep}
    )


def _has_password(address: str) -> bool:
    parts = urlsplit(address)
    return parts.password is not None or "password" in parse_qs(parts.query)


def _absolute(path: str) -> str:
    if scheme(path):
        return path
    # A slash at the end says that it is a directory.
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")  # noqa: PTH100  # a path may be a glob


def _named(name: str | None, bundle: str) -> str:
    if name is None:
        source = sources.parse(bundle)
        name = source.name if isinstance(source, ModelSource) else Path(urlsplit(source.text).path).stem
    if not name.strip() or _FORBIDDEN.search(name):
        raise ConfigError(f"name {name!r}: expected a name without / % & < >: give another with --name")
    return name


def _dates(cron: str, timezone: str | None) -> tuple[datetime, ...]:
    """Give the next times; they come from what the server computes them with."""
    from prefect.server.schemas.schedules import CronSchedule

    zone = zone_of(timezone)
    try:
        known = CronSchedule(cron=cron, timezone=timezone)
        return tuple(asyncio.run(known.get_dates(_N_NEXT, start=datetime.now(zone))))
    except ValueError as error:
        raise ConfigError(
            f"cron {cron!r}: expected minute, hour, day, month and weekday, such as '0 3 2 * *': see its fields"
        ) from error


def _client() -> SyncPrefectClient:
    """Give a client of the server that is set; Prefect by itself would start one that ends with this process."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise ConfigError(
            "no Prefect server is set: set PREFECT_API_URL, such as http://127.0.0.1:4200/api for the one that "
            "`prefect server start` starts"
        )
    return get_client(sync_client=True)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what Prefect raises into an error that says what to do."""
    from httpx import HTTPError, HTTPStatusError
    from prefect.deployments.runner import DeploymentApplyError
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    try:
        yield
    except HTTPStatusError as error:
        status = error.response.status_code
        raise ConfigError(f"the Prefect server at {url} answered {status}: {error.response.text[:500]}") from error
    except HTTPError as error:
        reason = str(error) or type(error).__name__
        raise ConfigError(
            f"the Prefect server at {url} does not answer ({reason}): see whether it is up and PREFECT_API_URL right"
        ) from error
    except DeploymentApplyError as error:
        raise ConfigError(f"the Prefect server at {url} refuses the deployment: {error}") from error


def _work_pool(client: SyncPrefectClient, name: str) -> WorkPool:
    """Find a work pool, or make one whose workers start processes."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        return client.create_work_pool(WorkPoolCreate(name=name, type=_POOL_TYPE, base_job_template=template))


def _exists(client: SyncPrefectClient, full_name: str) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return False
    return True
