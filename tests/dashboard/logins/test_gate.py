"""The gate: what reaches a board, by any way of asking, without a session, with one, and with a broken users' file."""

from __future__ import annotations

import logging
import os
import re
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import guarded_hub
from fairlead.config import DashboardSettings
from fairlead.dashboard.logins import users_file
from fairlead.dashboard.logins.gate import Gate
from fairlead.dashboard.logins.users import Users
from fairlead.errors import DashboardError
from guarded_hub import KEY, PARTS, PASSWORD, SETTINGS, TOKEN, GuardedHub

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", ""]
# As a server hands them on: decoded.
PATHS = [
    "/", "", "//", "/one", "/one/", "//one/", "/////one/_dash-layout", "/one//_dash-layout", "/ONE/", "/one/.",
    "/./one/", "/../one/", "/livez/../one/", "/livez/one/", "/livez/", "/LIVEZ", "/login/../one/_dash-layout",
    "/login/", "/login/one/", "/login/login.css/../../one/", "/login/login.css/", "/logout/one/", "/static/../one/",
    "/static/one", "/one;x/", "/one\\..\\two/", "\\one/", "/one/%2e%2e/two/", "/%6fne/", "/one/_dash-layout/",
    "/one/_dash-layout?x", "/one\0/", "/one\r\n/", "/\xef\xbc\x8fone/", "one/", "http://elsewhere/one/", "/one/login",
    "/one/livez", "/one/login/login.css", "/nowhere/", "/nowhere/_dash-layout", "/favicon.ico", "/_dash-layout",
    "/assets/a.css", "/one/any/page/of/it", *(f"/one/{part}" for part in [*PARTS, "_dash-update-component"]),
]  # fmt: skip
LIES = [
    {"X-HTTP-Method-Override": "GET"}, {"X-Original-URL": "/livez"}, {"X-Rewrite-URL": "/login"},
    {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-Host": "localhost"}, {"X-Forwarded-Prefix": "/livez"},
    {"X-Forwarded-User": "ann"}, {"X-User": "ann"}, {"Remote-User": "ann"}, {"Authorization": "Bearer x"},
    {"Authorization": "Basic YW5uOmNvcnJlY3QgaG9yc2U="}, {"Cookie": "session=ann"}, {"X-Script-Name": "/livez"},
    {"Host": "livez"}, {"Upgrade": "websocket", "Connection": "Upgrade"}, {"Accept": "*/*"}, {"Sec-Fetch-Mode": "cors"},
]  # fmt: skip


def logged_in(app: Flask, name: str) -> FlaskClient:
    client = app.test_client()
    token = TOKEN.search(client.get("/login").text)
    assert token is not None
    form = {"token": token[1], "name": name, "password": PASSWORD}
    assert client.post("/login", data=form).status_code == 303
    return client


def ask(client: FlaskClient, path: str, method: str = "GET", **headers: str) -> Any:
    """Ask for a path just as it is, which no client would leave so."""
    browser = {"Accept": "text/html"}
    return client.open("/", method=method, headers={**browser, **headers}, environ_overrides={"PATH_INFO": path})


@pytest.mark.parametrize("method", METHODS)
def test_without_a_session_nothing_is_reached_on_any_path(method: str, hub: GuardedHub) -> None:
    client = hub.app.test_client()
    for path in PATHS:
        answer = ask(client, path, method)
        assert answer.status_code in (303, 401), (method, path, answer.status)
        if answer.status_code == 303:
            assert method in ("GET", "HEAD", "get")
            assert answer.headers["Location"].startswith("/login?next=/")
    assert hub.reached == []


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_without_a_session_no_header_helps(lie: dict[str, str], hub: GuardedHub) -> None:
    client = hub.app.test_client()
    for path in ("/", "/one/", "/one/_dash-layout", "/one/_dash-update-component"):
        for method in ("GET", "POST"):
            assert ask(client, path, method, **lie).status_code in (303, 401)
    assert hub.reached == []


def test_what_is_open_to_all_is_no_more_than_it_says(hub: GuardedHub) -> None:
    client = hub.app.test_client()
    assert client.get("/livez").text == "ok"
    assert client.get("/login").status_code == 200
    with client.get("/login/login.css") as css:
        assert css.mimetype == "text/css"
    assert client.get("/logout").headers["Location"] == "/login"
    assert client.options("/livez").status_code == 200
    assert client.post("/livez").status_code == 401
    assert hub.reached == []


def test_a_page_leads_to_the_login_and_a_part_of_one_is_told(hub: GuardedHub) -> None:
    client = hub.app.test_client()
    page = ask(client, "/one/sub page/ä".encode().decode("latin-1"))
    assert (page.status_code, page.headers["Location"]) == (303, "/login?next=/one/sub%2520page/%25C3%25A4")
    assert page.headers["Cache-Control"] == "no-store"
    for path, headers in (
        ("/one/_dash-layout", {}), ("/one/assets/a.css", {}), ("/one/", {"Accept": "application/json"}),
        ("/one/", {"Sec-Fetch-Mode": "cors"}),
    ):  # fmt: skip
        part = ask(client, path, **headers)
        assert part.status_code == 401
        assert part.mimetype == "application/problem+json"
        assert part.json["detail"] == "This needs a login."
        assert part.headers["WWW-Authenticate"].startswith("Session ")
        assert "Location" not in part.headers


def test_a_viewer_reaches_what_was_granted_whole_and_nothing_else(hub: GuardedHub) -> None:
    client = logged_in(hub.app, "ann")
    for part in ("", "any/page", *PARTS):
        assert client.get(f"/one/{part}").status_code == 200
    assert client.post("/one/_dash-update-component", json={"output": "x"}).status_code == 200
    reached = len(hub.reached)
    for part in ("", "any/page", *PARTS):
        assert client.get(f"/two/{part}").status_code == 404
    assert client.post("/two/_dash-update-component", json={}).status_code == 404
    assert {name for name, _, _ in hub.reached} == {"one"}
    assert len(hub.reached) == reached == len(PARTS) + 3


@pytest.mark.parametrize("method", METHODS)
def test_with_a_session_no_path_leads_to_another_board(method: str, hub: GuardedHub) -> None:
    client = logged_in(hub.app, "ann")
    for path in PATHS:
        ask(client, path.replace("one", "two"), method)
        ask(client, f"/one/..{path.replace('one', 'two')}", method)
        ask(client, f"/one{path.replace('one', 'two')}", method)
    assert {name for name, _, _ in hub.reached} <= {"one"}


def test_a_board_that_is_not_granted_cannot_be_told_from_none(hub: GuardedHub) -> None:
    client = logged_in(hub.app, "bob")
    for part in ("", "x", "_dash-layout"):
        there, nowhere = client.get(f"/two/{part}"), client.get(f"/nowhere/{part}")
        assert (there.status, there.data) == (nowhere.status, nowhere.data)
        assert sorted(name for name, _ in there.headers) == sorted(name for name, _ in nowhere.headers)
        # Whoever else may see it must not be told so by a cache in between.
        assert there.headers["Cache-Control"] == "no-store"
        assert "Cookie" in there.headers["Vary"]
    assert client.get("/").text == "for bob"
    assert hub.reached == []


def test_an_admin_reaches_all(hub: GuardedHub) -> None:
    client = logged_in(hub.app, "root")
    assert [client.get(path).status_code for path in ("/", "/one/", "/two/", "/nowhere/")] == [200, 200, 200, 404]


def test_a_board_that_comes_later_is_guarded_too(hub: GuardedHub, users: Users) -> None:
    ann, stranger = logged_in(hub.app, "ann"), hub.app.test_client()
    hub.add("three")
    assert ask(stranger, "/three/").status_code == 303
    assert ask(stranger, "/three/_dash-layout").status_code == 401
    assert ann.get("/three/_dash-layout").status_code == 404
    assert hub.reached == []
    users.grant("ann", ["three"])
    assert ann.get("/three/_dash-layout").status_code == 200
    assert stranger.get("/three/_dash-layout").status_code == 401


def test_a_route_that_reads_another_board_in_the_path_shows_none(users: Users) -> None:
    app = Flask(__name__)
    Gate(users, KEY, SETTINGS).guard(app)
    app.add_url_rule("/one/<name>", "odd", lambda name: f"board {name}")
    client = logged_in(app, "ann")
    assert client.get("/one/one").text == "board one"
    assert client.get("/one/two").status_code == 404


def test_the_gate_comes_before_all_else_that_a_hub_does_with_a_request(users: Users) -> None:
    app = Flask(__name__)
    app.before_request(lambda: "let in")
    Gate(users, KEY, SETTINGS).guard(app)
    app.before_request(lambda: "let in")
    assert app.test_client().get("/one/").status_code == 401


def test_grants_roles_and_passwords_count_while_one_is_logged_in(hub: GuardedHub, users: Users) -> None:
    client = logged_in(hub.app, "ann")
    users.revoke("ann", ["one"])
    assert client.get("/one/").status_code == 404
    users.set_role("ann", "admin")
    assert client.get("/two/").status_code == 200
    users.set_password("ann", "something else")
    assert client.get("/two/_dash-layout").status_code == 401


def test_a_removed_user_is_out_and_another_of_the_name_does_not_bring_them_back(hub: GuardedHub, users: Users) -> None:
    client = logged_in(hub.app, "ann")
    users.remove("ann")
    assert client.get("/one/_dash-layout").status_code == 401
    users.add("ann", PASSWORD, "admin")
    assert client.get("/one/_dash-layout").status_code == 401


def test_what_was_guarded_is_kept_out_of_caches_of_others(hub: GuardedHub) -> None:
    client = logged_in(hub.app, "ann")
    layout = client.get("/one/_dash-layout")
    assert layout.headers["Cache-Control"] == "no-store"
    assert "Cookie" in layout.headers["Vary"]
    library = client.get("/one/_dash-component-suites/dash/deps/react.min.js").headers["Cache-Control"]
    assert "private" in library
    assert "public" not in library
    assert "max-age=31536000" in library
    assert "Cookie" not in client.get("/livez").headers.get("Vary", "")


def cookie_of(client: FlaskClient) -> tuple[str, str]:
    (found,) = [cookie for cookie in client._cookies.values() if cookie.key.endswith("-session")]
    return found.key, found.value


def changes(value: str) -> list[str]:
    session, signature = value.split(".")
    return [
        session, f"{session}.", f".{signature}", ".", "", f"{session}.{'0' * 64}", f"{session}.{signature[:-1]}",
        f"{session}.{signature}0", f"{session}x.{signature}", f"{session}.{signature.upper()}", value * 2,
        f"{value}.{value}", f"{session}.ä", f"ä.{signature}", f"{session}.{signature}\x00", "x" * 100_000, "ann",
        "eyJuYW1lIjoiYW5uIn0.x.y",
    ]  # fmt: skip


def test_only_the_cookie_that_was_given_counts(hub: GuardedHub) -> None:
    name, value = cookie_of(logged_in(hub.app, "root"))
    client = hub.app.test_client(use_cookies=False)
    assert ask(client, "/one/", Cookie=f"{name}={value}").status_code == 200
    for changed in changes(value):
        assert ask(client, "/one/", Cookie=f"{name}={changed}").status_code == 303, changed
    # A form's cookie is signed with the same key.
    form = hub.app.test_client().get("/login").headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    assert ask(client, "/one/", Cookie=f"{name}={form}").status_code == 303
    assert ask(client, "/one/", Cookie=f"{name.removesuffix('-session')}={value}").status_code == 303
    assert ask(client, "/one/", Cookie=f"__Host-{name}={value}").status_code == 303
    assert len(hub.reached) == 1


def test_a_cookie_signed_with_another_secret_is_none(hub: GuardedHub, users: Users) -> None:
    other = guarded_hub.make(Gate(users, b"another" * 8, SETTINGS))
    name, value = cookie_of(logged_in(hub.app, "ann"))
    other_name, _ = cookie_of(logged_in(other.app, "ann"))
    # Two servers on one machine do not overwrite each other's cookies either.
    assert other_name != name
    for key in (name, other_name):
        client = other.app.test_client(use_cookies=False)
        assert ask(client, "/one/", Cookie=f"{key}={value}").status_code == 303
    assert other.reached == []


def test_workers_share_sessions(hub: GuardedHub, users: Users) -> None:
    name, value = cookie_of(logged_in(hub.app, "ann"))
    other = guarded_hub.make(Gate(users, KEY, SETTINGS))
    assert ask(other.app.test_client(use_cookies=False), "/one/", Cookie=f"{name}={value}").status_code == 200


def hold(path: Path) -> Callable[[], None]:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder.close


def spoil(path: Path) -> Callable[[], None]:
    content = path.read_bytes()
    path.write_bytes(b"rot" * 5000)
    return lambda: [path.write_bytes(content), None][1]


def open_to_all(path: Path) -> Callable[[], None]:
    path.chmod(0o666)
    return lambda: path.chmod(0o600)


def take_away(path: Path) -> Callable[[], None]:
    aside = path.rename(path.with_suffix(".aside"))
    return lambda: [aside.rename(path), None][1]


def cut(path: Path) -> Callable[[], None]:
    content = path.read_bytes()
    os.truncate(path, 4096)
    return lambda: [path.write_bytes(content), None][1]


def another_program(path: Path) -> Callable[[], None]:
    aside = path.rename(path.with_suffix(".aside"))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE sessions (digest, name, epoch, begun_s)")
    path.chmod(0o600)
    return lambda: [aside.replace(path), None][1]


@pytest.mark.parametrize("spoiling", [hold, spoil, open_to_all, take_away, cut, another_program])
def test_with_a_users_file_that_cannot_be_read_nobody_comes_in(
    spoiling: Callable[[Path], Callable[[], None]],
    hub: GuardedHub,
    users: Users,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(users_file, "_BUSY_S", 0.02)
    client = logged_in(hub.app, "root")
    caplog.set_level(logging.ERROR)
    mend = spoiling(users.file.path)

    page, part = ask(client, "/one/"), client.get("/one/_dash-layout")
    assert page.status_code == part.status_code == 503
    assert (
        page.text == part.json["detail"] + "\n" == "Logins cannot be checked at present; the server's log says why.\n"
    )
    assert page.headers["Retry-After"] == "5"
    assert str(users.file.path) in caplog.text
    # Nor does anybody log in or out, and no board was reached meanwhile.
    stranger = hub.app.test_client()
    token = TOKEN.search(stranger.get("/login").text)
    assert token is not None
    form = {"token": token[1], "name": "root", "password": PASSWORD}
    assert stranger.post("/login", data=form).status_code == 503
    assert [client.get(path).status_code for path in ("/login", "/logout", "/livez")] == [503, 503, 200]
    assert hub.reached == []

    mend()
    assert ask(client, "/one/").status_code == 200


def test_on_a_full_disk_nobody_logs_in_and_who_is_in_stays(
    hub: GuardedHub, users: Users, caplog: pytest.LogCaptureFixture
) -> None:
    client, stranger = logged_in(hub.app, "ann"), hub.app.test_client()
    token = TOKEN.search(stranger.get("/login").text)
    assert token is not None
    form = {"token": token[1], "name": "root", "password": PASSWORD}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))  # no file of this process may grow
    try:
        statuses = [client.get("/one/").status_code, stranger.post("/login", data=form).status_code]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert statuses == [200, 503]
    assert "nobody can log in" in caplog.text
    assert stranger.get("/one/_dash-layout").status_code == 401
    assert stranger.post("/login", data=form).status_code == 303


