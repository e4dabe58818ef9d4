"""Lines about what happened: for people or as JSON, of the service and of each request; ids to find them by.

`configure` sets up `logging`. `AccessLog` bypasses it: lines are collected while requests are answered, and
written together. `RequestIds` and `TraceContext` tie lines, answers and spans together.

Layer L2; imports msgspec and nothing of fairlead but its package.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.config
import os
import random
import re
import select
import stat
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Literal, Protocol
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from fairlead.monitor import after_fork

LogFormat = Literal["text", "json"]

logger = logging.getLogger("fairlead.monitor")


def configure(log_format: LogFormat = "text") -> None:
    """Send what fairlead and uvicorn have to say to standard error."""
    logging.config.dictConfig(logging_config(log_format))


def logging_config(log_format: LogFormat) -> dict[str, Any]:
    """Make the configuration for `logging.config.dictConfig`.

    Parameters
    ----------
    log_format : ``text`` for people, ``json`` for one object a line.
    """
    line = {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonFormatter} if log_format == "json" else line},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "loggers": {
            "fairlead": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
    }


# What a call to a logger may add with `extra`.
EXTRA_FIELDS = ("request_id", "trace_id", "span_id", "model", "version")


class JsonFormatter(logging.Formatter):
    """Makes of each record one line, a JSON object in ASCII; a traceback is its field ``exc_info``."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _rfc3339(int(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        fields |= {name: getattr(record, name) for name in EXTRA_FIELDS if hasattr(record, name)}
        if record.exc_info:
            fields["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack_info"] = self.formatStack(record.stack_info)
        return json.dumps(fields, default=str)


