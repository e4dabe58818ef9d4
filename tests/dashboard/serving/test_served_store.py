"""A real store under `fairlead dashboard serve`'s server: pages, a replacement, and one that was damaged."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import httpx

_SERVE = """
import sys
from pathlib import Path
from fairlead.config import DashboardSettings
from fairlead.dashboard.serving.server import run
run([Path(sys.argv[1])], DashboardSettings(port=0, workers=2, threads=2))
"""


def until(is_so: Callable[[], bool], limit_s: float = 120) -> bool:
    end_s = time.monotonic() + limit_s
    while not (found := is_so()) and time.monotonic() < end_s:
        time.sleep(0.1)
    return found


def put(store: Path, where: Path, damaged: str | None = None) -> None:
    """Put a copy of a store in the place of another, in one step as far as a server can see."""
    copy = where.with_name(f".{where.name}.new")
    shutil.copytree(store, copy)
    if damaged is not None:
        with (copy / damaged).open("r+b") as file:
            file.write(b"another beginning")
    old = where.with_name(f".{where.name}.old")
    if where.exists():
        where.rename(old)
    copy.rename(where)
    shutil.rmtree(old, ignore_errors=True)


def test_a_real_dashboard_is_shown_replaced_and_kept(survival_store: Path, pay_store: Path, tmp_path: Path) -> None:
    place = tmp_path / "people.dash"
    put(survival_store, place)
    log = tmp_path / "log"
    command = [sys.executable, "-c", _SERVE, place]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            found = re.search(r"at (http\S+)", server.stdout.readline())
            assert found, log.read_text()
            url = found[1]
            with httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:

                def title() -> str:
                    return re.findall(r"<title>(.*?)</title>", client.get("").text)[0]

                def trouble() -> str:
                    return str(client.get("_state").json()["notice"])

                assert title() == "Who &lt;survived&gt; &amp; why"
                _look_at_all(client)
                put(pay_store, place)
                assert until(lambda: title() == "What they pay"), log.read_text()
                _look_at_all(client)
                assert until(lambda: not _mapped_but_gone(server.pid))
                put(survival_store, place, damaged="explainer.pickle")
                assert until(lambda: "explainer.pickle" in trouble()), log.read_text()
                assert title() == "What they pay"
                _look_at_all(client)
        finally:
            server.terminate()
        assert server.wait(30) == 0
    assert "Traceback" not in log.read_text()


def _started(command: list[str | Path], errors: IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)


def _mapped_but_gone(pid: int) -> list[str]:
    """Name the files of stores that a server and its workers hold, though they were replaced."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for process in (pid, *children):
        with suppress(FileNotFoundError):  # ended meanwhile
            maps = Path(f"/proc/{process}/maps").read_text()
            found += [line for line in maps.splitlines() if ".dash" in line and line.endswith("(deleted)")]
    return found


def _look_at_all(client: httpx.Client) -> None:
    """Ask for the page, its files, and what its callbacks give at first, whichever worker answers."""
    page = client.get("").text
    root = client.base_url.path
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) > 5
    for file in files:
        assert file.startswith("/")
        assert httpx.URL(file).path.startswith((root, "/static/")), file
        assert client.get(client.base_url.join(file)).status_code == 200, file
    layout = client.get("_dash-layout")
    assert "-board-" not in layout.text
    values = _properties(layout.json())
    asked = 0
    for told in client.get("_dash-dependencies").json():
        names = [one["id"] for one in (*told["inputs"], *told["state"])]
        if not set(names) <= values.keys() or told["output"].startswith("..") or told["clientside_function"]:
            continue
        output, _, prop = told["output"].rpartition(".")
        body = {
            "output": told["output"],
            "outputs": {"id": output, "property": prop},
            "changedPropIds": [],
            **{
                kind: [{**one, "value": values[one["id"]].get(one["property"])} for one in told[kind]]
                for kind in ("inputs", "state")
            },
        }
        answer = client.post("_dash-update-component", json=body)
        assert answer.status_code in (200, 204), (told["output"], answer.text)
        assert "-board-" not in answer.text
        asked += 1
    assert asked > 10


def _properties(node: object) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    if isinstance(node, list):
        for one in node:
            found |= _properties(one)
    elif isinstance(node, dict):
        props = node.get("props", {})
        if isinstance(props.get("id"), str):
            found[props["id"]] = props
        for one in (props or node).values():
            found |= _properties(one)
    return found
