"""A TCP proxy between a client and a server of the tests, which does to the transfer what networks do.

What it does is set while it runs, and holds from then on. Until the fault, the bytes are those of the real server.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["stall", "truncate", "reset"]
_CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True)
class Plan:
    """What happens to each connection.

    Parameters
    ----------
    fault : None passes everything on.
    after_bytes : of answers on that connection that come through first, from when the plan was made.
    rate_bytes_per_s : of answers; None is as fast as it goes.
    """

    fault: Fault | None = None
    after_bytes: int = 0
    rate_bytes_per_s: float | None = None


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on to one server.

    Attributes
    ----------
    url : where it listens.
    plan : what is done now.
    faults_left : how many connections meet the fault before all is well again; None is all of them.
    requests : the first lines that came, such as ``GET /models/churn HTTP/1.1``.
    answered_bytes : that were passed back.
    """

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.reset()
        self._start(self._accept)

    def reset(self) -> None:
        """Pass everything on again, and count from nothing."""
        self.plan = Plan()
        self.faults_left: int | None = None
        self.requests: list[str] = []
        self.answered_bytes = 0

    def fail(self, fault: Fault, after_bytes: int = 0, *, times: int | None = None) -> None:
        """Meet all connections with a fault, or the next few."""
        self.faults_left = times
        self.plan = Plan(fault, after_bytes)

    def slow(self, rate_bytes_per_s: float) -> None:
        self.plan = Plan(rate_bytes_per_s=rate_bytes_per_s)

    def count(self, method_and_path: str) -> int:
        """Count the requests whose first line begins like this."""
        with self._lock:
            return sum(line.startswith(method_and_path) for line in self.requests)

    def close(self) -> None:
        with self._lock:
            ends = [self._listener, *self._open]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self._server)
            except OSError:
                return
            with server:
                ends = {client, server}
                with self._lock:
                    self._open |= ends
                asking = threading.Thread(target=self._ask, args=(client, server), name="proxy", daemon=True)
                asking.start()
                with contextlib.suppress(OSError):
                    self._answer(server, client, asking)
                with self._lock:
                    self._open -= ends
                for end in ends:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                asking.join()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK_BYTES):
                first = data.split(b"\r\n", 1)[0]
                if first.endswith(b"HTTP/1.1"):
                    with self._lock:
                        self.requests.append(first.decode("latin-1"))
                server.sendall(data)
        # A client that went away wants no answer any more.
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket, asking: threading.Thread) -> None:
        plan, passed = self.plan, 0
        while data := server.recv(_CHUNK_BYTES):
            if plan is not self.plan:
                plan, passed = self.plan, 0
            faulty = plan.fault is not None and passed + len(data) > plan.after_bytes and self._is_next()
            part = data[: plan.after_bytes - passed] if faulty else data
            client.sendall(part)
            passed += len(part)
            with self._lock:
                self.answered_bytes += len(part)
            if faulty:
                self._break(plan.fault, client, asking)
                return
            if plan.rate_bytes_per_s:
                time.sleep(len(part) / plan.rate_bytes_per_s)

    def _is_next(self) -> bool:
        with self._lock:
            if self.faults_left is None:
                return True
            self.faults_left -= 1
            return self.faults_left >= 0

    def _break(self, fault: Fault | None, client: socket.socket, asking: threading.Thread) -> None:
        if fault == "stall":
            asking.join()  # until the client has had enough
        if fault == "reset":
            # No time to linger: the kernel drops what is unsent and answers with RST.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()


@contextmanager
def proxy_to(server_url: str) -> Iterator[Proxy]:
    """Give a proxy, and close it."""
    proxy = Proxy(server_url)
    try:
        yield proxy
    finally:
        proxy.close()
