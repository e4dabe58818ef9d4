"""A Prefect server on SQLite and a worker of its pool `fairlead`, both real and on loopback, for tests.

A pytest plugin, loaded by the modules that need it. Both are started when a test first asks, once a process of the
test run, and end with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from registry import Process, free_port, need

RUN_S = 120


class PrefectServer:
    """A server that tells nobody of itself, and a worker that starts processes.

    Attributes
    ----------
    url : of the API.
    environ : what a client of it needs in its environment.
    """

    def __init__(self, home: Path) -> None:
        port, worker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.environ = quiet(home) | {
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(worker_port),
            "FAIRLEAD_CACHE_DIRECTORY": str(home / "cache"),
        }
        server = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        worker = ["-m", "prefect", "worker", "start", "-p", "fairlead", "-t", "process", "--with-healthcheck"]
        # Both are slow to start; what a test prepares goes on meanwhile.
        starting = ThreadPoolExecutor(1)
        self._server = starting.submit(Process, server, port, self.environ, "/api/health", home)
        self._worker = starting.submit(Process, worker, worker_port, self.environ, "/health", home)
        starting.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until the server answers; the worker may need longer."""
        self._server.result()

    @property
    def worker(self) -> Process:
        return self._worker.result()

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Ask the REST API; `path` is what follows /api/."""
        import httpx

        deadline = time.monotonic() + RUN_S
        while True:
            answer = httpx.request(method, f"{self.url}/{path}", json=body or None, timeout=30)
            # Its database has one writer at a time, and those that wait too long are told so.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert answer.is_success, answer.text
        return answer.json()

    def start(self, deployment_id: str, at: str | None = None, **parameters: Any) -> str:
        """Have a deployment run, as if it were scheduled for `at`; give the run's id."""
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}} if at else {"type": "SCHEDULED"}
        made = self.call("POST", f"deployments/{deployment_id}/create_flow_run", state=state, parameters=parameters)
        return str(made["id"])

    def end_of(self, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run; give its state."""
        deadline = time.monotonic() + RUN_S
        while True:
            state: dict[str, Any] = self.call("GET", f"flow_runs/{run_id}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            assert time.monotonic() < deadline, (state, self.worker.log())
            time.sleep(0.2)

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Give a run's artifacts by type."""
        found = self.call("POST", "artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        return {artifact["type"]: artifact for artifact in found}

    def log(self, run_id: str, expected: str) -> str:
        """Give what a run and its tasks logged, once it has `expected` in it: logs come a moment later."""
        deadline = time.monotonic() + 20
        while True:
            found = self.call("POST", "logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC")
            text = "\n".join(line["message"] for line in found)
            if expected in text or time.monotonic() > deadline:
                return text
            time.sleep(0.2)

    def coming(self, deployment_id: str) -> list[datetime]:
        """Give the next times for which the server has made runs by itself, once it has."""
        deadline = time.monotonic() + 30
        wanted = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        while True:
            runs = self.call("POST", "flow_runs/filter", flow_runs=wanted, sort="EXPECTED_START_TIME_ASC", limit=3)
            if len(runs) == 3 or time.monotonic() > deadline:
                return [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
            time.sleep(0.2)

    def end(self) -> None:
        for started in (self._worker, self._server):
            if started.exception() is None:
                started.result().end()


def quiet(home: Path) -> dict[str, str]:
    """Give what keeps Prefect's files in a directory, and Prefect from calling home."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let Prefect in this process keep its files in a directory of the tests, and know no server."""
    need("prefect")
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        # Read when prefect is imported, so before that.
        for name, value in quiet(home).items():
            patch.setenv(name, value)
        patch.delenv("PREFECT_API_URL", raising=False)
        from prefect.settings import PREFECT_HOME, temporary_settings

        with temporary_settings({PREFECT_HOME: home}):
            yield home


# Of the module alone: a worker asks its server some times a second, as long as both are there.
@pytest.fixture(scope="module")
def prefect_server(prefect_home: Path) -> Iterator[PrefectServer]:
    """Give a Prefect server with a worker, which may be starting yet."""
    server = PrefectServer(prefect_home)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def prefect_client(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """Give the server, and let this process be a client of it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    prefect_server.wait()
    with temporary_settings({PREFECT_API_URL: prefect_server.url}):
        yield prefect_server
