"""The gate in gunicorn with two workers: what is done in one counts in both; paths come as they were sent."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

import guarded_hub
from fairlead.dashboard.logins.users import Users
from guarded_hub import PASSWORD, TOKEN

TESTS = Path(guarded_hub.__file__).parent
RAW_PATHS = [
    "//one/", "/one//_dash-layout", "/%6fne/", "/%2fone/", "/%2F%2Fone/", "/livez/%2e%2e/one/", "/livez/../one/",
    "/login/..%2fone/", "/one/%5c..%5ctwo/", "/one;/", "/one/?/livez", "/one/#/livez", "/ONE/", "/one%00/",
    "/%c0%afone/", "http://127.0.0.1/one/", "/one/_dash-layout%3f", "/./one/",
    "/one/_dash-component-suites/dash/deps/react.min.js",
]  # fmt: skip


class Server:
    """Two workers; each request is on a connection of its own, so that either may answer."""

    def __init__(self, port: int, users: Users) -> None:
        self.port = port
        self.users = users
        self.cookies = ""

    def ask(
        self, method: str, path: str, form: dict[str, str] | None = None, cookies: str = ""
    ) -> tuple[int, str, str]:
        """Give the status, the worker and the text of an answer, and keep its cookies."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Accept": "text/html", "Cookie": cookies or self.cookies}
            if form is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request(method, path, urlencode(form) if form is not None else None, headers)
            answer = connection.getresponse()
            given = [one.partition(";")[0] for one in answer.headers.get_all("Set-Cookie", [])]
            if given and not cookies:
                self.cookies = "; ".join([*given, *([self.cookies] if self.cookies else [])])
            return answer.status, answer.headers.get("X-Worker", ""), answer.read().decode()
        finally:
            connection.close()

    def log_in(self, name: str, password: str = PASSWORD) -> int:
        self.cookies = ""
        token = TOKEN.search(self.ask("GET", "/login")[2])
        assert token is not None
        return self.ask("POST", "/login", {"token": token[1], "name": name, "password": password})[0]

    def of_both(self, ask: Callable[[], tuple[int, str, str]]) -> set[int]:
        """Ask until both workers have answered some times; give the statuses."""
        counts: dict[str, int] = {}
        statuses = set()
        for _ in range(300):
            status, worker, _ = ask()
            statuses.add(status)
            counts[worker] = counts.get(worker, 0) + 1
            if len(counts) == 2 and min(counts.values()) >= 2:
                return statuses
        raise AssertionError(f"only {counts} answered")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("workers")
    users = Users(folder / "users.sqlite")
    for name in ("ann", "bob", "cid"):
        users.add(name, PASSWORD, dashboards=["one"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "FAIRLEAD_DASHBOARD_USERS": str(users.file.path),
        "FAIRLEAD_DASHBOARD_MAX_ATTEMPTS": "4",
    }
    command = [
        "gunicorn",
        "--no-control-socket",
        "-w",
        "2",
        "-k",
        "gthread",
        "--threads",
        "2",
        "-b",
        f"127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "guarded_hub:from_environment()"],
            cwd=folder, env=environ, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        made = Server(port, users)
        deadline = time.monotonic() + 60
        while True:
            try:
                made.ask("GET", "/livez")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_both_workers_have_the_secret_that_one_of_them_made(server: Server) -> None:
    assert server.log_in("ann") == 303
    assert server.of_both(lambda: server.ask("GET", "/one/_dash-layout")) == {200}
    assert server.of_both(lambda: server.ask("POST", "/one/_dash-update-component")) == {200}
    assert server.of_both(lambda: server.ask("GET", "/two/")) == {404}


@pytest.mark.parametrize("path", RAW_PATHS)
def test_a_path_as_it_is_sent_leads_nobody_around(path: str, server: Server) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
        status, _, text = server.ask(method, path, cookies="a=b")
        assert status in (303, 400, 401), (method, path, status)
        assert "says" not in text


def test_with_a_session_no_path_as_it_is_sent_leads_to_another_board(server: Server) -> None:
    assert server.log_in("ann") == 303
    assert server.ask("GET", "/one/")[2] == "one says page"
    for path in RAW_PATHS:
        for sent in (path.replace("one", "two"), f"/one/..{path.replace('one', 'two')}"):
            assert "two says" not in server.ask("GET", sent)[2], sent


def test_a_logout_and_a_removal_count_in_both(server: Server) -> None:
    for end in (log_out, lambda server: server.users.set_password("bob", "something else")):
        assert server.log_in("bob") == 303
        cookies = server.cookies
        ask = lambda cookies=cookies: server.ask("GET", "/one/_dash-layout", cookies=cookies)  # noqa: E731  # it keeps the cookies of its turn
        assert server.of_both(ask) == {200}
        end(server)
        until(lambda ask=ask: server.of_both(ask) == {401})
        server.users.set_password("bob", PASSWORD)
        assert server.of_both(ask) == {401}
    server.users.remove("bob")
    assert server.log_in("bob") == 401


def log_out(server: Server) -> None:
    token = TOKEN.search(server.ask("GET", "/logout")[2])
    assert token is not None
    assert server.ask("POST", "/logout", {"token": token[1]})[0] == 303


def test_wrong_passwords_count_in_both(server: Server) -> None:
    statuses = [server.log_in("cid", "wrong password") for _ in range(12)]
    # One of another test was counted for this address before.
    assert statuses[-8:] == [429] * 8
    assert 401 in statuses
    assert re.fullmatch("(401){1,4}(429)+", "".join(map(str, statuses)))
    assert server.log_in("cid") == 429
