from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample

from fairlead.monitor import number_files
from fairlead.monitor.families import FAMILIES
from fairlead.monitor.metrics import Metrics
from fairlead.monitor.number_files import bury
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from monitor.peers import count_and_stay, count_until_killed

DOCS = Path(__file__).parents[2] / "docs" / "observability.md"
SPAWN = multiprocessing.get_context("spawn")
MODEL = {"model": "iris", "version": "1"}
ROUTE = {"route": "/predict", **MODEL}


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path)


def samples(metrics: Metrics, accept: str = "") -> list[Sample]:
    body, _ = metrics.render(accept)
    return [sample for family in parse(body.decode()) for sample in family.samples]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found = [sample.value for sample in samples(metrics) if sample.name == name and sample.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def buckets(metrics: Metrics, name: str) -> dict[float, float]:
    return {float(s.labels["le"]): s.value for s in samples(metrics) if s.name == f"{name}_bucket"}


class Workers:
    """Processes that have counted `n_requests` each, and hold 3 requests and 7 rows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.living: list[SpawnProcess] = []

    def start(self, *n_requests: int) -> None:
        told = []
        for n in n_requests:
            here, there = SPAWN.Pipe(duplex=False)
            process = SPAWN.Process(target=count_and_stay, args=(self.directory, n, there))
            process.start()
            self.living.append(process)
            told.append(here)
        for one in told:
            assert one.poll(30)
            assert one.recv() == "counted"
            one.close()

    def kill(self) -> int:
        process = self.living.pop(0)
        process.kill()
        process.join()
        assert process.pid is not None
        pid = process.pid
        process.close()
        return pid


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    group = Workers(tmp_path)
    yield group
    while group.living:
        group.kill()


def test_all_workers_are_added_up(metrics: Metrics, workers: Workers) -> None:
    workers.start(1000, 234)

    assert value(metrics, "fairlead_requests_total", **ROUTE, code="200") == 1234
    assert value(metrics, "fairlead_rows_total", **MODEL) == 2468
    assert value(metrics, "fairlead_request_duration_seconds_count", **ROUTE) == 1234
    assert value(metrics, "fairlead_request_duration_seconds_sum", **ROUTE) == pytest.approx(1234 * 70e-6)
    assert value(metrics, "fairlead_batch_rows_sum", **MODEL) == 2468
    assert value(metrics, "fairlead_in_flight_requests") == 6
    assert value(metrics, "fairlead_queue_rows", **MODEL) == 14
    assert value(metrics, "fairlead_model_info", **MODEL, engine="onnx", digest="abc") == 1
    assert value(metrics, "fairlead_workers_died_total") == 0


def test_killed_worker_leaves_its_counts_and_takes_its_gauges(metrics: Metrics, workers: Workers) -> None:
    workers.start(1000, 234)

    pid = workers.kill()
    assert value(metrics, "fairlead_in_flight_requests") == 6
    metrics.worker_died(pid)

    assert value(metrics, "fairlead_requests_total", **ROUTE, code="200") == 1234
    assert value(metrics, "fairlead_batch_rows_sum", **MODEL) == 2468
    assert value(metrics, "fairlead_in_flight_requests") == 3
    assert value(metrics, "fairlead_queue_rows", **MODEL) == 7
    assert value(metrics, "fairlead_workers_died_total") == 1


def test_kill_takes_no_count_along(metrics: Metrics, tmp_path: Path) -> None:
    here, there = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=count_until_killed, args=(tmp_path, there))
    process.start()
    there.close()
    told = 0
    while told < 5000:
        told = here.recv()
    process.kill()
    process.join()
    while here.poll():
        try:
            told = here.recv()
        except EOFError:
            break
    process.close()
    here.close()

    counted = value(metrics, "fairlead_requests_total", **ROUTE, code="200")
    assert counted in {told, told + 1}


def test_crash_loop_leaves_one_file_of_a_kind(metrics: Metrics, workers: Workers, tmp_path: Path) -> None:
    for n in range(1, 6):
        workers.start(n)
        metrics.worker_died(workers.kill())

    assert sorted(path.name for path in tmp_path.glob("*.db")) == [
        "counter_dead.db",
        f"counter_fairlead-{os.getpid()}.db",
        "histogram_dead.db",
    ]
    assert value(metrics, "fairlead_requests_total", **ROUTE, code="200") == 15
    assert buckets(metrics, "fairlead_request_duration_seconds")[1e-4] == 15
    assert value(metrics, "fairlead_workers_died_total") == 5


def test_nobody_reads_while_the_dead_are_merged(metrics: Metrics, tmp_path: Path) -> None:
    ended = threading.Event()
    seen: list[float | None] = []

    def read() -> None:
        while not ended.is_set():
            seen.append(value(metrics, "fairlead_rows_total", **MODEL))

    metrics.request("/predict", "iris", "1", 200, 1, 5)
    mine = tmp_path / f"counter_fairlead-{os.getpid()}.db"
    reader = threading.Thread(target=read)
    reader.start()
    for pid in range(200):
        # A dead process with a file as it would have written it.
        other = tmp_path / "other.new"
        other.write_bytes(mine.read_bytes())
        with number_files.locked(tmp_path, fcntl.LOCK_EX):
            other.rename(tmp_path / f"counter_fairlead-{10**7 + pid}.db")
        bury(tmp_path, 10**7 + pid)
    ended.set()
    reader.join()

    assert seen == sorted(seen, key=lambda one: one or 0)
    assert value(metrics, "fairlead_rows_total", **MODEL) == 5 * 201


def test_burying_who_left_nothing_changes_nothing(metrics: Metrics, tmp_path: Path) -> None:
    bury(tmp_path, 10**7)
    assert not list(tmp_path.glob("*_dead.db"))


def test_process_with_the_id_of_a_dead_one_goes_on_counting(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = Metrics(tmp_path)
        metrics.request("/predict", "iris", "1", 200, 1, 1)
        assert value(metrics, "fairlead_in_flight_requests") is None
        metrics.in_flight(1)
    assert value(metrics, "fairlead_requests_total", **ROUTE, code="200") == 2


@pytest.mark.parametrize(
    ("duration_ns", "le_s"), [(0, 50e-6), (50_000, 50e-6), (50_001, 100e-6), (10**10, 10.0), (10**10 + 1, float("inf"))]
)
def test_request_falls_into_the_bucket_of_its_duration(metrics: Metrics, duration_ns: int, le_s: float) -> None:
    metrics.request("/predict", "iris", "1", 200, duration_ns, 1)
    found = buckets(metrics, "fairlead_request_duration_seconds")
    assert {le for le, count in found.items() if count} == {le for le in found if le >= le_s}
    assert (min(found), sorted(found)[-2]) == (50e-6, 10.0)


@pytest.mark.parametrize(("rows", "le"), [(1, 1), (2, 2), (3, 4), (4096, 4096), (4097, float("inf"))])
def test_batch_falls_into_the_bucket_of_its_rows(metrics: Metrics, rows: int, le: float) -> None:
    metrics.batch("iris", "1", rows, 20_000)
    found = buckets(metrics, "fairlead_batch_rows")
    assert {bound for bound, count in found.items() if count} == {bound for bound in found if bound >= le}
    assert value(metrics, "fairlead_batch_rows_sum", **MODEL) == rows
    assert buckets(metrics, "fairlead_batch_duration_seconds")[25e-6] == 1


def test_statuses_are_counted_apart_and_share_a_duration(metrics: Metrics) -> None:
    for status in (200, 422, 422):
        metrics.request("/predict", "iris", "1", status, 1000, 0)
    assert value(metrics, "fairlead_requests_total", **ROUTE, code="422") == 2
    assert value(metrics, "fairlead_request_duration_seconds_count", **ROUTE) == 3


def test_route_of_no_model_counts_no_rows(metrics: Metrics) -> None:
    metrics.request("/livez", "", "", 200, 1000, 0)
    assert value(metrics, "fairlead_requests_total", route="/livez", model="", version="", code="200") == 1
    assert value(metrics, "fairlead_rows_total", model="", version="") is None


def test_counts_of_a_model_are_shown_from_the_start(metrics: Metrics) -> None:
    metrics.model_info("iris", "1", "onnx", "abc")
    for name in ("rows", "rejected_records", "ignored_keys"):
        assert value(metrics, f"fairlead_{name}_total", **MODEL) == 0
    assert value(metrics, "fairlead_model_processes_died_total", model="iris") == 0
    for result in ("swapped", "unchanged", "refused", "failed"):
        assert value(metrics, "fairlead_reloads_total", model="iris", result=result) == 0


def test_other_counts(metrics: Metrics) -> None:
    metrics.rejected("iris", "1", 3)
    metrics.ignored_keys("iris", "1", 4)
    metrics.unseen("iris", "1", "color", 5)
    metrics.model_process_died("iris")
    assert value(metrics, "fairlead_rejected_records_total", **MODEL) == 3
    assert value(metrics, "fairlead_ignored_keys_total", **MODEL) == 4
    assert value(metrics, "fairlead_unseen_values_total", **MODEL, feature="color") == 5
    assert value(metrics, "fairlead_model_processes_died_total", model="iris") == 1


def test_what_becomes_of_versions_is_counted(metrics: Metrics) -> None:
    for _ in range(2):
        metrics.reloaded("iris", "swapped")
    metrics.reloaded("iris", "refused")
    metrics.rolled_back("iris", "1")
    metrics.shadow_rows("iris", "1", "equal", 8)
    metrics.shadow_rows("iris", "1", "differs", 2)
    metrics.model_loaded("iris", "loaded")
    metrics.model_evicted("iris")
    assert value(metrics, "fairlead_reloads_total", model="iris", result="swapped") == 2
    assert value(metrics, "fairlead_reloads_total", model="iris", result="refused") == 1
    assert value(metrics, "fairlead_rollbacks_total", **MODEL) == 1
    assert value(metrics, "fairlead_shadow_rows_total", **MODEL, result="equal") == 8
    assert value(metrics, "fairlead_shadow_rows_total", **MODEL, result="differs") == 2
    assert value(metrics, "fairlead_model_loads_total", model="iris", result="loaded") == 1
    assert value(metrics, "fairlead_model_evictions_total", model="iris") == 1


def test_only_the_last_canary_has_a_weight(metrics: Metrics) -> None:
    metrics.canary_weight("iris", "1", 0.05)
    assert value(metrics, "fairlead_canary_weight_ratio", **MODEL) == 0.05
    assert value(metrics, "fairlead_rollbacks_total", **MODEL) == 0
    metrics.canary_weight("iris", "2", 0.25)
    metrics.canary_weight("price", "1", 1.0)
    found = {(s.labels["model"], s.labels["version"]): s.value for s in samples(metrics) if "canary" in s.name}
    assert found == {("iris", "1"): 0, ("iris", "2"): 0.25, ("price", "1"): 1}


def test_model_that_is_gone_is_shown_no_more(metrics: Metrics) -> None:
    metrics.model_info("iris", "1", "onnx", "abc")
    metrics.model_info("iris", "2", "onnx", "def")
    metrics.model_gone("iris", "1", "onnx", "abc")
    assert [s.labels["version"] for s in samples(metrics) if s.name == "fairlead_model_info"] == ["2"]
    metrics.model_info("iris", "1", "onnx", "abc")
    assert [s.labels["version"] for s in samples(metrics) if s.name == "fairlead_model_info"] == ["1", "2"]


def test_label_values_are_escaped(metrics: Metrics) -> None:
    name = 'ü"\\\n'
    metrics.rejected(name, "1", 1)
    assert value(metrics, "fairlead_rejected_records_total", model=name, version="1") == 1


def test_files_grow_under_who_counts(metrics: Metrics) -> None:
    metrics.unseen("iris", "1", "feature 0", 1)
    for number in range(500):
        metrics.unseen("iris", "1", f"feature {number}", 1)
        metrics.unseen("iris", "1", "feature 0", 1)
    found = {s.labels["feature"]: s.value for s in samples(metrics) if s.name == "fairlead_unseen_values_total"}
    assert found == {"feature 0": 502} | {f"feature {number}": 1 for number in range(1, 500)}


def test_threads_lose_nothing(metrics: Metrics) -> None:
    def count() -> None:
        for _ in range(5000):
            metrics.request("/predict", "iris", "1", 200, 70_000, 2)
            metrics.batch("iris", "1", 2, 30_000)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert value(metrics, "fairlead_requests_total", **ROUTE, code="200") == 40_000
    assert value(metrics, "fairlead_rows_total", **MODEL) == 80_000
    assert buckets(metrics, "fairlead_request_duration_seconds")[1e-4] == 40_000
    assert value(metrics, "fairlead_batch_rows_sum", **MODEL) == 80_000


def test_openmetrics_is_given_to_whom_asks(metrics: Metrics) -> None:
    metrics.request("/predict", "iris", "1", 200, 1000, 1)
    metrics.batch("iris", "1", 2, 30_000)
    body, content_type = metrics.render("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert {"fairlead_requests", "fairlead_request_duration_seconds", "fairlead_batch_rows"} <= names


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html", "application/openmetrics-text;version=x", "text/plain;version=x.1", "a;version=9.9"],
)
def test_others_get_the_plain_format(metrics: Metrics, accept: str) -> None:
    assert metrics.render(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_metrics_of_the_model_itself_are_shown_too(tmp_path: Path) -> None:
    script = """
from fairlead.monitor.metrics import Metrics
from fairlead.monitor.run_directory import prepare_directory, remove_directory
directory = prepare_directory()
metrics = Metrics()
metrics.request("/predict", "iris", "1", 200, 1000, 1)
import prometheus_client
prometheus_client.Counter("features_looked_up", "By the user's own code.").inc(3)
body = metrics.render()[0].decode()
assert "features_looked_up_total 3.0" in body and "fairlead_rows_total" in body, body
remove_directory(directory)
assert not directory.exists()
"""
    run(script, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))


def test_forked_worker_counts_for_itself(tmp_path: Path) -> None:
    script = f"""
import os
import re
from pathlib import Path
from fairlead.monitor.metrics import Metrics
metrics = Metrics(Path({str(tmp_path)!r}))
metrics.model_info("iris", "1", "onnx", "abc")
metrics.request("/predict", "iris", "1", 200, 1000, 1)
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        for _ in range(20_000):
            metrics.request("/predict", "iris", "1", 200, 1000, 1)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    run(script)
    metrics = Metrics(tmp_path)
    assert value(metrics, "fairlead_requests_total", **ROUTE, code="200") == 80_001
    assert value(metrics, "fairlead_model_info", **MODEL, engine="onnx", digest="abc") == 1


def test_forked_worker_that_ends_leaves_the_directory(tmp_path: Path) -> None:
    script = """
import os, sys
from fairlead.monitor.metrics import Metrics
metrics = Metrics()
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert metrics.directory.exists()
print(metrics.directory)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert not Path(done.stdout.strip()).exists()


def test_full_disk_costs_numbers_and_no_answers(tmp_path: Path) -> None:
    script = f"""
import logging, resource
from pathlib import Path
from fairlead.monitor.metrics import Metrics
resource.setrlimit(resource.RLIMIT_FSIZE, (17_000, 17_000))
logging.basicConfig(level=logging.ERROR)
metrics = Metrics(Path({str(tmp_path)!r}))
for number in range(200):
    metrics.unseen("iris", "1", f"feature {{number}}", 1)
    metrics.request("/predict", "iris", "1", 200, 1000, 1)
print(metrics.render()[0].decode().count("fairlead_unseen_values_total{{"))
"""
    done = run(script)
    assert 50 < int(done.stdout) < 200
    assert "fairlead_unseen_values_total of ('iris', '1', 'feature 199') is not recorded: File too large" in done.stderr


def test_library_is_not_imported_to_count(tmp_path: Path) -> None:
    script = """
import sys
from fairlead.monitor.metrics import Metrics
from fairlead.monitor.run_directory import prepare_directory, remove_directory
directory = prepare_directory()
metrics = Metrics()
metrics.request("/predict", "iris", "1", 200, 1000, 1)
metrics.worker_died(10**7)
assert "prometheus_client" not in sys.modules
remove_directory(directory)
"""
    run(script, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_directory_is_private_and_told_to_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "given"))
    first = prepare_directory()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(first)
    assert first.parent == tmp_path / "given"
    assert first.stat().st_mode & 0o777 == 0o700
    assert Metrics().directory == first

    second = prepare_directory()
    assert second.parent == first.parent
    remove_directory(first)
    remove_directory(second)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert list((tmp_path / "given").iterdir()) == []


def test_app_alone_has_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = Metrics()
    directory = metrics.directory
    metrics.in_flight(2)
    assert value(metrics, "fairlead_in_flight_requests") == 2
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    del metrics
    assert not directory.exists()


def test_directories_of_killed_services_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    living = prepare_directory()
    orphan, new = tmp_path / "fairlead-metrics-orphan", tmp_path / "fairlead-metrics-new"
    for directory in (orphan, new):
        directory.mkdir()
        (directory / "owner").touch()
    for directory in (orphan, living):
        os.utime(directory, (time.time() - 3600,) * 2)

    remove_directory(prepare_directory())

    assert not orphan.exists()
    assert living.exists()
    assert new.exists()
    remove_directory(living)


def test_every_metric_is_told() -> None:
    page = DOCS.read_text(encoding="utf-8")
    rows = {
        name: (kind, tuple(label.strip("`") for label in labels.split(", ") if label))
        for name, kind, labels in re.findall(r"^\| `(fairlead_\w+)` \| (\w+) \| (.*?) ?\|", page, re.MULTILINE)
    }
    assert rows == {family.name: (family.kind.split("_")[0], family.labels) for family in FAMILIES}
