"""Registry: two versions of a model in MLflow, and a service that follows an alias under load without a failed request.

    python examples/registry/run.py [--canary] [--seconds 3] [--out DIR]

Starts an MLflow server of its own on loopback, registers two versions, serves `models:/churn@champion` and moves the
alias from the first to the second while it asks. With `--canary` version 2 then gets a fifth of the customers. Needs
`mlflow` with its server, as `make install` puts it into `.venv`; ends everything that it has started.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

sys.path.insert(0, str(Path(__file__).parent.parent / "churn"))

from run import CUSTOMER, generate, train  # the customers and the model of examples/churn

HERE = Path(__file__).parent
HOST = "127.0.0.1"
N_CONNECTIONS, PAUSE_S = 4, 0.002
N_CUSTOMERS = 500
START_S, SWAP_S, STOP_S = 180, 60, 30
CONFIG = """\
models:
  churn:
    source: models:/churn@champion
    canary:
      source: models:/churn@challenger
      weight: 0.2
      sticky: header:x-customer-id
web:
  state_directory: state
"""
console = Console(highlight=False)


@dataclass(frozen=True)
class Answer:
    """One answer: when it had come, of which version of the model, or why there is none, and to whom."""

    at_s: float
    version: str
    failure: str | None
    customer: int


def build(model_path: Path, sample: Path, bundle: Path, version: int) -> None:
    command = ["build", model_path, "--data", sample, "--target", "churn", "--name", "churn", "-o", bundle]
    command += ["--model-version", version, "--output", "churn_probability=probability:1"]
    fairlead(command, dict(os.environ))


def fairlead(arguments: list[object], environ: dict[str, str]) -> None:
    """`fairlead …`, as from a shell."""
    subprocess.run([sys.executable, "-m", "fairlead", *map(str, arguments)], check=True, env=environ)


def make_versions(out: Path) -> list[Path]:
    """Train version 1 on the first half of the customers and version 2 on all of them."""
    customers = generate()
    bundles = []
    for version, known in ((1, customers[: len(customers) // 2]), (2, customers)):
        model, sample, bundle = out / f"churn-{version}.bin", out / f"customers-{version}.csv", out / f"churn-{version}"
        known.to_csv(sample, index=False)
        train(known, model)
        build(model, sample, bundle, version)
        bundles.append(bundle)
    return bundles


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, ready: str, environ: dict[str, str], log: Path) -> Iterator[None]:
    """Run a server until it is ready, then end it with all that it started."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environ, cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_S
        while status_of(port, ready) != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{' '.join(command[2:4])} did not start, see {log}:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def status_of(port: int, path: str) -> int:
    """Give the status of a GET, 0 when nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@contextmanager
def registry(out: Path, environ: dict[str, str]) -> Iterator[str]:
    """Run an MLflow server that keeps everything below `out`; give its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{out}/mlflow.db"]
    command += ["--serve-artifacts", "--artifacts-destination", str(out / "artifacts")]
    environ = {**environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, port, "/health", environ, out / "mlflow.log"):
        yield f"http://{HOST}:{port}"


@contextmanager
def service(out: Path, environ: dict[str, str], *arguments: str) -> Iterator[int]:
    """Run `fairlead serve`; give its port."""
    port = free_port()
    command = [sys.executable, "-m", "fairlead", "serve", *arguments, "--port", str(port), "--workers", "2"]
    console.print(f"$ fairlead {' '.join(command[3:])}", soft_wrap=True)
    with running(command, port, "/readyz", environ, out / "serve.log"):
        yield port


@dataclass
class Load:
    """Clients that ask one request after the other, each over a connection that it keeps.

    Parameters
    ----------
    port : of the service.
    """

    port: int
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun_s = time.monotonic()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(first,)) for first in range(N_CONNECTIONS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, customer: int) -> None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        body = json.dumps(CUSTOMER)
        while not self._is_over.wait(PAUSE_S):
            customer = (customer + N_CONNECTIONS) % N_CUSTOMERS
            headers = {"Content-Type": "application/json", "X-Customer-Id": f"customer-{customer}"}
            version, failure = "", None
            try:
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                version = answer.headers.get("X-Model-Version", "")
                failure = None if answer.status == 200 else f"{answer.status} {text.decode()}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = repr(error)
            self.answers.append(Answer(time.monotonic(), version, failure, customer))
        connection.close()


def await_only(version: str, load: Load) -> None:
    """Wait until a second's answers are all of one version."""
    deadline = time.monotonic() + SWAP_S
    while True:
        seen = len(load.answers)
        time.sleep(1)
        if {answer.version for answer in load.answers[seen:]} == {version}:
            return
        if time.monotonic() > deadline:
            console.print(f"[red]version {version} did not take over within {SWAP_S} s[/]")
            return


