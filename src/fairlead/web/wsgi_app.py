"""The way in through any WSGI server: gunicorn, waitress, uWSGI.

Such a server calls from threads of its own, one for each request under way. Each reads its request, hands it
to the one event loop of its process, where the same app answers as under an ASGI server, and waits. So there
is one way in less to keep alike, and the requests of many threads share batches.

Nothing runs before the first request: a server may load the app once and fork it then (gunicorn's
``--preload``, uWSGI), and threads stay behind.

Source: PEP 3333 (WSGI 1.0.1), https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

from fairlead.web.problems import PROBLEM_JSON, Header, Refusal

if TYPE_CHECKING:
    from fairlead.web.app import App
    from fairlead.web.asgi_calls import Message, Scope

_CHUNK_BYTES = 64 * 1024
# What a client sends beyond the limit is read and dropped, or it would see a reset connection instead of the
# answer 413; but not without end, for it holds a thread meanwhile.
_MOST_DROPPED_BYTES = 64 * 1024 * 1024
# Of the connection to the client, which is the server's business.
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})


class WsgiApp:
    """A WSGI app that answers as an ASGI app does.

    Parameters
    ----------
    app : what answers.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._max_body_bytes = app.gate.settings.max_body_bytes
        self._loops: dict[int, _LoopThread] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI says."""
        body = _Body(environ)
        try:
            content = body.read(self._max_body_bytes)
        except OSError:
            return _refuse(start_response, Refusal("bad_request", "expected a whole body, got a part of one"))
        exchange = _Exchange(scope_of(environ), content)
        self._loop_here().call(exchange.begin, self.app)
        exchange.wait()
        body.drop(_MOST_DROPPED_BYTES)
        start_response(_status_line(exchange.status), _shown(exchange.headers))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"".join(exchange.chunks)]

    def _loop_here(self) -> _LoopThread:
        # Asked anew each time, because uWSGI forks without Python's knowledge: no hook of `os` would run.
        pid = os.getpid()
        found = self._loops.get(pid)
        return found or self._loops.setdefault(pid, _LoopThread(self.app.start))


class _LoopThread:
    """An event loop in a thread of this process, from the first use on.

    The thread is a daemon: it must not keep the server's process from ending.
    """

    def __init__(self, on_start: Callable[[], None]) -> None:
        self._on_start = on_start
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[[App], None], app: App) -> None:
        """Have a function called on the loop."""
        (self._loop or self._start()).call_soon_threadsafe(function, app)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="fairlead", daemon=True).start()
                loop.call_soon_threadsafe(self._on_start)
                self._loop = loop
            return self._loop


class _Exchange:
    """One request to an ASGI app, and its answer, of which a WSGI thread wants only the whole.

    Attributes
    ----------
    status, headers, chunks : of the answer.
    """

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.chunks: list[bytes] = []
        self._scope = scope
        self._body: bytes | None = body
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        # Held until the answer is there: of all that can wake a thread the cheapest.
        self._pending = threading.Lock()
        self._pending.acquire()

    def begin(self, app: App) -> None:
        """Have the app answer; to be called on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._answer(app))

    def wait(self) -> None:
        """Wait for the answer; raise when there is none, as the app did."""
        self._pending.acquire()
        # Starlette raises once more what it has answered and logged already.
        if not self.status:
            raise self._error or RuntimeError("the app gave no answer")

    async def _answer(self, app: App) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:
            self._error = error
        finally:
            self._pending.release()

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            # WSGI does not tell when a client goes away.
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.chunks.append(message.get("body", b""))


class _Body:
    """A request's body. Its length is declared, or the server ends it; else there is none."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._read: Callable[[int], bytes] = environ["wsgi.input"].read
        declared = environ.get("CONTENT_LENGTH") or ""
        self._declared = int(declared) if declared.isdigit() else None
        self._left = self._declared or 0
        if self._declared is None and "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            self._left = 1 << 62
            if "uwsgi.version" in environ:
                self._read = _read_chunk_of_uwsgi
            elif not environ.get("wsgi.input_terminated"):
                self._left = 0

    def read(self, max_bytes: int) -> bytes:
        """Read it; nothing of one that is declared too long, and one byte too many of one that turns out so.

        Raises
        ------
        OSError
            When the client went away before its end.
        """
        if self._left == 0 or (self._declared or 0) > max_bytes:
            return b""
        chunks: list[bytes] = []
        size = 0
        while size <= max_bytes and self._left:
            chunk = self._next(max_bytes + 1 - size)
            chunks.append(chunk)
            size += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)[: max_bytes + 1]

    def drop(self, max_bytes: int) -> None:
        """Read what is left, but no more than `max_bytes`."""
        try:
            while self._left and max_bytes > 0:
                max_bytes -= len(self._next(_CHUNK_BYTES))
        except OSError:
            self._left = 0  # the client is gone

    def _next(self, max_bytes: int) -> bytes:
        chunk = self._read(min(max_bytes, self._left))
        self._left -= len(chunk)
        if not chunk:
            if self._declared is not None:
                raise OSError("the body ended early")
            self._left = 0
        return chunk


def _read_chunk_of_uwsgi(max_bytes: int) -> bytes:
    """Read a chunk, of whatever length: uWSGI gives chunked bodies in no other way.

    Source: https://uwsgi-docs.readthedocs.io/en/latest/Chunked.html
    """
    # The module exists only inside uWSGI.
    chunk: bytes = import_module("uwsgi").chunked_read()
    return chunk


def scope_of(environ: WSGIEnvironment) -> Scope:
    """Tell a request in the words of ASGI."""
    headers: list[Header] = []
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            headers.append((name[5:].lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")))
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            headers.append((name.lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")))
    root_path = _text(environ.get("SCRIPT_NAME", ""))
    path = root_path + _text(environ.get("PATH_INFO", ""))
    client, server = environ.get("REMOTE_ADDR"), environ.get("SERVER_NAME")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.0").removeprefix("HTTP/"),
        "method": environ["REQUEST_METHOD"],
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": path,
        "raw_path": path.encode(),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": root_path,
        "headers": headers,
        "client": (client, int(environ.get("REMOTE_PORT") or 0)) if client else None,
        "server": (server, int(environ.get("SERVER_PORT") or 0)) if server else None,
        "extensions": {},
    }


def _text(path: str) -> str:
    """Undo WSGI's way of putting bytes into a string; PEP 3333, "Unicode Issues"."""
    return path.encode("latin-1").decode("utf-8", "replace")


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def _shown(headers: Iterable[Header]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in _HOP_BY_HOP]


def _refuse(start_response: StartResponse, refusal: Refusal) -> Iterable[bytes]:
    headers = [(b"content-type", PROBLEM_JSON), (b"content-length", b"%d" % len(refusal.body))]
    start_response(_status_line(refusal.status), _shown(headers))
    return [refusal.body]
