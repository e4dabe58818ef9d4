"""Servers that answer as a test wants it, for clients of both kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from fairlead.client import Client

URL = "http://test"
Handler = Callable[[httpx.Request], httpx.Response]


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Script:
    """A transport that answers with one reply after the other, and keeps the requests."""

    def __init__(self, *replies: httpx.Response | Exception | Handler) -> None:
        self.replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx.Response) else reply(request)

    def client(self, **how: Any) -> Client:
        return Client(URL, transport=httpx.MockTransport(self), **how)

    def header(self, name: str) -> list[str]:
        return [request.headers[name] for request in self.requests]


def ok(request: httpx.Request) -> httpx.Response:
    """Answer each record with its own `x`."""
    data = msgspec.json.decode(request.content)
    answer = [{"x": one.get("x")} for one in data] if isinstance(data, list) else {"x": data.get("x")}
    return httpx.Response(200, json=answer)


def problem(status: int, code: str, detail: str = "so it is", headers: Any = None, **more: Any) -> httpx.Response:
    document = {"type": f"urn:problem-type:fairlead:{code}", "status": status, "detail": detail, "errors": [], **more}
    return httpx.Response(
        status, json=document, headers={"content-type": "application/problem+json", **(headers or {})}
    )


def busy(**headers: str) -> httpx.Response:
    return problem(503, "overloaded", headers={name.replace("_", "-"): value for name, value in headers.items()})
