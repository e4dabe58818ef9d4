"""The hub over little boards: one rule for all of them, under any prefix, and none that takes another down."""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

import little_boards
from fairlead.config import DashboardSettings
from fairlead.dashboard.logins.gate import Gate
from fairlead.dashboard.logins.users import Users
from fairlead.dashboard.serving.hub import Hub, make_hub
from fairlead.dashboard.serving.shelf import find
from fairlead.dashboard.trouble import Trouble
from fairlead.errors import DashboardError
from little_boards import load, question, said, write_store
from load import eventually

_GZIP = {"accept-encoding": "gzip, br"}


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    write_store(tmp_path / "titanic.dash", "Titanic")
    write_store(tmp_path / "rides.dash", "Rides & <b>fares</b>")
    write_store(tmp_path / "old.dash", "Old", broken=True)
    return tmp_path


HubOf = Callable[..., Hub]


@pytest.fixture
def hub(stores: Path) -> Hub:
    return make_hub(find([stores]), load=load)


@pytest.fixture
def client(hub: Hub) -> FlaskClient:
    return hub.wsgi.test_client()


def ask(client: FlaskClient, path: str, what: str) -> str:
    return said(client.post(f"{path}_dash-update-component", json=question(what)).get_json())


def test_a_path_without_its_slash_leads_to_it_whatever_the_host(stores: Path) -> None:
    client = make_hub(find([stores]), load=load, prefix="/why").wsgi.test_client()
    answer = client.get("/why/titanic")
    assert (answer.status_code, answer.headers["location"]) == (308, "/why/titanic/")


def test_no_way_leads_up_out_of_a_board(client: FlaskClient) -> None:
    assert client.get("/titanic/_dash-component-suites/../_dash-layout").status_code == 404


def test_every_board_is_at_its_name_and_answers_for_itself(client: FlaskClient) -> None:
    for path, title in (("/titanic/", "Titanic"), ("/rides/", "Rides & <b>fares</b>")):
        page = client.get(path)
        assert page.status_code == 200
        assert client.get(f"{path}_dash-layout").get_json()["type"] == "Div"
        assert len(client.get(f"{path}_dash-dependencies").get_json()) == 1
        assert ask(client, path, "x").startswith(f"{title}: x")


def test_the_index_shows_all_boards_with_names_escaped(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "Rides &amp; &lt;b&gt;fares&lt;/b&gt;" in page
    assert "<b>fares" not in page
    assert 'href="/titanic/"' in page
    assert "classifier" in page
    assert "1,234 rows" in page
    assert "little 7" in page
    assert "2026-11-22T03:00:00Z" in page
    assert "explainer.pickle is not what was built" in page


@pytest.mark.parametrize("prefix", ["/", "/people/see-why"])
@pytest.mark.parametrize("is_left_on", [False, True])
def test_a_page_asks_for_its_parts_where_it_is(stores: Path, prefix: str, is_left_on: bool) -> None:
    client = make_hub(find([stores]), load=load, prefix=prefix).wsgi.test_client()
    root = f"{prefix.rstrip('/')}/"
    page = client.get(f"{prefix.rstrip('/') if is_left_on else ''}/titanic/").text
    assert "-board-" not in page
    config = json.loads(re.findall(r'id="_dash-config"[^>]*>(.*?)</script>', page)[0])
    assert config["requests_pathname_prefix"] == f"{root}titanic/"
    parts = re.findall(r'(?:src|href|data-state)="([^"]+)"', page)
    assert len(parts) > 5
    for part in parts:
        assert part.startswith(root), part
        path = part.removeprefix(root.rstrip("/"))
        with client.get(path) as answer:
            assert answer.status_code == 200, part


def test_it_works_below_another_app(stores: Path) -> None:
    hub = make_hub(find([stores]), load=load)
    page = hub.wsgi.test_client().get("/rides/", environ_overrides={"SCRIPT_NAME": "/inner"}).text
    assert '"/inner/rides/' in page
    assert "-board-" not in page


def test_no_page_asks_the_network(client: FlaskClient) -> None:
    for path in ("/", "/titanic/", "/old/", "/titanic/none"):
        page = client.get(path).text
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    static = Path(little_boards.__file__).parent.parent / "src/fairlead/dashboard/serving/static"
    for file in static.iterdir():
        assert not re.findall(r"https?://(?!www\.w3\.org)", file.read_text())


def test_a_board_that_cannot_be_loaded_says_why_and_others_work(client: FlaskClient) -> None:
    answer = client.get("/old/")
    assert answer.status_code == 503
    assert "explainer.pickle is not what was built" in answer.text
    assert answer.headers["retry-after"]
    part = client.post("/old/_dash-update-component", json=question("x"))
    assert part.status_code == 503
    assert "not what was built" in part.get_json()["error"]
    assert client.get("/titanic/").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_fault_in_a_library_is_told_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "odd.dash", "Odd", crashes="tabs")
    write_store(tmp_path / "well.dash", "Well")
    client = make_hub(find([tmp_path]), load=load).wsgi.test_client()
    answer = client.get("/odd/")
    assert answer.status_code == 503
    assert "cannot be loaded (KeyError" in answer.text
    assert "Traceback" not in answer.text
    assert client.get("/well/").status_code == 200


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    write_store(tmp_path / "old.dash", "Old", broken=True)
    with pytest.raises(DashboardError, match="not what was built"):
        make_hub(find([tmp_path]), load=load)
    with pytest.raises(DashboardError, match="fairlead dashboard build"):
        make_hub({}, load=load)


