"""People see why: explainer dashboards, built ahead, guarded, always current.

    bundle + data ──build──▶ store ──serve──▶ boards under a hub

Layer L3; explainerdashboard does the plots and tabs, and is imported through `environment` when a dashboard is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def app(*stores: str | Path, users: str | Path | None = None, secret_file: str | Path | None = None) -> Flask:
    """Make the Flask app of dashboards, for a server of one's own.

    Such as ``gunicorn 'fairlead.dashboard:app("titanic.dash")'``, or ``app = fairlead.dashboard.app("titanic.dash")``
    in a module.

    Each is at ``/NAME/``, an index of them at ``/``. A store that is replaced is shown from then on, by each process
    for itself. The other settings are those of the environment and of the file that `FAIRLEAD_CONFIG` names, as for
    `fairlead dashboard serve`; what concerns the socket is the server's business.

    Parameters
    ----------
    stores : directories as `fairlead dashboard build` makes them; a folder stands for all in it.
    users : the file of `fairlead dashboard users`; None for the setting. Where there is none, nobody has to log in.
    secret_file : holds what signs the sessions; None for the setting.

    Raises
    ------
    DashboardError
        When not one store can be loaded, two have one name, or users or secret cannot be used.
    ConfigError
        When a setting is wrong.
    MissingExtra
        When explainerdashboard is not installed.
    """
    from fairlead.dashboard.serving.mounting import make_app

    return make_app(stores, users, secret_file)


def mount(
    flask_app: Flask,
    *stores: str | Path,
    route: str = "/dashboard",
    users: str | Path | None = None,
    secret_file: str | Path | None = None,
) -> None:
    """Show dashboards in a Flask app of one's own, below a route; its other routes may come before or after.

    Whatever the app does before and after each request it does for these too, such as asking people to log in.

    Parameters
    ----------
    flask_app : the app, before its first request.
    stores, users, secret_file : as for `app`.
    route : where; with one store it leads to that, with several to their index.

    Raises
    ------
    DashboardError
        When the route is taken, or the app has answered requests already; and what `app` raises.
    """
    from fairlead.dashboard.serving.mounting import add, make_app

    add(flask_app, route, lambda: make_app(stores, users, secret_file, is_mounted=True))
