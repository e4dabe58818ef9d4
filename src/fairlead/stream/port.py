"""The small port of a consumer: whether it lives, whether it is ready and how it does, and its metrics.

Layer L3; imports Starlette and uvicorn.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.monitor.metrics import Metrics
from fairlead.stream.progress import Status

_JSON = "application/json"
# At the end nobody is waited for who does not read the answer.
_SHUTDOWN_S = 1


class Port(uvicorn.Server):
    """Answers ``/livez``, ``/readyz`` and ``/metrics``.

    Parameters
    ----------
    status : tells how the consumer is.
    tell_metrics : brings the metrics up to date.
    metrics : what is rendered.
    """

    def __init__(self, status: Callable[[], Status], tell_metrics: Callable[[], None], metrics: Metrics) -> None:
        async def livez(request: Request) -> Response:
            return Response(b'{"status":"live"}', media_type=_JSON)

        async def readyz(request: Request) -> Response:
            told = status()
            return Response(msgspec.json.encode(told), 200 if told.status == "ready" else 503, media_type=_JSON)

        async def render(request: Request) -> Response:
            tell_metrics()
            body, media_type = await run_in_threadpool(metrics.render, request.headers.get("accept", ""))
            return Response(body, headers={"content-type": media_type})

        app = Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", render)])
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the consumer."""
        yield

    async def answer(self, listener: socket.socket) -> None:
        """Answer on a socket that listens, until `should_exit`."""
        await self.serve(sockets=[listener])
