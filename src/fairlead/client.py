"""Ask a fairlead server from Python: `Client`, and `AsyncClient` for asyncio.

    RequestFailed               request_failed       an answer that is no prediction; asking again will not help
    ├── ServiceUnavailable      service_unavailable  no connection, 429, 502 or 503, to the last retry
    └── DeadlineExceeded        deadline_exceeded    no answer within `timeout_s`, or the server says so (504)

What is sent, when it is sent again and what an answer means is told once, without I/O, by `_Call.exchange`; the two
clients only send and sleep. Layer L3, beside the modes; httpx comes with the extra `client`.

Source: RFC 9110 sections 9.2.2 (idempotent methods) and 10.2.3 (Retry-After), RFC 9457 (problem documents)
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from random import uniform
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeGuard, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec

from fairlead import __version__
from fairlead.errors import FairleadError, InvalidRecords
from fairlead.extras import require
from fairlead.schema import Problem

if TYPE_CHECKING:
    import httpx
    import pandas as pd

OnProgress = Callable[[int, int], None]
_T = TypeVar("_T")

MAX_BODY_BYTES = 10 * 1024 * 1024  # what a server takes
MAX_ROWS_PER_REQUEST = 10_000
# Four of these fit into a server's queue (2,048 rows) together; larger ones would be refused because of each other.
MAX_ROWS_AT_ONCE = 500
CONNECT_TIMEOUT_S = 3.0  # of one attempt: the next may find a replica that lives
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 5.0
PROBLEM_TYPE = "urn:problem-type:fairlead:"
# A prediction changes nothing, so that a POST may be repeated; 504 is not here: the time is over.
_RETRIED = (429, 502, 503)


class RequestFailed(FairleadError):
    """A server answered with something else than a prediction.

    Parameters
    ----------
    message : what was asked, what came, and what to do.
    status : of the answer; None when there was none.
    problem : the code in the server's problem document, such as ``model_failed``; None when it sent no such.
    request_id : what to look for in the server's log.
    retry_after_s : how long the server asked to wait; None when it did not say.
    """

    code: ClassVar[str] = "request_failed"

    def __init__(
        self,
        message: str,
        status: int | None = None,
        problem: str | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class ServiceUnavailable(RequestFailed):
    """No server could be reached, or it was overloaded, until retries or time were spent."""

    code = "service_unavailable"
    retryable = True


class DeadlineExceeded(RequestFailed):
    """There was no answer within the time that the caller gave."""

    code = "deadline_exceeded"
    retryable = True


class _Document(msgspec.Struct):
    """What is read of a problem document."""

    type: str = "about:blank"
    detail: str = ""
    errors: tuple[Problem, ...] = ()
    request_id: str | None = None


@dataclass(frozen=True)
class _Request:
    """One HTTP request; `start` and `rows` say which records are in it, None and 1 when one came alone."""

    method: str
    url: str
    body: bytes | None = None
    start: int | None = None
    rows: int = 1


@dataclass(frozen=True)
class _Attempt:
    """What to send now. `timeout_s` is None when there is no end."""

    request: _Request
    headers: dict[str, str]
    timeout_s: float | None


@dataclass(frozen=True)
class _Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_Reply = _Answer | Exception
# Yields what to send, and is sent the reply; or how many seconds to sleep.
_Exchange = Generator[_Attempt | float, _Reply | None, _T]


@dataclass
class _Call:
    """One call of a client: its requests, its deadline, and the answers so far."""

    headers: Mapping[str, str]
    timeout_s: float
    retries: int
    requests: Iterable[_Request] = ()
    total: int = 0
    on_progress: OnProgress | None = None
    done: int = 0
    answers: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s: expected more than 0 seconds, got {self.timeout_s}")
        self.deadline = monotonic() + self.timeout_s

    def exchange(self, request: _Request) -> _Exchange[Any]:
        """Ask until there is an answer, and give its JSON."""
        request_id = uuid4().hex
        attempt, done = 0, self.done
        while True:
            # As long as other requests of this call are answered, a refusal only means that it is not our turn.
            attempt, done = 1 if self.done > done else attempt + 1, self.done
            left_s = self.deadline - monotonic()
            if left_s <= 0:
                raise self._too_late(request, request_id)
            headers = {**self.headers, "x-request-id": request_id}
            if math.isfinite(left_s):
                # More than 0 even when rounded: a server takes nothing else.
                headers["x-request-timeout"] = f"{max(left_s, 0.001):.3f}"
            reply = yield _Attempt(request, headers, left_s if math.isfinite(left_s) else None)
            assert reply is not None
            if _is_late(reply):
                raise self._too_late(request, request_id) from reply
            if not _is_retried(reply):
                return _read(reply, request, request_id)
            asked_s = _retry_after_s(reply.headers) if isinstance(reply, _Answer) else None
            most_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 100))
            wait_s = asked_s or uniform(0.0, most_s)  # 0 is no reason to ask without any pause
            if attempt > self.retries or monotonic() + wait_s >= self.deadline:
                times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                raise _failed(ServiceUnavailable, reply, request, request_id, f" after {times}", asked_s)
            yield wait_s

    def predict(self, request: _Request) -> _Exchange[None]:
        """Get the predictions of one request and keep them."""
        found = yield from self.exchange(request)
        answers = [found] if request.start is None else found
        if not isinstance(answers, list) or len(answers) != request.rows or not all(type(a) is dict for a in answers):
            raise RequestFailed(f"{request.url}: expected an object for each of {request.rows} records, got other JSON")
        self.answers[request.start or 0] = answers
        self.done += request.rows
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)

    def result(self, data: Any) -> Any:
        """Give the predictions in the form of the input."""
        answers = [answer for start in sorted(self.answers) for answer in self.answers[start]]
        if isinstance(data, Mapping):
            return answers[0]
        if not _is_frame(data):
            return answers
        import pandas as pd

        return pd.DataFrame(answers, index=data.index, columns=list(answers[0]) if answers else None)

    def _too_late(self, request: _Request, request_id: str) -> DeadlineExceeded:
        cure = "give a larger `timeout_s`, or ask for fewer rows"
        message = f"{request.url}: no answer within {self.timeout_s:g} s: {cure} (request id {request_id})"
        return DeadlineExceeded(message, request_id=request_id)


class _Settings:
    """What both clients are made with; see `Client`."""

    def __init__(
        self, url: str, model: str | None, api_key: str | None, timeout_s: float, retries: int, max_rows: int
    ) -> None:
        httpx = require("httpx", "client")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ValueError("url: expected one such as http://localhost:9696, got none") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.userinfo:
            raise ValueError("url: expected one such as http://localhost:9696, without user, password and query")
        key = (os.environ.get("FAIRLEAD_API_KEY", "") if api_key is None else api_key).strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("api_key: expected visible ASCII characters, got others")  # never the key itself
        if max_rows < 1 or retries < 0:
            raise ValueError("expected at least one row per request and no fewer than 0 retries")
        self.url = str(parsed).rstrip("/")
        self.model = model
        self._timeout_s, self._retries, self._max_rows = timeout_s, retries, max_rows
        self._headers = {"accept": "application/json", "user-agent": f"fairlead/{__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model={self.model!r})"

    def _predictions(self, data: Any, timeout_s: float | None, on_progress: OnProgress | None) -> _Call:
        total = _count(data)
        path = "/predict" if self.model is None else f"/models/{quote(self.model, safe='')}/predict"
        headers = {**self._headers, "content-type": "application/json"}
        requests = _requests(f"{self.url}{path}", data, self._max_rows)
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return _Call(headers, timeout_s, self._retries, requests, total, on_progress)

    def _models(self) -> _Exchange[list[dict[str, Any]]]:
        url = f"{self.url}/"
        index = yield from _Call(self._headers, self._timeout_s, self._retries).exchange(_Request("GET", url))
        if not isinstance(index, dict) or not isinstance(index.get("models"), list):
            raise RequestFailed(f"{url}: expected a fairlead server's list of models, got other JSON")
        models: list[dict[str, Any]] = index["models"]
        return models

    def _probe(self, path: str) -> _Exchange[bool]:
        try:
            yield from _Call(self._headers, self._timeout_s, 0).exchange(_Request("GET", f"{self.url}{path}"))
        except (ServiceUnavailable, DeadlineExceeded):
            return False
        return True


class Client(_Settings):
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
        return call.result(data)

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

    def _run(self, exchange: _Exchange[_T]) -> _T:
        try:
            step = next(exchange)
            while True:
                if isinstance(step, _Attempt):
                    step = exchange.send(self._send(step))
                else:
                    sleep(step)
                    step = next(exchange)
        except StopIteration as end:
            value: _T = end.value
            return value

    def _send(self, attempt: _Attempt) -> _Reply:
        try:
            end = monotonic() + (attempt.timeout_s or math.inf)
            with self._http.stream(**_arguments(attempt)) as response:
                parts = []
                # httpx bounds each read; an answer that drips in is bounded here.
                for part in response.iter_bytes():
                    parts.append(part)
                    if monotonic() > end:
                        return TimeoutError("the answer came too slowly")
            return _Answer(response.status_code, response.headers, b"".join(parts))
        except _request_error() as error:
            return error


class AsyncClient(_Settings):
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
        return call.result(data)

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

    async def _run(self, exchange: _Exchange[_T]) -> _T:
        try:
            step = next(exchange)
            while True:
                if isinstance(step, _Attempt):
                    step = exchange.send(await self._send(step))
                else:
                    await asyncio.sleep(step)
                    step = next(exchange)
        except StopIteration as end:
            value: _T = end.value
            return value

    async def _send(self, attempt: _Attempt) -> _Reply:
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await self._http.request(**_arguments(attempt))
        except (TimeoutError, _request_error()) as error:
            return error
        return _Answer(response.status_code, response.headers, response.content)


def _arguments(attempt: _Attempt) -> dict[str, Any]:
    httpx = require("httpx", "client")
    request, left_s = attempt.request, attempt.timeout_s
    timeout = httpx.Timeout(left_s, connect=min(CONNECT_TIMEOUT_S, left_s or math.inf))
    names = {"method": request.method, "url": request.url, "content": request.body}
    return {**names, "headers": attempt.headers, "timeout": timeout}


def _request_error() -> type[Exception]:
    kind: type[Exception] = require("httpx", "client").RequestError
    return kind


def _is_late(reply: _Reply) -> TypeGuard[Exception]:
    httpx = require("httpx", "client")
    late = isinstance(reply, TimeoutError | httpx.TimeoutException)
    return late and not isinstance(reply, httpx.ConnectTimeout)


def _is_retried(reply: _Reply) -> bool:
    if isinstance(reply, _Answer):
        return reply.status in _RETRIED
    httpx = require("httpx", "client")
    return isinstance(reply, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)


def _read(reply: _Reply, request: _Request, request_id: str) -> Any:
    """Give the JSON of a success, and raise what else came."""
    if not isinstance(reply, _Answer) or reply.status >= 300:
        kind = DeadlineExceeded if isinstance(reply, _Answer) and reply.status == 504 else RequestFailed
        document = _document(reply)
        if document.type == f"{PROBLEM_TYPE}invalid_records" and document.errors:
            raise InvalidRecords([_shifted(problem, request.start or 0) for problem in document.errors])
        raise _failed(kind, reply, request, request_id)
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = f"{reply.headers.get('content-type', 'no content type')} of {len(reply.body)} bytes"
        message = f"{request.url}: expected JSON, got {what}: is this the address of a fairlead server?"
        raise RequestFailed(message, reply.status, None, request_id) from error


def _document(reply: _Reply) -> _Document:
    if not isinstance(reply, _Answer):
        return _Document()
    try:
        return msgspec.json.decode(reply.body, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Document()  # a proxy's own page


def _failed(
    kind: type[RequestFailed],
    reply: _Reply,
    request: _Request,
    request_id: str,
    attempts: str = "",
    asked_s: float | None = None,
) -> RequestFailed:
    if not isinstance(reply, _Answer):
        what = str(reply) or type(reply).__name__
        error = kind(f"{request.url}: {what}{attempts} (request id {request_id})", request_id=request_id)
        error.__cause__ = reply
        return error
    document = _document(reply)
    code = document.type.removeprefix(PROBLEM_TYPE) if document.type.startswith(PROBLEM_TYPE) else None
    found_id = document.request_id or reply.headers.get("x-request-id") or request_id
    what = " ".join(filter(None, (str(reply.status), code)))
    hint = {401: ": give `api_key`, or set FAIRLEAD_API_KEY", 403: ": this `api_key` may not"}.get(reply.status, "")
    if reply.status < 400 and "location" in reply.headers:
        hint = f": give the address it moved to, {reply.headers['location']}"
    detail = f": {document.detail}" if document.detail else hint
    message = f"{request.url}: expected 200, got {what}{attempts}{detail} (request id {found_id})"
    return kind(message, reply.status, code, found_id, asked_s)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read how long to wait: seconds or a date. Source: RFC 9110 section 10.2.3."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    when = _date(text)
    # The server's own clock, where it tells it: the two may differ.
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return None if when is None else max(0.0, (when - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _shifted(problem: Problem, start: int) -> Problem:
    path = re.sub(r"^\$\[(\d+)\]", lambda match: f"$[{int(match[1]) + start}]", problem.path)
    return Problem(path, problem.expected, problem.got)


def _is_frame(data: object) -> TypeGuard[pd.DataFrame]:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _count(data: Any) -> int:
    if isinstance(data, Mapping):
        return 1
    if not _is_frame(data) and not isinstance(data, list | tuple):
        raise TypeError(f"expected a DataFrame, a list of records or a record, got {type(data).__name__}")
    return len(data)


def _requests(url: str, data: Any, max_rows: int) -> Iterator[_Request]:
    """Write the records, as many into a body as it may hold."""
    if isinstance(data, Mapping):
        yield _Request("POST", url, _line(data, "$"))
        return
    lines: list[bytes] = []
    size, start = 2, 0
    for place, line in enumerate(_lines(data, max_rows)):
        if lines and (len(lines) == max_rows or size + len(line) > MAX_BODY_BYTES):
            yield _Request("POST", url, b"[" + b",".join(lines) + b"]", start, len(lines))
            lines, size, start = [], 2, place
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield _Request("POST", url, b"[" + b",".join(lines) + b"]", start, len(lines))


def _lines(data: Any, max_rows: int) -> Iterator[bytes]:
    if not _is_frame(data):
        for place, record in enumerate(data):
            yield _line(record, f"$[{place}]")
        return
    names = [str(name) for name in data.columns]
    if len(set(names)) != len(names):
        raise InvalidRecords([Problem("$", "columns of different names", "one name twice")])
    for start in range(0, len(data), max_rows):
        part = data.iloc[start : start + max_rows]
        columns = [part.iloc[:, i].astype(object).tolist() for i in range(len(names))]
        rows = zip(*columns, strict=True) if names else itertools.repeat((), len(part))
        for place, row in enumerate(rows, start):
            yield _line(dict(zip(names, row, strict=True)), f"$[{place}]")


_AS_IS = frozenset({str, int, bool, type(None)})


def _is_json(value: Any) -> bool:
    # The difference is 0 unless the number is NaN or infinite.
    return type(value) in _AS_IS or (type(value) is float and value - value == 0.0)


def _line(record: object, path: str) -> bytes:
    """Write one record; what is no object is the server's to refuse."""
    if isinstance(record, Mapping):
        record = {name: v if _is_json(v) else _plain(v, path, name) for name, v in record.items()}
    try:
        return msgspec.json.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRecords([Problem(path, "values that JSON can hold", str(error))]) from error


def _plain(value: Any, path: str, name: str) -> object:
    """Give what JSON has for a value; pandas and numpy need not be there when none of theirs comes."""
    if (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic):
        is_time = isinstance(value, numpy.datetime64)
        value = value.astype("datetime64[us]").item() if is_time else value.item()
    if (pandas := sys.modules.get("pandas")) is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    if isinstance(value, float | Decimal):
        value = float(value)
        if math.isinf(value):
            from fairlead.predict.validate import child_path

            # msgspec would write null, which means something else.
            raise InvalidRecords([Problem(child_path(path, name), "a finite number", "an infinity")])
        return None if math.isnan(value) else value
    if isinstance(value, datetime):
        # Of a Timestamp, what is below a microsecond is left out, as where a frame is predicted without a server.
        value = datetime.combine(value.date(), value.timetz())
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return value
