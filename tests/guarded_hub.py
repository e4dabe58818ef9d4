"""A hub as the dashboards' is, with boards of plain Flask that have the routes of a Dash app, behind a gate.

For gunicorn: ``guarded_hub:from_environment()``, which takes its settings from the variables of fairlead.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, abort, request

from fairlead import config
from fairlead.dashboard.logins.gate import Gate

KEY = b"k" * 32
PASSWORD = "correct horse"
LIMIT = 3
SETTINGS = config.DashboardSettings(
    max_attempts=LIMIT, attempts_window_s=60.0, session_s=3600.0, trusted_proxies=("10.0.0.0/8", "2001:db8::1")
)
TOKEN = re.compile(r'name="token" value="([0-9a-f]+)"')
# What a Dash app answers below its path, its page at any other.
PARTS = [
    "_dash-layout", "_dash-dependencies", "_dash-component-suites/dash/deps/react.min.js", "_reload-hash",
    "_favicon.ico", "assets/bootstrap.min.css",
]  # fmt: skip


class Clock:
    """Seconds since the epoch, which the tests set."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class GuardedHub:
    """The hub, and what reached its boards: (board, method, path)."""

    app: Flask
    boards: dict[str, Any]
    reached: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str) -> None:
        board = Flask(name, static_folder=None)

        def answer(path: str = "") -> Response:
            self.reached.append((name, request.method, request.path))
            response = Response(f"{name} says {path or 'page'}")
            if "component-suites" in request.path:
                response.headers["Cache-Control"] = "public, max-age=31536000"
            return response

        for rule in ("", *PARTS, "<path:path>"):
            board.add_url_rule(f"/{name}/{rule}", f"at {rule}", answer)
        board.add_url_rule(f"/{name}/_dash-update-component", "update", answer, methods=["POST"])
        self.boards[name] = board


def make(gate: Gate) -> GuardedHub:
    app = Flask(__name__)
    hub = GuardedHub(app, {})
    gate.guard(app, public=["livez"])

    def show(name: str, rest: str = "") -> Response:
        board = hub.boards.get(name) or abort(404)
        return Response.from_app(board.wsgi_app, request.environ)

    for rule in ("/<name>/", "/<name>/<path:rest>"):
        app.add_url_rule(rule, "board", show, methods=["GET", "POST"])
    app.add_url_rule("/", "index", lambda: f"for {Gate.user().name}")
    app.add_url_rule("/livez", "livez", lambda: "ok")
    app.after_request(_signed)
    for name in ("one", "two"):
        hub.add(name)
    return hub


def from_environment() -> Flask:
    gate = Gate.open(config.read(None, os.environ, {}).dashboard, os.environ)
    assert gate is not None
    return make(gate).app


def _signed(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response
