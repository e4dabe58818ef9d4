"""The gate of dashboards in a user's own Flask app: it is before them, and before nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fairlead.dashboard import environment, mount
from fairlead.dashboard.logins.users import Users
from fairlead.dashboard.serving import following, shelf
from guarded_hub import PASSWORD, TOKEN
from little_boards import Trial, load, question, write_store

PARTS = ["", "_dash-layout", "_dash-dependencies", "_state", "_reload-hash", "assets/a.css"]
PATHS = [
    "/why", "/why/", "/why//", "/why//two/", "/why/%74wo/", "/why/two", "/why/livez/../two/", "/why/static/../two/",
    "/why/-board-/_dash-layout", "/why/login/../two/_dash-layout", "//why/two/", "/why/why/two/",
    "/why/two%2f_dash-layout", *(f"/why/two/{part}" for part in PARTS),
]  # fmt: skip


@pytest.fixture
def own(users: Users, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Give an app with a page of its own and two guarded boards, of which ann may see one."""
    monkeypatch.setattr(shelf, "_load_board", load)
    monkeypatch.setattr(environment, "library", lambda: None)
    monkeypatch.setattr(following.Follower.__init__, "__defaults__", (Trial,))
    made = Flask("own")
    made.add_url_rule("/", "home", lambda: "at home")
    stores = [write_store(tmp_path / f"{name}.dash", f"Board {name}") for name in ("one", "two")]
    mount(made, *stores, route="/why", users=users.file.path)
    return made


def log_in(client: FlaskClient, name: str) -> str:
    token = TOKEN.search(client.get("/why/login").text)
    assert token is not None
    form = {"token": token[1], "name": name, "password": PASSWORD}
    answer = client.post("/why/login?next=/why/one/", data=form)
    assert answer.status_code == 303
    return answer.headers["Location"]


@pytest.mark.parametrize("name", [None, "ann"])
def test_no_path_below_the_route_leads_around_it(name: str | None, own: Flask) -> None:
    client = own.test_client()
    if name is not None:
        assert log_in(client, name) == "/why/one/"
        assert "Board one" in client.get("/why/one/").text
        assert "Board two" not in client.get("/why/").text
    for path in PATHS:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
            answer = client.open(path, method=method, headers={"Accept": "text/html"})
            assert answer.status_code in (200, 303, 308, 401, 404, 405), (method, path)
            assert "Board two" not in answer.text, (method, path)
    refused = client.post("/why/two/_dash-update-component", json=question("x"))
    assert refused.status_code == (401 if name is None else 404)
    assert client.get("/").text == "at home"


def test_its_pages_lead_to_pages_below_the_route(own: Flask) -> None:
    client = own.test_client()
    sent = client.get("/why/one/", headers={"Accept": "text/html"})
    assert sent.headers["Location"] == "/why/login?next=/why/one/"
    assert 'action="/why/login?next=/why/one/"' in client.get(sent.headers["Location"]).text
    log_in(client, "root")
    assert "Board two" in client.get("/why/two/").text
    page = client.get("/why/logout")
    token = TOKEN.search(page.text)
    assert token is not None
    assert client.post("/why/logout", data={"token": token[1]}).headers["Location"] == "/why/login"
    assert client.get("/why/two/_dash-layout").status_code == 401
