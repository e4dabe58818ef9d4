"""A model that is loaded or unloaded through one worker is so in all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.web.keys import make

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
ASKED = 30


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    key, line = make("admin", admin=True)
    monkeypatch.setenv("FAIRLEAD_API_KEYS", line)
    return {"x-api-key": key}


def statuses(url: str, headers: dict[str, str]) -> Counter[int]:
    """Ask on new connections, so that every worker gets its share."""
    paths = [f"{url}/models/churn/predict"] * ASKED
    return Counter(httpx.post(path, json=GOOD, headers=headers).status_code for path in paths)


def workers(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # a version that is tried has a process for as long as that takes
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def test_all_workers_unload_and_load(start: Any, churn_bundle: Path, tmp_path: Path, admin: dict[str, str]) -> None:
    bundle = shutil.copytree(churn_bundle, tmp_path / "churn")
    with start(bundle, workers=3) as server:
        server.wait_until_ready()
        server.process.stdout.readline()  # until all are up
        assert statuses(server.url, admin) == {200: ASKED}
        repository = f"{server.url}/v2/repository/models/churn"
        assert httpx.post(f"{repository}/unload").status_code == 401
        assert httpx.post(f"{repository}/unload", headers=admin, timeout=20).status_code == 200
        assert statuses(server.url, admin) == {404: ASKED}
        # One that is started later knows.
        killed = workers(server.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while len(workers(server.process.pid)) < 3 or killed in workers(server.process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(2)
        assert statuses(server.url, admin) == {404: ASKED}
        # A bundle that cannot be served changes nothing.
        graph = bundle / "model.onnx"
        good = graph.read_bytes()
        graph.write_bytes(good[:-1])
        failed = httpx.post(f"{repository}/load", headers=admin, timeout=20)
        assert failed.status_code == 400
        assert "model.onnx" in failed.json()["error"]
        graph.write_bytes(good)
        assert httpx.post(f"{repository}/load", headers=admin, timeout=20).status_code == 200
        assert statuses(server.url, admin) == {200: ASKED}
        server.process.terminate()
        assert server.end()[0] == 0