def follow_the_alias(out: Path, environ: dict[str, str], seconds: float, move: Callable[[int], None]) -> bool:
    """Serve the champion, and make version 2 the champion meanwhile; give whether nobody noticed."""
    with (
        service(out, environ, "models:/churn@champion", "--refresh-s", "1") as port,
        console.status(f"asking over {N_CONNECTIONS} connections; the alias moves in {seconds:g} s") as status,
        Load(port) as load,
    ):
        time.sleep(seconds)
        moved_s = time.monotonic()
        move(2)
        status.update("the alias champion is moved to version 2: asking until only that one answers")
        await_only("2", load)
        time.sleep(seconds)
    table, is_good = counted("the alias champion moves from version 1 to 2", load.answers)
    first = min((answer.at_s for answer in load.answers if answer.version == "2"), default=None)
    last = max((answer.at_s for answer in load.answers if answer.version == "1"), default=None)
    table.add_section()
    for what, at_s in (("first answer of version 2", first), ("last answer of version 1", last)):
        table.add_row(f"{what} after", "none" if at_s is None else f"{at_s - moved_s:.2f} s")
    console.print(table)
    return is_good and load.answers[-1].version == "2"


def try_a_canary(out: Path, environ: dict[str, str], seconds: float) -> bool:
    """Serve the champion, and the challenger to a fifth of the customers; give whether each had one of the two only."""
    (out / "fairlead.yaml").write_text(CONFIG)
    with (
        service(out, environ, "--config", "fairlead.yaml") as port,
        console.status("waiting for the canary") as status,
    ):
        await_canary(port)
        status.update(f"asking for {N_CUSTOMERS} customers over {N_CONNECTIONS} connections")
        with Load(port) as load:
            time.sleep(seconds)
            # Everybody at least twice, to see that they stay with their version.
            while len(load.answers) < 3 * N_CUSTOMERS and time.monotonic() < load.begun_s + SWAP_S:
                time.sleep(0.1)
    table, is_good = counted("version 2 is a canary with weight 0.2", load.answers)
    versions: dict[int, set[str]] = {}
    for answer in load.answers:
        if answer.failure is None:
            versions.setdefault(answer.customer, set()).add(answer.version)
    customers = Counter(" and ".join(sorted(found)) for found in versions.values())
    table.add_section()
    for version, count in sorted(customers.items()):
        table.add_row(f"customers of version {version}", f"{count:,}")
    console.print(table)
    return is_good and customers.keys() == {"1", "2"}


def await_canary(port: int) -> None:
    """Wait until the canary takes its part: a service is ready as soon as its stable version is."""
    deadline = time.monotonic() + SWAP_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://{HOST}:{port}/models/churn/traffic", timeout=20) as answer:
            if json.load(answer)["canary"] is not None:
                return
        time.sleep(0.1)
    sys.exit(f"the canary did not come within {SWAP_S} s")


def counted(title: str, answers: list[Answer]) -> tuple[Table, bool]:
    """Make a table of the answers by version, and tell whether there are no failures."""
    table = Table(Column(title, no_wrap=True), Column(justify="right"))
    failures = [answer.failure for answer in answers if answer.failure is not None]
    for version, count in sorted(Counter(answer.version for answer in answers if answer.failure is None).items()):
        table.add_row(f"answers of version {version}", f"{count:,}")
    table.add_row("failures", str(len(failures)), style="red" if failures else "green")
    if failures:
        console.print(f"[red]the first failure:[/] {failures[0]}")
    return table, not failures


def fresh(out: Path) -> None:
    """Make the directory, without what an earlier run left of the registry and the cache."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("artifacts", "cache", "state"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("mlflow.db", "mlflow.log", "serve.log"):
        (out / name).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canary", action="store_true", help="then serve version 2 to a fifth of the customers")
    parser.add_argument("--seconds", type=float, default=3, help="how long to ask before and after a change")
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where models, registry and logs go")
    options = parser.parse_args()
    try:
        importlib.metadata.distribution("mlflow")  # mlflow-skinny has no server
    except importlib.metadata.PackageNotFoundError:
        sys.exit("expected mlflow with its server, found none: run `make install`, or `pip install mlflow`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    out = options.out.absolute()
    fresh(out)
    environ = dict(os.environ, MLFLOW_DISABLE_TELEMETRY="true", FAIRLEAD_CACHE_DIRECTORY=str(out / "cache"))

    with console.status("training and building two versions"):
        bundles = make_versions(out)
    with console.status("starting an MLflow server") as status, registry(out, environ) as address:
        console.print(f"the registry is at {address}")
        os.environ |= (environ := {**environ, "MLFLOW_TRACKING_URI": address})
        status.update("registering the versions")
        for bundle, alias in zip(bundles, ("champion", "challenger"), strict=True):
            fairlead(["register", bundle, "models:/churn", "--alias", alias], environ)
        status.stop()

        from mlflow import MlflowClient

        client = MlflowClient()

        def move(version: int) -> None:
            client.set_registered_model_alias("churn", "champion", str(version))

        is_good = follow_the_alias(out, environ, options.seconds, move)
        if options.canary:
            move(1)
            is_good = try_a_canary(out, environ, options.seconds) and is_good
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
