"""A real PostgreSQL for tests.

A pytest plugin, loaded by tests/conftest.py. The server is started when a test first asks for it, once a process of
the test run, and ends with it. It keeps what tests put there: choose names of your own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import GUARD, free_port

START_S = 60
END_S = 20
PASSWORD = "s3cret/word"
QUOTED = "s3cret%2Fword"


class PostgresServer:
    """A server with one database, `rides`.

    Attributes
    ----------
    uri : of the database, with its password.
    """

    def __init__(self, programs: Path, home: Path) -> None:
        self.port = free_port()
        self.uri = f"postgresql://fairlead:{QUOTED}@127.0.0.1:{self.port}/rides"
        self._guard: subprocess.Popen[bytes] | None = None
        data = home / "data"
        word = home / "password"
        word.write_text(PASSWORD)
        word.chmod(0o600)
        become: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            for path in (home, word):
                shutil.chown(path, "postgres", "postgres")
        init = ["initdb", "-D", data, "-U", "fairlead", "-A", "scram-sha-256", f"--pwfile={word}", "-E", "UTF8", "-N"]
        done = subprocess.run([*become, programs / init[0], *init[1:]], cwd=home, capture_output=True, timeout=START_S)
        assert done.returncode == 0, done.stderr.decode()
        # Nothing of it outlives the test run.
        settings = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={home}", "max_connections=20"]
        command = [*become, programs / "postgres", "-D", data, "-p", str(self.port)]
        for setting in settings:
            command += ["-c", setting]
        self._pid = data / "postmaster.pid"
        self._log = home / "log"
        with self._log.open("wb") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", *command],
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def run(self, statement: str, database: str = "rides") -> list[tuple[Any, ...]]:
        """Run a statement, and give its rows."""
        from adbc_driver_postgresql import dbapi

        uri = self.uri.removesuffix("rides") + database
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def end(self) -> None:
        """End it as it wants to be ended, so that no shared memory of it is left."""
        assert self._guard is not None
        assert self._guard.stdin is not None
        if self._pid.exists():
            os.kill(int(self._pid.read_text().split()[0]), signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(END_S)
        self._guard.stdin.close()
        self._guard.wait(END_S)

    def _wait(self) -> None:
        from adbc_driver_postgresql import dbapi

        deadline = time.monotonic() + START_S
        while True:
            try:
                self.run("CREATE DATABASE rides", "postgres")
            except dbapi.Error as error:
                if time.monotonic() > deadline:
                    self.end()
                    raise AssertionError(f"PostgreSQL did not start: {self._log.read_text()}") from error
                time.sleep(0.05)
            else:
                return


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server."""
    pytest.importorskip("adbc_driver_postgresql", reason="adbc-driver-postgresql is not installed: make install")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed: scripts/system-packages")
    # Not below pytest's directories, which only their owner enters; and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as home:
        server = PostgresServer(found[-1].parent, Path(home))
        try:
            yield server
        finally:
            server.end()
