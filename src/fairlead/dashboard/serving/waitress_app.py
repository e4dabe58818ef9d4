"""Dashboards under waitress: one process with threads, in which boards are put in each other's place.

Layer L3; imports waitress.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

from fairlead.config import DashboardSettings
from fairlead.monitor.sockets import BACKLOG

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The loop wakes up by itself when something happens.
_LOOP_S = 1.0
_END_LOOP_S = 0.1
_MAX_CONNECTIONS = 1000

logger = logging.getLogger("fairlead.dashboard")


def run(
    app: Any,
    listener: socket.socket,
    settings: DashboardSettings,
    on_started: Callable[[], None],
    on_hangup: Callable[[], None],
) -> None:
    """Answer in threads until SIGTERM or SIGINT, and finish what was asked by then.

    Parameters
    ----------
    app : the hub's WSGI app, with its boards loaded.
    listener : bound.
    on_started : called when requests are taken.
    on_hangup : called after SIGHUP.
    """
    connections: dict[int, Any] = {}
    server = create_server(
        app,
        map=connections,
        sockets=[listener],
        threads=settings.threads,
        backlog=BACKLOG,
        connection_limit=_MAX_CONNECTIONS,
        ident=None,
        clear_untrusted_proxy_headers=False,  # which proxies count is the gate's to say
    )
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        server.pull_trigger()

    handlers = {**dict.fromkeys(_SIGNALS, stop), signal.SIGHUP: lambda number, frame: on_hangup()}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        on_started()
        while not stopping:
            wasyncore.loop(_LOOP_S, use_poll=True, map=connections, count=1)
        _finish(server, connections, settings.shutdown_timeout_s)
    finally:
        wasyncore.close_all(connections)
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(server: Any, connections: dict[int, Any], limit_s: float) -> None:
    """Take no more connections, and answer what has come in on those there are."""
    server.accepting = False
    server.del_channel()
    server.socket.close()
    until_s = time.monotonic() + limit_s
    while any(map(_is_busy, list(server.active_channels.values()))):
        if time.monotonic() > until_s:
            logger.error("pages that take longer than %g s are given up", limit_s)
            break
        wasyncore.loop(_END_LOOP_S, use_poll=True, map=connections, count=1)


def _is_busy(channel: Any) -> bool:
    return bool(channel.requests or channel.request is not None or channel.total_outbufs_len)