def test_a_gate_does_not_open_before_a_broken_file(users: Users, tmp_path: Path) -> None:
    users.file.path.write_bytes(b"")
    with pytest.raises(DashboardError, match="empty or of another program"):
        Gate(users, KEY, SETTINGS)
    with pytest.raises(DashboardError, match="expected a file of users, got nothing"):
        Gate(Users(tmp_path / "none.sqlite"), KEY, SETTINGS)


def test_settings_without_users_have_no_gate(tmp_path: Path) -> None:
    assert Gate.open(SETTINGS, {}) is None
    assert list(tmp_path.iterdir()) == []


def test_settings_with_users_have_one_and_its_secret_beside_them(users: Users, tmp_path: Path) -> None:
    path = users.file.path
    assert Gate.open(DashboardSettings(users=str(path)), {}) is not None
    made = path.with_name("users.sqlite.secret")
    assert re.fullmatch(r"[\w-]{64}\n", made.read_text())
    named = tmp_path / "named"
    assert Gate.open(DashboardSettings(users=str(path), secret_file=str(named)), {}) is not None
    assert named.exists()
    named.write_text("short")
    with pytest.raises(DashboardError, match="at least 32 random bytes"):
        Gate.open(DashboardSettings(users=str(path), secret_file=str(named)), {})


