"""Versions swapped under load against the same load without, and a second start of a registered model from the cache.

python benchmarks/swap.py [--data telco-churn.csv] [--repeats 5] [--seconds 10]

Needs wrk, and an MLflow server, which it starts on loopback and ends.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from results import Figure, Forest, build, median, options, train, write

sys.path.insert(0, str(Path(__file__).resolve().parent / "service"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import wrk
from server import HOST, await_idle, await_ready, free_port, running

from proxy import Proxy, proxy_to  # what tests share lies in their folder

CONNECTIONS, WORKERS, BODIES = 32, 2, 500
# Before the first measurement, so that what is lazy in a server is done.
WARM_UP_S = 3
POLL_S, START_S, RELOAD_S = 0.002, 60, 180


@dataclass
class Swaps:
    """Replaces a bundle's directory and has it loaded, again and again, until told to stop.

    Parameters
    ----------
    live : the directory that is served.
    spare : the other version, which takes its place.
    port, key : of the service, and an admin's.
    """

    live: Path
    spare: Path
    port: int
    key: str
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Swap meanwhile; a swap that has begun is finished."""
        is_over = threading.Event()

        def swap_on() -> None:
            while not is_over.is_set() and not self.failures:
                self._swap()

        thread = threading.Thread(target=swap_on)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
        if self.failures:
            raise SystemExit(f"a swap failed: {self.failures[0]}")

    def _swap(self) -> None:
        aside = self.live.with_name("aside")
        for before, after in ((self.live, aside), (self.spare, self.live), (aside, self.spare)):
            before.rename(after)
        start = time.perf_counter()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=RELOAD_S)
        try:
            connection.request("POST", f"/models/{self.live.name}/reload", headers={"X-API-Key": self.key})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or json.loads(body)["result"] != "swapped":
                self.failures.append(f"{answer.status} {body.decode()}")
            self.took_s.append(time.perf_counter() - start)
        except OSError as error:
            self.failures.append(repr(error))
        finally:
            connection.close()


def make_bundles(published: Path, folder: Path) -> tuple[Forest, list[Path]]:
    """Train two forests and build a bundle named telco of each; give the first forest too."""
    forests, bundles = [], []
    for seed in (1, 2):
        place = folder / str(seed)
        place.mkdir()
        forests.append(train(published, place, seed))
        build(forests[-1], place / "telco")
        bundles.append(place / "telco")
    return forests[0], bundles


def write_bodies(forest: Forest, path: Path) -> None:
    """Write customers as JSON, one a line."""
    customers = pd.read_csv(forest.data).drop(columns="churn").sample(BODIES, random_state=1)
    path.write_text(customers.to_json(orient="records", lines=True), encoding="utf-8")


def make_key(folder: Path) -> tuple[str, Path]:
    """Make an admin's API key; give it, and the file with its hash."""
    command = [sys.executable, "-m", "fairlead", "key", "operator", "--admin"]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    path = folder / "keys.txt"
    path.write_text(made.stdout)
    return made.stderr.split()[-1], path


def measure_swaps(
    bundles: list[Path], bodies: Path, folder: Path, repeats: int, seconds: int
) -> tuple[list[wrk.Measurement], list[wrk.Measurement], Swaps]:
    """Load a server without swaps and with them, in turns."""
    steady, swapping = [], []
    key, keys_file = make_key(folder)
    port = free_port()
    command = [sys.executable, "-m", "fairlead", "serve", str(bundles[0]), "--port", str(port)]
    command += ["--workers", str(WORKERS), "--api-keys-file", str(keys_file)]
    with running(command, folder, {}, folder / "serve.log") as process:
        await_ready(process, lambda: is_ready(port))
        target = wrk.Target(f"http://{HOST}:{port}/predict", bodies, {"X-API-Key": key})
        swaps = Swaps(*bundles, port, key)
        wrk.load(target, CONNECTIONS, WARM_UP_S)
        for turn in range(repeats):
            await_idle(process.pid)
            steady.append(wrk.load(target, CONNECTIONS, seconds))
            await_idle(process.pid)
            with swaps.going_on():
                swapping.append(wrk.load(target, CONNECTIONS, seconds))
            told = f"p99 {steady[-1].p99_ms:.3g} ms, with swaps {swapping[-1].p99_ms:.3g} ms"
            print(f"turn {turn + 1}: {told}, {len(swaps.took_s)} swaps so far", file=sys.stderr)
    return steady, swapping, swaps


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), START_S) as client:
            client.sendall(b"GET /readyz HTTP/1.0\r\nhost: x\r\n\r\n")
            return client.recv(65536)[9:12] == b"200"
    except OSError:
        return False


