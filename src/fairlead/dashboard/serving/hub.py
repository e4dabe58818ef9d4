"""The hub: dashboards at /NAME/ of one Flask app, an index of them at /, and what a server is asked by machines.

Each board is a Flask app of its own behind one rule of the hub's, so that boards come, go and change while it serves,
and whatever guards the hub guards them all. A board believes to be at `shelf.PLACE`; its page is the only thing that
says so to a browser, and there the hub writes where it really is, below whatever prefix.

Layer L3; imports Flask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, abort, g, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.wrappers import Response as WsgiResponse

from fairlead.dashboard.serving.compression import compress
from fairlead.dashboard.serving.shelf import PLACE, Load, Shelf, Shown, address, bring_all
from fairlead.dashboard.trouble import Trouble

if TYPE_CHECKING:
    from fairlead.dashboard.logins.gate import Gate

# What a Dash app has below its path; the rest would be its page once more.
_PARTS = ("_dash-", "assets/", "_favicon.ico", "_reload-hash")
_PLACE_IN_JSON = PLACE.replace("/", r"\u002f").encode()  # as Dash writes it into scripts
_STATE = "_state"
# Endpoints that tell nothing of what is shown.
_PUBLIC = ("livez", "readyz", "static")
# Those that are large; the login page is not among them, which holds a secret.
_COMPRESSED = ("board", "static")
_FOR_EVER = "public, max-age=31536000, immutable"

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
# Nothing from elsewhere, and no script but files and those that Dash names. Plotly draws points with WebGL by code that
# it writes at run time, and styles in place.
_POLICY = {
    "default-src": ["'self'"],
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:", "blob:"],
    "font-src": ["'self'", "data:"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'self'"],
}


class Hub:
    """Dashboards under one roof.

    Parameters
    ----------
    shelf : what is shown; it may change at any time.
    gate : who may see what; None lets everybody see all.
    prefix : the path that a proxy in front takes off, or leaves on; ``/`` for none.
    before_request : called before each request, to look after the boards of this process.

    Attributes
    ----------
    wsgi : the Flask app.
    """

    def __init__(
        self,
        shelf: Shelf,
        gate: Gate | None = None,
        prefix: str = "/",
        before_request: Callable[[], None] | None = None,
    ) -> None:
        self.shelf = shelf
        self.wsgi = Flask("fairlead.dashboard.serving.hub", root_path=str(Path(__file__).parent))
        self._gate = gate
        if before_request is not None:
            self.wsgi.before_request(before_request)
        if gate is not None:
            gate.guard(self.wsgi, public=_PUBLIC)
        self._add_routes()
        if prefix.strip("/"):
            self.wsgi.wsgi_app = _Prefixed(self.wsgi.wsgi_app, prefix)  # type: ignore[method-assign]  # Flask's own way to wrap

    def _add_routes(self) -> None:
        app = self.wsgi
        app.add_url_rule("/", "index", self._index)
        app.add_url_rule("/livez", "livez", lambda: _plain("ok"))
        app.add_url_rule("/readyz", "readyz", self._ready)
        # Werkzeug's own redirect names scheme and host, which a proxy in front may have changed.
        app.add_url_rule("/<name>", "unslashed", lambda name: redirect(url_for("board", name=name), 308))
        for rule in ("/<name>/", "/<name>/<path:rest>"):
            app.add_url_rule(rule, "board", self._board, methods=["GET", "POST"])
        app.register_error_handler(HTTPException, _explain)
        app.after_request(_harden)
        app.after_request(lambda response: compress(response) if request.endpoint in _COMPRESSED else response)
        app.context_processor(lambda: {"user": g.get("fairlead_user")})

    def _visible(self) -> list[Shown]:
        if self._gate is None:
            return self.shelf.all()
        user = self._gate.user()
        return [shown for shown in self.shelf.all() if user.may_see(shown.name)]

    def _index(self) -> Any:
        visible = self._visible()
        if len(visible) == 1 and len(self.shelf.all()) == 1:
            return redirect(url_for("board", name=visible[0].name))
        return render_template("index.html", cards=[_card(shown) for shown in visible])

    def _ready(self) -> Any:
        if any(shown.board is not None for shown in self.shelf.all()):
            return _plain("ok")
        return _plain("no dashboard can be shown", 503)

    def _board(self, name: str, rest: str = "") -> Any:
        shown = self.shelf.get(name)
        if shown is None:
            abort(404)
        if rest == _STATE:
            return jsonify(version=shown.version, notice=_notice(shown))
        if rest and (not rest.startswith(_PARTS) or ".." in rest.split("/")):
            abort(404)
        if shown.board is None:
            reason = _reason(shown)
            if rest:
                return jsonify(error=reason), 503
            return render_template("failed.html", name=name, reason=reason), 503, {"retry-after": "5"}
        environ = {**request.environ, "SCRIPT_NAME": "", "PATH_INFO": as_wsgi(PLACE + rest)}
        answer = WsgiResponse.from_app(shown.board.server, environ)
        if not rest and answer.status_code == 200 and request.method == "GET":
            self._place(answer, shown)
        else:
            _let_keep(answer, rest)
        return answer

    def _place(self, answer: WsgiResponse, shown: Shown) -> None:
        """Write into a board's page where it is, and what there is to say about it."""
        assert shown.board is not None
        place = quote(request.script_root, safe="/") + address(shown.name)
        is_one_of_many = len(self._visible()) > 1
        bar = render_template(
            "bar.html", shown=shown, notice=_notice(shown), state=place + _STATE, is_one_of_many=is_one_of_many
        )
        page = answer.get_data().replace(PLACE.encode(), place.encode()).replace(_PLACE_IN_JSON, place.encode())
        answer.set_data(page.replace(b"<body>", b"<body>" + bar.encode(), 1))
        answer.headers["cache-control"] = "no-store"
        answer.headers["content-security-policy"] = _policy(shown.board.dashboard.app.csp_hashes())


