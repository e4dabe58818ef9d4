"""Files are scored through Prefect: a real server, a real worker, and what both show of a run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fairlead.errors import ConfigError, FairleadError, InputError, SourceError
from registry import Peer, clean_environ

if TYPE_CHECKING:
    from prefect_server import PrefectServer

pytest_plugins = ["prefect_server"]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
INPUT, OUTPUT = "data/{year:04d}/{month:02d}.parquet", "scored/{year:04d}/{month:02d}.parquet"
N_ROWS, N_BAD = 200, 3


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a directory with the flowers of September and October, some of which were not measured."""
    import pyarrow as pa
    from pyarrow import parquet

    flower = {"sepal_length": 7.7, "sepal_width": 3.0, "petal_length": 6.1, "petal_width": 2.3}
    for month in (9, 10):
        columns: dict[str, Any] = {name: [value] * N_ROWS for name, value in flower.items()}
        columns["petal_width"] = [None] * N_BAD + columns["petal_width"][N_BAD:]
        path = tmp_path / "data" / "2026" / f"{month:02d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table({"id": list(range(month, month + N_ROWS)), **columns}), path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def column(path: Path, name: str) -> list[Any]:
    from pyarrow import parquet

    values: list[Any] = parquet.read_table(path)[name].to_pylist()
    return values


