"""The short way from a socket to a prediction and back.

uvicorn makes a task, a scope, an event and a queue of messages for each request: two thirds of what a
prediction costs. A POST to the path of a model needs none of that. `Protocol` is uvicorn's own with
one turning: such a request becomes a `DirectCall` as soon as its body is here, and its answer is written
to the socket when its batch has run. Everything else, and every request that is not plain, goes uvicorn's
way to the same `Endpoint`s through `asgi_calls`.

Builds on names inside `uvicorn.protocols.http.httptools_impl`; `tests/web/test_protocol.py` holds them to it.
"""

from __future__ import annotations

import asyncio
import fcntl
import termios
from array import array
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from fairlead.web.calls import Call, Handler
from fairlead.web.problems import PROBLEM_JSON_TYPE, Header, Refusal

if TYPE_CHECKING:
    from fairlead.web.app import App

# How long an idle connection stays open while the server ends: a request may be on its way.
_LINGER_S = 1.0
_RENDERED: dict[tuple[Header, ...], bytes] = {}
_MOST_RENDERED = 256


class _NoEvent:
    """Stands where uvicorn has an event that it sets when a client goes away; nothing waits for it here."""

    def set(self) -> None:
        pass


class DirectCall(Call):
    """A call whose answer is written to the socket at once; takes the place of uvicorn's request cycle.

    Attributes
    ----------
    response_complete, disconnected, keep_alive, message_event : read or set by uvicorn.
    """

    __slots__ = ("_chunks", "_protocol", "_size", "endpoint", "keep_alive", "response_complete")

    message_event = _NoEvent()

    def __init__(self, protocol: Protocol, endpoint: Handler, path: str, keep_alive: bool) -> None:
        client = protocol.client
        super().__init__("POST", path, b"", protocol.headers, b"", client[0] if client else None)
        self.endpoint = endpoint
        self.keep_alive = keep_alive
        self.response_complete = False
        self._protocol = protocol
        self._chunks: list[bytes] | None = None
        self._size = 0

    @property
    def disconnected(self) -> bool:
        """What uvicorn calls `is_gone`."""
        return self.is_gone

    @disconnected.setter
    def disconnected(self, value: bool) -> None:
        self.is_gone = value

    def feed(self, chunk: bytes, max_body_bytes: int) -> None:
        """Take a piece of the body."""
        self._size += len(chunk)
        if self._size > max_body_bytes:
            self.refuse_size()
        elif self._size == len(chunk):
            self.body = chunk
        else:
            if self._chunks is None:
                self._chunks = [self.body]
            self._chunks.append(chunk)

    def refuse_size(self) -> None:
        """Answer that the body is too large; what still comes of it is dropped."""
        self._chunks, self.body = None, b""
        self.endpoint.refuse_size(self)

    def handle(self) -> None:
        """Have the whole request answered."""
        if self._chunks is not None:
            self.body = b"".join(self._chunks)
            self._chunks = None
        self.endpoint.handle(self)

    def send(self, status: int, headers: tuple[Header, ...], body: bytes) -> None:
        protocol = self._protocol
        if self.is_gone or self.response_complete or protocol.transport.is_closing():
            return
        if protocol.gate.is_draining:
            self.keep_alive = False
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        protocol.transport.write(
            b"%b%b%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                STATUS_LINE[status],
                protocol.default_headers,
                rendered(headers),
                self.request_id,
                len(body),
                closing,
                body,
            )
        )
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.has_answered()


