"""`fairlead dashboard serve`: dashboards behind a socket, until a signal says stop.

Layer L3.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.config import DashboardSettings
from fairlead.dashboard import environment
from fairlead.dashboard.serving.shelf import address, find
from fairlead.dashboard.store import Store, identity
from fairlead.extras import require
from fairlead.monitor import logs
from fairlead.monitor.sockets import bind, listen

if TYPE_CHECKING:
    from fairlead.dashboard.logins.gate import Gate
    from fairlead.dashboard.serving.hub import Hub

logger = logging.getLogger("fairlead.dashboard")


def run(stores: Sequence[Path], settings: DashboardSettings) -> None:
    """Serve dashboards over HTTP; return, or exit, when SIGINT or SIGTERM came and what was asked is answered.

    A store that is replaced meanwhile is shown from then on, without a request that fails; one that is broken, or
    cannot be loaded, leaves what was shown in its place.

    Parameters
    ----------
    stores : directories as `fairlead dashboard build` makes them; a folder stands for all in it, and is followed.

    Raises
    ------
    DashboardError
        When not one store can be loaded, two have one name, or users or secret cannot be used.
    ServeError
        When the port cannot be had.
    MissingExtra
        When the server is not installed.
    """
    logs.configure(settings.log_format)
    environment.prepare()
    require(settings.server, "dashboard")
    found = find(stores)
    if not any(map(identity, found.values())):
        for path in found.values():
            Store.open(path)  # says what is wrong with it, before anything large is imported
    listener = bind(settings.host, settings.port)
    try:
        hub, gate = _make_hub(found, settings)
        _share_log()
        listen(listener, settings.host, settings.port)
        url = _url(listener, settings)
        if gate is None and not _is_loopback(listener):
            logger.warning("anybody who can reach %s sees all dashboards: --users asks them to log in", url)
        if settings.server == "gunicorn":
            _run_gunicorn(hub, stores, listener, settings, url)
        else:
            _run_waitress(hub, stores, listener, settings, url)
    finally:
        listener.close()


def _make_hub(found: dict[str, Path], settings: DashboardSettings) -> tuple[Hub, Gate | None]:
    from fairlead.dashboard.logins.gate import Gate
    from fairlead.dashboard.serving.hub import make_hub

    gate = Gate.open(settings, os.environ)
    environment.library()
    return make_hub(found, gate=gate, prefix=settings.root_path or "/"), gate


def _run_gunicorn(
    hub: Hub, stores: Sequence[Path], listener: socket.socket, settings: DashboardSettings, url: str
) -> None:
    from fairlead.dashboard.serving import gunicorn_app
    from fairlead.dashboard.serving.following import Follower

    gunicorn_app.run(hub.wsgi, Follower(stores, hub.shelf), listener, settings, lambda: _announce(hub, url))


def _run_waitress(
    hub: Hub, stores: Sequence[Path], listener: socket.socket, settings: DashboardSettings, url: str
) -> None:
    from fairlead.dashboard.serving import waitress_app
    from fairlead.dashboard.serving.following import Follower, FollowingThread

    follower = Follower(stores, hub.shelf)
    thread = FollowingThread(follower)

    def on_started() -> None:
        thread.ensure()
        _announce(hub, url)

    waitress_app.run(hub.wsgi, listener, settings, on_started, follower.hurry)


def _share_log() -> None:
    """Have what fails in a page, and in libraries, told where fairlead's own words go."""
    everything = logging.getLogger()
    everything.handlers = list(logging.getLogger("fairlead").handlers)
    everything.setLevel(logging.ERROR)


def _announce(hub: Hub, url: str) -> None:
    for shown in hub.shelf.all():
        title = f" {shown.board.title}" if shown.board is not None else " cannot be shown"
        sys.stdout.write(f"{shown.name}:{title}, at {url}{address(shown.name)}\n")
    sys.stdout.flush()


def _url(listener: socket.socket, settings: DashboardSettings) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path.rstrip('/')}"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
