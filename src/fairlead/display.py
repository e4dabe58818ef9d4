"""What commands show while they work: bars and a line of numbers on a terminal, lines of a log elsewhere.

Layer L5; imports rich when there is a terminal.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.report import streamed

if TYPE_CHECKING:
    from fairlead.batch.progress import StatusFile
    from fairlead.batch.report import Progress as BatchProgress
    from fairlead.bundle.obtain import Progress
    from fairlead.stream.progress import Status

logger = logging.getLogger("fairlead.stream")

# How often lines tell how a consumer is, where nobody watches.
_LINE_S = 60.0


@contextmanager
def score_progress(status_file: Path | None) -> Iterator[tuple[BatchProgress, StatusFile | None]]:
    """Show a bar on a terminal, else write lines; and keep the status file that was asked for."""
    from contextlib import nullcontext

    from fairlead.batch.progress import Lines, StatusFile, Together, bar
    from fairlead.monitor import logs

    status = None if status_file is None else StatusFile(status_file)
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        logs.configure("text")
    with bar() if on_terminal else nullcontext(Lines()) as shown:
        yield (shown if status is None else Together([shown, status])), status


@contextmanager
def progress() -> Iterator[Progress]:
    """Show the step under way and how far a transfer is, on a terminal only."""
    from fairlead.bundle.obtain import Silent

    if not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    steps = Bars(SpinnerColumn(), TextColumn("{task.description}", markup=False))
    bars = Bars(BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    step = steps.add_task("…")

    live = Live(Group(steps, bars), console=Console(stderr=True), transient=True)

    class OnTerminal:
        def step(self, text: str) -> None:
            steps.update(step, description=f"{text} …")
            for task in bars.task_ids:
                bars.remove_task(task)
            live.refresh()

        def bytes(self, done: int, total: int | None) -> None:
            task = next(iter(bars.task_ids), None)
            bars.update(bars.add_task("") if task is None else task, completed=done, total=total)
            if done == total:
                live.refresh()

    with live:
        yield OnTerminal()


@contextmanager
def steps() -> Iterator[Callable[[str, float], None]]:
    """Show each step of a build and what share of it is done; without a terminal, a line when one begins."""
    if not sys.stderr.isatty():
        told: list[str] = []

        def tell(what: str, share: float) -> None:
            if what not in told:
                told.append(what)
                sys.stderr.write(f"fairlead: {what}\n")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {"": bars.add_task("…", total=1)}

        def show(what: str, share: float) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what, total=1)
            bars.update(tasks[what], completed=share)

        yield show


@contextmanager
def stream_status() -> Iterator[Callable[[Status], None]]:
    """Show how a consumer is: one line on a terminal that is kept up to date, a line a minute else."""
    if not sys.stderr.isatty():
        yield _Minutes().tell
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from fairlead.monitor import logs

    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)

    def tell(status: Status) -> None:
        if not live.is_started:
            live.start()
            logs.configure("text")  # whose lines are above this one from now on
        live.update(Text(streamed(status)), refresh=True)

    try:
        yield tell
    finally:
        live.stop()


class _Minutes:
    """Tells now and then how a consumer is, if it did anything."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()
        self._records = 0

    def tell(self, status: Status) -> None:
        now_s = time.monotonic()
        if now_s - self._at_s < _LINE_S or status.records == self._records:
            return
        self._at_s, self._records = now_s, status.records
        logger.info("%s", streamed(status))
