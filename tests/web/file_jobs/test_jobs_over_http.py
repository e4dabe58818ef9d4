"""Files scored through real servers, by the real `fairlead score`: made, watched, cancelled, and not lost."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pandas as pd
import pytest
from msgspec.structs import replace
from openapi_spec_validator import validate

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.config import JobsSettings, WebSettings
from fairlead.errors import ConfigError
from fairlead.schema import Schema
from fairlead.web.app import App
from fairlead.web.file_jobs.keeper import settled
from fairlead.web.gate import make_gate
from fairlead.web.keys import make
from load import Served, eventually

PATIENCE_S = 60
ROWS = [{"tenure": 41, "charges": 79.85, "contract": "yearly"}, {"tenure": 1, "charges": None, "contract": "monthly"}]


# Waits at numbers below zero until it may go on.
WAITER = """
import time
from pathlib import Path


class Waiter:
    def predict(self, number):
        while number < 0 and not Path({release!r}).exists():
            time.sleep(0.01)
        return {{"twice": 2 * number}}
"""


class Service:
    """A server with jobs, in a folder that outlives it."""

    def __init__(self, folder: Path, models: dict[str, Path], workers: int, **jobs: Any) -> None:
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        (admin, line), (self.reader, other) = make("admin", admin=True), make("reader")
        self.headers = {"x-api-key": admin}
        (folder / "keys").touch(0o600)
        (folder / "keys").write_text(f"{line}\n{other}\n")
        web = {"api_keys_file": "keys", "state_directory": "state", "workers": workers}
        config = {
            "models": {name: {"source": str(path)} for name, path in models.items()},
            "web": web,
            "jobs": {"roots": ["data/", "s3://bucket/rides"]} | jobs,
        }
        self.config = folder / "fairlead.yaml"
        self.config.write_text(json.dumps(config))
        self.directory = folder / "state"

    def serve(self) -> Served:
        return Served(flags=("--config", str(self.config)))

    def ask(self, served: Served, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask on a new connection, so that every worker gets its share."""
        how = {"headers": self.headers, "timeout": 20} | how
        return httpx.request(method, f"http://127.0.0.1:{served.port}{path}", **how)

    def order(self, served: Served, **order: Any) -> str:
        answer = self.ask(served, "POST", "/jobs", json=order)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
        assert answer.json()["state"] in ("queued", "running")
        return str(answer.headers["location"])

    def wait(self, served: Served, where: str, until: Callable[[Any], object] = lambda job: job["ended_at"]) -> Any:
        found: list[Any] = []
        eventually(lambda: (found.append(self.ask(served, "GET", where).json()), until(found[-1]))[1], PATIENCE_S)
        return found[-1]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def running(pid: int, word: str = "") -> list[int]:
    """Give the processes that a process has started, and they in turn, with a word in their command."""
    found, children = [], []
    with contextlib.suppress(OSError):
        if word in Path(f"/proc/{pid}/cmdline").read_bytes().decode():
            found.append(pid)
        # Of every thread: a server keeps its runner in one.
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # threads end meanwhile, and others have children still
                children += (task / "children").read_text().split()
    return [*found, *(one for child in children for one in running(int(child), word))]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def waiter_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a native bundle `waiter`, which waits for a file `release` beside it."""
    folder = tmp_path_factory.mktemp("waiter")
    code = folder / "waiter_model.py"
    code.write_text(WAITER.format(release=str(folder / "release")))
    schema = Schema.parse({"features": [{"name": "number", "type": "float"}]})
    options = BuildOptions(data=pd.DataFrame({"number": [0.0, 1.0]}), schema=schema, code=code)
    return fairlead.build("waiter_model:Waiter", folder / "waiter", options).path


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, churn_bundle: Path, waiter_bundle: Path
) -> Iterator[tuple[Service, Served]]:
    """Give two workers that serve `churn` and `waiter`; all jobs are over after each test."""
    folder = tmp_path_factory.mktemp("jobs")
    made = Service(folder, {"churn": churn_bundle, "waiter": waiter_bundle}, workers=2, max_queued=1)
    with made.serve() as served:
        yield made, served


@pytest.fixture
def slow(service: tuple[Service, Served], waiter_bundle: Path) -> Iterator[str]:
    """Give a job that runs longer than any test."""
    made, served = service
    write(made.data / "slow.csv", [{"number": -1.0}])
    where = made.order(
        served,
        input=str(made.data / "slow.csv"),
        output=str(made.data / "slow.out.csv"),
        model="waiter",
        resume=False,
    )
    made.wait(served, where, lambda job: job["state"] == "running")
    yield where
    release = waiter_bundle.with_name("release")
    release.touch()
    made.wait(served, where)
    release.unlink()


def test_files_are_scored(service: tuple[Service, Served], churn_bundle: Path) -> None:
    made, served = service
    for name in ("a", "b"):
        write(made.data / "in" / f"{name}.csv", [{"id": f"{name}{n}", **row} for n, row in enumerate(ROWS * 3)])
    where = made.order(
        served, input=f"{made.data}/in/*.csv", output=f"{made.data}/out/", model="churn", keep=["id"], format="csv"
    )
    job = made.wait(served, where)
    assert (job["state"], job["reason"]) == ("done", None)
    assert (job["files"], job["files_done"], job["rows_in"], job["rows_out"], job["rejects"]) == (2, 2, 12, 12, 0)
    assert job["rows_per_s"] > 0
    assert job["share"] == 1
    assert [file["rows_in"] for file in job["report"]["files"]] == [6, 6]
    expected = [answer["churn_probability"] for answer in fairlead.load(churn_bundle).predict(ROWS)]
    for name in ("a", "b"):
        (path,) = (made.data / "out").glob(f"{name}.*")
        rows = read(path)
        assert [row["id"] for row in rows] == [f"{name}{n}" for n in range(6)]
        assert [float(row["churn_probability"]) for row in rows] == pytest.approx(expected * 3)
        assert "tenure" not in rows[0]


def test_a_failed_job_says_why(service: tuple[Service, Served]) -> None:
    made, served = service
    job = made.wait(
        served, made.order(served, input=f"{made.data}/none.csv", output=f"{made.data}/x.csv", model="churn")
    )
    assert job["state"] == "failed"
    assert "none.csv" in job["reason"]


def test_any_worker_tells_of_any_job_and_one_process_runs_them(service: tuple[Service, Served], slow: str) -> None:
    made, served = service
    assert {made.ask(served, "GET", slow).json()["state"] for _ in range(20)} == {"running"}
    listed = [made.ask(served, "GET", "/jobs").json()["jobs"] for _ in range(10)]
    assert all(jobs[0]["id"] == slow.removeprefix("/jobs/") for jobs in listed)
    assert len(running(served.process.pid, "file_jobs.runner")) == 1
    # It is told to run shortly before its process does.
    assert len(eventually(lambda: running(served.process.pid, "--status-file"), PATIENCE_S)) == 1
    assert made.ask(served, "HEAD", slow).status_code == 200


def test_a_running_job_is_cancelled(service: tuple[Service, Served], slow: str) -> None:
    made, served = service
    (made.data / "slow.out.csv").unlink(missing_ok=True)
    (pid,) = eventually(lambda: running(served.process.pid, "--status-file"), PATIENCE_S)
    assert made.ask(served, "DELETE", slow).status_code in (200, 202)
    assert made.wait(served, slow)["state"] == "cancelled"
    assert is_gone(pid)
    again = made.ask(served, "DELETE", slow)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert not (made.data / "slow.out.csv").exists()


def test_more_jobs_than_may_wait_are_refused(service: tuple[Service, Served], slow: str) -> None:
    made, served = service
    order = {"input": f"{made.data}/slow.csv", "output": f"{made.data}/second.csv", "model": "waiter"}
    where = made.order(served, **order)
    refused = [made.ask(served, "POST", "/jobs", json=order) for _ in range(4)]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(503, "30")] * 4
    assert refused[0].json()["detail"] == "expected less than 1 jobs to wait (jobs.max_queued): come again later"
    cancelled = made.ask(served, "DELETE", where)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")


def test_admins_only(service: tuple[Service, Served]) -> None:
    made, served = service
    for one in ("POST /jobs", "GET /jobs", "HEAD /jobs", "GET /jobs/x", "DELETE /jobs/x", "GET /jobs%0A"):
        method, path = one.split()
        assert made.ask(served, method, path, headers={}).status_code == 401
        assert made.ask(served, method, path, headers={"x-api-key": made.reader}).status_code == 403
    for path in ("/jobs/x", f"/jobs/{'a' * 32}", "/jobs/..%2f..%2fkeys"):
        assert made.ask(served, "GET", path).status_code == 404
    assert made.ask(served, "PUT", "/jobs").status_code == 405


@pytest.mark.parametrize(
    ("order", "path", "got"),
    [
        ({"input": "/etc/passwd"}, "$.input", "a path elsewhere"),
        ({"output": "{data}/../x.csv"}, "$.output", "a path elsewhere"),
        ({"input": "{data}/link/x.csv"}, "$.input", "a path elsewhere"),
        ({"output": "{data}/link/{{year}}.csv"}, "$.output", "a path elsewhere"),
        ({"input": "{data}/*/../../keys"}, "$.input", "a path elsewhere"),
        ({"input": "s3://other/rides/a.csv"}, "$.input", "an address elsewhere"),
        ({"output": "s3://bucket/rides-too/a.csv"}, "$.output", "an address elsewhere"),
        ({"input": "postgresql://host/db"}, "$.input", "an address elsewhere"),
        ({"input": "a.csv"}, "$.input", "a relative path, which could begin at several roots"),
    ],
)
def test_what_is_below_no_root_is_refused(
    service: tuple[Service, Served], order: dict[str, str], path: str, got: str
) -> None:
    made, served = service
    if not (made.data / "link").is_symlink():
        (made.data / "link").symlink_to(made.directory)
    order = {name: text.format(data=made.data) for name, text in order.items()}
    good = {"input": f"{made.data}/a.csv", "output": f"{made.data}/b.csv", "model": "churn"}
    answer = made.ask(served, "POST", "/jobs", json=good | order)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] == [{"path": path, "expected": "a path below one of jobs.roots", "got": got}]


def test_a_bad_order_is_told_all_that_is_wrong_with_it(service: tuple[Service, Served]) -> None:
    made, served = service
    order = {
        **{"input": "", "keep": ["a", "b,c"], "date": "2026-10", "backfill": "2026..2027", "format": "xml"},
        **{"max_rejects": -1, "resume": 1, "query": "SELECT 1"},
    }
    answer = made.ask(served, "POST", "/jobs", json=order)
    assert answer.status_code == 422
    assert [f"{one['path']}: {one['expected']}, got {one['got']}" for one in answer.json()["errors"]] == [
        "$.output: a value, got nothing",
        "$.input: a path or an s3:// address, got a string of another form",
        "$.keep[1]: a column's name without a comma, got a string of another form",
        "$.format: parquet, csv or jsonl, got a string of another form",
        "$.max_rejects: an integer, at least 0, got another integer",
        "$.resume: a boolean, got an integer",
        "$.query: one of input, output, model, keep, date, backfill, format, max_rejects, resume, got another name",
        "$.backfill: nothing beside date, got a string",
    ]
    paths = {"input": f"{made.data}/a.csv", "output": f"{made.data}/b.csv"}
    (problem,) = made.ask(served, "POST", "/jobs", json=paths).json()["errors"]
    assert (problem["path"], problem["got"]) == ("$.model", "nothing")
    assert made.ask(served, "POST", "/jobs", json={**paths, "model": "none"}).status_code == 404
    for body, status in ((b"", 400), (b"{", 400), (b'{"input": NaN}', 400), (b"[]", 422), (b"null", 422)):
        assert made.ask(served, "POST", "/jobs", content=body).status_code == status
    sent = made.ask(served, "POST", "/jobs", content=b"a=b", headers={**made.headers, "content-type": "text/csv"})
    assert sent.status_code == 415


def test_jobs_are_described(service: tuple[Service, Served], slow: str) -> None:
    made, served = service
    document = made.ask(served, "GET", "/openapi.json").json()
    validate(document)
    schema = {"$ref": "#/components/schemas/Job", "components": document["components"]}
    for job in made.ask(served, "GET", "/jobs").json()["jobs"]:
        jsonschema.Draft202012Validator(schema).validate(job)
    operations = {f"{method} {path}" for path, item in document["paths"].items() for method in item if "jobs" in path}
    assert operations == {"get /jobs", "post /jobs", "get /jobs/{id}", "delete /jobs/{id}"}


def test_a_job_survives_the_end_of_its_service(tmp_path: Path, waiter_bundle: Path) -> None:
    """In order, and by force; each file is scored once."""
    made = Service(tmp_path, {"waiter": waiter_bundle}, workers=2)
    numbers = [1.0, 2.0, -3.0, 4.0]
    for n, number in enumerate(numbers):
        write(made.data / "in" / f"{n}.csv", [{"number": number}] * 2)
    where = ""
    for ending, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        with made.serve() as served:
            where = where or made.order(served, input=f"{made.data}/in", output=f"{made.data}/out/")
            made.wait(served, where, lambda job: job["state"] == "running" and job["files_done"] >= 1)
            pids = [one for pid in running(served.process.pid, "file_jobs.runner") for one in running(pid)]
            assert len(pids) >= 2
            served.process.send_signal(ending)
            assert served.process.wait(20) == code
            eventually(lambda pids=pids: all(map(is_gone, pids)), 10)
    with made.serve() as served:
        release = waiter_bundle.with_name("release")
        release.touch()
        try:
            job = made.wait(served, where)
        finally:
            release.unlink()
        assert (job["state"], job["reason"], job["rows_in"], job["rows_out"]) == ("done", None, 8, 8)
        assert [file["skipped"] for file in job["report"]["files"]][::2] == [True, False]
        assert len(made.ask(served, "GET", "/jobs").json()["jobs"]) == 1
    for n, number in enumerate(numbers):
        rows = read(made.data / "out" / f"{n}.csv")
        assert [(float(row["number"]), float(row["prediction.twice"])) for row in rows] == [(number, 2 * number)] * 2


def test_a_runner_that_dies_is_started_again(tmp_path: Path, churn_bundle: Path) -> None:
    made = Service(tmp_path, {"churn": churn_bundle}, workers=1)
    write(made.data / "a.csv", ROWS)
    with made.serve() as served:
        eventually(lambda: running(served.process.pid, "file_jobs.runner"))
        (pid,) = running(served.process.pid, "file_jobs.runner")
        os.kill(pid, signal.SIGKILL)
        job = made.wait(served, made.order(served, input=f"{made.data}/a.csv", output=f"{made.data}/b.csv"))
        assert job["state"] == "done"
        assert 'fairlead_jobs_ended_total{state="done"} 1.0' in made.ask(served, "GET", "/metrics").text
        assert "the process that runs jobs ended with exit code -9" in served.log()


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(
    tmp_path: Path,
    in_process: Callable[..., Any],
    churn_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_space: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    key, line = make("admin", admin=True)
    monkeypatch.setenv("FAIRLEAD_API_KEYS", line)
    client = in_process(churn_bundle)
    web = WebSettings(state_directory=str(tmp_path), metrics=False)
    jobs = settled(JobsSettings((str(tmp_path),)), web, {}, "here")
    assert jobs is not None
    assert jobs.directory is not None
    client.app = App(list(client.app.served.entries.values()), make_gate(web), jobs=jobs)
    order = {"input": f"{tmp_path}/a.csv", "output": "b.csv"}
    headers = {"x-api-key": key}
    with no_space():
        answer = client.post("/jobs", json=order, headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "cannot be kept" in answer.json()["detail"]
    assert [path.name for path in Path(jobs.directory).iterdir()] == [".lock"]
    made = client.post("/jobs", json=order, headers=headers).json()
    assert (made["model"], made["output"], made["state"]) == ("churn", f"{tmp_path}/b.csv", "queued")


def test_there_must_be_a_place_for_jobs(tmp_path: Path) -> None:
    roots = JobsSettings((str(tmp_path),))
    with pytest.raises(ConfigError, match=r"jobs\.directory: expected a directory, for this user has no home"):
        settled(roots, WebSettings(), {}, "here")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"jobs\.directory: expected a directory to write to, got .*Not a directory"):
        settled(replace(roots, directory=str(tmp_path / "file" / "jobs")), WebSettings(), {}, "here")
    assert settled(JobsSettings(), WebSettings(), {}, "here") is None


def test_without_roots_there_are_no_jobs(
    in_process: Callable[..., Any], churn_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, line = make("admin", admin=True)
    monkeypatch.setenv("FAIRLEAD_API_KEYS", line)
    client = in_process(churn_bundle)
    assert client.get("/jobs", headers={"x-api-key": key}).status_code == 404
    assert "/jobs" not in client.get("/openapi.json", headers={"x-api-key": key}).json()["paths"]
    monkeypatch.setenv("FAIRLEAD_JOBS_ROOTS", "/srv")
    with pytest.raises(fairlead.errors.ServeError, match="only `fairlead serve`"):
        fairlead.web.asgi(churn_bundle)
