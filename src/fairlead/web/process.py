"""One process that answers: the app of some bundles under uvicorn, on a socket that listens already.

The parent of several workers never imports this module, so that it stays small and starts them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn

from fairlead.config import WebSettings
from fairlead.monitor.sockets import BACKLOG
from fairlead.web.app import App
from fairlead.web.protocol import Protocol

# How long clients that connect at the very end may take for TLS.
_HANDSHAKES_S = 2.0
# A request makes some thirty objects that live until its answer; at Python's own 700, most are looked at in vain.
_YOUNG_OBJECTS = 20_000
# uvicorn calls `on_tick` so often.
_TICKS_A_SECOND = 10


def run(app: App, listener: socket.socket, settings: WebSettings, on_started: Callable[[], None]) -> None:
    """Answer requests in this process until a signal."""
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=Protocol.bound_to(app),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=math.ceil(settings.keep_alive_s),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=settings.tls_client_ca,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    )
    # What was made at start stays: the collector need not look at it again, which takes ten milliseconds each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        _Server(config, app, on_started).run(sockets=[listener])
    finally:
        app.gate.close()


class _Server(uvicorn.Server):
    """A server for which a signal to stop is a normal end, exit code 0.

    uvicorn raises the signal once more after it has shut down, and so ends as killed.
    """

    def __init__(self, config: uvicorn.Config, app: App, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._protocol = Protocol.bound_to(app)
        self._drain_s = app.gate.settings.drain_s
        self._on_started = on_started
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        Protocol.now_s = time.monotonic()
        if counter % _TICKS_A_SECOND == 0:
            self._app.tell_metrics()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.check_times()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or not self._drain_s or self._app.gate.is_draining:
            self._app.drain()
            super().handle_exit(sig, frame)
            return
        # Load balancers see that it is not ready and go elsewhere, before the port closes. A second signal hurries.
        self._app.drain()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, super().handle_exit, sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        Protocol.now_s = time.monotonic()
        self._app.start()
        await super().startup(sockets=sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._take_in_the_last(sockets or [])
        await super().shutdown(sockets)

    async def _take_in_the_last(self, listeners: Sequence[socket.socket]) -> None:
        """Accept whoever is in the sockets' queues when they are closed: the kernel would reset them."""
        kept = [listener.dup() for listener in listeners]
        for server in self.servers:
            server.close()
        accepted: list[socket.socket] = []
        for listener in kept:
            listener.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])
            listener.close()
        taking = [self._take_in(connection) for connection in accepted]
        await asyncio.wait_for(asyncio.gather(*taking, return_exceptions=True), _HANDSHAKES_S)

    async def _take_in(self, connection: socket.socket) -> None:
        config, state = self.config, self.server_state
        connection.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._protocol(config, state, self.lifespan.state), connection, ssl=config.ssl
        )
