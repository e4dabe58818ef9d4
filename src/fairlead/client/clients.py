"""The two clients, who only send and sleep; what and when is told by `exchange`.

At the end of a caller's way to a server; imports httpx when a client is made.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fairlead.client.answers import Answer, Reply
from fairlead.client.exchange import Attempt, Exchange, OnProgress
from fairlead.client.records import in_form_of
from fairlead.client.settings import Settings
from fairlead.extras import require

if TYPE_CHECKING:
    import httpx

MAX_ROWS_PER_REQUEST = 10_000
# A server refuses what does not fit into its queue (65,536 rows): it holds the requests of four clients like this.
MAX_ROWS_AT_ONCE = 4_000
CONNECT_TIMEOUT_S = 3.0  # of one attempt: the next may find a replica that lives
_T = TypeVar("_T")


class Client(Settings):
    """Asks one server. Threads may share it.

    Parameters
    ----------
    url : where the server is, with its prefix when it is behind a proxy: ``https://example.org/models-eu``.
    model : whose predictions; None when the server has one model.
    api_key : sent as ``Authorization: Bearer``; None takes the environment's ``FAIRLEAD_API_KEY``.
    timeout_s : for a whole call, with all its requests, retries and waits; ``math.inf`` for no end.
    retries : how often a request is sent again after no connection, 429, 502 or 503.
    max_rows_per_request : more rows, and more than 10 MiB, are sent in several requests.
    transport : another way to send, such as `httpx.MockTransport`.

    Raises
    ------
    MissingExtra
        When httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 5,
        max_rows_per_request: int = MAX_ROWS_PER_REQUEST,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, model, api_key, timeout_s, retries, max_rows_per_request)
        self._http: httpx.Client = require("httpx", "client").Client(transport=transport)

    def predict(self, data: Any, *, timeout_s: float | None = None, on_progress: OnProgress | None = None) -> Any:
        """Predict a record, a list of records or a pandas frame.

        Parameters
        ----------
        data : NaN, NaT and NA mean null. Datetimes without a zone are in UTC. A frame's columns have the names of
            the features.
        timeout_s : for this call; None takes the client's.
        on_progress : called after each request with the rows done and their total.

        Returns
        -------
        For a record, a dict; for a list, a list of dicts in order; for a frame, a frame of the outputs with the same
        index (without columns when it has no rows).

        Raises
        ------
        InvalidRecords
            With all the problems of the first request that was refused.
        DeadlineExceeded, ServiceUnavailable, RequestFailed
            When there is no prediction to be had.
        """
        call = self._predictions(data, timeout_s, on_progress)
        for request in call.requests:
            self._run(call.predict(request))
        return in_form_of(data, call.answers)

    def models(self) -> list[dict[str, Any]]:
        """List what is served: `name`, `version` and where to `predict`."""
        return self._run(self._models())

    def ready(self) -> bool:
        """Whether the server takes requests now; asks once."""
        return self._run(self._probe("/readyz"))

    def live(self) -> bool:
        """Whether the server's process answers; asks once."""
        return self._run(self._probe("/livez"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, exchange: Exchange[_T]) -> _T:
        reply: Reply | None = None
        while True:
            try:
                step = exchange.send(reply)
            except StopIteration as end:
                value: _T = end.value
                return value
            reply = None
            if isinstance(step, Attempt):
                reply = self._send(step)
            else:
                sleep(step)

    def _send(self, attempt: Attempt) -> Reply:
        try:
            end = monotonic() + (attempt.timeout_s or math.inf)
            with self._http.stream(**_arguments(attempt)) as response:
                parts = []
                # httpx bounds each read; an answer that drips in is bounded here.
                for part in response.iter_bytes():
                    parts.append(part)
                    if monotonic() > end:
                        return TimeoutError("the answer came too slowly")
            return Answer(response.status_code, response.headers, b"".join(parts))
        except _request_error() as error:
            return error


class AsyncClient(Settings):
    """Asks one server from asyncio; the parameters and methods are those of `Client`.

    Parameters
    ----------
    max_rows_per_request, concurrency : how large requests are, and how many of one call are under way at once.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 5,
        max_rows_per_request: int = MAX_ROWS_AT_ONCE,
        concurrency: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, model, api_key, timeout_s, retries, max_rows_per_request)
        if concurrency < 1:
            raise ValueError(f"concurrency: expected at least 1, got {concurrency}")
        self._concurrency = concurrency
        self._http: httpx.AsyncClient = require("httpx", "client").AsyncClient(transport=transport)

    async def predict(self, data: Any, *, timeout_s: float | None = None, on_progress: OnProgress | None = None) -> Any:
        """As `Client.predict`, several requests at once; their progress may come out of order."""
        call = self._predictions(data, timeout_s, on_progress)

        async def work() -> None:
            # Every worker takes the next request of all, so that there are never more bodies than workers.
            for request in call.requests:
                await self._run(call.predict(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, call.total)):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
        return in_form_of(data, call.answers)

    async def models(self) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return await self._run(self._models())

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._run(self._probe("/readyz"))

    async def live(self) -> bool:
        """As `Client.live`."""
        return await self._run(self._probe("/livez"))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, exchange: Exchange[_T]) -> _T:
        reply: Reply | None = None
        while True:
            try:
                step = exchange.send(reply)
            except StopIteration as end:
                value: _T = end.value
                return value
            reply = await (self._send(step) if isinstance(step, Attempt) else asyncio.sleep(step))

    async def _send(self, attempt: Attempt) -> Reply:
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await self._http.request(**_arguments(attempt))
        except (TimeoutError, _request_error()) as error:
            return error
        return Answer(response.status_code, response.headers, response.content)


def _arguments(attempt: Attempt) -> dict[str, Any]:
    request, left_s = attempt.request, attempt.timeout_s
    timeout = require("httpx", "client").Timeout(left_s, connect=min(CONNECT_TIMEOUT_S, left_s or math.inf))
    method = "GET" if request.body is None else "POST"
    names = {"method": method, "url": request.url, "content": request.body}
    return {**names, "headers": attempt.headers, "timeout": timeout}


def _request_error() -> type[Exception]:
    kind: type[Exception] = require("httpx", "client").RequestError
    return kind