def test_runs_of_a_schedule(
    prefect_server: PrefectServer,
    iris_bundle: Path,
    prefect_client: PrefectServer,
    here: Path,
    peer: Any,
    tmp_path: Path,
) -> None:
    from fairlead.batch.schedule import Parameters, schedule

    server = prefect_server
    archive = Path(shutil.make_archive(str(here / "iris"), "zip", iris_bundle)).read_bytes()
    asked: list[float] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        """Be away for as long as a task tries by itself, and then a little."""
        asked.append(time.monotonic())
        is_up = len(asked) > 6
        request.send_response(200 if is_up else 503)
        request.send_header("Content-Length", str(len(archive) if is_up else 0))
        request.end_headers()
        if is_up and request.command == "GET":
            request.wfile.write(archive)

    parameters = Parameters(keep=("id",), shift=-1, retry_delay_s=0.2)
    made = schedule(
        str(iris_bundle), INPUT, OUTPUT, "0 3 2 * *", timezone="Europe/Berlin", name="flowers", parameters=parameters
    )
    assert made.is_new
    assert (made.name, made.work_pool, made.work_pool_type) == ("fairlead-score/flowers", "fairlead", "process")
    assert [(run.day, run.hour, run.utcoffset()) for run in made.next_runs] == [
        (2, 3, datetime(run.year, run.month, run.day, 3, tzinfo=run.tzinfo).utcoffset()) for run in made.next_runs
    ]
    again = schedule(
        os.path.relpath(iris_bundle), INPUT, OUTPUT, "0 3 2 * *", timezone="Europe/Berlin",
        name="flowers", parameters=parameters,
    )  # fmt: skip
    assert (again.deployment_id, again.is_new) == (made.deployment_id, False)
    found = server.call("GET", f"deployments/{made.deployment_id}")
    assert [one["schedule"]["cron"] for one in found["schedules"]] == ["0 3 2 * *"]
    assert (found["entrypoint"], found["pull_steps"]) == ("fairlead.batch.prefect.score", None)
    assert found["parameters"]["input"] == f"{here}/{INPUT}"

    # In Berlin it is November already, so the month before is October. All runs go on at once.
    of_october = server.start(made.deployment_id, "2026-10-31T23:30:00Z")
    nobody = server.start(made.deployment_id, date="2026-12")
    peer_of_zip: Peer = peer(answer)
    source = f"{peer_of_zip.url}/iris.zip?signature=secret#sha256={hashlib.sha256(archive).hexdigest()}"
    away = server.start(made.deployment_id, bundle=source, date="2026-10", output=f"{here}/away.csv")
    command = ["deployment", "run", made.name, "--param", 'date="2026-09"', "--watch", "--watch-interval", "1"]
    by_hand = subprocess.run(
        [sys.executable, "-m", "prefect", *command],
        env=clean_environ() | server.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert by_hand.returncode == 0, by_hand.stdout + by_hand.stderr + server.worker.log()
    assert column(here / "scored/2026/09.parquet", "id")[0] == 9 + N_BAD

    state = server.end_of(of_october)
    assert state["type"] == "COMPLETED", (state, server.log(of_october, "Finished"))
    scored = here / "scored/2026/10.parquet"
    assert column(scored, "id") == list(range(10 + N_BAD, 10 + N_ROWS))
    assert set(column(scored, "prediction")) == {2}
    assert (here / "scored/_SUCCESS").exists()
    artifacts = server.artifacts(of_october)
    assert artifacts["progress"]["data"] == 100
    assert artifacts["progress"]["key"] == "fairlead-flowers-progress"
    assert artifacts["progress"]["description"].startswith("1 of 1 files, 200 rows")
    [row] = json.loads(artifacts["table"]["data"])
    assert row["file"] == str(here / "data/2026/10.parquet")
    assert row["output"] == str(scored)
    assert [row[name] for name in ("rows in", "rows out", "rejects")] == [N_ROWS, N_ROWS - N_BAD, N_BAD]
    assert row["seconds"] > 0
    assert row["rows/s"] > 0
    log = server.log(of_october, "was rejected")
    assert "200 rows in, 197 out, 3 rejected" in log

    state = server.end_of(nobody)
    assert state["type"] == "FAILED"
    assert state["message"].startswith(f"{here}/data/2026/12.parquet: expected a file")
    log = server.log(nobody, "Finished in state Failed")
    assert "Traceback" not in log
    assert "Retry" not in log

    state = server.end_of(away)
    log = server.log(away, "scoring 200 rows")
    assert state["type"] == "COMPLETED", (state, log)
    assert "Retry 1/3" in log
    assert "503" in log
    assert "secret" not in log
    assert "Traceback" not in server.worker.log()

    assert server.coming(made.deployment_id) == list(made.next_runs)


def test_a_run_in_this_process_skips_what_is_done(prefect_client: PrefectServer, here: Path, iris_bundle: Path) -> None:
    from fairlead.batch.prefect import score

    (first,) = score(str(iris_bundle), "data/2026/10.parquet", "scored.parquet")
    (second,) = score(str(iris_bundle), "data/2026/10.parquet", "scored.parquet")
    assert [report.files[0].skipped for report in (first, second)] == [False, True]
    with pytest.raises(FairleadError, match="expected a file"):
        score(str(iris_bundle), "data/2026/12.parquet", "scored.parquet")


def test_rides_are_scored_on_a_schedule(prefect_client: PrefectServer, tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "rides" / "batch.py", "--rides", "2000", "--month", "2026-02"]
    done = subprocess.run(
        [*command, "--out", tmp_path, "--name", "monthly"],
        env=clean_environ() | prefect_client.environ, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + prefect_client.worker.log()
    assert "the run of 2026-03-02 03:00" in done.stdout
    assert re.search(r"rows in\W+2,000\W+rows out\W+1,997\W+rejects\W+3\W", done.stdout)
    rides = column(tmp_path / "scored" / "2026" / "02.parquet", "ride_id")
    assert rides[0] == "202602-0000000"
    assert len(rides) == 1997


def test_a_schedule_on_a_work_pool_of_another_type(prefect_client: PrefectServer, iris_bundle: Path) -> None:
    from fairlead.batch.schedule import schedule

    server = prefect_client
    server.call("POST", "work_pools/", name="containers", type="docker")
    made = schedule("models:/flowers@champion", "s3://flowers/new/", "s3://flowers/scored/", "@daily",
                    work_pool="containers")  # fmt: skip
    assert (made.name, made.work_pool_type) == ("fairlead-score/flowers", "docker")
    made = schedule(str(iris_bundle), "new.csv", "scored/", "@daily", name="elsewhere", work_pool="made")
    pool = server.call("GET", "work_pools/made")
    assert pool["type"] == "process"
    assert pool["base_job_template"]["variables"]["properties"]["working_dir"]
    found = server.call("GET", f"deployments/{made.deployment_id}")
    assert found["parameters"]["output"] == f"{Path.cwd()}/scored/"


WRONG: list[tuple[dict[str, Any], type[FairleadError], str]] = [
    ({"cron": "0 3 2 *"}, ConfigError, r"cron '0 3 2 \*': expected minute, hour, day, month and weekday"),
    ({"cron": "every month"}, ConfigError, "cron 'every month'"),
    ({"cron": "0 3 31 2 *"}, ConfigError, "cron"),
    ({"timezone": "Mars/Base"}, ConfigError, "expected a name such as Europe/Berlin, got Mars/Base"),
    ({"name": "a/b"}, ConfigError, "name 'a/b'"),
    ({"bundle": "ftp://rides"}, SourceError, "ftp"),
    ({"input": "data/{minute}.csv"}, InputError, "minute"),
    ({"output": "scored/{year.parquet"}, InputError, "scored/"),
    ({"input": "rides.csv", "parameters": {"date": "2026-10"}, "output": "scored.csv"}, InputError, "a date was given"),
    ({"parameters": {"date": "2026"}}, InputError, "give the month too"),
    ({"parameters": {"date": "2026-10", "shift": -1}}, ConfigError, "shift -1"),
    ({"parameters": {"shift": -99999999}}, ConfigError, "shift: expected a small number"),
    ({"input": "postgresql://me:secret@db/rides", "parameters": {"query": "select 1"}}, ConfigError, "PGPASSWORD"),
    ({"input": "postgresql://db/rides?password=secret", "parameters": {"query": "select 1"}}, ConfigError, "PGPASS"),
    ({"parameters": {"query": "select 1"}}, ConfigError, "a database with a query"),
    ({}, ConfigError, "no Prefect server is set: set PREFECT_API_URL"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG, ids=[str(given) for given, _, _ in WRONG])
def test_what_is_wrong_is_told_when_it_is_scheduled(
    prefect_home: Path, given: dict[str, Any], error: type[FairleadError], message: str
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from fairlead.batch.schedule import Parameters, schedule

    how = {"bundle": "rides", "input": INPUT, "output": OUTPUT, "cron": "0 3 2 * *"} | given
    how["parameters"] = Parameters(**given.get("parameters", {}))
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(error, match=message):
        schedule(**how)


def test_a_server_that_does_not_answer(prefect_home: Path, free_port: int) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from fairlead.batch.schedule import schedule

    url = f"http://127.0.0.1:{free_port}/api"
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ConfigError, match=f"{url} does not answer"):
        schedule("rides", INPUT, OUTPUT, "0 3 2 * *")


def test_a_parameter_that_the_server_refuses(prefect_client: PrefectServer) -> None:
    from fairlead.batch.schedule import Parameters, schedule

    with pytest.raises(ConfigError, match="maximum of 50"):
        schedule("rides", INPUT, OUTPUT, "0 3 2 * *", name="refused", parameters=Parameters(retries=99))