class Request(Protocol):
    """What is told of a request besides its answer."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def client(self) -> str | None: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def key_name(self) -> str | None: ...
    @property
    def trace(self) -> TraceContext | None: ...


class AccessLine(Struct, gc=False):
    """One line of the access log.

    Parameters
    ----------
    time : RFC 3339, in UTC, with milliseconds; of the answer.
    level, logger, message : as of any other line.
    pid : of the process that answered.
    method, path : of the request; a path that is long or not printable ASCII is percent-encoded and cut.
    status : of the answer.
    duration_ms : from the request's arrival to its answer.
    request_bytes : of the body, as it came.
    request_id : the answer's ``x-request-id``.
    rows : records predicted.
    model, version : that answered.
    client : the peer's address.
    key : the name of the API key.
    trace_id, span_id : W3C trace context.
    dropped : on the first line after some were lost, how many this process has lost in all.
    """

    time: str
    level: str
    logger: str
    message: str
    pid: int
    method: str
    path: str
    status: int
    duration_ms: float
    request_bytes: int
    request_id: str
    rows: int
    model: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    span_id: str | UnsetType = UNSET
    dropped: int | UnsetType = UNSET


LOGGER = "fairlead.access"
MAX_PATH = 1024
MAX_PENDING_BYTES = 1024 * 1024
RETRY_S = 0.05
# Lines are written together so often: one write for each would cost more than the prediction.
WRITE_S = 0.01
_encode_lines = msgspec.json.Encoder().encode_lines


class AccessLog:
    """Writes a line for each request, without holding one up.

    On an event loop lines are written every hundredth of a second; without one, at once. What a slow
    reader leaves is kept up to `MAX_PENDING_BYTES`; the rest is dropped, and the next line tells how many. Lines
    of several processes to one pipe do not mix. Threads may share it.

    Parameters
    ----------
    fd : file descriptor to write to; it stays open, and is not made non-blocking for others that share it.

    Attributes
    ----------
    dropped : lines that could not be written.
    """

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._now = ""
        self._now_ms = 0
        self._lines: list[AccessLine] = []
        self._pending = bytearray()
        self._told = self.dropped
        self._is_armed = False
        self._last_error: int | None = None

    def write(
        self, request: Request, status: int, duration_ns: int, rows: int = 0, model: str = "", version: str = ""
    ) -> None:
        """Note that a request was answered.

        Parameters
        ----------
        model, version : empty for a route of no model.
        """
        ms = time.time_ns() // 1_000_000
        if ms != self._now_ms:
            self._now_ms, self._now = ms, _rfc3339(ms)
        if not self._is_armed:
            self._arm(WRITE_S)
        path = request.path
        if len(path) > MAX_PATH or not (path.isascii() and path.isprintable()):
            path = quote(path[:MAX_PATH], errors="replace")[:MAX_PATH]
        trace = request.trace
        line = AccessLine(
            self._now,
            "INFO",
            LOGGER,
            "request",
            self._pid,
            request.method,
            path,
            status,
            duration_ns // 1000 / 1000,
            len(request.body),
            request.request_id.decode("latin-1"),
            rows,
            model or UNSET,
            version or UNSET,
            request.client or UNSET,
            request.key_name or UNSET,
        )
        if trace is not None:
            line.trace_id = trace.trace_id
            line.span_id = trace.span_id
        self._lines.append(line)
        if not self._is_armed:
            self.flush()

    def flush(self) -> None:
        """Write what was collected, as far as the reader takes it now; never raise."""
        with self._lock:
            self._is_armed = False
            # Other threads may append at any time: both of these are one step to them.
            lines = self._lines[:]
            del self._lines[: len(lines)]
            if lines:
                self._collect(lines)
            self._drain(0)
            if self._pending:
                self._arm(RETRY_S)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is left, waiting for a slow reader for so long; for the end of the process."""
        self.flush()
        with self._lock:
            self._drain(timeout_s)
            self._give_up()

    def _arm(self, wait_s: float) -> None:
        """Have `flush` called later; without an event loop whoever writes next does it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._is_armed = True
        loop.call_later(wait_s, self.flush)

    def _collect(self, lines: Sequence[AccessLine]) -> None:
        if len(self._pending) > MAX_PENDING_BYTES:
            self.dropped += len(lines)
            return
        if self._told != self.dropped:
            lines[0].dropped = self._told = self.dropped
        try:
            self._pending += _as_json(lines)
        except Exception:
            logger.exception("%s lines of the access log cannot be encoded", len(lines))
            self.dropped += len(lines)

    def _drain(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while self._pending:
            if self._is_file:
                chunk = len(self._pending)
            elif self._poll.poll(max(0.0, until - time.monotonic()) * 1000 if timeout_s else 0):
                # As much as is written whole or not at all, whoever else writes to this pipe.
                chunk = self._pending.rfind(b"\n", 0, select.PIPE_BUF) + 1 or self._pending.find(b"\n") + 1
            else:
                return
            try:
                written = os.write(self._fd, memoryview(self._pending)[:chunk])
            except BlockingIOError:
                return
            except OSError as error:
                self._give_up()
                if error.errno != self._last_error:
                    self._last_error = error.errno
                    logger.error("the access log cannot be written: %s", error.strerror)
                return
            del self._pending[:written]

    def _give_up(self) -> None:
        self.dropped += self._pending.count(b"\n")
        self._pending.clear()


def _as_json(lines: Sequence[AccessLine]) -> bytes:
    with contextlib.suppress(UnicodeEncodeError):
        encoded: bytes = _encode_lines(lines)
        if encoded.isascii():
            return encoded
    # Beyond ASCII there are characters that move a terminal's cursor, or end a line to some readers.
    dicts = [{k: v for k, v in msgspec.structs.asdict(line).items() if v is not UNSET} for line in lines]
    return "".join(f"{json.dumps(fields)}\n" for fields in dicts).encode()


class RequestIds:
    """Makes ids of requests, unique across processes and machines: ``call()`` gives the next one."""

    def __init__(self) -> None:
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        self._prefix = os.urandom(8).hex().encode()
        self._next = count(1).__next__

    def __call__(self) -> bytes:
        return b"%b-%x" % (self._prefix, self._next())


_match_request_id = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}").fullmatch


def valid_request_id(value: bytes) -> bool:
    """Tell whether a client's request id may stand in headers and logs.

    >>> valid_request_id(b"01ARZ3NDEKTSV4RRFFQ69G5FAV"), valid_request_id(b"a b")
    (True, False)
    """
    return _match_request_id(value) is not None


SAMPLED = 0x01
RANDOM = 0x02


class TraceContext(Struct, frozen=True, gc=False):
    """A place in a trace.

    Parameters
    ----------
    trace_id : 32 hexadecimal digits in lower case, not all zero.
    span_id : 16 of them.
    flags : `SAMPLED` when the caller records the trace, `RANDOM` when its id is random.
    parent_id : the span above; empty when that is unknown, or there is none.

    Source: https://www.w3.org/TR/trace-context-2/
    """

    trace_id: str
    span_id: str
    flags: int = SAMPLED | RANDOM
    parent_id: str = ""

    def child(self) -> TraceContext:
        """Make a place for a new span below this one."""
        return TraceContext(self.trace_id, new_span_id(), self.flags, self.span_id)

    def traceparent(self) -> bytes:
        """Give the value of the header for a request made from here."""
        return b"00-%b-%b-%02x" % (self.trace_id.encode(), self.span_id.encode(), self.flags)


def new_trace() -> TraceContext:
    """Make a place for the first span of a trace of its own."""
    return TraceContext(f"{random.getrandbits(128) or 1:032x}", new_span_id())


def new_span_id() -> str:
    """Give 16 random hexadecimal digits, not all zero."""
    return f"{random.getrandbits(64) or 1:016x}"


_match_traceparent = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
).fullmatch


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Read the header of W3C trace context; None when it is not valid, and then the trace is not continued.

    Of a version above 00, which may be longer, the fields of 00 are read.

    >>> parse_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").span_id
    '00f067aa0ba902b7'

    Source: https://www.w3.org/TR/trace-context/ section 3.2
    """
    match = _match_traceparent(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return TraceContext(trace_id.decode(), span_id.decode(), int(flags, 16) & (SAMPLED | RANDOM))


def _rfc3339(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{_utc(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=2)
def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
