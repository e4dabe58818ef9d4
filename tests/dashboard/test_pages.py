"""Dashboards as people see them: a real server, a Chromium that reaches nothing else, somebody who looks around.

With FAIRLEAD_PICTURES=docs/dashboard the pictures of docs/dashboard.md are made anew on the way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from browser import FAINT, Browser, Tab
from fairlead.bundle.write import staged_directory
from fairlead.dashboard.boards.options import read_dashboard_yaml, yaml_of
from fairlead.dashboard.logins.users import Users
from fairlead.dashboard.store import EXPLAINER, MANIFEST, OPTIONS, Store, encode_manifest, stored_file
from fairlead.dashboard.trouble import Trouble

PASSWORD = "women and children first"
PICTURES = os.environ.get("FAIRLEAD_PICTURES")
# What a plot draws its data with.
DRAWN = """(() => {
  const plots = [...document.querySelectorAll('.js-plotly-plot')].filter(e => e.checkVisibility());
  const isDrawn = e => e.data?.length && e.querySelector('.trace, .slice, .hm image, .violin');
  return plots.length > 0 && plots.every(isDrawn);
})()"""
TABS = [
    "Feature Importances", "Classification Stats", "Individual Predictions", "What if...", "Feature Dependence",
    "Feature Interactions", "Decision Trees",
]  # fmt: skip
ROWS = "button[id^=random-index-clas-index]"
PREDICTION = "[id^=clas-prediction-div]"
FARE = "[id^=feature-input-fare-input]"
ERRORS = "[...document.querySelectorAll('[class*=dash-error], [class*=dash-fe-error]')].map(e => e.innerText)"
WIDE: dict[str, Any] = {"width": 1280, "height": 800}
LOOKS: dict[str, dict[str, Any]] = {
    "wide": WIDE,
    "dark": {"width": 390, "height": 844, "scheme": "dark"},
    "narrow": {"width": 320, "height": 640},
}


@dataclass(frozen=True)
class Site:
    """A server of three stores: two that rose may see, and one that is broken.

    Parameters
    ----------
    url : of it.
    stores : the folder they are in.
    """

    url: str
    stores: Path


@pytest.fixture(scope="module")
def site(survival_store: Path, pay_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    put(survival_store, folder / "titanic.dash", "Who survived?", "Each passenger, and what spoke for and against.")
    put(pay_store, folder / "fares.dash", "What they pay", "Of the same passengers, by class, age and town.")
    shutil.copytree(pay_store, folder / "broken.dash")
    (folder / "broken.dash" / EXPLAINER).write_bytes(b"half")
    users = Users(folder / "users")
    users.add("rose", PASSWORD, dashboards=["titanic", "fares"])
    users.add("captain", PASSWORD, "admin")
    command: list[str | Path] = [sys.executable, "-m", "fairlead", "dashboard", "serve", folder, "--workers", "2"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--port", "0", "--users", users.file.path], stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        assert server.stdout is not None
        found = re.search(r"(http://\S+?)/broken/", server.stdout.readline())
        assert found, (folder / "log").read_text()
        yield Site(found[1], folder)
        server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def put(store: Path, place: Path, title: str, description: str = "") -> None:
    """Put a copy of a store, with another title, in the place of another as a build does."""
    named = {"title": title, "description": description}
    with staged_directory(place) as made:
        shutil.copytree(store, made, dirs_exist_ok=True)
        (made / OPTIONS).write_bytes(yaml_of(read_dashboard_yaml(made / OPTIONS) | named))
        told = Store.open(made).manifest
        files = {**told.files, OPTIONS: stored_file(made / OPTIONS)}
        (made / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(told, files=files, **named)))


def log_in(tab: Tab, name: str) -> None:
    tab.fill("#name", name)
    tab.fill("#password", PASSWORD)
    tab.press("Enter")
    tab.wait("location.pathname !== '/login'")
    tab.settle()


def log_out(tab: Tab) -> None:
    tab.run("[...document.querySelectorAll('a')].find(e => e.innerText === 'Log out').click()")
    tab.wait("location.pathname === '/logout' && document.querySelector('button') !== null")
    tab.press("Tab")
    tab.press("Enter")
    tab.wait("location.pathname === '/login' && document.querySelector('#password') !== null")


def open_tab(tab: Tab, label: str) -> None:
    tab.run(f"[...document.querySelectorAll('.tab')].find(e => e.innerText === {json.dumps(label)}).click()")
    tab.settle()


def choose(tab: Tab, row: str) -> None:
    """Choose a row as people do: open the list, type, take what was found."""
    tab.click(ROWS)
    # The list takes the focus once it is there.
    tab.wait("document.activeElement.closest('.dash-dropdown-content') !== null")
    tab.fill(".dash-dropdown-search", row)
    tab.wait(f"document.querySelector('.dash-dropdown-content [role=option]').innerText === {json.dumps(row)}")
    tab.press("Enter")
    tab.wait(f"document.querySelector('{ROWS}[data-state=closed]')?.innerText === {json.dumps(row)}")
    tab.settle()


def wait_until_told(tab: Tab, condition: str) -> None:
    """Wait until the bar says something; it asks whenever the page comes into view, and all ten seconds."""
    ask = "document.dispatchEvent(new Event('visibilitychange'))"
    tab.wait(f"new Promise(done => {{ {ask}; setTimeout(() => done({condition}), 400) }})", 90)


def picture(tab: Tab, name: str, height: int, width: int = WIDE["width"]) -> None:
    if PICTURES is None:
        return
    from PIL import Image

    look_through(tab, width, height)
    path = tab.screenshot(Path(PICTURES) / f"{name}.png", whole=False)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    look_through(tab, **WIDE)


def look_through(tab: Tab, width: int, height: int) -> None:
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    tab.settle()


def assert_drawn(tab: Tab) -> None:
    tab.wait(DRAWN)
    assert tab.run(ERRORS) == []


def assert_clean(tab: Tab, own: str, *allowed: str) -> None:
    """Check that nothing was asked of anybody else, nothing failed, and no policy was violated."""
    tab.settle()
    assert {url for url in tab.requests if not url.startswith((own, "about:", "data:", "blob:"))} == set()
    # What "rendering" complains of are a comma in explainerdashboard's viewport and slow reads of pixels.
    found = [one for one in tab.complaints if not one.startswith("rendering:")]
    assert [one for one in found if not any(text in one for text in allowed)] == []


def test_somebody_logs_in_looks_around_and_leaves(
    site: Site, browser: Browser, passengers: pd.DataFrame, survival_store: Path
) -> None:
    with browser.open("about:blank", **WIDE) as tab:
        tab.send("Network.clearBrowserCookies")
        tab.go(f"{site.url}/titanic/")
        _be_let_in(tab)
        _find_the_dashboards(tab)
        _look_at_every_tab(tab)
        _ask_what_if(tab, passengers)
        _hear_what_happens(tab, site.stores / "titanic.dash", survival_store)
        log_out(tab)
        tab.go(f"{site.url}/titanic/")
        tab.wait("document.querySelector('#password') !== null")
        assert_clean(tab, site.url, "status of 401")


def _be_let_in(tab: Tab) -> None:
    tab.wait("document.activeElement?.id === 'name'")
    tab.fill("#name", "rose")
    tab.fill("#password", "a wrong one")
    tab.press("Enter")
    tab.wait("document.querySelector('#trouble') !== null")
    assert tab.text("#trouble") == "The name or the password is wrong."
    tab.wait("document.activeElement?.id === 'password'")
    picture(tab, "login", height=480, width=720)
    tab.fill("#password", PASSWORD)
    tab.press("Enter")
    tab.wait("document.querySelector('.tab') !== null", 30)
    assert tab.run("location.pathname") == "/titanic/"


def _find_the_dashboards(tab: Tab) -> None:
    tab.click("#fairlead-bar > a")
    tab.wait("document.querySelector('.cards') !== null")
    assert tab.run("[...document.querySelectorAll('.card h2')].map(e => e.innerText)") == [
        "What they pay",
        "Who survived?",
    ]
    picture(tab, "index", height=360, width=1000)
    tab.run("[...document.querySelectorAll('.card a')].find(e => e.innerText === 'Who survived?').click()")
    tab.wait("document.querySelector('.tab') !== null", 30)
    tab.settle()
    assert tab.text("#fairlead-bar") == "All dashboards\nrose\nLog out"


def _look_at_every_tab(tab: Tab) -> None:
    assert tab.run("[...document.querySelectorAll('.tab')].map(e => e.innerText)") == TABS
    for label in TABS:
        open_tab(tab, label)
        if tab.run(f"document.querySelector('{ROWS}') !== null"):
            choose(tab, "P017")
        assert_drawn(tab)
        if label == "Individual Predictions":
            picture(tab, "contributions", height=1380)


def _ask_what_if(tab: Tab, passengers: pd.DataFrame) -> None:
    open_tab(tab, "What if...")
    told = tab.text(PREDICTION)
    assert fare(tab) == passengers.loc["P017", "fare"]
    tab.fill(FARE, "90.5")
    tab.settle()
    assert tab.text(PREDICTION) != told
    picture(tab, "what-if", height=940)
    choose(tab, "P042")
    assert fare(tab) == passengers.loc["P042", "fare"]
    assert tab.text(PREDICTION) != told
    choose(tab, "P017")
    assert tab.text(PREDICTION) == told
    assert_drawn(tab)


def fare(tab: Tab) -> float:
    return float(tab.run(f"document.querySelector('{FARE}').value"))


def _hear_what_happens(tab: Tab, store: Path, other: Path) -> None:
    Trouble("passengers.csv: line 83: expected 9 fields, got 4: the file is cut off").write(store)
    wait_until_told(tab, "!document.querySelector('.fairlead-notice').hidden")
    assert "Not the newest: passengers.csv: line 83" in tab.text("#fairlead-bar")
    picture(tab, "trouble", height=420)
    Trouble.clear(store)
    put(other, store, "Who <survived>?")
    wait_until_told(tab, "!document.querySelector('.fairlead-news').hidden")
    assert tab.text("#fairlead-bar [role=status]") == "There is a newer version of this dashboard. Show it"
    tab.click(".fairlead-news a")
    tab.wait("document.querySelector('h1')?.innerText === 'Who <survived>?'", 30)
    tab.settle()
    assert_drawn(tab)


@pytest.mark.parametrize("look", LOOKS)
def test_our_own_pages_fit_and_can_be_read(site: Site, browser: Browser, look: str) -> None:
    with browser.open("about:blank", **LOOKS[look]) as tab:
        tab.send("Network.clearBrowserCookies")
        tab.go(f"{site.url}/")
        tab.wait("document.querySelector('#password') !== null")
        tab.fill("#name", "captain")
        tab.fill("#password", "a wrong one")
        tab.press("Enter")
        tab.wait("document.querySelector('#trouble') !== null")
        assert_readable(tab)
        log_in(tab, "captain")
        assert "explainer.pickle" in tab.text(".card .notice")
        assert_readable(tab)
        for path, title in (("broken/", "broken"), ("nothing/", "Not Found")):
            tab.go(f"{site.url}/{path}")
            tab.wait(f"document.querySelector('h1')?.innerText === '{title}'")
            assert_readable(tab)
        log_out(tab)
        assert_clean(tab, site.url, "status of 401", "status of 404", "status of 503")


def assert_readable(tab: Tab) -> None:
    tab.wait("document.readyState === 'complete'")  # with its styles
    assert tab.run(FAINT) == []
    assert not tab.is_wider_than_seen()


def test_one_file_is_all_of_it(browser: Browser, survival_page: Path) -> None:
    address = survival_page.as_uri()
    with browser.open(address, **WIDE) as tab:
        tab.wait("document.querySelector('.nav-link') !== null")
        assert tab.run("[...document.querySelectorAll('.nav-link')].map(e => e.innerText)") == TABS
        for label in TABS:
            tab.run(
                f"[...document.querySelectorAll('.nav-link')].find(e => e.innerText === {json.dumps(label)}).click()"
            )
            tab.wait(DRAWN)
        assert_clean(tab, address)
