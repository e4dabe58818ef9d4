"""The routes of jobs: made, looked at, cancelled, at any worker. They take an admin key."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.config import JobsSettings
from fairlead.repository.threads import in_thread
from fairlead.web import wire
from fairlead.web.admin import body_of
from fairlead.web.calls import Call
from fairlead.web.dialects.envelopes import refuse
from fairlead.web.file_jobs.directory import JobDirectory, QueueFull
from fairlead.web.file_jobs.orders import placed, read_order
from fairlead.web.file_jobs.records import OVER, Job, Order, View
from fairlead.web.file_jobs.roots import Roots
from fairlead.web.problems import Refusal

if TYPE_CHECKING:
    from fairlead.web.app import App
    from fairlead.web.models import Model

T = TypeVar("T")
# The newest come first; whoever has more of them asks for one by its id.
_MOST_LISTED = 1000
# How long a request waits for a job to have ended that it cancels.
_CANCEL_S = 2.0
_LOOK_S = 0.05

logger = logging.getLogger("fairlead.web.jobs")


def routes(app: App, settings: JobsSettings) -> list[Route]:
    """Make the routes of an app.

    Parameters
    ----------
    settings : as `keeper.settled` gives them.
    """
    assert settings.directory is not None
    directory, roots = JobDirectory(Path(settings.directory)), Roots(settings.roots)

    async def jobs(request: Request) -> Response:
        if request.method == "POST":
            return await make(request)
        return _json({"jobs": await _kept(partial(_views, directory))})

    async def make(request: Request) -> Response:
        call: Call = request.scope["fairlead.call"]
        wire.check_is_json(call.fields)
        order = read_order(await body_of(app, request))
        model = _model(app, order)
        order = await in_thread(partial(placed, replace(order, model=model.name), roots))
        made = _job(order, model, call.request_id.decode())
        await _kept(partial(_make, directory, made, settings.max_queued))
        return _json(await view(made.id), 202, {"location": f"{request.scope['root_path']}/jobs/{made.id}"})

    async def job(request: Request) -> Response:
        found = await view(request.path_params["id"])
        if request.method != "DELETE" or found.state in OVER:
            return _json(found)
        await _kept(partial(directory.cancel, found.id))
        for _ in range(int(_CANCEL_S / _LOOK_S)):
            found = await view(found.id)
            if found.state in OVER:
                return _json(found)
            await asyncio.sleep(_LOOK_S)
        return _json(found, 202)

    async def view(id: str) -> View:
        found = await _kept(partial(directory.view, id))
        if found is None:
            raise Refusal("not_found", "there is no such job: it never was, or it ended long ago")
        return found

    return [Route("/jobs", jobs, methods=["GET", "POST"]), Route("/jobs/{id}", job, methods=["GET", "DELETE"])]


def _model(app: App, order: Order) -> Model:
    """Give the model that is to score; its canary has no part in it."""
    served = app.served
    if order.model is None:
        if len(served.entries) > 1:
            raise refuse("$.model", "the name of a model, for several are served", "nothing")
        return served.find(next(iter(served.entries)))
    return served.find(order.model)


def _job(order: Order, model: Model, request_id: str) -> Job:
    return Job(
        id=secrets.token_hex(16),
        order=order,
        version=model.version,
        digest=model.variant.digest,
        bundle=model.variant.path,
        made_at=datetime.now(UTC),
        request_id=request_id,
    )


def _make(directory: JobDirectory, job: Job, max_queued: int) -> None:
    try:
        directory.make(job, max_queued)
    except QueueFull:
        detail = f"expected less than {max_queued} jobs to wait (jobs.max_queued): come again later"
        raise Refusal("overloaded", detail, headers=[(b"retry-after", b"30")]) from None


def _views(directory: JobDirectory) -> list[View]:
    """Give the newest jobs, newest first; their reports, which tell of every file, are left out."""
    found = sorted(filter(None, map(directory.view, directory.ids())), key=lambda one: one.made_at, reverse=True)
    return [replace(one, report=None) for one in found[:_MOST_LISTED]]


async def _kept(work: Callable[[], T]) -> T:
    """Have something done with the directory, which is a disk.

    Raises
    ------
    Refusal
        ``not_ready`` when it is full, or cannot be used.
    """
    try:
        return await in_thread(work)
    except OSError as error:
        logger.exception("jobs cannot be kept or found")
        detail = f"jobs cannot be kept or found ({error.strerror}): the server's log tells where"
        raise Refusal("not_ready", detail, headers=[(b"retry-after", b"30")]) from error


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(wire.encode(value), status, headers, "application/json")