class _Prefixed:
    """Takes a path prefix off, for a proxy that leaves it on; tells it to the app in either case."""

    def __init__(self, app: WSGIApplication, prefix: str) -> None:
        self._app = app
        self._prefix = as_wsgi(f"/{prefix.strip('/')}")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        environ = {**environ, "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + self._prefix, "PATH_INFO": path or "/"}
        return self._app(environ, start_response)


def make_hub(
    stores: Mapping[str, Path],
    *,
    gate: Gate | None = None,
    prefix: str = "/",
    load: Load | None = None,
    before_request: Callable[[], None] | None = None,
) -> Hub:
    """Load stores, and put a hub over them.

    Parameters
    ----------
    stores : paths by name, as `shelf.find` gives them. One that cannot be loaded says why on its page.
    gate, prefix, before_request : as for `Hub`.
    load : as for `Shelf`.

    Raises
    ------
    DashboardError
        When not one of them could be loaded.
    """
    shelf = Shelf(load)
    bring_all(shelf, stores)
    return Hub(shelf, gate, prefix, before_request)


def _card(shown: Shown) -> dict[str, Any]:
    card = {"name": shown.name, "url": url_for("board", name=shown.name)}
    if shown.board is None:
        return {**card, "title": shown.name, "notice": _reason(shown), "state": "not shown"}
    manifest = shown.board.store.manifest
    return {
        **card,
        "title": shown.board.title,
        "description": shown.board.description,
        "kind": manifest.kind,
        "rows": manifest.n_rows,
        "bundle": f"{manifest.bundle_name} {manifest.bundle_version}",
        "built_at": manifest.built_at,
        "notice": _notice(shown),
        "state": "not current" if _reason(shown) else "current",
    }


def _notice(shown: Shown) -> str | None:
    """Say what people should know who look at a board: that it is not current, or that rows cannot be looked up."""
    lines = []
    if reason := _reason(shown):
        lines.append(f"Not the newest: {reason}")
    rows = shown.board.rows if shown.board is not None else None
    if rows is not None and (trouble := rows.trouble):
        lines.append(f"A row could not be looked up: {trouble}")
    return "\n".join(lines) or None


def _reason(shown: Shown) -> str | None:
    """Say why a board is not current: what this process found, or else what whoever rebuilds it left beside it."""
    if shown.trouble is not None:
        return shown.trouble
    told = Trouble.of(shown.path)
    return told.reason if told is not None else None


def _let_keep(answer: WsgiResponse, rest: str) -> None:
    """Have browsers keep a board's files: one whose address tells its version for ever, another until it changes."""
    in_query = rest.startswith(("assets/", "_favicon.ico")) and not request.args.keys().isdisjoint("mv")
    is_versioned = in_query or answer.cache_control.max_age
    if is_versioned and answer.status_code == HTTPStatus.OK:
        answer.headers["cache-control"] = _FOR_EVER
    elif answer.get_etag()[0] is None:
        answer.headers["cache-control"] = "no-store"
    else:
        answer.headers["cache-control"] = "no-cache"
        answer.make_conditional(request.environ)  # Dash does not know what it named when it comes back as a weak one


def _plain(text: str, status: int = 200) -> Response:
    return Response(f"{text}\n", status, mimetype="text/plain", headers={"cache-control": "no-store"})


def _explain(error: HTTPException) -> Any:
    if error.response is not None:  # made by whoever raised it
        return error
    if isinstance(error, InternalServerError):
        error.description = "A fault of the dashboard's: the server's log says more."
    title, reason = error.name, error.description
    if "/_" in request.path:
        answer = jsonify(error=reason)
        answer.status_code = error.code or 500
        return answer
    return render_template("error.html", title=title, reason=reason), error.code or 500


def _harden(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if response.mimetype == "text/html":
        response.headers.setdefault("content-security-policy", _policy())
        response.headers.setdefault("cache-control", "no-store")
    return response


def _policy(scripts: list[str] | None = None) -> str:
    """Make a content security policy: for a board with the hashes of the scripts in its page, else for one without."""
    allowed = ["'self'", *(["'unsafe-eval'", *scripts] if scripts is not None else [])]
    return "; ".join(f"{name} {' '.join(values)}" for name, values in {**_POLICY, "script-src": allowed}.items())


def as_wsgi(path: str) -> str:
    """Write a path as WSGI has it: its bytes, each as a character. Source: PEP 3333."""
    return path.encode().decode("latin-1")
