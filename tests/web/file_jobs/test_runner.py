"""The runner, with a stand-in for `fairlead score` that obeys the same contract and does as it is told."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fairlead.config import JobsSettings
from fairlead.monitor.metrics import Metrics
from fairlead.web.file_jobs import runner as module
from fairlead.web.file_jobs.directory import JobDirectory, QueueFull
from fairlead.web.file_jobs.records import Job, Order, Status, View
from fairlead.web.file_jobs.runner import Runner
from fairlead.web.file_jobs.scoring import score_command
from load import eventually

# Its input says what it does; every one that begins writes a line.
SCORE = """
import json, os, signal, sys, time

status, input, output = sys.argv[1:]
with open(output + ".begun", "a") as begun:
    begun.write(f"{os.getpid()} {os.nice(0)} {os.getpgid(0)}\\n")
with open(input) as file:
    what = file.read().split()


def tell(**more):
    with open(status + ".new", "w") as file:
        json.dump({"state": "running", "files": 1, "rows_in": 5, "rows_per_s": 2.5, "error": None} | more, file)
    os.replace(status + ".new", status)


tell()
if what[0] == "shout":
    for _ in range(4000):
        print("x" * 1000, file=sys.stderr)
if what[0] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while what[0] in ("wait", "stubborn") and not os.path.exists(output + ".go"):
    time.sleep(0.01)
if what[0] == "die":
    os.kill(os.getpid(), 9)
if what[0] == "fault":
    print("fairlead: a fault of ours", file=sys.stderr)
error = "input: expected better, got this" if what[0] == "refuse" else None
tell(error=error, files_done=1, rows_out=4, rejects=1, share=1.0, report={"digest": what[1]})
sys.exit({"refuse": 2, "fault": 1}.get(what[0], 0))
"""


class Jobs:
    """A directory of jobs, and a runner that is asked to do its turns."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.bundle = folder / "bundle"
        self.bundle.mkdir(exist_ok=True)
        (self.bundle / "MLmodel").write_text("a bundle")
        self.digest = hashlib.sha256(b"a bundle").hexdigest()
        (folder / "score.py").write_text(SCORE)
        self.settings = JobsSettings((str(folder),), str(folder / "jobs"), **settings)
        self.directory = JobDirectory(folder / "jobs")
        self.directory.prepare()
        self.metrics = Metrics(folder / "metrics")
        self.runner = self.another()
        self.n = 0

    def another(self) -> Runner:
        return Runner(self.settings, self.metrics, self.command)

    def command(self, job: Job, status: Path) -> list[str]:
        return [sys.executable, str(self.folder / "score.py"), str(status), job.order.input, job.order.output]

    def make(self, what: str, **more: Any) -> str:
        self.n += 1
        input, output = self.folder / f"{self.n}.in", self.folder / f"{self.n}.out"
        input.write_text(f"{what} {self.digest}")
        job = Job(
            f"{self.n:032x}",
            Order(str(input), str(output), "m"),
            version="1",
            digest=self.digest,
            bundle=str(self.bundle),
            made_at=datetime.now(UTC),
            request_id="r",
        )
        self.directory.make(job, **{"max_queued": 10} | more)
        return job.id

    def view(self, id: str) -> View:
        found = self.directory.view(id)
        assert found is not None
        return found

    def until(self, check: Callable[[], object]) -> None:
        eventually(lambda: (self.runner.turn(), check())[1])

    def until_over(self, id: str) -> View:
        self.until(lambda: self.view(id).ended_at)
        return self.view(id)

    def begun(self, id: str) -> list[list[int]]:
        path = Path(self.view(id).output + ".begun")
        return [[int(part) for part in line.split()] for line in path.read_text().splitlines()] if path.exists() else []

    def go(self, id: str) -> None:
        Path(self.view(id).output + ".go").touch()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path)
    yield made
    made.runner.end(is_sudden=False)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_job_is_queued_runs_and_is_done(jobs: Jobs) -> None:
    id = jobs.make("wait")
    assert jobs.view(id).state == "queued"
    assert jobs.view(id).rows_in == 0
    jobs.until(lambda: jobs.view(id).rows_in)
    running = jobs.view(id)
    assert (running.state, running.rows_per_s, running.files, running.report) == ("running", 2.5, 1, None)
    ((pid, nice, group),) = jobs.begun(id)
    assert (nice, group) == (10 + os.nice(0), pid)
    assert os.getsid(pid) == os.getsid(0)
    jobs.go(id)
    done = jobs.until_over(id)
    assert (done.state, done.reason, done.files_done, done.rows_out, done.rejects) == ("done", None, 1, 4, 1)
    assert done.report == {"digest": jobs.digest}
    assert done.started_at is not None
    assert done.ended_at is not None
    assert done.made_at <= done.started_at <= done.ended_at


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("refuse", "input: expected better, got this"),
        ("fault", "the process ended with exit code 1: a fault of ours"),
        ("die", "the process was killed, as a system does that runs out of memory"),
    ],
)
def test_a_job_that_fails_says_why(jobs: Jobs, what: str, reason: str) -> None:
    failed = jobs.until_over(jobs.make(what))
    assert (failed.state, failed.reason) == ("failed", reason)


