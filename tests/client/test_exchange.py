"""Retries and deadlines, mostly against a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest

from client.replies import URL, Clock, Script, busy, ok, problem
from fairlead.client import AsyncClient, DeadlineExceeded, ServiceUnavailable, exchange


def test_waits_as_long_as_the_server_asks(clock: Clock) -> None:
    script = Script(busy(retry_after="3"), problem(429, "rate_limited", headers={"retry-after": "0"}), ok)
    with script.client() as client:
        assert client.predict({"x": 1}) == {"x": 1}
    assert clock.slept == [3.0, 0.2]
    assert len(set(script.header("x-request-id"))) == 1
    assert script.header("x-request-timeout") == ["10.000", "7.000", "6.800"]


def test_async_waits_as_long_as_the_server_asks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> Any:
        async with AsyncClient(URL, transport=httpx.MockTransport(script)) as client:
            monkeypatch.setattr(asyncio, "sleep", clock.sleep_async)
            return await client.predict({"x": 1})

    script = Script(busy(retry_after="3"), httpx.ConnectError("refused"), ok)
    assert asyncio.run(go()) == {"x": 1}
    assert clock.slept == [3.0, 0.2]
    assert len(set(script.header("x-request-id"))) == 1


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("no answer to SYN"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("closed"),
        httpx.Response(502, html="<h1>Bad Gateway</h1>"),
        httpx.Response(503),
        httpx.Response(429),
    ],
    ids=repr,
)
def test_backs_off_from_faults_that_pass(clock: Clock, fault: Any) -> None:
    script = Script(fault, fault, fault, ok)
    with script.client() as client:
        assert client.predict({"x": 1}) == {"x": 1}
    assert clock.slept == [0.1, 0.2, 0.4]


def test_jitter_is_from_nothing_to_all(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(exchange, "uniform", lambda low, high: asked.append((low, high)) or 0.0)
    with Script(httpx.ReadError("reset")).client(retries=8) as client, pytest.raises(ServiceUnavailable):
        client.predict({"x": 1})
    assert asked == [(0.0, high) for high in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0)]


def test_gives_up_after_the_last_retry(clock: Clock) -> None:
    script = Script(busy(x_request_id="of-the-server"))
    with script.client(retries=2) as client, pytest.raises(ServiceUnavailable) as caught:
        client.predict({"x": 1})
    error = caught.value
    assert str(error) == (
        "http://test/predict: expected 200, got 503 overloaded after 3 attempts: so it is (request id of-the-server)"
    )
    assert (error.status, error.problem, error.request_id) == (503, "overloaded", "of-the-server")
    assert (error.code, error.retryable, error.retry_after_s) == ("service_unavailable", True, None)
    assert len(script.requests) == 3


def test_refusals_do_not_count_while_others_of_the_call_are_answered() -> None:
    refused, answered = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal refused, answered
        if b'"x":0' in request.content and refused < 6:
            before = answered
            while answered < before + 2:  # the one before the last has reached its caller then
                await asyncio.sleep(0.001)
            refused += 1
            return busy(retry_after="0")
        await asyncio.sleep(0.002)
        answered += 1
        return ok(request)

    async def go(n_records: int) -> Any:
        transport = httpx.MockTransport(answer)
        async with AsyncClient(
            URL, max_rows_per_request=1, retries=1, concurrency=2, transport=transport, timeout_s=20
        ) as client:
            return await client.predict([{"x": i} for i in range(n_records)])

    assert asyncio.run(go(400)) == [{"x": i} for i in range(400)]
    assert refused == 6


def test_does_not_wait_beyond_the_deadline(clock: Clock) -> None:
    script = Script(busy(retry_after="6"))
    with script.client() as client, pytest.raises(ServiceUnavailable, match="after 2 attempts") as caught:
        client.predict({"x": 1})
    assert clock.slept == [6.0]
    assert caught.value.retry_after_s == 6.0


def test_a_slow_answer_is_a_deadline(clock: Clock) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        assert request.extensions["timeout"] == {"connect": 2.0, "read": 2.0, "write": 2.0, "pool": 2.0}
        raise httpx.ReadTimeout("timed out")

    script = Script(slow)
    with script.client() as client, pytest.raises(DeadlineExceeded, match="no answer within 2 s") as caught:
        client.predict({"x": 1}, timeout_s=2.0)
    assert caught.value.retryable
    assert len(script.requests) == 1
    assert caught.value.request_id == script.header("x-request-id")[0]


def test_the_deadline_is_of_the_whole_call(clock: Clock) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        clock.now += 5.0
        return ok(request)

    script = Script(slow)
    with script.client(max_rows_per_request=1) as client, pytest.raises(DeadlineExceeded, match="within 10 s"):
        client.predict([{"x": i} for i in range(5)])
    assert script.header("x-request-timeout") == ["10.000", "5.000"]


def test_a_gateways_deadline_is_not_asked_again() -> None:
    script = Script(problem(504, "deadline"))
    with script.client() as client, pytest.raises(DeadlineExceeded) as caught:
        client.predict({"x": 1})
    assert (caught.value.status, caught.value.problem, len(script.requests)) == (504, "deadline", 1)


def test_there_may_be_no_deadline() -> None:
    script = Script(ok)
    with script.client(timeout_s=math.inf) as client:
        client.predict({"x": 1})
    assert "x-request-timeout" not in script.requests[0].headers
    assert script.requests[0].extensions["timeout"] == {"connect": 3.0, "read": None, "write": None, "pool": None}