@contextmanager
def registry(bundle: Path, folder: Path) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """Run an MLflow server with a bundle as `models:/churn@champion`; give a proxy that counts, and an environment."""
    port = free_port()
    environ = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "FAIRLEAD_CACHE_DIRECTORY": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with ExitStack() as stack:
        process = stack.enter_context(running(command, folder, environ, folder / "mlflow.log"))
        await_ready(process, lambda: answers(port, "/health"))
        proxy = stack.enter_context(proxy_to(f"http://{HOST}:{port}"))
        environ["MLFLOW_TRACKING_URI"] = proxy.url
        register = [sys.executable, "-m", "fairlead", "register", str(bundle), "models:/churn", "--alias", "champion"]
        subprocess.run(register, check=True, capture_output=True, env={**os.environ, **environ})
        yield proxy, environ


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=START_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    finally:
        connection.close()


def measure_starts(bundle: Path, folder: Path, repeats: int) -> tuple[list[float], list[int]]:
    """Start a server of a registered model until it is ready; give the times and the requests at the registry.

    The first, which fetches the model, is not among them.
    """
    took_s, n_requests = [], []
    with registry(bundle, folder) as (proxy, environ):
        for _ in range(repeats + 1):
            proxy.reset()
            port = free_port()
            command = [sys.executable, "-m", "fairlead", "serve", "models:/churn@champion", "--port", str(port)]
            start = time.perf_counter()
            with running(command, folder, environ, folder / "start.log") as process:
                while not is_ready(port):
                    if process.poll() is not None or time.perf_counter() > start + START_S:
                        raise SystemExit(f"the server did not start: {(folder / 'start.log').read_text()[-2000:]}")
                    time.sleep(POLL_S)
                took_s.append(time.perf_counter() - start)
            n_requests.append(len(proxy.requests))
    return took_s[1:], n_requests[1:]


def main() -> None:
    chosen = options(__doc__, repeats=5, seconds=10)
    wrk.command()
    # So that an ended run ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        forest, bundles = make_bundles(chosen.data, folder)
        bodies = folder / "bodies.jsonl"
        write_bodies(forest, bodies)
        steady, swapping, swaps = measure_swaps(bundles, bodies, folder, chosen.repeats, chosen.seconds)
        took_s, n_requests = measure_starts(bundles[0], folder, chosen.repeats)

    steady_ms, swapping_ms = (median([one.p99_ms for one in some]) for some in (steady, swapping))
    n_swaps, n_asked = len(swaps.took_s), sum(one.requests for one in swapping)
    reload = "`POST /models/telco/reload`: verify, try, load in every worker, swap"
    start = "`fairlead serve models:/churn@champion` from the cache, process start to `/readyz` 200"
    figures = [
        Figure("p99 without a swap", steady_ms, "ms"),
        Figure("p99 while versions are swapped", swapping_ms, "ms"),
        Figure("p99 while swapped / without", swapping_ms / steady_ms, "×", 2),
        Figure(f"failed requests of {n_asked:,}, {n_swaps} swaps", sum(one.errors for one in swapping), "", 0),
        Figure("requests without a swap", median([one.requests_per_s for one in steady]), "/s"),
        Figure("requests while versions are swapped", median([one.requests_per_s for one in swapping]), "/s"),
        Figure(reload, median(swaps.took_s), "s"),
        Figure(start, median(took_s), "s", 1.5),
        Figure("requests at the registry for that, the most of any start", max(n_requests), "", 1),
    ]
    told = (
        f"{forest.told}; {WORKERS} workers, {CONNECTIONS} connections, medians of {chosen.repeats} turns of "
        f"{chosen.seconds} s each; of {chosen.repeats} starts"
    )
    write(chosen.results, "swap", told, figures)


if __name__ == "__main__":
    main()
