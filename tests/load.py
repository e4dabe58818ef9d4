"""Servers under load: started as a user starts them, asked over raw sockets, by more clients than is good for them.

For tests and for benchmarks/soak.py. Everything here is bounded: in time, in connections and in what is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
START_S = 30
ANSWER_S = 30


class Served:
    """A `fairlead serve` process on a port of its own, its log in a file; settings by name, as ``timeout_s=2``."""

    def __init__(self, *bundles: Path, flags: Sequence[str] = (), host: str = "127.0.0.1", **settings: object) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((host, 0))
            self.port: int = probe.getsockname()[1]
        self.host = host
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # a pipe that nobody reads would hold up the server
        environment = {f"FAIRLEAD_WEB_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "fairlead", "serve", *map(str, bundles), *flags]
        self.process = subprocess.Popen(
            [*command, "--host", host, "--port", str(self.port)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Served:
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self.__exit__()
            raise AssertionError("the server did not start")
        if self.models():
            eventually(lambda: status_of(self.host, self.port, "/readyz") == 200)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(START_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if "pytest" in sys.modules:
            print(self.log())  # shown when the test fails
        self._log.close()

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def models(self, name: str = "") -> list[int]:
        """Give the processes of isolated models, of one that is named or of all."""
        return [pid for pid, path in sockets(self.process.pid).items() if path and (not name or path.startswith(name))]

    def workers(self) -> list[int]:
        return [pid for pid, path in sockets(self.process.pid).items() if not path]

    def memory_kb(self) -> int:
        """Give the PSS of all its processes."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        return sum(filter(None, map(pss_kb, pids)))


def descendants(pid: int) -> list[int]:
    """Give a process's children, without multiprocessing's resource tracker, which ends by itself."""
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def sockets(pid: int) -> dict[int, str]:
    """Give the children of a server, each with the name of the Unix socket on which it listens, or nothing."""
    with contextlib.suppress(OSError):
        listening = {}
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split()
            if len(fields) == 8 and fields[3] == "00010000":
                listening[fields[6]] = Path(fields[7]).name
        return {child: _listens_on(child, listening) for child in descendants(pid)}
    return {}


def _listens_on(pid: int, listening: dict[str, str]) -> str:
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
                if found and found[1] in listening:
                    return listening[found[1]]
    return ""


def pss_kb(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0])


def eventually(check: Callable[[], T], within_s: float = 20) -> T:
    """Ask until the answer is true, and give it."""
    deadline = time.monotonic() + within_s
    while not (answer := check()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def status_of(host: str, port: int, path: str) -> int:
    """Give the status of a GET, 0 when nobody answers."""
    try:
        with socket.create_connection((host, port), 5) as client:
            client.sendall(b"GET %b HTTP/1.0\r\nhost: x\r\n\r\n" % path.encode())
            return int(client.recv(65536)[9:12] or 0)
    except OSError:
        return 0


def post(body: object, path: str = "/predict", headers: str = "") -> bytes:
    """Write a POST; what is not bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
    return f"{head}{headers}\r\n".encode() + content


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode()


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Lost(Exception):
    """The connection ended before a whole answer.

    Parameters
    ----------
    got : what had come of it.
    """

    def __init__(self, got: bytes) -> None:
        super().__init__(f"the connection was lost after {got[:200]!r}")
        self.got = got


class Connection(asyncio.Protocol):
    """A raw connection whose answers are taken one by one."""

    def __init__(self) -> None:
        self.is_lost = False
        self._kept = b""
        self._wanted: asyncio.Future[None] | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._kept += data
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def ask(self, request: bytes, timeout_s: float = ANSWER_S) -> Answer:
        """Send a request and wait for its answer.

        Raises
        ------
        Lost, TimeoutError
            When there is none.
        """
        if self.is_lost:
            raise Lost(b"")
        self.transport.write(request)
        return await asyncio.wait_for(self.answer(request.startswith(b"HEAD")), timeout_s)

    async def answer(self, is_head: bool = False) -> Answer:
        """Wait for the next answer."""
        while (found := self._take(is_head)) is None:
            if self.is_lost:
                raise Lost(self._kept)
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        return found

    async def end(self, timeout_s: float = ANSWER_S) -> bytes:
        """Wait until the server closes; give what came before and was not taken."""
        async with asyncio.timeout(timeout_s):
            while not self.is_lost:
                self._wanted = asyncio.get_running_loop().create_future()
                await self._wanted
        return self._kept

    def _take(self, is_head: bool) -> Answer | None:
        head, mark, rest = self._kept.partition(b"\r\n\r\n")
        if not mark:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split(" ")[1])
        n_bytes = 0 if is_head or status == 100 else int(headers["content-length"])
        if len(rest) < n_bytes:
            return None
        self._kept = rest[n_bytes:]
        return Answer(status, headers, rest[:n_bytes])


@contextlib.asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1", **how: Any) -> AsyncIterator[Connection]:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port, **how)
    try:
        yield connection
    finally:
        connection.transport.abort()


@dataclass
class Tally:
    """What became of many requests.

    Attributes
    ----------
    statuses : how many answers had each.
    latencies_s : of the answers with status 200; of the others.
    faults : what must not happen: lost connections, wrong answers, none in time.
    retried : connections that could not be made, or were lost before a byte of an answer, where that is allowed.
    unsent : requests for which no connection was left.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    retried: int = 0
    unsent: int = 0

    def take(self, answer: Answer, took_s: float, wanted: bytes | None) -> None:
        self.statuses[answer.status] += 1
        (self.latencies_s if answer.status == 200 else self.refused_s).append(took_s)
        if answer.status == 200 and wanted is not None and not is_same(answer.body, wanted):
            self.faults.append(f"wrong answer {answer.body[:100]!r}")
        if answer.status == 503 and "retry-after" not in answer.headers:
            self.faults.append("503 without Retry-After")

    def __str__(self) -> str:
        statuses = " ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{statuses}; p50 {quantile(self.latencies_s, 0.5):.4f} s, p99 {quantile(self.latencies_s, 0.99):.4f} s, "
            f"most {max(self.latencies_s, default=0):.3f} s; refused most {max(self.refused_s, default=0):.3f} s; "
            f"retried {self.retried}, unsent {self.unsent}, faults {len(self.faults)} {self.faults[:3]}"
        )


