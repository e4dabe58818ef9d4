"""How far a run is, for those who watch: a bar on a terminal, lines in a log, a file for other programs.

Layer L3; imports rich when there is a terminal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from fairlead.batch.report import FileReport, Progress, Report
from fairlead.bundle.disk import replace_file

_LOG_EVERY_S = 10.0
_STATUS_EVERY_S = 0.5

logger = logging.getLogger("fairlead.batch")


class Status(Struct):
    """How far a run is, as the status file tells it.

    Parameters
    ----------
    share : of the file at hand that is read, from 0 to 1; None where that is not known.
    rows_per_s : rows read a second, over the whole run so far, without files that were done before.
    error : why it failed.
    """

    state: Literal["running", "done", "failed"] = "running"
    files: int = 0
    files_done: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rejects: int = 0
    rows_per_s: float = 0.0
    share: float | None = None
    error: str | None = None
    report: Report | None = None


class Counter:
    """A `Progress` that adds up, over all files.

    Attributes
    ----------
    status : how far it is.
    input : the file at hand, None between files.
    """

    def __init__(self) -> None:
        self.status = Status()
        self.input: str | None = None
        self._start = time.monotonic()
        # Rows of this run, without those that were done before; and the figures at the beginning of the file.
        self._fresh = self._fresh_before = 0
        self._before = (0, 0)

    def planned(self, n_files: int) -> None:
        self.status.files = n_files

    def began(self, input: str, output: str, n_rows: int | None) -> None:
        self.input = input
        self._before = (self.status.rows_in, self.status.rejects)
        self._fresh_before = self._fresh

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        self._count(rows_in, rejects, share)

    def finished(self, file: FileReport) -> None:
        if file.skipped:
            self._before = (self.status.rows_in, self.status.rejects)
            self.status.rows_in += file.rows_in
            self.status.rejects += file.rejects
        else:
            self._count(file.rows_in, file.rejects, 1.0)
        self.status.rows_out += file.rows_out
        self.status.files_done += 1
        self.input = None

    def _count(self, rows_in: int, rejects: int, share: float | None) -> None:
        status = self.status
        status.rows_in, status.rejects = self._before[0] + rows_in, self._before[1] + rejects
        status.share = share
        self._fresh = self._fresh_before + rows_in
        status.rows_per_s = self._fresh / max(time.monotonic() - self._start, 1e-9)


class StatusFile(Counter):
    """Keeps a file that tells how far the run is; it is replaced whole.

    Parameters
    ----------
    path : of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._told = 0.0
        self._write()

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        super().advanced(rows_in, rejects, share)
        if time.monotonic() - self._told >= _STATUS_EVERY_S:
            self._write()

    def finished(self, file: FileReport) -> None:
        super().finished(file)
        self._write()

    def end(self, report: Report | None, error: str | None) -> None:
        """Tell how the run ended."""
        self.status.state = "done" if error is None else "failed"
        self.status.report, self.status.error = report, error
        self._write()

    def _write(self) -> None:
        self._told = time.monotonic()
        with suppress(OSError):  # a full disk ends the run by its output, not by this
            replace_file(self._path, msgspec.json.encode(self.status) + b"\n")


class Lines(Counter):
    """Logs how far the run is, every ten seconds and after every file."""

    def __init__(self) -> None:
        super().__init__()
        self._told = time.monotonic()

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        super().advanced(rows_in, rejects, share)
        if self.input is not None and time.monotonic() - self._told >= _LOG_EVERY_S:
            self._told = time.monotonic()
            part = "" if share is None else f" ({share:.0%})"
            logger.info("%s: %s rows%s, %s a second", self.input, f"{rows_in:,}", part, _rate(self.status))

    def finished(self, file: FileReport) -> None:
        super().finished(file)
        self._told = time.monotonic()
        if file.skipped:
            logger.info("%s: done before, as %s", file.input, file.output)
            return
        logger.info(
            "%s: %s rows in %.1f s, %s to %s, %s rejected",
            file.input, f"{file.rows_in:,}", file.duration_s, f"{file.rows_out:,}", file.output, f"{file.rejects:,}",
        )  # fmt: skip


class Together:
    """Tells several."""

    def __init__(self, told: Sequence[Progress]) -> None:
        self._told = told

    def planned(self, n_files: int) -> None:
        for one in self._told:
            one.planned(n_files)

    def began(self, input: str, output: str, n_rows: int | None) -> None:
        for one in self._told:
            one.began(input, output, n_rows)

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        for one in self._told:
            one.advanced(rows_in, rejects, share)

    def finished(self, file: FileReport) -> None:
        for one in self._told:
            one.finished(file)


@contextmanager
def bar() -> Iterator[Progress]:
    """Show a bar on standard error: files, rows, rate, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rows]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
    )

    class OnTerminal(Counter):
        def began(self, input: str, output: str, n_rows: int | None) -> None:
            super().began(input, output, n_rows)
            number = f"{self.status.files_done + 1}/{self.status.files} " if self.status.files > 1 else ""
            bars.reset(task, total=1.0, description=f"{number}{input.rpartition('/')[2] or input}")

        def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
            super().advanced(rows_in, rejects, share)
            rejected = f", {self.status.rejects:,} rejected" if self.status.rejects else ""
            rows = f"{self.status.rows_in:,} rows, {_rate(self.status)}/s{rejected}"
            bars.update(task, completed=share or 0.0, total=None if share is None else 1.0, rows=rows)

    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0, rows="")
        yield OnTerminal()


def _rate(status: Status) -> str:
    return f"{status.rows_per_s:,.0f}"
