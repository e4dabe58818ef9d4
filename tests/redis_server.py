"""A real Redis for tests.

A pytest plugin, loaded by tests/conftest.py. The server is started when a test first asks for it, once a process of
the test run, and ends with it. It keeps what tests put there: choose names of your own, and leave it running.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry import GUARD, free_port

if TYPE_CHECKING:
    from redis import Redis

START_S = 30
END_S = 20
PASSWORD = "s3cret/word"
QUOTED = "s3cret%2Fword"


class RedisServer:
    """A server that has on disk what it confirmed, and whose data outlives a restart.

    Attributes
    ----------
    port : where it listens on 127.0.0.1.
    client : redis-py's, for the tests' own use.
    """

    def __init__(self, home: Path) -> None:
        from redis import Redis

        self.port = free_port()
        self.client: Redis = Redis(port=self.port, password=PASSWORD)
        self._home = home
        self._guard: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, path: str, login: str = f":{QUOTED}") -> str:
        """Give the address of a stream."""
        return f"redis://{login}@127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        """Start it with the data that it had."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._home)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--requirepass", PASSWORD]
        with (self._home / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", *command],
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline or self._guard.poll() is not None:
                self.kill()
                raise AssertionError(f"Redis did not start: {(self._home / 'log').read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a failure of power would."""
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(END_S)

    def end(self) -> None:
        self.client.close()
        self.kill()

    def _answers(self) -> bool:
        from redis import RedisError

        try:
            return bool(self.client.ping())
        except RedisError:
            return False


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Give a Redis server."""
    pytest.importorskip("redis", reason="faststream[redis] is not installed: make install")
    if not shutil.which("redis-server"):
        pytest.skip("Redis is not installed: scripts/system-packages")
    with tempfile.TemporaryDirectory(prefix="redis-", ignore_cleanup_errors=True) as home:
        server = RedisServer(Path(home))
        try:
            yield server
        finally:
            server.end()
