"""What an answer means: when to ask again, which error, and where in the caller's list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from client.replies import Clock, Script, busy, ok, problem
from fairlead.client import RequestFailed
from fairlead.errors import InvalidRecords


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_waits_until_a_date_by_the_servers_clock(clock: Clock, text: str) -> None:
    script = Script(busy(retry_after=text, date="Sun, 06 Nov 1994 08:49:33 GMT"), ok)
    with script.client() as client:
        client.predict({"x": 1})
    assert clock.slept == [4.0]


def test_a_date_without_the_servers_clock_is_by_ours(clock: Clock) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=5)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    script = Script(busy(retry_after="Sun, 06 Nov 1994 08:49:37 GMT"), busy(retry_after=soon), ok)
    with script.client() as client:
        client.predict({"x": 1})
    assert clock.slept[0] == 0.1  # long ago
    assert 3.0 < clock.slept[1] <= 5.0


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "²", "Sun, 99 Nov 1994"])
def test_what_is_no_retry_after_is_overlooked(clock: Clock, text: str) -> None:
    answer = httpx.Response(503, headers=[(b"retry-after", text.encode("latin-1"))])
    with Script(answer, ok).client() as client:
        client.predict({"x": 1})
    assert clock.slept == [0.1]


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 500, 501])
def test_faults_that_stay_are_not_asked_again(status: int) -> None:
    script = Script(problem(status, "some_code", request_id="in-the-log"))
    with script.client() as client, pytest.raises(RequestFailed) as caught:
        client.predict({"x": 1})
    error = caught.value
    assert type(error) is RequestFailed
    assert (error.status, error.problem, error.request_id, error.retryable) == (
        status,
        "some_code",
        "in-the-log",
        False,
    )
    assert len(script.requests) == 1


def test_other_faults_of_the_way_are_told() -> None:
    with Script(httpx.ProxyError("407 from the proxy")).client() as client:
        with pytest.raises(RequestFailed, match="407 from the proxy") as caught:
            client.predict({"x": 1})
        assert isinstance(caught.value.__cause__, httpx.ProxyError)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(200, html="<p>hello</p>"), "expected JSON, got text/html; charset=utf-8 of 12 bytes"),
        (httpx.Response(200, content=b""), "expected JSON, got no content type of 0 bytes"),
        (httpx.Response(200, content=b'"\xff"'), "expected JSON, got no content type of 3 bytes"),
        (httpx.Response(200, json=[]), "expected an object for each of 2 records"),
        (httpx.Response(200, json={"x": 1}), "expected an object for each of 2 records"),
        (httpx.Response(200, json=[1, 2]), "expected an object for each of 2 records"),
        (httpx.Response(404, html="<h1>nginx</h1>"), r"expected 200, got 404 \(request id \w{32}\)"),
        (httpx.Response(422, json={"detail": []}), r"expected 200, got 422 \(request id"),
        (httpx.Response(308, headers={"location": "https://new/"}), "moved to, https://new/"),
    ],
)
def test_what_is_no_answer_is_told(answer: httpx.Response, message: str) -> None:
    with Script(answer).client() as client, pytest.raises(RequestFailed, match=message) as caught:
        client.predict([{"x": 1}, {"x": 2}])
    assert type(caught.value) is RequestFailed


def test_paths_are_those_of_the_callers_list() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        if not any(record["x"] == 12 for record in msgspec.json.decode(request.content)):
            return ok(request)
        paths = ("$[2].x", '$[2]["$[0]"]', "$")
        errors = [{"path": path, "expected": "a string", "got": "null"} for path in paths]
        return problem(422, "invalid_records", errors=errors)

    with Script(refuse).client(max_rows_per_request=5) as client, pytest.raises(InvalidRecords) as caught:
        client.predict([{"x": i} for i in range(25)])
    assert [p.path for p in caught.value.problems] == ["$[12].x", '$[12]["$[0]"]', "$"]
