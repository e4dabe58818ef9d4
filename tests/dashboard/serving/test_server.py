"""Servers over little boards, as processes: replaced stores, broken ones, workers that die, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

import little_boards
from little_boards import question, said, write_store

Kind = Literal["gunicorn", "waitress"]
both = pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
_SERVER = Path(little_boards.__file__)


class Server:
    """A server of little boards.

    Attributes
    ----------
    lines : what it printed at its start, one for each store.
    """

    def __init__(self, process: subprocess.Popen[str], errors: Path, count: int) -> None:
        assert process.stdout is not None
        self.process = process
        self.errors = errors
        self.lines = [process.stdout.readline() for _ in range(count)]
        found = re.search(r"(http://[^/\s]+)", self.lines[0])
        assert found, self.told()
        self.url = found[1]

    def told(self) -> str:
        return self.errors.read_text()

    def ask(self, name: str, what: str = "x") -> str:
        """Ask a board its question, without keeping a connection."""
        answer = httpx.post(f"{self.url}/{name}/_dash-update-component", json=question(what), timeout=20)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return said(answer.json())

    def workers(self) -> list[int]:
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def serving(folder: Path, kind: Kind, *stores: Path, **settings: Any) -> Iterator[Server]:
    given = json.dumps({"port": 0, "server": kind, **settings})
    errors = folder / "errors.log"
    command = [sys.executable, _SERVER, given, *stores]
    with errors.open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            yield Server(process, errors, len(stores))
        finally:
            process.kill()


def until(is_so: Callable[[], bool], limit_s: float = 20) -> bool:
    end_s = time.monotonic() + limit_s
    while not (found := is_so()) and time.monotonic() < end_s:
        time.sleep(0.05)
    return found


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return write_store(tmp_path / "one.dash", "One"), write_store(tmp_path / "two.dash", "Two")


@both
def test_it_tells_where_dashboards_are_and_ends_when_told(
    kind: Kind, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(tmp_path, kind, *stores) as server:
        assert server.lines == [f"one: One, at {server.url}/one/\n", f"two: Two, at {server.url}/two/\n"]
        assert server.ask("one").startswith("One: x")
        assert server.ask("two").startswith("Two: x")
        assert httpx.get(f"{server.url}/livez").text == "ok\n"
        assert server.stop() == 0
        assert server.told() == ""


@pytest.mark.parametrize(
    ("kind", "number"), [("gunicorn", signal.SIGTERM), ("gunicorn", signal.SIGINT), ("waitress", signal.SIGTERM)]
)
def test_a_page_that_is_asked_for_is_finished(
    kind: Kind, number: int, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(tmp_path, kind, *stores) as server, httpx.Client() as idle:
        assert idle.get(f"{server.url}/livez").status_code == 200  # a connection that stays open
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(server.ask("one", "sleep 1.5")))
        asking.start()
        time.sleep(0.5)
        assert server.stop(number) == 0
        asking.join()
        assert [answer.partition(" (")[0] for answer in answers] == ["One: sleep 1.5"]
        assert server.told() == ""


class Load:
    """Asks for a page and its question, twenty of both a second, and notes every answer but a good one.

    Half of it keeps its connections, the other half makes one for each request.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self.titles: list[str] = []
        self.wrong: list[object] = []
        self._threads = [threading.Thread(target=self._run, args=(place % 2,)) for place in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kept: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=kept)
        with httpx.Client(base_url=self._server.url, limits=limits, timeout=20) as client:
            while not self._stop.wait(0.2):
                try:
                    page = client.get("/one/")
                    answer = client.post("/one/_dash-update-component", json=question("x"))
                    if (page.status_code, answer.status_code) != (200, 200):
                        self.wrong.append((page, answer.text))
                    self.titles.append(said(answer.json()).partition(":")[0])
                except Exception as error:
                    self.wrong.append(error)


@both
def test_a_store_is_replaced_without_a_failed_request(kind: Kind, stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, kind, *stores, workers=2) as server:
        with Load(server) as load:
            time.sleep(0.5)
            write_store(stores[0], "One, again", takes_s=0.5)
            assert until(lambda: "One, again" in load.titles)
            time.sleep(0.5)
        assert load.wrong == []
        assert load.titles[-1] == "One, again"
        assert server.ask("two").startswith("Two: x")
        assert server.stop() == 0


