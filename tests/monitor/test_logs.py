from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import logging.config
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from fairlead.monitor import logs
from fairlead.monitor.logs import (
    AccessLine,
    AccessLog,
    JsonFormatter,
    RequestIds,
    TraceContext,
    logging_config,
    new_trace,
    parse_traceparent,
    valid_request_id,
)
from monitor.peers import Asked

DOCS = Path(__file__).parents[2] / "docs" / "observability.md"
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
EVIL = 'a"b\\c\n{"level":"INFO"}\r\x1b[31m\x00\x7f\x85\x9b\u2028ü\U0001f600'


class Pipe:
    """A pipe to write a log to, and what came out of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        data = b""
        while True:
            try:
                more = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                return data
            if not more:
                return data
            data += more

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().splitlines()]

    def fill(self) -> int:
        """Leave no room, as a reader does that has stopped."""
        os.set_blocking(self.writer, False)
        size = 0
        for block in (4096, 1):
            try:
                while True:
                    size += os.write(self.writer, b"x" * block)
            except BlockingIOError:
                pass
        os.set_blocking(self.writer, True)
        return size


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for fd in (pipe.reader, pipe.writer):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_line_holds_every_field(pipe: Pipe) -> None:
    log = AccessLog(pipe.writer)
    asked = Asked(path="/models/iris/predict", key_name="shop", trace=parse_traceparent(PARENT))
    log.write(asked, 200, 1_234_567, 3, "iris", "1")
    (line,) = pipe.lines()
    told = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - told).total_seconds()) < 5
    assert line == {
        "level": "INFO",
        "logger": "fairlead.access",
        "message": "request",
        "pid": os.getpid(),
        "method": "POST",
        "path": "/models/iris/predict",
        "status": 200,
        "duration_ms": 1.234,
        "request_bytes": 2,
        "request_id": "id-1",
        "rows": 3,
        "model": "iris",
        "version": "1",
        "client": "192.0.2.1",
        "key": "shop",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
    }
    assert {"time", "dropped", *line} == set(AccessLine.__struct_fields__)


def test_fields_without_a_value_are_left_out(pipe: Pipe) -> None:
    AccessLog(pipe.writer).write(Asked(client=None), 200, 1000)
    assert pipe.lines()[0].keys() & {"model", "version", "client", "key", "trace_id", "span_id"} == set()


def test_lines_that_come_close_together_are_one_write(pipe: Pipe) -> None:
    async def turns() -> list[int]:
        log = AccessLog(pipe.writer)
        counts = []
        for n in (3, 1):
            for _ in range(n):
                log.write(Asked(), 200, 1000)
            assert pipe.lines() == []
            await asyncio.sleep(5 * logs.WRITE_S)
            counts.append(len(pipe.lines()))
        return counts

    assert asyncio.run(turns()) == [3, 1]


def test_loop_that_ends_takes_no_line_along(pipe: Pipe) -> None:
    log = AccessLog(pipe.writer)

    async def write() -> None:
        log.write(Asked(), 200, 1000)

    for _ in range(2):
        asyncio.run(write())
    log.close()
    assert len(pipe.lines()) == 2


def test_request_cannot_write_lines_of_its_own(pipe: Pipe) -> None:
    log = AccessLog(pipe.writer)
    log.write(Asked(method="GET", path=f"/{EVIL}", client=EVIL, request_id=EVIL.encode()), 404, 1000)
    log.write(Asked(path="/\udcff\ud800"), 404, 1000)
    written = pipe.read()
    assert written.count(b"\n") == 2
    assert b"\x1b" not in written
    assert b"%0A" in written
    assert log.dropped == 0
    assert [json.loads(line)["status"] for line in written.splitlines()] == [404, 404]


def test_long_path_is_cut(pipe: Pipe) -> None:
    AccessLog(pipe.writer).write(Asked(path="/" + 'ü"' * 100_000), 404, 1000)
    assert len(pipe.lines()[0]["path"]) == logs.MAX_PATH


def test_lines_are_ascii_whatever_they_tell(pipe: Pipe) -> None:
    async def turn() -> AccessLog:
        log = AccessLog(pipe.writer)
        for client in ("a", "\ud800", EVIL):
            log.write(Asked(client=client), 200, 1000)
        await asyncio.sleep(5 * logs.WRITE_S)
        return log

    assert asyncio.run(turn()).dropped == 0
    written = pipe.read()
    assert written.isascii()
    assert [json.loads(line)["client"] for line in written.decode().splitlines()] == ["a", "\ud800", EVIL]


def test_what_cannot_be_encoded_costs_no_answer(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog(pipe.writer)
    log.write(Asked(client=object()), 200, 1000)
    assert log.dropped == 1
    assert "1 lines of the access log cannot be encoded" in caplog.text
    log.write(Asked(), 200, 1000)
    assert [line["dropped"] for line in pipe.lines()] == [1]


def test_reader_that_stopped_holds_nobody_up(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_PENDING_BYTES", 10_000)
    monkeypatch.setattr(logs, "RETRY_S", 0.005)
    filled = pipe.fill()

    async def serve() -> None:
        log = AccessLog(pipe.writer)
        for _ in range(10):
            for _ in range(100):
                log.write(Asked(), 200, 1000)
            await asyncio.sleep(5 * logs.WRITE_S)
        assert log.dropped == 900

        assert len(pipe.read()) == filled
        await asyncio.sleep(0.05)
        assert len(pipe.lines()) == 100
        for _ in range(2):
            log.write(Asked(), 200, 1000)
        await asyncio.sleep(5 * logs.WRITE_S)
        first, second = pipe.lines()
        assert first["dropped"] == 900
        assert "dropped" not in second
        assert not fcntl.fcntl(pipe.writer, fcntl.F_GETFL) & os.O_NONBLOCK

    asyncio.run(serve())


def test_reader_that_is_gone_costs_lines_and_no_answer(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog(pipe.writer)
    os.close(pipe.reader)
    for _ in range(3):
        log.write(Asked(), 200, 1000)
    assert log.dropped == 3
    assert [record.getMessage() for record in caplog.records] == ["the access log cannot be written: Broken pipe"]


def test_non_blocking_pipe_is_written_as_room_comes(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    log = AccessLog(pipe.writer)
    for _ in range(1000):
        log.write(Asked(), 200, 1000)
    count = 0
    while read := pipe.lines():
        count += len(read)
        log.flush()
    assert (count, log.dropped) == (1000, 0)


def test_close_waits_for_a_slow_reader(pipe: Pipe) -> None:
    log = AccessLog(pipe.writer)
    for _ in range(1000):
        log.write(Asked(), 200, 1000)
    os.set_blocking(pipe.reader, True)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(pipe.reader, 4096), b"")))
    reader.start()
    log.close()
    os.close(pipe.writer)
    reader.join()
    assert (b"".join(read).count(b"\n"), log.dropped) == (1000, 0)


def test_close_gives_a_reader_up_that_never_comes(pipe: Pipe) -> None:
    pipe.fill()
    log = AccessLog(pipe.writer)
    log.write(Asked(), 200, 1000)
    log.close(timeout_s=0.01)
    assert log.dropped == 1


def test_lines_of_several_processes_do_not_mix(pipe: Pipe) -> None:
    paths = ["/a" * 300, "/b" * 30, "/c" * 500]
    script = "import sys; from monitor.peers import write_lines; write_lines(1, 2000, sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    writers = [
        subprocess.Popen([sys.executable, "-c", script, path], stdout=pipe.writer, env=environment) for path in paths
    ]
    os.close(pipe.writer)
    os.set_blocking(pipe.reader, True)
    read = b""
    while more := os.read(pipe.reader, 1 << 16):
        read += more
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    found = [json.loads(line)["path"] for line in read.splitlines()]
    assert {path: found.count(path) for path in paths} == dict.fromkeys(paths, 2000)


def test_threads_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = AccessLog(fd)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write() -> None:
        for _ in range(1000):
            log.write(Asked(), 200, 1000)

    try:
        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
        os.close(fd)
    assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 8000


def test_forked_worker_is_told_by_its_own_pid() -> None:
    script = """