def test_one_board_alone_is_where_the_index_leads(tmp_path: Path) -> None:
    store = write_store(tmp_path / "titanic.dash", "Titanic")
    client = make_hub(find([store]), load=load).wsgi.test_client()
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/titanic/")
    assert "All dashboards" not in client.get("/titanic/").text


def test_what_a_board_does_not_have_is_not_found(client: FlaskClient) -> None:
    for path in ("/titanic/none", "/titanic/rides/", "/none/", "/titanic/..%2frides/", "/-board-/"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "<title>Not Found</title>" in answer.text
    assert client.get("/none/_dash-layout").get_json()["error"]


def test_a_fault_of_a_page_is_not_shown(client: FlaskClient) -> None:
    answer = client.post("/titanic/_dash-update-component", json=question("fail"))
    assert answer.status_code == 500
    assert "a fault of the page" not in answer.text
    assert ask(client, "/titanic/", "well").startswith("Titanic: well")


def test_pages_carry_headers_that_keep_others_out(client: FlaskClient) -> None:
    for path in ("/", "/titanic/", "/old/", "/none/", "/titanic/_dash-layout", "/livez"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-frame-options"] == "SAMEORIGIN", path
        assert headers["cache-control"] == "no-store", path
    for path in ("/", "/titanic/", "/old/", "/none/"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "script-src 'self'" in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2]


def test_files_of_a_board_may_be_kept(client: FlaskClient) -> None:
    page = client.get("/titanic/").text
    script = re.findall(r'src="(/titanic/_dash-component-suites/[^"]+)"', page)[0]
    assert client.get(script).headers["cache-control"] == "public, max-age=31536000, immutable"
    # The renderer asks for this one by an address without a version.
    plotly = "/titanic/_dash-component-suites/plotly/package_data/plotly.min.js"
    first = client.get(plotly, headers=_GZIP)
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(plotly, headers={**_GZIP, "if-none-match": first.headers["etag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_what_is_large_is_compressed_for_whoever_takes_that(hub: Hub, client: FlaskClient) -> None:
    page = client.get("/titanic/")
    files = re.findall(r'(?:src|href)="(/(?:titanic|static)/.+?)"', page.text)
    paths = ["/titanic/", "/titanic/_dash-dependencies", *files]
    for path in paths:
        with client.get(path) as plain, client.get(path, headers=_GZIP) as small:
            assert "content-encoding" not in plain.headers
            is_large = len(plain.data) >= 1000 and not plain.mimetype.endswith("icon")
            assert small.headers.get("content-encoding") == ("gzip" if is_large else None), path
            assert small.headers["content-length"] == str(len(small.data))
            told = gzip.decompress(small.data) if is_large else small.data
            assert told == plain.data or path == "/titanic/"  # where Dash writes what it draws at random
            assert ("Accept-Encoding" in small.vary) == (not plain.mimetype.endswith("icon"))
    refused = {"accept-encoding": "gzip;q=0, identity"}
    assert "content-encoding" not in client.get("/titanic/", headers=refused).headers


def test_the_login_page_tells_nothing_by_its_length(guarded: Hub) -> None:
    assert "content-encoding" not in guarded.wsgi.test_client().get("/login", headers=_GZIP).headers


def test_rows_that_cannot_be_looked_up_are_told(stores: Path) -> None:
    write_store(stores / "titanic.dash", "Titanic", rows="postgresql://db: <away>")
    hub = make_hub(find([stores]), load=load)
    client = hub.wsgi.test_client()
    assert client.get("/titanic/_state").get_json()["notice"] == (
        "A row could not be looked up: postgresql://db: <away>"
    )
    assert "looked up: postgresql://db: &lt;away&gt;" in client.get("/titanic/").text
    board = hub.shelf.get("titanic").board
    board.rows.trouble = None
    assert client.get("/titanic/_state").get_json()["notice"] is None


@pytest.mark.parametrize("is_dropped", [False, True])
def test_rows_are_closed_once_nobody_asks_the_board_any_more(stores: Path, is_dropped: bool) -> None:
    write_store(stores / "titanic.dash", "Titanic", rows=None)
    hub = make_hub(find([stores]), load=load)
    rows: Any = hub.shelf.get("titanic").board.rows
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(ask, hub.wsgi.test_client(), "/titanic/", "sleep 0.5")
        eventually(lambda: rows.n_asked == 1)
        if is_dropped:
            hub.shelf.drop("titanic")
        else:
            hub.shelf.bring("titanic", write_store(stores / "titanic.dash", "Titanic, again"))
        assert under_way.result(20).startswith("Titanic: sleep")
    eventually(lambda: rows.is_closed)


def test_an_open_page_hears_of_a_newer_version_and_of_trouble(hub: Hub, client: FlaskClient, stores: Path) -> None:
    page = client.get("/titanic/").text
    version = re.findall(r'data-version="([^"]+)"', page)[0]
    assert client.get("/titanic/_state").get_json() == {"version": version, "notice": None}
    Trouble("titanic.csv: half <written>").write(stores / "titanic.dash")
    assert client.get("/titanic/_state").get_json()["notice"] == "Not the newest: titanic.csv: half <written>"
    assert "Not the newest: titanic.csv: half &lt;written&gt;" in client.get("/titanic/").text
    assert "not current" in client.get("/").text
    Trouble.clear(stores / "titanic.dash")
    write_store(stores / "titanic.dash", "Titanic, again")
    hub.shelf.bring("titanic", stores / "titanic.dash")
    state: dict[str, Any] = client.get("/titanic/_state").get_json()
    assert state["version"] != version
    assert state["notice"] is None
    assert ask(client, "/titanic/", "x").startswith("Titanic, again: x")


def test_a_store_that_breaks_leaves_the_board_up(hub: Hub, client: FlaskClient, stores: Path) -> None:
    write_store(stores / "titanic.dash", "Titanic", broken=True)
    assert not hub.shelf.bring("titanic", stores / "titanic.dash")
    assert ask(client, "/titanic/", "x").startswith("Titanic: x")
    assert "not what was built" in client.get("/titanic/_state").get_json()["notice"]


def test_boards_come_and_go(hub: Hub, client: FlaskClient, stores: Path) -> None:
    hub.shelf.bring("new", write_store(stores / "new.dash", "New"))
    assert client.get("/new/").status_code == 200
    hub.shelf.drop("new")
    assert client.get("/new/").status_code == 404


def test_stores_are_named_by_their_directories(tmp_path: Path) -> None:
    one = write_store(tmp_path / "one.dash", "One")
    (tmp_path / "more").mkdir()
    two = write_store(tmp_path / "more" / "two.dash", "Two")
    (tmp_path / "more" / ".three.dash.partial").mkdir()
    missing = tmp_path / "missing.dash"
    assert find([one, tmp_path / "more", missing]) == {"one": one, "two": two, "missing": missing}
    assert find([one, one]) == {"one": one}


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one = write_store(tmp_path / "one.dash", "One")
    other = write_store(tmp_path / "more" / "one.dash", "One")
    with pytest.raises(DashboardError, match="two dashboards called one: rename one"):
        find([one, other])
    with pytest.raises(DashboardError, match="/login is a path of the hub's own"):
        find([write_store(tmp_path / "login.dash", "Login")])


def test_a_name_may_be_any(tmp_path: Path) -> None:
    write_store(tmp_path / "Größe & 100 %.dash", "Sizes")
    write_store(tmp_path / "b.dash", "B")
    client = make_hub(find([tmp_path]), load=load).wsgi.test_client()
    path = re.findall(r'href="(/Gr[^"]+)"', client.get("/").text)[0]
    page = client.get(html.unescape(path))
    assert page.status_code == 200
    config = json.loads(re.findall(r'id="_dash-config"[^>]*>(.*?)</script>', page.text)[0])
    assert client.get(f"{config['requests_pathname_prefix']}_dash-layout").status_code == 200


@pytest.fixture
def guarded(stores: Path, tmp_path: Path) -> Hub:
    """A hub where ann may see one board, and bob all."""
    users = Users(tmp_path / "users.db")
    users.add("ann", "a long password", dashboards=["titanic"])
    users.add("bob", "another password", "admin")
    gate = Gate.open(DashboardSettings(users=str(tmp_path / "users.db")), {})
    return make_hub(find([stores]), gate=gate, load=load)


def log_in(hub: Hub, name: str, password: str) -> FlaskClient:
    client = hub.wsgi.test_client()
    token = re.findall(r'name="token" value="([^"]+)"', client.get("/login").text)[0]
    done = client.post("/login", data={"name": name, "password": password, "token": token})
    assert done.status_code == 303
    return client


def test_nobody_sees_anything_without_a_login(guarded: Hub) -> None:
    client = guarded.wsgi.test_client()
    html_only = {"accept": "text/html"}
    for path in ("/", "/titanic/", "/none/", "/old/"):
        answer = client.get(path, headers=html_only)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login?next=")
    for path in ("/titanic/_dash-layout", "/titanic/_state", "/old/_dash-layout", "/none/_dash-dependencies"):
        assert client.get(path).status_code == 401, path
    assert client.post("/titanic/_dash-update-component", json=question("x")).status_code == 401
    for path in ("/livez", "/readyz", "/static/hub.css", "/login"):
        with client.get(path) as answer:
            assert answer.status_code == 200, path


def test_people_see_the_boards_they_were_granted(guarded: Hub, stores: Path) -> None:
    client = log_in(guarded, "ann", "a long password")
    page = client.get("/").text
    assert 'href="/titanic/"' in page
    assert "rides" not in page
    assert "Log out" in page
    assert ask(client, "/titanic/", "x").startswith("Titanic: x")
    board = client.get("/titanic/").text
    assert "ann" in board
    assert 'href="/logout"' in board
    assert "All dashboards" not in board
    for path in ("/rides/", "/rides/_dash-layout", "/rides/_state", "/old/"):
        assert client.get(path).status_code == 404, path
    guarded.shelf.bring("late", write_store(stores / "late.dash", "Late"))
    assert client.get("/late/").status_code == 404
    assert guarded.wsgi.test_client().get("/late/_dash-layout").status_code == 401
    assert log_in(guarded, "bob", "another password").get("/late/").status_code == 200


def test_what_is_guarded_is_kept_by_nobody_else(guarded: Hub) -> None:
    client = log_in(guarded, "ann", "a long password")
    for path in ("/", "/titanic/", "/titanic/_dash-layout", "/titanic/_state"):
        assert "no-store" in client.get(path).headers["cache-control"], path
    script = re.findall(r'src="(/titanic/_dash-component-suites/[^"]+)"', client.get("/titanic/").text)[0]
    with client.get(script) as answer:
        assert "private" in answer.headers["cache-control"]