@both
def test_hup_loads_all_again_without_a_failed_request(kind: Kind, stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, kind, *stores, workers=2) as server:
        before = server.workers()
        with Load(server) as load:
            server.process.send_signal(signal.SIGHUP)
            if kind == "gunicorn":
                assert until(lambda: not set(before) & set(server.workers()))
            assert until(lambda: server.told().count("is shown as it is now") == 2)
            time.sleep(0.5)
        assert load.wrong == []
        assert load.titles
        assert server.stop() == 0


@both
def test_a_store_that_breaks_leaves_all_up(kind: Kind, stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, kind, *stores, workers=2) as server:
        write_store(stores[0], "One", broken=True)

        def is_told() -> bool:
            return "not what was built" in str(httpx.get(f"{server.url}/one/_state").json()["notice"])

        assert until(is_told)
        assert "Not the newest" in httpx.get(f"{server.url}/one/").text
        assert server.ask("one").startswith("One: x")
        if kind == "gunicorn":  # another worker has what its parent holds, not what the store does
            os.kill(server.workers()[0], signal.SIGKILL)
            assert until(lambda: len(server.workers()) == 2)
            for _ in range(6):
                assert server.ask("one").startswith("One: x")
        write_store(stores[0], "One, mended")
        assert until(lambda: server.ask("one").startswith("One, mended: x"))
        assert until(lambda: httpx.get(f"{server.url}/one/_state").json()["notice"] is None)
        assert server.ask("two").startswith("Two: x")
        assert server.stop() == 0


@both
def test_one_broken_from_the_start_does_not_keep_others_down(
    kind: Kind, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    write_store(stores[0], "One", broken=True)
    with serving(tmp_path, kind, *stores) as server:
        assert server.lines[0] == f"one: cannot be shown, at {server.url}/one/\n"
        assert httpx.get(f"{server.url}/one/").status_code == 503
        assert server.ask("two").startswith("Two: x")
        assert "not what was built" in server.told()
        assert server.stop() == 0


def test_nothing_to_serve_is_told_in_a_line(tmp_path: Path) -> None:
    store = write_store(tmp_path / "one.dash", "One", broken=True)
    done = subprocess.run([sys.executable, _SERVER, '{"port": 0}', store], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "fairlead: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path, stores: tuple[Path, Path]) -> None:
    with serving(tmp_path, "gunicorn", stores[0]) as server:
        port = server.url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, _SERVER, json.dumps({"port": int(port)}), stores[1]],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert f"port {port} on 127.0.0.1 is taken" in done.stderr


def test_workers_that_die_are_replaced(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, "gunicorn", *stores, workers=2) as server:
        for _ in range(2):
            before = server.workers()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            assert until(lambda before=before: len(set(server.workers()) - set(before)) == 2)
            assert server.ask("one").startswith("One: x")
        assert server.stop() == 0


def test_a_page_that_takes_too_long_costs_its_worker(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, "gunicorn", *stores, timeout_s=1) as server:
        before = server.workers()
        with pytest.raises(httpx.HTTPError):
            server.ask("one", "sleep 60")
        assert until(lambda: bool(server.workers()) and server.workers() != before)
        assert server.ask("one").startswith("One: x")
        assert "a page takes more than 1 s" in server.told()


def test_workers_end_with_their_parent(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, "gunicorn", *stores, workers=2) as server:
        workers = server.workers()
        server.process.kill()
        assert until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in workers))


@both
def test_who_listens_to_all_without_logins_is_warned(kind: Kind, stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, kind, stores[0], host="0.0.0.0") as server:
        assert "--users asks them to log in" in server.told()
        assert server.stop() == 0


@both
def test_a_prefix_is_told_to_pages(kind: Kind, stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, kind, *stores, root_path="/people") as server:
        assert server.lines[0] == f"one: One, at {server.url}/people/one/\n"
        for path in ("/one/", "/people/one/"):
            assert 'src="/people/one/_dash-component-suites/' in httpx.get(f"{server.url}{path}").text


@both
def test_faults_of_pages_are_logged_as_json_when_asked(kind: Kind, stores: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path, kind, stores[0], log_format="json") as server:
        answer = httpx.post(f"{server.url}/one/_dash-update-component", json=question("fail"))
        assert answer.status_code == 500
        lines = [json.loads(line) for line in server.told().splitlines()]
        assert any("a fault of the page" in line.get("exc_info", "") for line in lines)
