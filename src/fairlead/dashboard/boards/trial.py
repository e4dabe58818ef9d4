"""A store tried in a process of its own, before it takes the place of another: loaded as a worker does, and visited.

`try_store` is the side that asks; run as a module, this file is the side that tries. What it finds goes out as JSON.
Layer L3; the asking side imports nothing of explainerdashboard.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from fairlead.bundle.processes import end_with
from fairlead.dashboard import environment
from fairlead.errors import DashboardError, FairleadError

_SHOWN = 5
TIMEOUT_S = 1800.0


class Tried(Struct, frozen=True):
    """What a trial came to.

    Parameters
    ----------
    callbacks : of the page, all of which were asked.
    failed : what is wrong; nothing when all of it works.
    """

    callbacks: int = 0
    failed: tuple[str, ...] = ()


def try_store(
    path: Path, static: Path | None = None, environ: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> Tried:
    """Try a store.

    Parameters
    ----------
    static : where to write its page in one file, when it works; None to write none.
    environ : variables that it has besides those of this process.

    Raises
    ------
    DashboardError
        When part of it does not work, or the process crashes or takes too long.
    """
    with tempfile.TemporaryFile() as written:
        begun_s = time.monotonic()
        try:
            done = subprocess.run(
                command_for(path, static),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=written,
                timeout=timeout_s,
                env=os.environ | dict(environ or {}),
            )
        except subprocess.TimeoutExpired as error:
            waited_s = time.monotonic() - begun_s
            raise DashboardError(f"the dashboard did not come to an end of its trial in {waited_s:.0f} s") from error
        written.seek(0)
        said = written.read().decode(errors="replace").strip().splitlines()
    try:
        tried = msgspec.json.decode(done.stdout, type=Tried)
    except msgspec.MsgspecError as error:
        last = "".join(f"\n  {line}" for line in said[-_SHOWN:])
        raise DashboardError(f"the dashboard {_ending(done.returncode)} when it was tried{last}") from error
    if tried.failed:
        more = f"\n  … and {len(tried.failed) - _SHOWN} more" if len(tried.failed) > _SHOWN else ""
        listed = "".join(f"\n  {one}" for one in tried.failed[:_SHOWN])
        cause = f"\n  {said[-1]}" if said and tried.callbacks else ""
        raise DashboardError(f"the dashboard does not work:{listed}{more}{cause}")
    return tried


def command_for(path: Path, static: Path | None = None) -> list[str]:
    """Give the command of a trial, which ends with the thread that starts it and answers on its standard output."""
    command = [sys.executable, "-P", "-m", "fairlead.dashboard.boards.trial", str(os.getpid()), os.fspath(path)]
    return command + ([] if static is None else [os.fspath(static)])


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended its process with code {code}"
    name = signal.Signals(-code).name
    return f"crashed its process with {name}" + (", maybe for want of memory," if name == "SIGKILL" else "")


def main(parent: int, path: Path, static: Path | None) -> None:
    """Be the process, as long as there is the one that asked."""
    environment.own_process()
    end_with(parent)
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not the answer
    try:
        tried = _try(path, static)
    except FairleadError as error:
        tried = Tried(failed=(str(error),))
    except Exception as error:
        traceback.print_exc()
        tried = Tried(failed=(f"{type(error).__name__}: {error}",))
    os.write(out, msgspec.json.encode(tried))


def _try(path: Path, static: Path | None) -> Tried:
    from fairlead.dashboard.boards.board import load_board
    from fairlead.dashboard.boards.static_page import write
    from fairlead.dashboard.boards.visit import visit

    board = load_board(path, "/")
    examples = (board.store.manifest.rows or {}).get("examples", ())
    found = visit(board, examples)
    if static is not None and not found.failed:
        write(board, static)
    return Tried(found.callbacks, found.failed)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