def rendered(headers: tuple[Header, ...]) -> bytes:
    """Write headers out; most answers have the same ones."""
    lines = _RENDERED.get(headers)
    if lines is None:
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        if len(_RENDERED) < _MOST_RENDERED:
            _RENDERED[headers] = lines
    return lines


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol for HTTP/1.1 with a short way for predictions, and limits of time and size.

    `bound_to` makes the class that serves one app.
    """

    # uvicorn's own cycle, or ours in its place; None before the first request.
    cycle: Any
    fairlead: ClassVar[App]
    # Seconds on the loop's clock, renewed by `Server` every tenth of a second: exact enough for limits.
    now_s: ClassVar[float] = 0.0
    _default_source: ClassVar[object] = None
    _default_lines: ClassVar[bytes] = b""

    @classmethod
    def bound_to(cls, app: App) -> type[Protocol]:
        """Give the class that answers with `app`."""
        return type("Protocol", (cls,), {"fairlead": app})

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.endpoints = self.fairlead.endpoints
        self.gate = self.fairlead.gate
        self._max_body_bytes = self.gate.settings.max_body_bytes
        self._max_header_bytes = self.gate.settings.max_header_bytes
        # What is answered now; `cycle` is the newest of those that wait behind it.
        self._current: Any = None
        self._in_headers = False
        self._packet_bytes = 0
        self._refusal = Refusal("bad_request", "expected a request of HTTP/1.1")
        self._header_bytes = 0
        # Since when a request is being read, a client does not read, or there has been nothing to do.
        self._reading_since_s: float | None = Protocol.now_s
        self._stuck_since_s: float | None = None
        self._unread_bytes = 0
        self._idle_since_s: float | None = None

    @property
    def default_headers(self) -> bytes:
        """The headers of every answer, `date` among them, written out once a second."""
        source = self.server_state.default_headers
        if source is not Protocol._default_source:
            Protocol._default_lines = rendered(tuple(source))
            Protocol._default_source = source
        return Protocol._default_lines

    def data_received(self, data: bytes) -> None:
        self._packet_bytes = len(data)
        was_in_headers = self._in_headers
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_to_parse()
        # Only what has come in pieces gets here: a request's headers are nearly always one packet.
        if self._in_headers and was_in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self._max_header_bytes:
                self._close_with(self._headers_refusal())

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_headers = True
        self._header_bytes = 0
        self._idle_since_s = None
        self._reading_since_s = Protocol.now_s

    def on_headers_complete(self) -> None:
        if self._packet_bytes > self._max_header_bytes and self._measured() > self._max_header_bytes:
            self._refusal = self._headers_refusal()
            raise self._refusal  # the parser stops, and what it raises leads to `_refuse_to_parse`
        self._in_headers = False
        if self.parser.should_upgrade():
            return
        endpoint = self.endpoints.get(self.url)
        if endpoint is None or not self._is_plain():
            self._begin_scope()
            super().on_headers_complete()
            if self.gate.is_draining:
                self.cycle.keep_alive = False
            return
        parser = self.parser
        keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        self.cycle = self._current = call = DirectCall(self, endpoint, self.url.decode(), keep_alive)
        declared = call.fields.get(b"content-length", b"0")
        if len(declared) > 6 and int(declared) > self._max_body_bytes:
            call.refuse_size()

    def on_body(self, body: bytes) -> None:
        call = self.cycle
        if type(call) is not DirectCall:
            super().on_body(body)
        elif not call.response_complete:
            call.feed(body, self._max_body_bytes)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        call = self.cycle
        self._reading_since_s = None
        if type(call) is not DirectCall:
            super().on_message_complete()
        elif not call.response_complete:
            # While a body comes, another version may.
            call.endpoint = self.endpoints.get(self.url, call.endpoint)
            call.handle()

    def _is_plain(self) -> bool:
        """Whether a request may take the short way: the one before is answered, and it asks for nothing special."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        return not (self.gate.settings.cors_origins and any(name == b"origin" for name, _ in self.headers))

    def _begin_scope(self) -> None:
        """Do what uvicorn does at the begin of a message, now that it is known to go uvicorn's way."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)

    def _measured(self) -> int:
        """Give the size of a request's head."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def has_answered(self) -> None:
        """Go on after a direct answer: with the next request of the connection, if it is here already."""
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._idle_since_s = Protocol.now_s

    def shutdown(self) -> None:
        """End the connection: after the answer under way, or soon, when no request is on its way to us."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LINGER_S, self._close_if_idle)
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        # A client that sends requests and reads no answers must not fill the memory with them.
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.pipeline:
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in (self._current, *[cycle for cycle, _ in self.pipeline]):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read a request once more as if it had not asked for another protocol: the parser skips its body.

        Java's HttpClient and curl ask for HTTP/2 in this way with each first request.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse_to_parse()
            return
        version = self.parser.get_http_version().encode()
        lines = rendered(tuple(header for header in self.headers if header[0] != b"upgrade"))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, lines, rest))

    def _refuse_to_parse(self) -> None:
        """Refuse what is not HTTP, after the answers that are still to come."""
        self.flow.pause_reading()
        if not self._ends_after_answer():
            self._refuse(self._refusal)

    def check_times(self) -> None:
        """Give up on a client that takes too long to send, to read, or to come back."""
        settings, now_s = self.gate.settings, Protocol.now_s
        if self._reading_since_s is not None and now_s - self._reading_since_s > settings.read_timeout_s:
            self._close_with(
                Refusal("slow_request", f"expected the whole request within {settings.read_timeout_s:g} s")
            )
        elif self._idle_since_s is not None and now_s - self._idle_since_s > settings.keep_alive_s:
            self.transport.close()
        if not self.flow.write_paused:
            self._stuck_since_s = None
            return
        unread_bytes = self._count_unread()
        # A slow reader is welcome as long as it reads.
        if self._stuck_since_s is None or unread_bytes < self._unread_bytes:
            self._stuck_since_s = now_s
        elif now_s - self._stuck_since_s > settings.read_timeout_s:
            self.transport.abort()
        self._unread_bytes = unread_bytes

    def _count_unread(self) -> int:
        """Give how much the client has not taken yet, in the kernel's buffer too: that is emptied in large steps only.

        Source: tcp(7), SIOCOUTQ.
        """
        in_kernel = array("i", [0])
        fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self.transport.get_write_buffer_size() + in_kernel[0]

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _ends_after_answer(self) -> bool:
        """Whether answers to whole requests are still to come; the connection ends after the last."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        is_whole = self._in_headers or self._reading_since_s is None
        if is_whole or self.pipeline:
            cycle.keep_alive = False
        if is_whole:
            self._reading_since_s = None
        return is_whole or bool(self.pipeline)

    def _headers_refusal(self) -> Refusal:
        return Refusal("headers_too_large", f"expected at most {self._max_header_bytes} bytes of headers")

    def _close_with(self, refusal: Refusal) -> None:
        """End the connection, after the answers to whole requests that are still to come."""
        if self._ends_after_answer():
            return
        if self._in_headers:
            self._refuse(refusal)
        self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what never became a request, and end the connection."""
        self._reading_since_s = None
        self._in_headers = False
        if self.transport.is_closing():
            return
        lines = rendered((PROBLEM_JSON_TYPE, *refusal.headers))
        body = refusal.body
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[refusal.status], self.default_headers, lines, len(body), body)
        )
        self.transport.close()