def test_what_a_process_writes_holds_nothing_up_and_takes_no_space(jobs: Jobs) -> None:
    id = jobs.make("shout")
    assert jobs.until_over(id).state == "done"
    assert sum(path.stat().st_size for path in (jobs.directory.path / id).iterdir()) < 5000


def test_so_many_run_as_may_in_the_order_they_came(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, max_running=2)
    ids = [jobs.make("wait") for _ in range(4)]
    jobs.until(lambda: all(jobs.view(id).rows_in for id in ids[:2]))
    for _ in range(5):
        jobs.runner.turn()
    assert [jobs.view(id).state for id in ids] == ["running", "running", "queued", "queued"]
    jobs.go(ids[1])
    jobs.until(lambda: jobs.view(ids[2]).rows_in)
    assert [jobs.view(id).state for id in ids] == ["running", "done", "running", "queued"]
    for id in ids:
        jobs.go(id)
    jobs.until(lambda: all(jobs.view(id).state == "done" for id in ids))
    assert [len(jobs.begun(id)) for id in ids] == [1, 1, 1, 1]


def test_jobs_are_counted(jobs: Jobs) -> None:
    first, _ = jobs.make("wait"), jobs.make("die")
    jobs.until(lambda: jobs.view(first).rows_in)
    counted = jobs.metrics.render()[0]
    assert b'fairlead_jobs{state="queued"} 1.0\n' in counted
    assert b'fairlead_jobs{state="running"} 1.0\n' in counted
    jobs.go(first)
    jobs.until(lambda: b'fairlead_jobs_ended_total{state="failed"} 1.0\n' in jobs.metrics.render()[0])
    assert b'fairlead_jobs_ended_total{state="done"} 1.0\n' in jobs.metrics.render()[0]


def test_the_queue_is_bounded(jobs: Jobs) -> None:
    first = jobs.make("wait", max_queued=1)
    with pytest.raises(QueueFull):
        jobs.make("wait", max_queued=1)
    jobs.until(lambda: jobs.view(first).state == "running")
    second = jobs.make("wait", max_queued=1)  # one that runs does not wait
    jobs.directory.cancel(second)
    jobs.runner.turn()
    jobs.make("wait", max_queued=1)


def test_a_job_that_waits_is_cancelled_at_once_and_never_begun(jobs: Jobs) -> None:
    first, second = jobs.make("wait"), jobs.make("wait")
    jobs.until(lambda: jobs.view(first).rows_in)
    jobs.directory.cancel(second)
    jobs.runner.turn()
    assert jobs.view(second).state == "cancelled"
    assert jobs.begun(second) == []