def is_same(found: bytes, wanted: bytes) -> bool:
    """Compare answers; a batch may be summed in another order than a lone row."""
    if found == wanted:
        return True
    numbers = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")
    if numbers.sub(b"0", found) != numbers.sub(b"0", wanted):
        return False
    pairs = zip(numbers.findall(found), numbers.findall(wanted), strict=True)
    return all(math.isclose(float(one), float(other), rel_tol=1e-12) for one, other in pairs)


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else 0.0


async def closed_loop(
    port: int,
    request: bytes,
    wanted: bytes | None,
    until: Callable[[], bool],
    n_clients: int = 16,
    may_lose: bool = False,
    is_kept_alive: bool = True,
) -> Tally:
    """Let clients ask one request after the other until it is time to stop.

    Parameters
    ----------
    wanted : the body of every answer 200.
    may_lose : whether a connection may be refused, or lost before the first byte of an answer.
    is_kept_alive : whether a client keeps its connection.
    """
    tally = Tally()

    async def ask() -> None:
        while not until():
            try:
                async with connected(port) as connection:
                    while not until():
                        start = time.perf_counter()
                        answer = await connection.ask(request)
                        tally.take(answer, time.perf_counter() - start, wanted)
                        if not is_kept_alive or answer.headers.get("connection") == "close":
                            break
            except Lost as lost:
                if lost.got or not may_lose:
                    tally.faults.append(str(lost))
                    await asyncio.sleep(0.02)
                tally.retried += 1
            except OSError as error:
                if isinstance(error, TimeoutError) or not may_lose:
                    tally.faults.append(repr(error))
                tally.retried += 1
                await asyncio.sleep(0.02)

    await asyncio.gather(*[ask() for _ in range(n_clients)])
    return tally


async def open_loop(
    port: int, request: bytes, wanted: bytes | None, rate: float, seconds: float, most_connections: int = 2000
) -> Tally:
    """Send requests at a rate, whether they are answered or not."""
    tally = Tally()
    idle: list[Connection] = []
    made: list[Connection] = []
    asking: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()

    async def ask(due_s: float) -> None:
        try:
            if idle:
                connection = idle.pop()
            elif len(made) < most_connections:
                made.append(connection := (await loop.create_connection(Connection, "127.0.0.1", port))[1])
            else:
                tally.unsent += 1
                return
            tally.take(await connection.ask(request), loop.time() - due_s, wanted)
            idle.append(connection)
        except (Lost, OSError) as error:
            tally.faults.append(repr(error))

    start_s = loop.time()
    sent = 0
    while loop.time() - start_s < seconds:
        while sent < (loop.time() - start_s) * rate:
            # From now, not from when it was due: how late this process is, is no fault of the server's.
            task = loop.create_task(ask(loop.time()))
            asking.add(task)
            task.add_done_callback(asking.discard)
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*asking)
    for connection in made:
        connection.transport.abort()
    return tally


def for_seconds(seconds: float) -> Callable[[], bool]:
    end_s = time.monotonic() + seconds
    return lambda: time.monotonic() > end_s


async def meanwhile(what: Awaitable[Tally], every_s: float, do: Callable[[], object]) -> Tally:
    """Do something again and again while requests are made."""
    task = asyncio.ensure_future(what)
    while not task.done():
        await asyncio.wait([task], timeout=every_s)
        if not task.done():
            do()
    return task.result()


def kill_one(pids: Sequence[int], turn: Iterator[int]) -> None:
    """Kill one process of several, in turn."""
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[next(turn) % len(pids)], signal.SIGKILL)