import os
from fairlead.monitor.logs import AccessLog, RequestIds
from monitor.peers import Asked
log, ids = AccessLog(1), RequestIds()
if os.fork():
    os.wait()
log.write(Asked(request_id=ids()), 200, 1000)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, timeout=60)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["pid"] for line in lines}) == len({line["request_id"] for line in lines}) == 2


@pytest.fixture
def stream() -> Iterator[StringIO]:
    stream = StringIO()
    logger = logging.getLogger("fairlead.test_logs")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_log_record_is_one_line_of_json(stream: StringIO) -> None:
    logger = logging.getLogger("fairlead.test_logs")
    logger.error("%s\nü", EVIL, extra={"request_id": "id-1", "model": "iris"})
    line = stream.getvalue()
    assert len(line.splitlines()) == 1
    assert line.isascii()
    told = json.loads(line)
    assert datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told == {
        "level": "ERROR",
        "logger": "fairlead.test_logs",
        "message": f"{EVIL}\nü",
        "pid": os.getpid(),
        "request_id": "id-1",
        "model": "iris",
    }


def test_traceback_is_a_field(stream: StringIO) -> None:
    try:
        raise ValueError("no\nsuch thing")
    except ValueError:
        logging.getLogger("fairlead.test_logs").exception("failed", stack_info=True)
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["exc_info"].startswith("Traceback (most recent call last):\n")
    assert told["exc_info"].endswith("ValueError: no\nsuch thing")
    assert told["stack_info"].startswith("Stack")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_configuration_sends_both_loggers_to_standard_error(log_format: str) -> None:
    script = f"""
import logging
from fairlead.monitor import logs
logs.configure({log_format!r})
logging.getLogger("fairlead.web").info("ours")
logging.getLogger("uvicorn.error").warning("theirs")
logging.getLogger("uvicorn.error").info("too much")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    if log_format == "json":
        assert [json.loads(line)["message"] for line in lines] == ["ours", "theirs"]
    else:
        assert [line.partition(": ")[2] for line in lines] == ["ours", "theirs"]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO \d+ fairlead\.web: ", lines[0])
    assert logging_config("text")["loggers"] == logging_config("json")["loggers"]


def test_request_ids_are_unique_and_valid() -> None:
    one, other = RequestIds(), RequestIds()
    ids = [one() for _ in range(1000)] + [other() for _ in range(1000)]
    assert len(set(ids)) == 2000
    assert all(map(valid_request_id, ids))


@pytest.mark.parametrize(
    ("value", "is_valid"),
    [
        (b"a", True),
        (b"AZaz09._~:/+=@-", True),
        (b"a" * 128, True),
        (b"a" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"a\n", False),
        (b"a\r\nx-evil: 1", False),
        (b'"', False),
        (b"\xc3\xbc", False),
        (b"a\x00", False),
    ],
)
def test_request_id_of_a_client(value: bytes, is_valid: bool) -> None:
    assert valid_request_id(value) == is_valid


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (PARENT, 1),
        (PARENT[:-2] + b"00", 0),
        (PARENT[:-2] + b"03", 3),
        (PARENT[:-2] + b"ff", 3),
        (b"01" + PARENT[2:], 1),
        (b"cc" + PARENT[2:] + b"-what-the-future-brings", 1),
        (b"cc" + PARENT[2:] + b"-", 1),
    ],
)
def test_valid_traceparent(value: bytes, flags: int) -> None:
    assert parse_traceparent(value) == TraceContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        PARENT + b"-",
        PARENT + b"-more",
        PARENT + b" ",
        b" " + PARENT,
        PARENT + b"\n",
        b"ff" + PARENT[2:],
        b"cc" + PARENT[2:] + b".more",
        b"cc" + PARENT[2:] + b"0",
        PARENT.upper(),
        PARENT.replace(b"4bf9", b"4bg9"),
        PARENT.replace(b"-", b"_"),
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01",
        PARENT[:-1],
        PARENT[:-2] + b"0x",
        b"0x" + PARENT[2:],
        PARENT[1:],
    ],
)
def test_invalid_traceparent(value: bytes) -> None:
    assert parse_traceparent(value) is None


def test_child_stays_in_the_trace() -> None:
    parent = parse_traceparent(PARENT)
    assert parent is not None
    child = parent.child()
    assert (child.trace_id, child.parent_id, child.flags) == (TRACE, SPAN, 1)
    assert child.span_id != SPAN
    again = parse_traceparent(child.traceparent())
    assert again == TraceContext(TRACE, child.span_id, 1)
    assert parent.traceparent() == PARENT


def test_new_trace_is_a_valid_one() -> None:
    trace = new_trace()
    assert parse_traceparent(trace.traceparent()) == trace
    assert trace != new_trace()


def test_every_field_is_told() -> None:
    page = DOCS.read_text(encoding="utf-8")
    told = set(re.findall(r"^\| ((?:`\w+` ?)+)\|", page, re.MULTILINE))
    names = {name for row in told for name in re.findall(r"`(\w+)`", row)}
    fields = {*AccessLine.__struct_fields__, *logs.EXTRA_FIELDS, "exc_info", "stack_info"}
    assert fields - names == set()
