"""Dashboards in a process that is the user's own: as an app for any server, or below a route of a Flask app.

Layer L3; imports Flask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from flask import Flask, request
from werkzeug.wrappers import Response

from fairlead import config
from fairlead.dashboard import environment
from fairlead.dashboard.logins.gate import Gate
from fairlead.dashboard.serving.following import Follower, FollowingThread
from fairlead.dashboard.serving.hub import Hub, as_wsgi
from fairlead.dashboard.serving.shelf import Shelf, bring_all, find
from fairlead.errors import DashboardError

_ENDPOINT = "fairlead-dashboard"


def make_app(
    stores: Sequence[str | Path],
    users: str | Path | None,
    secret_file: str | Path | None,
    *,
    is_mounted: bool = False,
) -> Flask:
    """Make a hub of stores that looks after itself.

    Parameters
    ----------
    stores, users, secret_file : as for `fairlead.dashboard.app`.
    is_mounted : whether it is another app that knows where it is.
    """
    flags = {"dashboard_users": users and str(users), "dashboard_secret_file": secret_file and str(secret_file)}
    settings = config.read(None, os.environ, flags).dashboard
    places = [Path(store) for store in stores]
    found = find(places)
    gate = Gate.open(settings, os.environ)
    environment.library()
    shelf = Shelf()
    bring_all(shelf, found)
    following = FollowingThread(Follower(places, shelf))
    return Hub(shelf, gate, "/" if is_mounted else settings.root_path, following.ensure).wsgi


def add(flask_app: Flask, route: str, make: Callable[[], WSGIApplication]) -> None:
    """Have all requests below a route of an app answered by a hub.

    Parameters
    ----------
    flask_app : the user's.
    route : such as ``/dashboard``.
    make : makes the hub's app, once it is known that the route can be had.

    Raises
    ------
    DashboardError
        When the route is none or taken, or it is too late for another.
    """
    place = f"/{route.strip('/')}"
    if place == "/" or "<" in place:
        raise DashboardError(f"route: expected a path such as /dashboard, got {route!r}")
    for taken in flask_app.url_map.iter_rules():
        if f"{taken.rule}/".startswith(f"{place}/"):
            raise DashboardError(f"route {place}: the app has {taken.rule} there already: give another")
    hub: WSGIApplication | None = None

    def show(rest: str = "") -> Any:
        assert hub is not None
        script_name = request.environ.get("SCRIPT_NAME", "") + as_wsgi(place)
        return Response.from_app(hub, {**request.environ, "SCRIPT_NAME": script_name, "PATH_INFO": as_wsgi(f"/{rest}")})

    endpoint = f"{_ENDPOINT}-{sum(name.startswith(_ENDPOINT) for name in flask_app.view_functions)}"
    try:
        for rule in (f"{place}/", f"{place}/<path:rest>"):
            flask_app.add_url_rule(rule, endpoint, show, methods=["GET", "POST"])
    except AssertionError as error:
        raise DashboardError(f"route {place}: the app has answered requests already: mount before the first") from error
    hub = make()
