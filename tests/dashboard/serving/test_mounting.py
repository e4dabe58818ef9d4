"""Dashboards as an app for any server, and in the user's own Flask app, over little boards."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fairlead.dashboard import app, environment, mount
from fairlead.dashboard.serving import following, shelf
from fairlead.errors import ConfigError, DashboardError
from little_boards import Trial, load, question, said, write_store


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have little boards loaded, and tried, in the place of real ones."""
    monkeypatch.setattr(shelf, "_load_board", load)
    monkeypatch.setattr(environment, "library", lambda: None)
    monkeypatch.setattr(following.Follower.__init__, "__defaults__", (Trial,))
    monkeypatch.setattr(following, "LOOK_S", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "titanic.dash", "Titanic")


def ask(client: FlaskClient, path: str) -> str:
    return said(client.post(f"{path}_dash-update-component", json=question("x")).get_json())


def parts(page: str) -> list[str]:
    return re.findall(r'(?:src|href|data-state)="([^"]+)"', page)


def test_an_app_for_any_server(store: Path) -> None:
    client = app(store).test_client()
    assert client.get("/").headers["location"] == "/titanic/"
    assert ask(client, "/titanic/").startswith("Titanic: x")


def test_an_app_takes_its_settings_from_the_environment(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_DASHBOARD_ROOT_PATH", "/people")
    client = app(str(store)).test_client()
    assert client.get("/").headers["location"] == "/people/titanic/"
    monkeypatch.setenv("FAIRLEAD_DASHBOARD_PORT", "many")
    with pytest.raises(ConfigError, match="PORT"):
        app(store)


def test_an_app_follows_its_stores(store: Path) -> None:
    client = app(store).test_client()
    assert ask(client, "/titanic/").startswith("Titanic: x")
    write_store(store, "Titanic, again")
    end_s = time.monotonic() + 20
    while not ask(client, "/titanic/").startswith("Titanic, again: x") and time.monotonic() < end_s:
        time.sleep(0.02)
    assert ask(client, "/titanic/").startswith("Titanic, again: x")


def test_an_app_without_a_store_that_can_be_loaded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DashboardError, match="no dashboard store"):
        app(tmp_path / "none.dash")


@pytest.mark.parametrize("is_first", [True, False])
def test_it_is_below_its_route_and_the_rest_is_the_users(store: Path, is_first: bool) -> None:
    own = Flask("own")
    if is_first:
        mount(own, store, route="/see/why/")

    @own.route("/")
    def home() -> str:
        return "home"

    @own.route("/<path:anything>")
    def rest(anything: str) -> str:
        return f"own {anything}"

    if not is_first:
        mount(own, store, route="/see/why/")
    client = own.test_client()
    assert client.get("/").text == "home"
    assert client.get("/login").text == "own login"
    assert client.get("/see/what").text == "own see/what"
    assert client.get("/see/why").headers["location"] == "http://localhost/see/why/"
    assert client.get("/see/why/").headers["location"] == "/see/why/titanic/"
    page = client.get("/see/why/titanic/").text
    for part in parts(page):
        assert part.startswith("/see/why/")
        with client.get(part) as answer:
            assert answer.status_code == 200, part
    assert ask(client, "/see/why/titanic/").startswith("Titanic: x")
    assert client.get("/see/why/none/").status_code == 404


def test_what_the_users_app_does_before_a_request_it_does_for_dashboards(store: Path) -> None:
    own = Flask("own")
    mount(own, store)

    @own.before_request
    def refuse() -> tuple[str, int]:
        return "not you", 403

    assert own.test_client().get("/dashboard/titanic/_dash-layout").status_code == 403


def test_several_in_one_app(store: Path, tmp_path: Path) -> None:
    own = Flask("own")
    rides = write_store(tmp_path / "rides.dash", "Rides")
    mount(own, store, route="/a")
    mount(own, store, rides, route="/b")
    client = own.test_client()
    assert ask(client, "/a/titanic/").startswith("Titanic: x")
    assert ask(client, "/b/rides/").startswith("Rides: x")
    assert 'href="/b/rides/"' in client.get("/b/").text


def test_the_users_app_may_itself_be_below_a_prefix(store: Path) -> None:
    own = Flask("own")
    mount(own, store)
    page = own.test_client().get("/dashboard/titanic/", environ_overrides={"SCRIPT_NAME": "/team"}).text
    assert all(part.startswith("/team/dashboard/") for part in parts(page))


def test_a_route_that_cannot_be_had_is_an_error(store: Path) -> None:
    own = Flask("own")
    own.add_url_rule("/dashboard", "taken", lambda: "mine")
    with pytest.raises(DashboardError, match="the app has /dashboard there already"):
        mount(own, store)
    for route in ("", "/", "/<name>"):
        with pytest.raises(DashboardError, match="expected a path such as /dashboard"):
            mount(own, store, route=route)
    own.test_client().get("/dashboard")
    with pytest.raises(DashboardError, match="mount before the first"):
        mount(own, store, route="/late")
