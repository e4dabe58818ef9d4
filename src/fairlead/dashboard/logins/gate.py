"""Who comes in: every request to a hub needs a session, and one to a board a grant; what is unclear stays out.

    request ──▶ open to all? ──▶ a session? ──▶ the board granted? ──▶ the hub's own routes
                                     │ no               │ no
                                     ▼                  ▼
                             401, or the login         404

The decision comes before the hub's routes and goes by what its router found, so that no way of writing a path leads
around it. Nobody comes in while the users' file cannot be read.

Layer L3; imports flask.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import cast

from flask import Flask, Response, abort, g, request
from flask.typing import ResponseReturnValue

from fairlead.config import DashboardSettings
from fairlead.dashboard.logins import secret
from fairlead.dashboard.logins.attempts import Attempts
from fairlead.dashboard.logins.login import Login
from fairlead.dashboard.logins.proxies import Proxies
from fairlead.dashboard.logins.refusals import is_page, refusal
from fairlead.dashboard.logins.sessions import Sessions
from fairlead.dashboard.logins.users import User, Users
from fairlead.dashboard.logins.visitors import Visitors
from fairlead.errors import DashboardError


class Gate:
    """The gate before a hub.

    Parameters
    ----------
    users : who may come in.
    key : signs what visitors carry; the same in all workers.
    settings : how long a session lasts, how often a password may be wrong, and which proxies are trusted.

    Raises
    ------
    DashboardError
        When the users' file is missing, broken, or cannot be written to, or a trusted proxy is no address.
    """

    def __init__(self, users: Users, key: bytes, settings: DashboardSettings) -> None:
        users.file.verify()
        self._users = users
        self._attempts = Attempts(users.file, settings.max_attempts, settings.attempts_window_s)
        self._sessions = Sessions(users.file, settings.session_s)
        self._proxies = Proxies(settings.trusted_proxies)
        self._visitors = Visitors(key, settings.session_s, self._proxies)

    @classmethod
    def open(cls, settings: DashboardSettings, environ: Mapping[str, str]) -> Gate | None:
        """Make the gate that the settings ask for, None when they name no file of users.

        Raises
        ------
        DashboardError
            When the users' file or the secret cannot be used.
        """
        if settings.users is None:
            return None
        file = Path(settings.secret_file or f"{settings.users}.secret")
        return cls(Users(Path(settings.users)), secret.obtain(environ, file), settings)

    def guard(self, app: Flask, public: Collection[str] = ()) -> None:
        """Guard all of a hub, and give it the pages ``login`` and ``logout``.

        Parameters
        ----------
        app : the hub, whose boards are at ``/NAME/``, also those it gets later.
        public : endpoints of the hub that are open to all, such as its probes.
        """
        login = Login(self._users, self._attempts, self._sessions, self._visitors, self._proxies)
        app.register_blueprint(login.blueprint())
        is_public = login.endpoints | frozenset(public)

        def admit() -> ResponseReturnValue | None:
            return None if request.endpoint in is_public else self._admit(login)

        # Before whatever else the hub does with a request.
        app.before_request_funcs.setdefault(None, []).insert(0, admit)
        app.after_request(_keep_private)

    @staticmethod
    def user() -> User:
        """Give the user whose request is under way, in a route that is guarded."""
        return cast(User, g.fairlead_user)

    def _admit(self, login: Login) -> ResponseReturnValue | None:
        session = self._visitors.session()
        try:
            user = None if session is None else self._sessions.find(session)
        except DashboardError:
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "Logins cannot be checked at present; the server's log says why."
            )
        if user is None:
            if is_page() and request.method in ("GET", "HEAD"):
                return login.send()
            return refusal(HTTPStatus.UNAUTHORIZED, "This needs a login.")
        # Before what follows: that there is nothing for one is kept out of caches too.
        g.fairlead_user = user
        board = _board()
        if board is not None and not user.may_see(board):
            abort(HTTPStatus.NOT_FOUND)
        return None


def _board() -> str | None:
    """Name the board that the request is for, None when it is for the hub's own page."""
    if request.path == "/":
        return None
    board = request.path.split("/")[1]
    # Where the router reads another board in the path than we do, neither is shown.
    if (request.view_args or {}).get("name", board) != board:
        abort(HTTPStatus.NOT_FOUND)
    return board


def _keep_private(response: Response) -> Response:
    """Keep what was guarded out of caches that others read too."""
    if "fairlead_user" in g:
        if "Cache-Control" in response.headers:
            response.cache_control.public = False
            response.cache_control.private = True
        else:
            response.cache_control.no_store = True
        response.vary.add("Cookie")
    return response
