from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fairlead.monitor.metrics import Metrics
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from fairlead.report import streamed
from fairlead.stream.progress import Progress, Status
from fairlead.stream.records import Lag
from streams import record


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    directory = prepare_directory()
    yield Metrics()
    remove_directory(directory)


def rendered(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render("")[0].decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_what_is_done_is_counted(metrics: Metrics) -> None:
    progress = Progress("price", metrics, lambda: [])
    now_s = time.time()
    progress.done(
        [record(b"", number, arrived_at_s=now_s - 3) for number in range(5)], ["invalid", "not_json", "invalid"]
    )
    progress.done([record(b"")], [])
    found = rendered(metrics)
    assert found['fairlead_stream_records_total{model="price",result="published"}'] == 3
    assert found['fairlead_stream_records_total{model="price",result="dead_letter"}'] == 3
    assert found['fairlead_stream_dead_letters_total{model="price",reason="invalid"}'] == 2
    assert found['fairlead_stream_dead_letters_total{model="price",reason="not_json"}'] == 1
    assert found['fairlead_stream_delay_seconds_count{model="price"}'] == 1
    assert 3 <= found['fairlead_stream_delay_seconds_sum{model="price"}'] < 5
    status = progress.status()
    assert (status.records, status.dead_letters, status.records_per_s) == (6, 3, 0.6)


def test_lag_is_told_and_goes_with_its_partition(metrics: Metrics) -> None:
    lag = [Lag("one", 5, 1.5), Lag("two", 7), Lag("three", None, 2.0), Lag("four")]
    progress = Progress("price", metrics, lambda: lag)
    progress.tell_lag()
    assert progress.status().lag == lag
    found = rendered(metrics)
    of = 'fairlead_stream_lag_{}{{model="price",partition="{}"}}'.format
    assert (found[of("records", "one")], found[of("seconds", "one")]) == (5, 1.5)
    assert found[of("records", "two")] == 7
    assert found[of("seconds", "three")] == 2
    assert not {of("seconds", "two"), of("records", "three"), of("records", "four")} & found.keys()
    lag[:] = [Lag("two", 0)]
    progress.tell_lag()
    found = rendered(metrics)
    assert (found[of("records", "one")], found[of("seconds", "one")], found[of("records", "two")]) == (0, 0, 0)


def test_steps_that_fail_are_reasons_not_to_be_ready(metrics: Metrics) -> None:
    progress = Progress("price", metrics, lambda: [])
    assert (progress.status().status, progress.status().reason) == ("not ready", "it is starting")
    progress.waits_for("")
    assert progress.status().status == "ready"
    progress.failed("publish", "away")
    progress.failed("publish", "busy")
    progress.failed("commit", "gone")
    assert progress.status().reason == "publish: busy; commit: gone"
    progress.waits_for("it is stopping")
    assert progress.status().reason == "it is stopping; publish: busy; commit: gone"
    progress.waits_for("")
    progress.succeeded("publish")
    progress.succeeded("commit")
    progress.succeeded("receive")
    assert (progress.status().status, progress.status().retries) == ("ready", 3)
    assert rendered(metrics)['fairlead_stream_retries_total{model="price",step="publish"}'] == 2


def test_without_metrics_it_counts_all_the_same() -> None:
    progress = Progress("price", None, lambda: [Lag("one", 5)])
    progress.failed("publish", "away")
    progress.done([record(b"", arrived_at_s=1.0)], ["invalid"])
    progress.tell_lag()
    assert (progress.records, progress.dead_letters, progress.retries) == (1, 1, 1)


def test_a_rate_is_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("fairlead.stream.progress.time.monotonic", lambda: now_s[0])
    progress = Progress("price", None, lambda: [])
    progress.done([record(b"")] * 50, [])
    now_s[0] = 109.0
    progress.done([record(b"")] * 20, [])
    assert progress.status().records_per_s == 7.0
    now_s[0] = 111.0
    assert progress.status().records_per_s == 2.0
    now_s[0] = 200.0
    assert (progress.status().records_per_s, progress.status().records) == (0.0, 70)


def test_a_line_tells_it_all() -> None:
    lag = [Lag("one", 1000, 1.5), Lag("two", 500), Lag("three", None, 2.25)]
    status = Status("not ready", "publish: away", "price", "3", 12345, 67, 8, 1234.5, lag)
    assert streamed(status) == (
        "price 3 · 12,345 events · 1,234/s · 67 dead letters · 1,500 waiting · 2.2 s behind · not ready: publish: away"
    )
    assert streamed(Status("ready", "", "price", "", 0, 0, 0, 0.0, [Lag("file")])) == (
        "price · 0 events · 0/s · 0 dead letters"
    )
