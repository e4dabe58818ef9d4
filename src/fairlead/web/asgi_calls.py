"""The way in and out through any ASGI server.

Under `fairlead serve` most predictions take the shorter way of `protocol`; this one is for other servers,
and for what is not a plain POST.

Source: ASGI 3.0, https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from fairlead.web.calls import Call, Handler
from fairlead.web.problems import Header, Refusal
from fairlead.web.wire import check_size

if TYPE_CHECKING:
    from fairlead.web.gate import Gate

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A prediction that is not there after this long is worth finding out whether its client still waits.
_WATCH_AFTER_S = 0.05


class AsgiCall(Call):
    """A call that came through ASGI: `wait` gives the answer to be sent."""

    __slots__ = ("_answer", "_answered")

    def __init__(self, scope: Scope, path: str, body: bytes) -> None:
        client = scope.get("client")
        headers = scope["headers"]
        super().__init__(scope["method"], path, scope["query_string"], headers, body, client[0] if client else None)
        self._answer: tuple[int, tuple[Header, ...], bytes] | None = None
        self._answered: asyncio.Future[None] | None = None

    def send(self, status: int, headers: tuple[Header, ...], body: bytes) -> None:
        self._answer = (status, headers, body)
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    async def wait(self, receive: Receive) -> tuple[int, tuple[Header, ...], bytes] | None:
        """Give the answer once it is there; None when the client has gone away before."""
        if self._answer is None:
            loop = asyncio.get_running_loop()
            self._answered = loop.create_future()
            watch: asyncio.Task[None] | None = None

            def start_watching() -> None:
                nonlocal watch
                watch = loop.create_task(self._watch(receive))

            alarm = loop.call_later(_WATCH_AFTER_S, start_watching)
            try:
                await self._answered
            except asyncio.CancelledError:
                self.is_gone = True
                raise
            finally:
                alarm.cancel()
                if watch is not None:
                    watch.cancel()
        return self._answer

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


async def serve(
    endpoint: Callable[[], Handler], gate: Gate, scope: Scope, path: str, receive: Receive, send: Send
) -> None:
    """Read a request, have it answered, and send the answer.

    Parameters
    ----------
    endpoint : gives what answers; asked when the whole request is here.
    """
    try:
        body = await read_body(scope, receive, gate.settings.max_body_bytes)
        if body is None:
            return
        call = AsgiCall(scope, path, body)
        endpoint().handle(call)
    except Refusal:
        call = AsgiCall(scope, path, b"")
        endpoint().refuse_size(call)
    answered = await call.wait(receive)
    if answered is None:
        return
    status, headers, content = answered
    length = (b"content-length", b"%d" % len(content))
    all_headers = [*headers, *gate.call_headers(call), length]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else content})


async def read_body(scope: Scope, receive: Receive, max_body_bytes: int) -> bytes | None:
    """Read a request's body, None when the client went away before its end.

    Raises
    ------
    Refusal
        ``too_large`` as soon as that is known. What the client still sends is read and dropped by the
        server, so that it gets to see the answer.
    """
    declared = dict(scope["headers"]).get(b"content-length", b"")
    check_size(int(declared) if declared.isdigit() else 0, max_body_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        check_size(size, max_body_bytes)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
