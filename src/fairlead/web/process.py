"""One process that answers: the app of some bundles under uvicorn, on a socket that listens already.

The parent of several workers never imports this module, so that it stays small and starts them at once.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from fairlead.web.app import App
from fairlead.web.server import BACKLOG, LOGGING, Settings


def run(app: App, listener: socket.socket, settings: Settings, on_started: Callable[[], None]) -> None:
    """Answer requests in this process until a signal."""
    config = uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        access_log=settings.access_log,
        log_config=LOGGING,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    _Server(config, app, on_started).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server for which a signal to stop is a normal end, exit code 0.

    uvicorn raises the signal once more after it has shut down, and so ends as killed.
    """

    def __init__(self, config: uvicorn.Config, app: App, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.drain()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()
