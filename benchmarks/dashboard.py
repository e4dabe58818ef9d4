"""`fairlead dashboard serve` against `gunicorn -w 4 dashboard:app` of explainerdashboard's own documentation.

python benchmarks/dashboard.py [--repeats 3] [--rows 5000000]

Both show the passengers of the Titanic to a forest of 50 trees, each dashboard built and stored before. Start: from
the command to the first page, in turns. Memory: the proportional set size (PSS) of all processes after the same visits,
with one worker and with four. Look-up: one row of many in Parquet, by an index in no order, its pages dropped from the
cache before. Reload: twenty requests a second while the store is replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from results import ROOT, Figure, median, write

from fairlead.bundle.read import open_bundle
from fairlead.dashboard.rows import RowsOptions, open_rows, prepare

PAGE = ROOT / "docs" / "benchmarks.md"
WORKERS = 4
START_S = 120
VISITS = 8
REQUESTS_PER_S = 20
RELOAD_S = 20
LOOK_UPS = 200
CHUNK_ROWS = 500_000
# As in the documentation of explainerdashboard, "Deployment".
GENERATE = """
from explainerdashboard import ClassifierExplainer, ExplainerDashboard
from explainerdashboard.datasets import titanic_survive
from sklearn.ensemble import RandomForestClassifier

X_train, y_train, X_test, y_test = titanic_survive()
model = RandomForestClassifier(n_estimators=50, max_depth=5, random_state=47).fit(X_train, y_train)
explainer = ClassifierExplainer(
    model, X_test, y_test, cats=["Sex", "Deck", "Embarked"], labels=["Not Survived", "Survived"]
)
db = ExplainerDashboard(explainer, title="Cool Title", shap_interaction=False)
db.to_yaml("dashboard.yaml", explainerfile="explainer.joblib", dump_explainer=True)
"""
DASHBOARD = """
from explainerdashboard import ExplainerDashboard

db = ExplainerDashboard.from_config("dashboard.yaml")
app = db.flask_server()
"""
# The same model and data as files.
FILES = """
import pickle

import numpy as np
from explainerdashboard.datasets import titanic_survive
from sklearn.ensemble import RandomForestClassifier

