"""One peer on one machine: installed, started, checked against scikit-learn, loaded, ended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import environment
import rows as model_rows
import wrk
from environment import InstallFailed
from peer import APPS, ROOT, Peer, Place
from rows import Rows
from server import HOST, ServerFailed, WrongAnswer, ask, await_idle, await_ready, free_port, running
from wrk import Measurement, Target

WARM_UP_S = 2
CHECKED, ASKED_AT_ONCE = 64, 8
TOLERANCE = 1e-6
LOG_LINES = 40


@dataclass(frozen=True)
class Ready:
    """A peer that is installed and prepared."""

    peer: Peer
    place: Place
    rows: Rows
    bodies: Path
    versions: dict[str, str]

    @property
    def note(self) -> str:
        refitted = self.rows.refitted
        return f"the model trained again with scikit-learn {refitted}" if refitted else ""


def make_ready(peer: Peer, rows: Rows, build: Path, upgrade: bool) -> Ready:
    """Install a peer and prepare it.

    Raises
    ------
    InstallFailed, subprocess.CalledProcessError
        When that does not work.
    """
    folder = build / peer.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.log").unlink(missing_ok=True)
    provided = environment.provide(peer, folder, upgrade)
    rows = model_rows.for_environment(rows, provided, folder)
    place = Place(provided.python, folder, rows.model, rows.data)
    peer.prepare(place)
    bodies = folder / "bodies.txt"
    bodies.write_bytes(b"\n".join(rows.bodies(peer)) + b"\n")
    shown = ("python", *peer.versions, *(("scikit-learn",) if peer.probability else ()))
    return Ready(peer, place, rows, bodies, {name: provided.versions.get(name, "none") for name in shown})


@dataclass(frozen=True)
class Serving:
    """A peer that answers."""

    pid: int
    port: int


@contextmanager
def serving(ready: Ready) -> Iterator[Serving]:
    """Have the peer answer, and rightly, with all its workers up.

    Raises
    ------
    ServerFailed, WrongAnswer
        When it does not start, or answers something else than scikit-learn.
    """
    place = replace(ready.place, port=free_port())
    bodies = ready.rows.bodies(ready.peer)
    command, environ = ready.peer.command(place), {"MODEL": str(place.model), **ready.peer.environ(place)}
    with running(command, APPS, environ, place.folder / "server.log") as process:
        await_ready(process, lambda: ask(place.port, ready.peer.path, bodies[0])[0] == 200)
        check(ready, place.port, bodies)
        await_idle(process.pid)
        yield Serving(process.pid, place.port)


def check(ready: Ready, port: int, bodies: list[bytes]) -> None:
    """Compare answers with what is expected, several asked at once so that batches form.

    Raises
    ------
    WrongAnswer
        When one differs.
    """
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        answers = list(threads.map(lambda body: ask(port, ready.peer.path, body), bodies[:CHECKED]))
    for (status, answer), body, expected in zip(answers, bodies, ready.rows.expected, strict=False):
        if status != 200:
            raise WrongAnswer(f"expected status 200, got {status}: {answer[:120].decode(errors='replace')}")
        if ready.peer.probability is None:
            if answer != body:
                raise WrongAnswer("expected the body back, got another")
        elif not abs(ready.peer.probability(json.loads(answer)) - expected) <= TOLERANCE:
            raise WrongAnswer(f"expected the probability {expected}, got {answer[:120].decode(errors='replace')}")


def load(ready: Ready, connections: int, seconds: int, serving: Serving) -> Measurement:
    """Warm up, let the queue run empty, measure."""
    target = Target(f"http://{HOST}:{serving.port}{ready.peer.path}", ready.bodies)
    wrk.load(target, connections, WARM_UP_S)
    # What the warm-up left behind would otherwise be answered on the measurement's time.
    await_idle(serving.pid)
    return wrk.load(target, connections, seconds)


def reason(error: Exception, log: Path) -> str:
    """Say in one line why a peer failed, with what was written about it, and without this machine's paths."""
    said, written = str(error), ""
    if isinstance(error, subprocess.CalledProcessError):
        said, written = f"a command ended with exit code {error.returncode}", str(error.stderr or error.stdout or "")
    elif isinstance(error, ServerFailed) and log.is_file():
        written = log.read_text(encoding="utf-8", errors="replace")
    elif not isinstance(error, WrongAnswer | InstallFailed):
        said = f"{type(error).__name__}: {error}"
    last = _last_error(written)
    told = f"{said} ({last})" if last else said
    return " ".join(told.replace(str(ROOT), "…").split())


def _last_error(written: str) -> str:
    """Find the line that tells most: the last that names an error, else the last at all."""
    lines = [line.strip() for line in written.splitlines()[-LOG_LINES:] if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
