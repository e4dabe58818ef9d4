"""Rides, a month at a time: scored on a schedule, by a Prefect worker that anybody can watch.

    python examples/rides/batch.py [--rides 500000] [--month 2026-10] [--out DIR]

Makes a month of rides, schedules the scoring of the month before on the 2nd of each month at three, and has the run of
that schedule for this month at once. Where PREFECT_API_URL is set it uses that server, which needs a worker of the pool
`fairlead`; else it starts a server and a worker of its own on loopback and ends them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from run import HERE, build, generate, train

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
START_S, STOP_S, RUN_S = 120, 20, 600
TEMPLATE = "{year:04d}/{month:02d}.parquet"
CRON = "0 3 2 * *"
console = Console(highlight=False, soft_wrap=True)


def make_month(month: datetime, n_rides: int, directory: Path) -> Path:
    """Write a month of rides: when they began, and where from and to; a few meters did not work."""
    rides = generate(n_rides).drop(columns="duration")
    rng = np.random.default_rng(month.year * 12 + month.month)
    seconds = np.sort(rng.uniform(0, 28 * 24 * 3600, n_rides))
    rides.insert(0, "ride_id", [f"{month:%Y%m}-{number:07d}" for number in range(n_rides)])
    rides.insert(1, "pickup_at", pd.Timestamp(month) + pd.to_timedelta(seconds.astype("int64"), unit="s"))
    rides.loc[rng.choice(n_rides, 3, replace=False), "trip_distance"] = None
    path = directory / TEMPLATE.format(year=month.year, month=month.month)
    path.parent.mkdir(parents=True, exist_ok=True)
    rides.to_parquet(path, index=False)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(arguments: list[str], port: int, ready: str, log: Path) -> Iterator[None]:
    """Run `prefect …` until it is ready, then end it with all that it started."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", "prefect", *arguments]
        process = subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not is_ready(f"http://{HOST}:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"prefect {' '.join(arguments[:2])} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def prefect() -> Iterator[None]:
    """Have a Prefect server and a worker: those that are there, or some of our own for as long as this lasts."""
    if os.environ.get("PREFECT_API_URL"):
        console.print(f"the Prefect server at {os.environ['PREFECT_API_URL']}")
        yield
        return
    port, worker_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="fairlead-prefect-") as home, ExitStack() as stack:
        os.environ |= {
            "PREFECT_API_URL": f"http://{HOST}:{port}/api",
            "PREFECT_HOME": home,
            # Were another set, this server would keep its schedules there.
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(worker_port),
        }
        with console.status("starting a Prefect server and a worker"):
            server = ["server", "start", "--host", HOST, "--port", str(port)]
            stack.enter_context(running(server, port, "/api/health", Path(home) / "server.log"))
            worker = ["worker", "start", "--pool", "fairlead", "--type", "process", "--with-healthcheck"]
            stack.enter_context(running(worker, worker_port, "/health", Path(home) / "worker.log"))
        console.print(f"a Prefect server at http://{HOST}:{port} and a worker, until this ends")
        yield


def run_once(deployment_id: str, at: datetime) -> tuple[Any, list[dict[str, Any]]]:
    """Have the run that a schedule has at a time, now; give its end, and the table that it made."""
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment

    run: Any = run_deployment(deployment_id, scheduled_time=at, timeout=0)
    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with get_client(sync_client=True) as client, Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("waiting for the worker", total=100)
        deadline = time.monotonic() + RUN_S
        while not (state := client.read_flow_run(run.id).state).is_final():
            if time.monotonic() > deadline:
                sys.exit(f"the run has not ended within {RUN_S} s: is there a worker of its work pool?")
            for artifact in artifacts(client, run.id, "progress"):
                bars.update(task, completed=artifact.data, description=artifact.description)
            time.sleep(0.3)
        tables = artifacts(client, run.id, "table")
    return state, json.loads(tables[0].data) if tables else []


def artifacts(client: SyncPrefectClient, run_id: Any, kind: str) -> list[Any]:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]), type=ArtifactFilterType(any_=[kind]))
    return client.read_artifacts(artifact_filter=wanted)


def tabulated(title: str, *columns: str, rows: list[list[Any]]) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
    return table


def main() -> None:
    before = datetime.now().replace(day=1) - timedelta(days=1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where model, rides and predictions go")
    parser.add_argument("--rides", type=int, default=500_000, help="how many rides there are in the month")
    parser.add_argument("--month", default=f"{before:%Y-%m}", help="the month to score, the one before by default")
    parser.add_argument("--name", default="rides", help="of the deployment")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    month = datetime.strptime(options.month, "%Y-%m")
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)

    with console.status("training and building the model"):
        known = generate()
        known.head(500).to_parquet(out / "rides.parquet")
        train(known, out / "rides.pkl")
        build(out / "rides.pkl", out / "rides.parquet", out / "rides")
    with console.status(f"making {options.rides:,} rides"):
        console.print(f"{options.rides:,} rides in {make_month(month, options.rides, out / 'data')}")
    with prefect():
        # Only now: Prefect reads its environment when it is imported. `fairlead schedule` does the same.
        from fairlead.batch.schedule import Parameters, schedule

        made = schedule(
            str(out / "rides"),
            str(out / "data" / TEMPLATE),
            str(out / "scored" / TEMPLATE),
            CRON,
            name=options.name,
            parameters=Parameters(keep=("ride_id", "pickup_at"), resume=False, shift=-1),
        )
        runs = ", ".join(f"{run:%Y-%m-%d %H:%M}" for run in made.next_runs)
        console.print(f"{made.name} runs at {runs} and so on, on the work pool {made.work_pool}")
        # On the 2nd of the month after.
        at = (month + timedelta(days=31)).replace(day=2, hour=3, tzinfo=UTC)
        state, rows = run_once(made.deployment_id, at)
    if not state.is_completed():
        sys.exit(f"the run ended as {state.name}: {state.message}")
    [row] = rows
    console.print(tabulated(f"the run of {at:%Y-%m-%d %H:%M}", "", "", rows=[[name, row[name]] for name in row]))
    scored = pq.read_table(row["output"]).slice(0, 5)
    first = [
        [f"{value:.2f}" if isinstance(value, float) else value for value in ride.values()]
        for ride in scored.to_pylist()
    ]
    console.print(tabulated("the first rides", *scored.column_names, rows=first))


if __name__ == "__main__":
    main()
