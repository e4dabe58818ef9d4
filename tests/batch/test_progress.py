from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from fairlead.batch import progress
from fairlead.batch.progress import Counter, Lines, Status, StatusFile, Together
from fairlead.batch.report import FileReport, Report


def file_report(rows_in: int, rejects: int = 0, skipped: bool = False) -> FileReport:
    return FileReport("a", "b", rows_in, rows_in - rejects, rejects, 0.5, skipped)


def test_files_add_up() -> None:
    counter = Counter()
    counter.planned(3)
    counter.finished(file_report(100, 1, skipped=True))
    counter.began("a", "b", None)
    counter.advanced(10, 2, 0.25)
    status = counter.status
    assert (status.files, status.files_done, status.rows_in, status.rejects, status.share) == (3, 1, 110, 3, 0.25)
    counter.advanced(20, 2, 0.5)
    counter.finished(file_report(40, 4))
    assert (status.files_done, status.rows_in, status.rows_out, status.rejects) == (2, 140, 135, 5)
    assert status.rows_per_s > 0
    counter.began("a", "b", None)
    counter.advanced(1, 0, None)
    assert (status.rows_in, status.rejects, status.share) == (141, 5, None)


def test_what_was_done_before_has_no_rate() -> None:
    counter = Counter()
    counter.finished(file_report(10**9, skipped=True))
    assert (counter.status.rows_in, counter.status.rows_per_s) == (10**9, 0.0)


def test_the_status_file_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"

    def told() -> Status:
        return msgspec.json.decode(path.read_bytes(), type=Status)

    status = StatusFile(path)
    assert told().state == "running"
    status.planned(1)
    status.began("a", "b", 10)
    status.advanced(5, 0, 0.5)
    assert told().rows_in == 0  # half a second has not gone by
    monkeypatch.setattr(progress, "_STATUS_EVERY_S", 0.0)
    status.advanced(6, 0, 0.6)
    assert (told().rows_in, told().share) == (6, 0.6)
    status.finished(file_report(10))
    report = Report("homes", "1", "abc", (file_report(10),), 0.5)
    status.end(report, None)
    assert (told().state, told().report) == ("done", report)
    status.end(None, "no space")
    assert (told().state, told().error) == ("failed", "no space")


def test_a_status_file_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    status = StatusFile(tmp_path / "nowhere" / "status.json")
    status.end(None, "error")
    assert not (tmp_path / "nowhere").exists()


def test_lines_come_every_ten_seconds(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with caplog.at_level(logging.INFO, "fairlead.batch"):
        lines = Together([Lines()])
        lines.planned(1)
        lines.began("a", "b", 100)
        lines.advanced(10, 0, 0.1)
        assert caplog.messages == []
        monkeypatch.setattr(progress, "_LOG_EVERY_S", 0.0)
        lines.advanced(20, 0, 0.2)
        lines.advanced(30, 0, None)
        lines.finished(file_report(100, 1))
        lines.finished(file_report(100, skipped=True))
    first, second, third, fourth = caplog.messages
    assert first.startswith("a: 20 rows (20%), ")
    assert second.startswith("a: 30 rows, ")
    assert third == "a: 100 rows in 0.5 s, 99 to b, 1 rejected"
    assert fourth == "a: done before, as b"
