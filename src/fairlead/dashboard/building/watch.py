"""Keeps stores current: builds one anew when what it was made of changes, and leaves the old one up until then.

The build is a process of its own, which proves what it made before it puts it in place; whoever serves the store sees
that by itself. What cannot be built is told beside the store, in a file that the server shows on the dashboard's page.

Inputs are looked at twice a second rather than through the kernel's notices, which do not come from network disks and
from volumes of containers.

Layer L3.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

from fairlead.dashboard.store import Store
from fairlead.dashboard.trouble import Trouble

logger = logging.getLogger("fairlead.dashboard")

# A change is followed by others until whoever writes is done: so long a silence ends it.
QUIET_S = 1.0
_LOOK_S = 0.5
_END_S = 10.0
_MAX_REASON = 2000

# Of each file its size and times; of what is not there, nothing.
Look = dict[str, tuple[int, int, int]]


def look_at(inputs: Sequence[Path]) -> Look:
    """Look at files, and at all files in directories, without reading them."""
    found: Look = {}
    for path in inputs:
        for file in _files_of(path):
            with suppress(OSError):  # gone between
                about = file.stat()
                found[str(file)] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    else:
        yield path


@dataclass
class _Watched:
    """A store, and how far its next build is.

    Parameters
    ----------
    store : its path.
    inputs : files and directories that it is made of.
    seen : how they were last.
    changed_s : since when they are so, by the monotonic clock; None when that was built.
    process : builds, while it runs.
    told : takes what the process says.
    """

    store: Path
    inputs: tuple[Path, ...]
    seen: Look
    changed_s: float | None = None
    process: subprocess.Popen[bytes] | None = None
    told: IO[bytes] | None = field(default=None, repr=False)


def watch(stores: Sequence[Path], stop: threading.Event, quiet_s: float = QUIET_S) -> None:
    """Watch what stores were built from, until it is time to stop.

    Parameters
    ----------
    stores : as `build.build` made them.
    stop : set by whoever wants an end; a build under way is ended.
    quiet_s : for how long the inputs have to be left alone before a build begins.

    Raises
    ------
    DashboardError
        When one is no store.
    """
    watched = []
    for path in stores:
        store = Store.open(path)
        inputs = store.inputs()
        seen = look_at(inputs)
        built_ns = datetime.fromisoformat(store.manifest.built_at).timestamp() * 1e9
        is_due = any(changed_ns > built_ns for _, changed_ns, _ in seen.values())
        watched.append(_Watched(store.path, inputs, seen, time.monotonic() if is_due else None))
        logger.info("%s: watches %s", store.path.name, ", ".join(map(str, inputs)))
    try:
        while not stop.wait(_LOOK_S):
            for one in watched:
                _go_on(one, quiet_s)
    finally:
        for one in watched:
            _end(one)


def _go_on(one: _Watched, quiet_s: float) -> None:
    """Look at the inputs, begin a build that is due, and take what one has come to."""
    now_s = time.monotonic()
    if (seen := look_at(one.inputs)) != one.seen:
        one.seen, one.changed_s = seen, now_s
        if one.process is not None:
            logger.info("%s: changed again while it was built", one.store.name)
            _end(one)
    if one.process is not None and one.process.poll() is not None:
        _take(one)
    if one.process is None and one.changed_s is not None and now_s - one.changed_s >= quiet_s:
        _begin(one)


def _begin(one: _Watched) -> None:
    logger.info("%s: is built anew", one.store.name)
    one.changed_s = None
    one.told = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would hold up the build
    one.process = subprocess.Popen(
        [sys.executable, "-m", "fairlead", "dashboard", "rebuild", str(one.store)],
        stdin=subprocess.DEVNULL,
        stdout=one.told,
        stderr=one.told,
    )


def _take(one: _Watched) -> None:
    assert one.process is not None
    assert one.told is not None
    if one.process.returncode == 0:
        Trouble.clear(one.store)
        logger.info("%s: built anew", one.store.name)
    else:
        one.told.seek(0)
        said = one.told.read().decode(errors="replace").strip()
        reason = _reason(said) or f"the build ended with exit code {one.process.returncode}"
        Trouble(reason).write(one.store)
        logger.error("%s: stays as it was: %s", one.store.name, reason)
    _forget(one)


def _reason(said: str) -> str:
    """Give the last message of a command, which is its error."""
    return said.rpartition("\nfairlead: ")[2].removeprefix("fairlead: ")[:_MAX_REASON]


def _end(one: _Watched) -> None:
    """End a build that nobody waits for any more; what it wrote goes with it."""
    if one.process is None:
        return
    one.process.terminate()
    try:
        one.process.wait(_END_S)
    except subprocess.TimeoutExpired:
        one.process.kill()
        one.process.wait()
    _forget(one)


def _forget(one: _Watched) -> None:
    if one.told is not None:
        one.told.close()
    one.process = one.told = None
