"""Where models live, for tests: an MLflow server with its database and S3, both real and both over HTTP.

A pytest plugin, loaded by tests/conftest.py. A server is started when a test first asks for it, once a process of
the test run, and ends with it. It keeps what tests put there: choose names of your own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

START_S = 120
END_S = 20
STORE = "models"
_OWN = ("AWS_", "MLFLOW_", "MOTO_")


# The server and all that it starts end when standard input does: with whoever holds the other end, however that ends.
GUARD = 'trap "kill -9 -$$" EXIT; ("$@" </dev/null; kill -9 -$$) & read -r _'


class Process:
    """A server of the locked environment, on a port of 127.0.0.1, its log in a file."""

    def __init__(self, command: list[str], port: int, environ: dict[str, str], ready: str, cwd: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # a pipe that nobody reads would hold up the server
        self.process = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", sys.executable, *command],
            env=clean_environ() | environ,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_S
        while not self._answers(ready):
            if time.monotonic() > deadline or self.process.poll() is not None:
                log = self.log()
                self.end()
                raise AssertionError(f"{command} did not start: {log}")
            time.sleep(0.05)

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def end(self) -> None:
        """End it and every process that it started."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(END_S)
        self._log.close()


class S3Server:
    """moto's S3, with a bucket called `models`.

    Attributes
    ----------
    url : where it listens.
    environ : what a client of it needs in its environment.
    client : boto3's, for the tests' own use.
    """

    def __init__(self, process: Process, home: Path) -> None:
        import boto3

        self.url = process.url
        self.environ = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(home),
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )
        self.client.create_bucket(Bucket=STORE)

    def put(self, prefix: str, directory: Path) -> str:
        """Put the files of a directory below a prefix of `models`; give their address."""
        for path in files_below(directory):
            key = f"{prefix}/{path.relative_to(directory).as_posix()}"
            self.client.put_object(Bucket=STORE, Key=key, Body=path.read_bytes())
        return f"s3://{STORE}/{prefix}"


class MlflowServer:
    """An MLflow server on SQLite whose artifacts are on S3: handed through by itself, or reached directly.

    Attributes
    ----------
    url : where it listens.
    environ : what a client of it, and of its S3, needs in its environment.
    """

    def __init__(self, process: Process, s3: S3Server) -> None:
        self.url = process.url
        self.s3 = s3
        self.environ = s3.environ | {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._count = itertools.count()

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Ask the REST API; `path` is what follows /api/2.0/mlflow/."""
        import httpx

        how: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
        answer = httpx.request(method, f"{self.url}/api/2.0/mlflow/{path}", timeout=30, **how)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def experiment(self, name: str, *, direct: bool = False) -> str:
        """Make an experiment whose artifacts go through the server, or `direct`ly to S3; give its id."""
        where = {"artifact_location": f"s3://{STORE}/direct/{name}"} if direct else {}
        made = self.call("POST", "experiments/create", name=name, **where)
        return str(made["experiment_id"])

    def run(self, directory: Path, *, experiment: str | None = None, direct: bool = False, path: str = "model") -> str:
        """Put the files of a directory below `path` of a new finished run; give the run's id."""
        experiment = experiment or self.experiment(f"experiment-{next(self._count)}", direct=direct)
        now_ms = time.time_ns() // 1_000_000
        made = self.call("POST", "runs/create", experiment_id=experiment, start_time=now_ms)["run"]["info"]
        self._put(made["artifact_uri"] + "/" + path, directory)
        self.call("POST", "runs/update", run_id=made["run_id"], status="FINISHED", end_time=now_ms)
        return str(made["run_id"])

    def register(
        self, directory: Path, name: str, *, alias: str | None = None, stage: str | None = None, direct: bool = False
    ) -> str:
        """Make a version of model `name` of the files of a directory, as they are; give its number."""
        run_id = self.run(directory, direct=direct)
        uri = self.call("GET", "runs/get", run_id=run_id)["run"]["info"]["artifact_uri"]
        with contextlib.suppress(AssertionError):  # it is there already
            self.call("POST", "registered-models/create", name=name)
        made = self.call("POST", "model-versions/create", name=name, source=f"{uri}/model", run_id=run_id)
        version = str(made["model_version"]["version"])
        if alias:
            self.alias(name, alias, version)
        if stage:
            self.call("POST", "model-versions/transition-stage", name=name, version=version, stage=stage)
        return version

    def alias(self, name: str, alias: str, version: str) -> None:
        self.call("POST", "registered-models/alias", name=name, alias=alias, version=version)

    def _put(self, uri: str, directory: Path) -> None:
        import httpx

        for path in files_below(directory):
            name = path.relative_to(directory).as_posix()
            if uri.startswith("s3://"):
                self.s3.client.put_object(
                    Bucket=STORE, Key=f"{uri.removeprefix(f's3://{STORE}/')}/{name}", Body=path.read_bytes()
                )
                continue
            place = uri.removeprefix("mlflow-artifacts:/") + "/" + name
            url = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{place}"
            answer = httpx.put(url, content=path.read_bytes(), timeout=30)
            assert answer.status_code == 200, answer.text


Answer = Callable[[BaseHTTPRequestHandler], None]


class Peer:
    """An HTTP server that answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                peer.requests.append(f"{self.command} {self.path}")
                peer.headers.append(dict(self.headers))
                answer(self)

            do_GET = do_POST = do_PUT = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def hand_on(request: BaseHTTPRequestHandler, url: str) -> None:
    """Answer a `Peer`'s request as the server at `url` does."""
    import httpx

    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
    found = httpx.request(request.command, url + request.path, content=body, headers=headers, timeout=30)
    request.send_response(found.status_code)
    request.send_header("Content-Length", str(len(found.content)))
    request.end_headers()
    request.wfile.write(found.content)


def files_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def clean_environ() -> dict[str, str]:
    """Give this process's environment without anyone's credentials and addresses."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def need(*distributions: str) -> None:
    """Skip where a part of the locked environment is missing."""
    for name in distributions:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed: make install")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give moto's S3 server."""
    need("moto", "boto3")
    home = tmp_path_factory.mktemp("s3")
    port = free_port()
    command = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = Process(command, port, {}, "/moto-api/", home)
    try:
        yield S3Server(process, home)
    finally:
        process.end()


@pytest.fixture(scope="session")
def mlflow_server(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Give an MLflow server; what it hands through lies below s3://models/proxied."""
    need("mlflow", "httpx")
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db"]
    command += ["--serve-artifacts", "--artifacts-destination", f"s3://{STORE}/proxied"]
    environ = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = Process(command, port, s3_server.environ | environ, "/health", home)
    try:
        yield MlflowServer(process, s3_server)
    finally:
        process.end()


@pytest.fixture
def peer() -> Iterator[Callable[[Answer], Peer]]:
    """Start servers: ``peer(answer)``."""
    started: list[Peer] = []

    def start(answer: Answer) -> Peer:
        started.append(Peer(answer))
        return started[-1]

    yield start
    for one in started:
        one.end()
