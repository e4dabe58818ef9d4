"""Changes of what is served, asked for over HTTP: a look for a newer version, the share of the canary.

They concern all workers of a server, whichever is asked, and take an admin key.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.errors import FairleadError
from fairlead.repository.control import Control, TrafficChange
from fairlead.web import wire
from fairlead.web.asgi_calls import read_body
from fairlead.web.dialects.envelopes import decode
from fairlead.web.problems import Refusal

if TYPE_CHECKING:
    from fairlead.web.app import App

T = TypeVar("T")
_OF_JOBS = r"/jobs(/.*)?"
_OF_ADMIN = {
    "POST": re.compile(rf"/models/[^/]+/reload|/v2/repository/models/.*|{_OF_JOBS}", re.DOTALL),
    "PUT": re.compile(r"/models/[^/]+/traffic"),
    # Jobs read and write files, and tell where they are.
    **dict.fromkeys(("GET", "HEAD", "DELETE"), re.compile(_OF_JOBS, re.DOTALL)),
}
_read_change = msgspec.json.Decoder(TrafficChange).decode


def needs_admin(method: str, path: str) -> bool:
    """Whether a request changes what is served, or has to do with files."""
    pattern = _OF_ADMIN.get(method)
    # Starlette's patterns end in `$`, which a line break at the end of the path still matches.
    return pattern is not None and pattern.fullmatch(path.removesuffix("\n")) is not None


def control_of(app: App) -> Control:
    """Give what changes the models of an app.

    Raises
    ------
    Refusal
        ``forbidden`` where nothing can.
    """
    if app.control is None:
        raise Refusal("forbidden", "this server's models cannot be changed while it runs")
    return app.control


async def changed(change: Awaitable[T]) -> T:
    """Wait for a change.

    Raises
    ------
    Refusal
        ``not_ready`` when another try may do, else ``conflict``; nothing has changed.
    """
    try:
        return await change
    except FairleadError as error:
        if error.retryable:
            raise Refusal("not_ready", str(error), headers=[(b"retry-after", b"5")]) from error
        raise Refusal("conflict", f"nothing was changed: {error}") from error


async def body_of(app: App, request: Request) -> bytes:
    """Read a request's body; its coding is undone and white space around it left out."""
    body = await read_body(request.scope, request.receive, app.gate.settings.max_body_bytes)
    if body is None:
        raise ClientDisconnect
    encoding = request.headers.get("content-encoding")
    if encoding is not None:
        body = wire.decompressed(body, encoding.encode(), app.gate.settings.max_body_bytes)
    return body.strip()


def routes(app: App) -> list[Route]:
    """Make the routes of an app."""

    def known(request: Request) -> str:
        name: str = request.path_params["name"]
        app.served.entry(name)
        return name

    async def reload(request: Request) -> Response:
        return _json(await changed(control_of(app).reload(known(request))))

    async def traffic(request: Request) -> Response:
        name, control = known(request), control_of(app)
        if request.method == "PUT":
            change = decode(await body_of(app, request), _read_change)
            return _json(await changed(control.set_traffic(name, change)))
        return _json(await control.traffic(name))

    return [
        Route("/models/{name}/reload", reload, methods=["POST"]),
        Route("/models/{name}/traffic", traffic, methods=["GET", "PUT"]),
    ]


def _json(value: Any) -> Response:
    return Response(wire.encode(value), media_type="application/json")
