"""When a request is sent, sent again and given up: one call's deadline and retries, told once and without I/O.

An exchange is a generator: it yields what to send and is sent the reply, or yields how many seconds to sleep. Between
the clients and `answers`; httpx is asked for the kinds of its errors, once there is one.

Source: RFC 9110 section 9.2.2 (idempotent methods)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from random import uniform
from time import monotonic
from typing import Any, TypeGuard, TypeVar

from fairlead.client.answers import Answer, Reply, failure, read, retry_after_s
from fairlead.client.errors import DeadlineExceeded, RequestFailed, ServiceUnavailable
from fairlead.client.records import Request
from fairlead.extras import require

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 5.0
# A prediction changes nothing, so that a POST may be repeated; 504 is not here: the time is over.
_RETRIED = (429, 502, 503)
OnProgress = Callable[[int, int], None]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Attempt:
    """What to send now. `timeout_s` is None when there is no end."""

    request: Request
    headers: dict[str, str]
    timeout_s: float | None


Exchange = Generator[Attempt | float, Reply | None, _T]


@dataclass
class Call:
    """One call of a client: its requests, its deadline, and the answers so far.

    Parameters
    ----------
    headers : of each request.
    timeout_s : from now to the last answer; infinite for no end.
    retries : how often a request is sent again.
    requests : what is to be predicted.
    total : how many records are in them.
    on_progress : told the records done, and `total`.
    """

    headers: Mapping[str, str]
    timeout_s: float
    retries: int
    requests: Iterable[Request] = ()
    total: int = 0
    on_progress: OnProgress | None = None
    _done: int = field(default=0, init=False)
    _answers: dict[int, list[dict[str, Any]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s: expected more than 0 seconds, got {self.timeout_s}")
        self._deadline = monotonic() + self.timeout_s

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The predictions, in the order of the records."""
        return [answer for start in sorted(self._answers) for answer in self._answers[start]]

    def predict(self, request: Request) -> Exchange[None]:
        """Get the predictions of one request and keep them."""
        found = yield from self.exchange(request)
        answers = [found] if request.start is None else found
        if not isinstance(answers, list) or len(answers) != request.rows or not all(type(a) is dict for a in answers):
            raise RequestFailed(f"{request.url}: expected an object for each of {request.rows} records, got other JSON")
        self._answers[request.start or 0] = answers
        self._done += request.rows
        if self.on_progress is not None:
            self.on_progress(self._done, self.total)

    def exchange(self, request: Request) -> Exchange[Any]:
        """Ask until there is an answer, and give its JSON."""
        attempt, done = 0, self._done
        while True:
            # As long as other requests of this call are answered, a refusal only means that it is not our turn.
            attempt, done = 1 if self._done > done else attempt + 1, self._done
            reply = yield self._attempt(request)
            assert reply is not None
            if _is_late(reply):
                raise self._too_late(request) from reply
            if not _is_retried(reply):
                return read(reply, request)
            asked_s = retry_after_s(reply)
            wait_s = asked_s or _backoff_s(attempt)  # 0 is no reason to ask without any pause
            if attempt > self.retries or monotonic() + wait_s >= self._deadline:
                times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                raise failure(ServiceUnavailable, reply, request, f" after {times}", asked_s)
            yield wait_s

    def _attempt(self, request: Request) -> Attempt:
        left_s = self._deadline - monotonic()
        if left_s <= 0:
            raise self._too_late(request)
        headers = {**self.headers, "x-request-id": request.id}
        if math.isinf(left_s):
            return Attempt(request, headers, None)
        # More than 0 even when rounded: a server takes nothing else.
        headers["x-request-timeout"] = f"{max(left_s, 0.001):.3f}"
        return Attempt(request, headers, left_s)

    def _too_late(self, request: Request) -> DeadlineExceeded:
        cure = "give a larger `timeout_s`, or ask for fewer rows"
        message = f"{request.url}: no answer within {self.timeout_s:g} s: {cure} (request id {request.id})"
        return DeadlineExceeded(message, request_id=request.id)


def _backoff_s(attempt: int) -> float:
    return uniform(0.0, min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 100)))


def _is_late(reply: Reply) -> TypeGuard[Exception]:
    httpx = require("httpx", "client")
    # Who does not connect in time may find another replica that lives.
    return isinstance(reply, TimeoutError | httpx.TimeoutException) and not isinstance(reply, httpx.ConnectTimeout)


def _is_retried(reply: Reply) -> bool:
    if isinstance(reply, Answer):
        return reply.status in _RETRIED
    httpx = require("httpx", "client")
    return isinstance(reply, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)
