"""One request on its way: what came in, and how its answer gets out.

A `Call` is the same whether the server's own protocol made it (`protocol`) or any ASGI server did (`asgi_calls`),
so that everything behind it is written once. Imports msgspec and what lies below the modes.

Source: RFC 9110 (HTTP Semantics).
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import Protocol

from fairlead.monitor.logs import TraceContext
from fairlead.web.problems import Header


class Call:
    """A request whose body is here, to be answered exactly once by `send`.

    Parameters
    ----------
    method, path : as sent; the path without its prefix and query.
    query : the query string, still encoded.
    headers : names in lower case.
    body : whole, as it came.
    client : the peer's address.

    Attributes
    ----------
    fields : the headers by name; of a repeated one the last.
    started_ns : on the clock of `time.perf_counter_ns`.
    request_id : the client's or ours; set by the endpoint.
    key_name : of the API key that was shown.
    trace : the place in a trace; None where nobody began one.
    is_gone : whether the client went away; nobody will read the answer.
    """

    __slots__ = (
        "body",
        "client",
        "fields",
        "headers",
        "is_gone",
        "key_name",
        "method",
        "path",
        "query",
        "request_id",
        "started_ns",
        "trace",
    )

    def __init__(
        self, method: str, path: str, query: bytes, headers: Sequence[Header], body: bytes, client: str | None
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.fields: dict[bytes, bytes] = dict(headers)
        self.body = body
        self.client = client
        self.started_ns = perf_counter_ns()
        self.request_id = b""
        self.key_name: str | None = None
        self.trace: TraceContext | None = None
        self.is_gone = False

    def send(self, status: int, headers: tuple[Header, ...], body: bytes) -> None:
        """Send the whole answer; `content-length` and `x-request-id` are added, a body for HEAD is left out."""
        raise NotImplementedError


class Handler(Protocol):
    """What answers the calls to a path."""

    def handle(self, call: Call) -> None:
        """Answer a call, now or later."""
        ...

    def refuse_size(self, call: Call) -> None:
        """Answer a call whose body is larger than the settings allow."""
        ...
