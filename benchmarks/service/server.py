"""A server as a process: started on loopback, waited for, and ended with everything it started."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = "127.0.0.1"
START_S, STOP_S, POLL_S = 120, 20, 0.1
ANSWER_S = 60
# A server that waits for requests computes less than this: Ray's own bookkeeping takes a tenth of a core.
IDLE_CORES, IDLE_WINDOW_S, IDLE_WINDOWS, IDLE_S = 0.25, 0.5, 2, 30


class ServerFailed(Exception):
    """It did not start; the message is for the table, and the server's log has more."""


class WrongAnswer(Exception):
    """It does not answer as it should; the message is for the table."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """Post JSON; give the status and the body of the answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def running(
    command: list[str], folder: Path, environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, and end it and all its descendants."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def await_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Ask until it answers.

    Raises
    ------
    ServerFailed
        When it ended, or has not answered in time.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with exit code {process.returncode} before it answered")
        with suppress(OSError, http.client.HTTPException):
            if ready():
                return
        time.sleep(POLL_S)
    raise ServerFailed(f"the server did not answer 200 within {START_S} s")


def await_idle(pid: int) -> None:
    """Wait until a server computes nothing: all its workers are up, and none has a queue left from before.

    One that never comes to rest is measured as it is after a while.
    """
    deadline, quiet = time.monotonic() + IDLE_S, 0
    before = cpu_s(pid)
    while quiet < IDLE_WINDOWS and time.monotonic() < deadline:
        time.sleep(IDLE_WINDOW_S)
        now = cpu_s(pid)
        quiet = quiet + 1 if now - before < IDLE_CORES * IDLE_WINDOW_S else 0
        before = now


def cpu_s(pid: int) -> float:
    """Sum the processor time of a process and its descendants. Source: proc(5), stat, utime and stime."""
    stats = map(_stat, [pid, *descendants(pid)])
    return sum(int(stat[11]) + int(stat[12]) for stat in stats if stat) / os.sysconf("SC_CLK_TCK")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, then kill what is left of its process group and of its descendants."""
    family = descendants(process.pid)
    with suppress(ProcessLookupError):
        process.terminate()
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and (process.poll() is None or any(map(is_alive, family.items()))):
        time.sleep(POLL_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in family.items():
        if is_alive(member):
            with suppress(ProcessLookupError):
                os.kill(member[0], signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Find the processes below one, each with its start time: a pid alone may soon be another's."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(path.name))
        if stat:
            children.setdefault(int(stat[1]), []).append(int(path.name))
    found, waiting = {}, [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            stat = _stat(child)
            if stat:
                found[child] = stat[19]
                waiting.append(child)
    return found


def is_alive(member: tuple[int, str]) -> bool:
    stat = _stat(member[0])
    return bool(stat) and stat[19] == member[1] and stat[0] != "Z"


def _stat(pid: int) -> list[str]:
    """Read a process's state, parent, … start time at 19; nothing when it is gone. Source: proc(5), stat."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
