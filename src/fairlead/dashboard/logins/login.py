"""The pages ``login`` and ``logout`` of a hub.

Layer L3; imports flask.

Source: OWASP Authentication Cheat Sheet (one answer for a wrong name and a wrong password), Session Management Cheat
Sheet (a new session for each login), Unvalidated Redirects and Forwards Cheat Sheet
"""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote

from flask import Blueprint, Response, make_response, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue

from fairlead.dashboard.logins.attempts import Attempts
from fairlead.dashboard.logins.proxies import Proxies
from fairlead.dashboard.logins.refusals import refusal
from fairlead.dashboard.logins.sessions import Sessions
from fairlead.dashboard.logins.users import User, Users
from fairlead.dashboard.logins.visitors import Visitors
from fairlead.errors import DashboardError

logger = logging.getLogger("fairlead.dashboard")

_HERE = Path(__file__).parent
_NAME = "fairlead_login"
# A name, a password, a token and what a browser puts around them.
_MAX_BODY_BYTES = 16_384
_MAX_NEXT_CHARACTERS = 2048
# A path on this host as a browser reads it: `//` begins a host, `\` is taken for `/`, control characters for nothing.
_LOCAL = re.compile(r"/(?!/)[!-\[\]-~]*")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Login:
    """Lets people log in and out.

    Parameters
    ----------
    users : who may.
    attempts : how often.
    sessions : begun and ended here.
    visitors : what their browsers carry.
    proxies : past which they come.
    """

    page = f"{_NAME}.login"
    endpoints = frozenset(f"{_NAME}.{name}" for name in ("login", "try_login", "logout", "do_logout", "css"))

    def __init__(
        self, users: Users, attempts: Attempts, sessions: Sessions, visitors: Visitors, proxies: Proxies
    ) -> None:
        self._users = users
        self._attempts = attempts
        self._sessions = sessions
        self._visitors = visitors
        self._proxies = proxies

    def blueprint(self) -> Blueprint:
        """Make the routes."""
        made = Blueprint(_NAME, __name__, template_folder="templates")
        made.add_url_rule("/login", "login", self._show)
        made.add_url_rule("/login", "try_login", self._try, methods=["POST"])
        made.add_url_rule("/login/login.css", "css", _css)
        made.add_url_rule("/logout", "logout", self._ask)
        made.add_url_rule("/logout", "do_logout", self._end, methods=["POST"])
        made.register_error_handler(DashboardError, _unavailable)
        return made

    def send(self) -> ResponseReturnValue:
        """Send a visitor to the page, and back from there to where they were going."""
        asked = request.query_string.decode("latin-1")
        path = quote(request.script_root + request.path, safe="/:@!$&'()*+,;=~")
        response = redirect(url_for(self.page, next=f"{path}?{asked}" if asked else path), HTTPStatus.SEE_OTHER)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _show(self) -> ResponseReturnValue:
        if self._user() is not None:
            return redirect(_next(), HTTPStatus.SEE_OTHER)
        return self._form(HTTPStatus.OK)

    def _try(self) -> ResponseReturnValue:
        # Before the body is read.
        request.max_content_length = _MAX_BODY_BYTES
        if not self._visitors.is_ours("form"):
            told = "This page was open for too long, or your browser takes no cookies. Please try again."
            return self._form(HTTPStatus.BAD_REQUEST, told)
        address = self._proxies.address()
        name, password = request.form.get("name", ""), request.form.get("password", "")
        attempt = self._attempts.begin(name, address)
        if attempt.wait_s > 0:
            logger.warning("login: too many wrong passwords, the last from %s", address)
            return self._later(attempt.wait_s)
        user = self._users.check(name, password)
        session = None if user is None else self._sessions.begin(user)
        if user is None or session is None:
            # Without the name: people type passwords there.
            logger.warning("login: a wrong name or password from %s", address)
            return self._form(HTTPStatus.UNAUTHORIZED, "The name or the password is wrong.")
        self._attempts.succeed(attempt)
        former = self._visitors.session()
        if former is not None:
            self._sessions.end(former)
        logger.info("login: %s from %s", user.name, address)
        response = make_response(redirect(_next(), HTTPStatus.SEE_OTHER))
        self._visitors.carry(response, "session", session)
        return response

    def _ask(self) -> ResponseReturnValue:
        user = self._user()
        if user is None:
            return redirect(url_for(self.page), HTTPStatus.SEE_OTHER)
        token = self._visitors.token("session", self._visitors.session() or "")
        return self._page(HTTPStatus.OK, user=user.name, token=token, index=_index())

    def _end(self) -> ResponseReturnValue:
        request.max_content_length = _MAX_BODY_BYTES
        session = self._visitors.session()
        if session is not None:
            if not self._visitors.is_ours("session"):
                return self._ask()
            self._sessions.end(session)
        response = make_response(redirect(url_for(self.page), HTTPStatus.SEE_OTHER))
        self._visitors.drop(response)
        return response

    def _user(self) -> User | None:
        session = self._visitors.session()
        return None if session is None else self._sessions.find(session)

    def _later(self, wait_s: float) -> Response:
        minutes = math.ceil(wait_s / 60)
        told = f"Too many wrong passwords. Please try again in {minutes} minute{'s' * (minutes > 1)}."
        response = self._form(HTTPStatus.TOO_MANY_REQUESTS, told)
        response.headers["Retry-After"] = str(math.ceil(wait_s))
        return response

    def _form(self, status: HTTPStatus, trouble: str = "") -> Response:
        nonce = self._visitors.nonce()
        response = self._page(
            status,
            trouble=trouble,
            token=self._visitors.token("form", nonce),
            next=_next(),
            name=request.form.get("name", "") if request.method == "POST" else "",
        )
        self._visitors.carry(response, "form", nonce)
        return response

    @staticmethod
    def _page(status: HTTPStatus, **values: str) -> Response:
        response = make_response(render_template("login.html", **values), status)
        response.headers.update(_HEADERS)
        return response


def _index() -> str:
    return f"{request.script_root}/"


def _next() -> str:
    """Give the page that the visitor was going to, if it is one of this hub, else its own page."""
    asked, index = request.args.get("next", ""), _index()
    path = unquote(asked.partition("?")[0])
    is_local = len(asked) <= _MAX_NEXT_CHARACTERS and _LOCAL.fullmatch(asked) is not None
    is_plain = "//" not in path and "\\" not in path and "/." not in path and path.isprintable()
    is_own = path.removeprefix(index).split("/")[0] in ("login", "logout")
    return asked if is_local and is_plain and path.startswith(index) and not is_own else index


def _css() -> Response:
    return send_file(_HERE / "static" / "login.css", mimetype="text/css")


def _unavailable(error: DashboardError) -> Response:
    logger.error("nobody can log in: %s", error)
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Logins cannot be checked at present; the server's log says why.")
