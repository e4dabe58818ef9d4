"""A NATS server with JetStream for tests.

A pytest plugin, loaded by tests/conftest.py. The one of the session keeps what tests put there: choose names of your
own. A test that stops its server starts one for itself, with `started_nats`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry import GUARD, free_port

START_S = 30
END_S = 20


class NatsServer:
    """A server with a store of its own.

    Attributes
    ----------
    hosts : ``host:port``.
    """

    def __init__(self, program: str, home: Path, *arguments: str) -> None:
        self.port = free_port()
        self.hosts = f"127.0.0.1:{self.port}"
        self._log = home / "log"
        self._pid = home / "pid"
        self._command = [
            program,
            "-js",
            "-P",
            str(self._pid),
            "-sd",
            str(home),
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            *arguments,
        ]
        self._guard: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, with what is in its store."""
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the NATS server did not start: {self._log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as it wants to be ended; its store stays."""
        assert self._guard is not None
        os.kill(int(self._pid.read_text()), signal.SIGTERM)
        self._guard.wait(END_S)
        self.kill()

    def kill(self) -> None:
        """Kill it; its store stays as it is."""
        guard, self._guard = self._guard, None
        if guard is not None:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait(END_S)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return probe.recv(5) == b"INFO "
        except OSError:
            return False


@contextmanager
def started_nats(*arguments: str) -> Iterator[NatsServer]:
    """Give a server, and end it."""
    for library in ("nats", "faststream"):
        pytest.importorskip(library, reason=f"{library} is not installed: make install")
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nats-server is not installed: scripts/system-packages")
    with tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True) as home:
        server = NatsServer(program, Path(home), *arguments)
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Give a NATS server."""
    with started_nats() as server:
        yield server