X_train, y_train, X_test, y_test = titanic_survive()
model = RandomForestClassifier(n_estimators=50, max_depth=5, random_state=47).fit(X_train, y_train)
pickle.dump(model, open("model.pickle", "wb"))
X_test.assign(Survived=np.asarray(y_test)).rename_axis("Name").to_csv("test.csv")
"""


@dataclass(frozen=True)
class Server:
    """A command that shows a dashboard, and the page of it."""

    command: Sequence[str]
    folder: Path
    path: str


@contextlib.contextmanager
def started(server: Server) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """Give its process, the address of the page, and after how many seconds that was there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}{server.path}"
    begun_s = time.perf_counter()
    process = subprocess.Popen(
        [one.format(port=port) for one in server.command],
        cwd=server.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not is_there(address):
            assert process.poll() is None, server.command
            assert time.perf_counter() - begun_s < START_S, server.command
            time.sleep(0.02)
        yield process, address, time.perf_counter() - begun_s
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def is_there(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=30) as answer:
        return answer.status == 200 and b"_dash" in answer.read()
    return False


def pss_mb(pid: int) -> float:
    """Give the proportional set size of a process and all it has started, in MB."""
    own = next(
        int(line.split()[1]) / 1024
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(pss_mb(int(child)) for child in children)


def memory_mb(server: Server) -> float:
    """Visit the page and its layout until every worker has answered, and then weigh."""
    with started(server) as (process, address, _):
        time.sleep(5)  # the other workers
        for _ in range(VISITS * WORKERS):
            for part in ("", "_dash-layout", "_dash-dependencies"):
                urllib.request.urlopen(address + part, timeout=60).read()
        return pss_mb(process.pid)


def reload_failures(server: Server, again: Sequence[str]) -> tuple[int, int, float]:
    """Ask twenty times a second while the store is replaced; give requests, failures, and the slowest in seconds."""
    slowest_s, asked, failed = 0.0, 0, 0
    with started(server) as (_, address, _):
        time.sleep(5)
        replacing = threading.Thread(target=lambda: subprocess.run(again, check=True, capture_output=True))
        replacing.start()
        begun_s = time.perf_counter()
        ended_s = float("inf")
        while time.perf_counter() < min(ended_s, begun_s + 120):
            due_s = begun_s + asked / REQUESTS_PER_S
            time.sleep(max(0.0, due_s - time.perf_counter()))
            sent_s = time.perf_counter()
            asked += 1
            failed += not is_there(address)
            slowest_s = max(slowest_s, time.perf_counter() - sent_s)
            if not replacing.is_alive() and ended_s == float("inf"):
                ended_s = time.perf_counter() + RELOAD_S
        replacing.join()
    return asked, failed, slowest_s


def make_passengers(source: Path, bundle: Path, n_rows: int) -> None:
    """Write rows of the bundle's schema, drawn from its sample, under names in no order."""
    rng = np.random.default_rng(47)
    sample = pq.read_table(bundle / "reference.parquet").select(open_bundle(bundle).manifest.schema.names)
    names = rng.permutation(n_rows)
    schema = sample.schema.insert(0, pa.field("Name", pa.string()))
    with pq.ParquetWriter(source, schema) as writer:
        for start in range(0, n_rows, CHUNK_ROWS):
            called = pa.array([f"passenger {name}" for name in names[start : start + CHUNK_ROWS]])
            drawn = sample.take(rng.integers(0, sample.num_rows, len(called)))
            writer.write_table(drawn.add_column(0, "Name", called))


def look_ups_ms(folder: Path, bundle: Path, n_rows: int) -> tuple[list[float], float]:
    """Prepare rows from outside and look some up; give the milliseconds of each, and the seconds to prepare all."""
    source, store = folder / "passengers.parquet", folder / "rows"
    make_passengers(source, bundle, n_rows)
    schema = open_bundle(bundle).manifest.schema
    begun_s = time.perf_counter()
    part = prepare(RowsOptions(str(source), "Name"), schema, store, lambda what, share: None)
    prepared_s = time.perf_counter() - begun_s
    rows = open_rows(store, part, schema, {})
    random.seed(47)
    found_ms = []
    for number in random.sample(range(n_rows), LOOK_UPS):
        forget(store)
        begun_s = time.perf_counter()
        assert rows.record(f"passenger {number}") is not None
        found_ms.append((time.perf_counter() - begun_s) * 1000)
    rows.close()
    return found_ms, prepared_s


def forget(folder: Path) -> None:
    """Let go of what the kernel keeps of files in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(folder: Path, *command: object) -> None:
    subprocess.run(list(map(str, command)), cwd=folder, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run(folder, sys.executable, "-c", GENERATE)
        run(folder, sys.executable, "-c", FILES)
        (folder / "dashboard.py").write_text(DASHBOARD)
        build = [sys.executable, "-m", "fairlead", "dashboard", "build", "model.pickle", "--data", "test.csv"]
        build += ["--target", "Survived", "--index", "Name", "-o", "titanic.dash"]
        run(folder, *build)
        theirs = {n: Server(their_command(n), folder, "/") for n in (1, WORKERS)}
        ours = {n: Server(our_command(n), folder, "/titanic/") for n in (1, WORKERS)}
        starts: dict[str, list[float]] = {"theirs": [], "ours": []}
        for _ in range(given.repeats):
            for name, servers in (("theirs", theirs), ("ours", ours)):
                with started(servers[WORKERS]) as (_, _, took_s):
                    starts[name].append(took_s)
        ratio = median([mine / other for mine, other in zip(starts["ours"], starts["theirs"], strict=True)])
        weights = {name: {n: memory_mb(one) for n, one in some.items()} for name, some in (("t", theirs), ("o", ours))}
        asked, failed, slowest_s = reload_failures(ours[WORKERS], ["bash", "-c", f"cd {folder} && {' '.join(build)}"])
        found_ms, prepared_s = look_ups_ms(folder, folder / "titanic.dash" / "bundle", given.rows)
    gunicorn, us = "`gunicorn -w 4 dashboard:app`", "`fairlead dashboard serve --workers 4`"
    figures = [
        Figure(f"start to first page: {gunicorn}", median(starts["theirs"]), "s"),
        Figure(f"start to first page: {us}", median(starts["ours"]), "s"),
        Figure("the second / the first", ratio, "×", 0.4),
        Figure("memory of four workers, gunicorn", weights["t"][WORKERS], "MB"),
        Figure("memory of four workers / of one, gunicorn", weights["t"][WORKERS] / weights["t"][1], "×"),
        Figure("memory of four workers, ours", weights["o"][WORKERS], "MB"),
        Figure("memory of four workers / of one, ours", weights["o"][WORKERS] / weights["o"][1], "×", 1.6),
        Figure(f"one of {given.rows:,} rows in Parquet, median", median(found_ms), "ms", 50),
        Figure("the slowest of 200", max(found_ms), "ms"),
        Figure("to prepare them, once", prepared_s, "s"),
        Figure(f"of {asked} requests while the store was replaced, failed", failed, "requests", 0),
        Figure("the slowest of them", slowest_s, "s"),
    ]
    told = f"Titanic, a forest of 50 trees, 200 passengers explained; {given.repeats} starts each, in turns"
    write(PAGE, "dashboard", told, figures)


def their_command(workers: int) -> list[str]:
    return [
        str(Path(sys.executable).with_name("gunicorn")),
        "-w",
        str(workers),
        "-b",
        "127.0.0.1:{port}",
        "dashboard:app",
    ]


def our_command(workers: int) -> list[str]:
    command = [sys.executable, "-m", "fairlead", "dashboard", "serve", "titanic.dash"]
    return [*command, "--port", "{port}", "--workers", str(workers)]


if __name__ == "__main__":
    main()