@pytest.mark.parametrize("what", ["wait", "stubborn"])
def test_a_job_that_runs_is_told_to_end_and_then_made_to(
    jobs: Jobs, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.web.file_jobs.scoring.GRACE_S", 0.2)
    id = jobs.make(what)
    jobs.until(lambda: jobs.view(id).rows_in)
    jobs.directory.cancel(id)
    cancelled = jobs.until_over(id)
    assert (cancelled.state, cancelled.reason) == ("cancelled", None)
    assert not is_alive(jobs.begun(id)[0][0])


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_job_that_ended_before_it_was_told_to_is_done(jobs: Jobs, is_cancelled: bool) -> None:
    id = jobs.make("wait")
    jobs.until(lambda: jobs.view(id).rows_in)
    jobs.go(id)
    eventually(lambda: not is_alive(jobs.begun(id)[0][0]))
    if is_cancelled:
        jobs.directory.cancel(id)
        jobs.runner.turn()
    else:
        jobs.runner.end(is_sudden=False)
    assert jobs.view(id).state == "done"


def test_a_job_goes_on_after_the_service_ended(jobs: Jobs) -> None:
    ran, waited = jobs.make("wait"), jobs.make("wait")
    jobs.until(lambda: jobs.view(ran).rows_in)
    jobs.runner.end(is_sudden=False)
    assert [jobs.view(id).state for id in (ran, waited)] == ["queued", "queued"]
    assert not is_alive(jobs.begun(ran)[0][0])
    jobs.runner = jobs.another()
    for id in (ran, waited):
        jobs.go(id)
        assert jobs.until_over(id).state == "done"
    assert [len(jobs.begun(id)) for id in (ran, waited)] == [2, 1]


def test_a_job_that_the_service_may_have_died_of_is_not_run_for_ever(jobs: Jobs) -> None:
    id = jobs.make("wait")
    for _ in range(module._MOST_BEGUN):
        jobs.until(lambda: jobs.view(id).rows_in)
        jobs.runner.end(is_sudden=True)
        jobs.runner = jobs.another()
        jobs.directory.status_path(id).unlink()
    failed = jobs.until_over(id)
    assert failed.reason == "the service ended suddenly 5 times while this job ran: it is not tried again"
    assert len(jobs.begun(id)) == 5


def test_a_job_whose_process_still_lives_is_not_begun_again(jobs: Jobs) -> None:
    id = jobs.make("wait")
    jobs.until(lambda: jobs.view(id).rows_in)
    former, jobs.runner = jobs.runner, jobs.another()
    for _ in range(3):
        jobs.runner.turn()
    assert len(jobs.begun(id)) == 1
    former.end(is_sudden=True)
    jobs.go(id)
    assert jobs.until_over(id).state == "done"
    assert len(jobs.begun(id)) == 2


def test_a_job_that_must_not_run_any_more_fails(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    moved = jobs.make("wait")
    Path(jobs.view(moved).input).unlink()
    Path(jobs.view(moved).input).symlink_to("/etc/passwd")
    assert jobs.until_over(moved).reason == (
        "its input is not below one of jobs.roots any more: expected a path below, got a path elsewhere"
    )
    changed = jobs.make("wait")
    (jobs.bundle / "MLmodel").write_text("another bundle")
    assert "the bundle changed since the job was made" in (jobs.until_over(changed).reason or "")
    gone = jobs.make("wait")
    (jobs.bundle / "MLmodel").unlink()
    assert "is gone" in (jobs.until_over(gone).reason or "")
    assert [jobs.begun(id) for id in (moved, changed, gone)] == [[], [], []]


def test_another_bundle_than_the_one_that_was_served_is_told(jobs: Jobs) -> None:
    id = jobs.make("wait")
    Path(jobs.view(id).input).write_text("wait another-digest")
    jobs.go(id)
    assert jobs.until_over(id).state == "failed"


def test_jobs_are_forgotten(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, keep_s=0.5)
    id = jobs.make("die")
    jobs.until_over(id)
    jobs.until(lambda: jobs.directory.view(id) is None)
    assert [path.name for path in jobs.directory.path.iterdir()] == [".lock"]


def test_what_was_left_half_made_is_removed_and_what_cannot_be_read_is_passed_over(jobs: Jobs) -> None:
    for name in ("." + "a" * 32, "b" * 32, "note"):
        (jobs.directory.path / name).mkdir()
    (jobs.directory.path / ("b" * 32) / "job.json").write_text("{}")
    jobs.directory.remove_unfinished()
    jobs.runner.turn()
    assert sorted(path.name for path in jobs.directory.path.iterdir()) == [".lock", "b" * 32, "note"]
    assert jobs.directory.view("b" * 32) is None
    assert jobs.directory.view("../jobs/" + "b" * 32) is None


def test_what_cannot_be_kept_is_kept_later(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, no_space: Callable[[], AbstractContextManager[None]]
) -> None:
    """A full disk: nothing is begun without a record of it, and no end is lost."""
    id = jobs.make("wait")
    jobs.until(lambda: jobs.view(id).rows_in)
    second = jobs.make("wait")
    monkeypatch.setattr(module, "_PAUSE_S", 0.1)
    jobs.go(id)
    pid = jobs.begun(id)[0][0]
    eventually(lambda: not is_alive(pid))
    with no_space():
        for _ in range(5):
            jobs.runner.turn()
    assert [jobs.view(one).state for one in (id, second)] == ["running", "queued"]
    assert jobs.begun(second) == []
    jobs.go(second)
    assert jobs.until_over(id).state == "done"
    assert jobs.until_over(second).state == "done"


def test_the_process_ends_with_its_line_and_what_it_started_with_it(jobs: Jobs) -> None:
    """Even when it is killed; and only one of several runs jobs."""
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from test_runner import Jobs
from pathlib import Path
Jobs(Path({str(jobs.folder)!r})).another().run(0)
"""
    folder = str(Path(__file__).parent)
    script = script.replace("sys.path[:0] = ", f"sys.path[:0] = [{folder!r}] + ")
    command = [sys.executable, "-c", script]
    id = jobs.make("wait")
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as first,
        subprocess.Popen(command, stdin=subprocess.PIPE) as second,
    ):
        eventually(lambda: jobs.begun(id))
        ((pid, _, _),) = jobs.begun(id)
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
        running, waiting = (first, second) if parent == first.pid else (second, first)
        assert parent == running.pid
        running.send_signal(signal.SIGKILL)
        eventually(lambda: len(jobs.begun(id)) == 2)
        assert not is_alive(pid)
        assert waiting.stdin is not None
        assert running.stdin is not None
        waiting.stdin.close()
        waiting.wait(10)
        assert not is_alive(jobs.begun(id)[1][0])
    assert jobs.view(id).state == "queued"


def test_the_command(jobs: Jobs) -> None:
    job = jobs.directory.job(jobs.make("wait"))
    assert job is not None
    order = Order("/in", "/out", "m", ["a", "b c"], "2026-10", None, "csv", 0, False)
    made = Job(job.id, order, job.version, job.digest, "/bundle", job.made_at, "r")
    assert score_command(made, Path("/status"))[3:] == [
        *("fairlead", "score", "--keep=a,b c", "--date=2026-10", "--format=csv", "--max-rejects=0"),
        *("--status-file=/status", "--", "/bundle", "/in", "/out"),
    ]
    assert "--resume" in score_command(job, Path("/status"))


def test_what_score_tells_is_read(tmp_path: Path) -> None:
    """By the contract of `--status-file`; what else it may come to tell is passed over."""
    told = '{"state": "done", "files": 3, "share": null, "error": null, "report": {"digest": "d"}, "new": 1}'
    (tmp_path / ("a" * 32)).mkdir()
    (tmp_path / ("a" * 32) / "status.json").write_text(told)
    assert JobDirectory(tmp_path).status("a" * 32) == Status(3, report={"digest": "d"})