def test_a_dash_app_is_guarded_whole_and_works_behind_the_gate(
    hub: GuardedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith("DASH_")]:
        monkeypatch.delenv(variable)
    from dash import Dash, Input, Output, dcc, html

    dash = Dash("one", url_base_pathname="/one/", server=Flask("dash"), enable_mcp=False)
    dash.layout = html.Div([dcc.Input(id="in", value="a"), html.Div(id="out")])
    dash.callback(Output("out", "children"), Input("in", "value"))(lambda value: f"secret of {value}")
    hub.boards["one"] = dash.server
    rules = sorted(str(rule) for rule in dash.server.url_map.iter_rules())
    paths = [re.sub(r"<(path:)?\w+>", "x", rule) for rule in rules if rule.startswith("/one/")]
    assert len(paths) > 8
    body = {
        "output": "out.children", "outputs": {"id": "out", "property": "children"}, "changedPropIds": ["in.value"],
        "inputs": [{"id": "in", "property": "value", "value": "b"}],
    }  # fmt: skip

    stranger, bob, ann = hub.app.test_client(), logged_in(hub.app, "bob"), logged_in(hub.app, "ann")
    for path in paths:
        assert stranger.get(path).status_code == 401
        assert bob.get(path).status_code == 404
    assert stranger.post("/one/_dash-update-component", json=body).status_code == 401
    assert bob.post("/one/_dash-update-component", json=body).status_code == 404

    page = ann.get("/one/").text
    scripts = re.findall(r'(?:src|href)="(/one/[^"]+)"', page)
    assert len(scripts) > 3
    for path in (*scripts, "/one/_dash-layout", "/one/_dash-dependencies"):
        assert ann.get(path).status_code == 200
        assert stranger.get(path).status_code == 401
    answer = ann.post("/one/_dash-update-component", json=body)
    assert answer.json["response"]["out"]["children"] == "secret of b"
