"""A real RabbitMQ for tests.

A pytest plugin, loaded by tests/conftest.py. The server is started when a test first asks for it, once a process of
the test run, with a name service (epmd) of its own, and ends with it. It keeps what tests put there: choose names of
your own, and leave it running.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
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
LOGIN = "guest:guest"
# Debian's own command in /usr/sbin changes to the user `rabbitmq`, whose directories these are not.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_CONF = """\
listeners.tcp.default = 127.0.0.1:{port}
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 512MB
log.file.level = warning
"""


class RabbitServer:
    """A server without plugins, whose directories outlive a restart.

    Attributes
    ----------
    port : where it listens on 127.0.0.1.
    """

    def __init__(self, program: Path, home: Path) -> None:
        self.port = free_port()
        self._program = program
        self._home = home
        self._guard: subprocess.Popen[bytes] | None = None
        (home / "rabbitmq.conf").write_text(_CONF.format(port=self.port))
        (home / "plugins").write_text("[].")
        (home / "env.conf").write_text("")  # else the machine's own would be read
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),  # where the cookie lies
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"fairlead{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            # One scheduler that does not spin: it shares the machine with other tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        self.start()

    def url(self, path: str, login: str = LOGIN) -> str:
        """Give the address of a queue: ``QUEUE`` or ``VHOST/QUEUE``."""
        return f"amqp://{login}@127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        """Start it with the data that it had."""
        # Both in one group of processes, which ends as one; without the first, Erlang would leave a daemon behind.
        line = '"$1" & "$2"'
        with (self._home / "out").open("ab") as out:
            self._guard = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", "sh", "-c", line, "both", "epmd", self._program],
                cwd=self._home,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline or self._guard.poll() is not None:
                self.kill()
                raise AssertionError(f"RabbitMQ did not start: {(self._home / 'out').read_text()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a failure of power would: it has no time to write anything."""
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(END_S)

    def end(self) -> None:
        """End it in its own way first."""
        assert self._guard is not None
        if self._guard.poll() is None:
            os.kill(int((self._home / "pid").read_text()), signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(END_S)
        self.kill()

    def _answers(self) -> bool:
        """Tell whether it greets, which it does last when it starts."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False


def put(server: RabbitServer, queue: str, bodies: list[bytes], **properties: Any) -> None:
    """Make a durable queue and put persistent messages there, without fairlead's own hands."""

    async def publish() -> None:
        import aio_pika

        connection = await aio_pika.connect(server.url("%2F"))
        async with connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True)
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=2, **properties)
                await channel.default_exchange.publish(message, queue)

    asyncio.run(publish())


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """Give a RabbitMQ server."""
    pytest.importorskip("aio_pika", reason="faststream[rabbit] is not installed: make install")
    program = _PROGRAMS / "rabbitmq-server"
    if not program.exists() or not shutil.which("epmd"):
        pytest.skip("RabbitMQ is not installed: scripts/system-packages")
    with tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as home:
        server = RabbitServer(program, Path(home))
        try:
            yield server
        finally:
            server.end()
