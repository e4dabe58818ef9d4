"""The client against a real server, against the app in memory, and against answers that are wrong on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import math
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest

import fairlead
import fairlead.client
import fairlead.web
from fairlead.bundle.build import BuildOptions
from fairlead.client import AsyncClient, Client, DeadlineExceeded, RequestFailed, ServiceUnavailable
from fairlead.errors import InvalidRecords, MissingExtra
from fairlead.schema import Schema

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
URL = "http://test"
Handler = Callable[[httpx.Request], httpx.Response]
START_S = 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a compiled classifier `churn` with nulls, and a bool among its outputs."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    folder = tmp_path_factory.mktemp("client")
    rows = pd.DataFrame(
        {
            "tenure": [41, 1, 2, 60, 30, 3],
            "charges": [79.85, 90.0, None, 20.5, 30.0, 99.0],
            "contract": ["yearly", "monthly", "monthly", "yearly", "yearly", "monthly"],
        }
    )
    numbers = ("numbers", SimpleImputer(), ["tenure", "charges"])
    words = ("words", OneHotEncoder(handle_unknown="ignore"), ["contract"])
    model = make_pipeline(ColumnTransformer([numbers, words]), LogisticRegression()).fit(rows, [0, 1, 1, 0, 0, 1])
    (folder / "model.pickle").write_bytes(pickle.dumps(model))
    features = [
        {"name": "tenure", "type": "int"},
        {"name": "charges", "type": "float", "nullable": True},
        {"name": "contract", "type": "string"},
    ]
    options = BuildOptions(
        data=rows,
        schema=Schema.parse({"features": features}),
        outputs=("prediction=prediction", "probabilities=probabilities", "churn=probability:1 >= 0.5"),
        engine="onnx",
    )
    return fairlead.build(folder / "model.pickle", folder / "churn", options).path


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    random = np.random.default_rng(7)
    charges = random.normal(60, 20, 53)
    charges[::5] = np.nan
    columns = {
        "tenure": random.integers(0, 72, 53),
        "charges": charges,
        "contract": random.choice(["monthly", "yearly"], 53),
    }
    return pd.DataFrame(columns, index=pd.Index([f"customer {i}" for i in range(53)], name="who"))


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """Run `fairlead serve` and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fairlead", "serve", bundle, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            with Client(url) as client:
                for _ in range(START_S * 50):
                    if process.poll() is not None or client.ready():
                        break
                    time.sleep(0.02)
            assert process.poll() is None, process.communicate()
            yield url
        finally:
            process.terminate()
            process.communicate(timeout=START_S)


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    with serving(bundle) as address:
        yield address


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the client's clock, its sleep, and chance: a jitter is as long as it may be."""
    clock = Clock()
    monkeypatch.setattr(fairlead.client, "monotonic", clock.monotonic)
    monkeypatch.setattr(fairlead.client, "sleep", clock.sleep)
    monkeypatch.setattr(fairlead.client, "uniform", lambda low, high: high)
    return clock


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


# Predictions


def test_predicts_what_the_bundle_predicts(url: str, bundle: Path, frame: pd.DataFrame) -> None:
    predictor = fairlead.load(bundle)
    records = [
        {"tenure": 1, "charges": None, "contract": "monthly"},
        {"tenure": 60, "charges": 9, "contract": "yearly"},
    ]
    with Client(url, max_rows_per_request=10) as client:
        assert client.predict(records[0]) == predictor.predict(records[0])
        assert client.predict(records) == predictor.predict(records)
        assert client.predict([]) == []
        pd.testing.assert_frame_equal(client.predict(frame), predictor.predict(frame), check_exact=True)
    with Client(url, model="churn") as client:
        assert client.predict(tuple(records)) == predictor.predict(records)


def test_async_predicts_what_the_bundle_predicts(url: str, bundle: Path, frame: pd.DataFrame) -> None:
    async def go() -> tuple[Any, ...]:
        async with AsyncClient(url, max_rows_per_request=10) as client:
            one = await client.predict({"tenure": 1, "charges": None, "contract": "monthly"})
            return one, await client.predict(frame), await client.predict([])

    one, many, none = asyncio.run(go())
    predictor = fairlead.load(bundle)
    assert one == predictor.predict({"tenure": 1, "charges": None, "contract": "monthly"})
    pd.testing.assert_frame_equal(many, predictor.predict(frame), check_exact=True)
    assert none == []


def test_async_predicts_through_an_app_in_memory(bundle: Path, frame: pd.DataFrame) -> None:
    async def go() -> Any:
        transport = httpx.ASGITransport(fairlead.web.asgi(bundle))
        async with AsyncClient(URL, transport=transport) as client:
            return await client.predict(frame)

    pd.testing.assert_frame_equal(asyncio.run(go()), fairlead.load(bundle).predict(frame), check_exact=True)


def test_asks_what_is_served(url: str) -> None:
    async def go() -> tuple[Any, ...]:
        async with AsyncClient(url) as client:
            return await client.models(), await client.ready(), await client.live()

    with Client(url + "/") as client:
        models = client.models()
        assert [(model["name"], model["predict"]) for model in models] == [("churn", "/models/churn/predict")]
        assert client.ready()
        assert client.live()
    assert asyncio.run(go()) == (models, True, True)


def test_bad_records_have_their_own_places(url: str, frame: pd.DataFrame) -> None:
    async def go() -> None:
        async with AsyncClient(url, max_rows_per_request=10) as client:
            await client.predict(broken)

    broken = frame.astype({"contract": object})
    broken.iloc[37, 2] = 5
    with Client(url, max_rows_per_request=10) as client:
        with pytest.raises(InvalidRecords) as caught:
            client.predict(broken)
        assert [str(problem) for problem in caught.value.problems] == [
            "contract: expected a string, got an integer, at $[37].contract"
        ]
        with pytest.raises(InvalidRecords, match=r"at \$\.charges"):
            client.predict({"tenure": 1, "contract": "yearly"})
        with pytest.raises(InvalidRecords, match=r"record: expected an object, got an integer, at \$\[1\]"):
            client.predict([{"tenure": 1, "charges": 1, "contract": "yearly"}, 7])
    with pytest.raises(InvalidRecords, match=r"at \$\[37\]\.contract"):
        asyncio.run(go())


def test_no_server_is_told() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound, not listening: refused
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", retries=2) as client:
            assert not client.ready()
            assert not client.live()
            with pytest.raises(ServiceUnavailable, match="Connection refused after 3 attempts") as caught:
                client.predict(GOOD)
    assert caught.value.retryable
    assert caught.value.status is None


def test_threads_share_a_client(url: str, bundle: Path, frame: pd.DataFrame) -> None:
    records = frame.iloc[1:5].to_dict("records")
    expected = fairlead.load(bundle).predict(records)
    found: list[Any] = []
    with Client(url) as client:
        threads = [threading.Thread(target=lambda: found.append(client.predict(records))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 8


# What is sent


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (math.nan, None),
        (np.float32("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (Decimal("0.1"), 0.1),
        (pd.Timestamp("2024-05-01 12:00:00.123456789"), "2024-05-01T12:00:00.123456Z"),
        (pd.Timestamp("2024-05-01 12:00", tz="Europe/Berlin"), "2024-05-01T12:00:00+02:00"),
        (np.datetime64("2024-05-01T12:00:00.5", "ns"), "2024-05-01T12:00:00.500000Z"),
        (datetime(2024, 5, 1, 12), "2024-05-01T12:00:00Z"),
        (datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=-3))), "2024-05-01T12:00:00-03:00"),
        (date(2024, 5, 1), "2024-05-01"),
        ([1], [1]),
    ],
)
def test_values_are_written_as_json(value: Any, sent: Any) -> None:
    script = Script(ok)
    with script.client() as client:
        client.predict({"x": value})
        client.predict([{"x": value}])
        if not isinstance(value, list):
            client.predict(pd.DataFrame({"x": pd.Series([value], dtype=object)}))
    bodies = [msgspec.json.decode(request.content) for request in script.requests]
    assert bodies == [{"x": sent}, [{"x": sent}], [{"x": sent}]][: len(bodies)]
    assert type(bodies[0]["x"]) is type(sent)


def test_columns_are_written_as_json() -> None:
    columns = {
        "int": pd.Series([1, None], dtype="Int64"),
        "float": pd.Series([1.5, math.nan], dtype="float32"),
        "bool": pd.Series([True, None], dtype="boolean"),
        "text": pd.Series(["a", None], dtype="string"),
        "word": pd.Series(["b", None], dtype="category"),
        "when": pd.to_datetime(pd.Series(["2024-05-01", None])),
        7: pd.Series([1, 2], dtype="uint8"),
    }
    script = Script(ok)
    with script.client() as client:
        client.predict(pd.DataFrame(columns))
    [first, second] = msgspec.json.decode(script.requests[0].content)
    when = "2024-05-01T00:00:00Z"
    assert first == {"int": 1, "float": 1.5, "bool": True, "text": "a", "word": "b", "when": when, "7": 1}
    assert second == {**dict.fromkeys(("int", "float", "bool", "text", "word", "when")), "7": 2}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ([{"x": 1.0}, {"x": math.inf}], "$[1].x"),
        ({"x y": -np.float32("inf")}, '$["x y"]'),
        (pd.DataFrame({"x": [0.0, 1.0, math.inf]}), "$[2].x"),
    ],
)
def test_an_infinity_is_refused_and_not_sent_as_null(data: Any, path: str) -> None:
    script = Script(ok)
    with script.client() as client, pytest.raises(InvalidRecords) as caught:
        client.predict(data)
    assert [(p.path, p.expected, p.got) for p in caught.value.problems] == [(path, "a finite number", "an infinity")]
    assert script.requests == []


def test_what_json_cannot_hold_is_refused() -> None:
    with Script(ok).client() as client:
        with pytest.raises(InvalidRecords, match=r"values that JSON can hold.*complex.*at \$\[1\]"):
            client.predict([{"x": 1}, {"x": 1j}])
        with pytest.raises(InvalidRecords, match="columns of different names"):
            client.predict(pd.DataFrame([[1, 2]], columns=["x", "x"]))
        with pytest.raises(TypeError, match="expected a DataFrame, a list of records or a record, got str"):
            client.predict("x")


def test_frames_without_rows_and_columns() -> None:
    with Script(ok).client() as client:
        empty = client.predict(pd.DataFrame({"x": []}))
        assert (len(empty), list(empty)) == (0, [])
        assert client.predict(pd.DataFrame(index=[4, 5])).index.tolist() == [4, 5]


def test_many_rows_are_sent_in_order_in_several_requests() -> None:
    script = Script(ok)
    progress: list[tuple[int, int]] = []
    with script.client(max_rows_per_request=10) as client:
        answers = client.predict([{"x": i} for i in range(25)], on_progress=lambda *p: progress.append(p))
    assert answers == [{"x": i} for i in range(25)]
    assert [len(msgspec.json.decode(request.content)) for request in script.requests] == [10, 10, 5]
    assert progress == [(10, 25), (20, 25), (25, 25)]
    assert len(set(script.header("x-request-id"))) == 3


def test_no_body_is_larger_than_a_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairlead.client, "MAX_BODY_BYTES", 21)
    script = Script(ok)
    with script.client() as client:  # [{"x":0},{"x":0}] has 17 bytes, a third record would make 25
        assert len(client.predict([{"x": 0}] * 5)) == 5
    assert [len(request.content) for request in script.requests] == [17, 17, 9]
    monkeypatch.setattr(fairlead.client, "MAX_BODY_BYTES", 17)
    with script.client() as client:
        client.predict([{"x": 0}] * 2 + [{"x": "longer than all that"}])
    assert [len(request.content) for request in script.requests[3:]] == [17, 30]


def test_async_sends_several_requests_at_once_and_no_more() -> None:
    under_way, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        first = msgspec.json.decode(request.content)[0]["x"]
        await asyncio.sleep(0.05 if first == 0 else 0.01)  # the first comes back last
        under_way -= 1
        return ok(request)

    async def go() -> Any:
        transport = httpx.MockTransport(answer)
        async with AsyncClient(URL, max_rows_per_request=2, concurrency=3, transport=transport) as client:
            return await client.predict([{"x": i} for i in range(15)], on_progress=lambda *p: progress.append(p))

    progress: list[tuple[int, int]] = []
    assert asyncio.run(go()) == [{"x": i} for i in range(15)]
    assert most == 3
    assert [total for _, total in progress] == [15] * 8
    assert max(progress)[0] == 15


def test_async_stops_at_the_first_request_that_fails() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if msgspec.json.decode(request.content)[0]["x"] == 4:
            return problem(500, "model_failed")
        await asyncio.sleep(60)
        raise AssertionError("should have been cancelled")

    async def go() -> None:
        transport = httpx.MockTransport(answer)
        async with AsyncClient(URL, max_rows_per_request=2, transport=transport) as client:
            await client.predict([{"x": i} for i in range(15)])

    with pytest.raises(RequestFailed, match="500 model_failed"):
        asyncio.run(asyncio.wait_for(go(), 10))


@pytest.mark.parametrize(
    ("url", "model", "asked"),
    [
        ("http://test", None, "http://test/predict"),
        ("http://test/", "churn", "http://test/models/churn/predict"),
        ("https://test:8443/eu/v1/", "a b/c", "https://test:8443/eu/v1/models/a%20b%2Fc/predict"),
    ],
)
def test_a_prefix_stays_in_front(url: str, model: str | None, asked: str) -> None:
    script = Script(ok)
    with Client(url, model=model, transport=httpx.MockTransport(script)) as client:
        client.predict({"x": 1})
    assert [str(request.url) for request in script.requests] == [asked]


# The key


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_API_KEY", "from-the-environment\n")
    script = Script(problem(401, "unauthorized", detail=""))
    for how in ({}, {"api_key": "given"}):
        with script.client(**how) as client, pytest.raises(RequestFailed) as caught:
            client.predict({"x": 1})
        shown = repr(client) + str(client) + str(caught.value) + repr(caught.value)
        assert "given" not in shown
        assert "from-the-environment" not in shown
        assert "expected 200, got 401 unauthorized: give `api_key`, or set FAIRLEAD_API_KEY" in shown
    assert script.header("authorization") == ["Bearer from-the-environment", "Bearer given"]
    with pytest.raises(ValueError, match="api_key: expected visible ASCII") as refused:
        Client(URL, api_key="sec\nret")
    assert "ret" not in str(refused.value)


def test_no_key_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRLEAD_API_KEY", raising=False)
    script = Script(ok)
    with script.client() as client:
        client.predict({"x": 1})
    assert "authorization" not in script.requests[0].headers


# Retries


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
    monkeypatch.setattr(fairlead.client, "uniform", lambda low, high: asked.append((low, high)) or 0.0)
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


# Deadlines


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


def test_an_answer_that_drips_in_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b" ")
                    time.sleep(0.05)

        for run in (sync_predict, async_predict):
            thread = threading.Thread(target=drip, daemon=True)
            thread.start()
            start = time.perf_counter()
            with pytest.raises(DeadlineExceeded):
                run(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.4)
            assert time.perf_counter() - start < 2
            thread.join()


def sync_predict(url: str, **how: Any) -> Any:
    with Client(url, **how) as client:
        return client.predict({"x": 1})


def async_predict(url: str, **how: Any) -> Any:
    async def go() -> Any:
        async with AsyncClient(url, **how) as client:
            return await client.predict({"x": 1})

    return asyncio.run(go())


def test_connections_that_break_are_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.close()  # closed without an answer
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{")  # half an answer
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"x":1}')

        for run in (sync_predict, async_predict):
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            assert run(f"http://127.0.0.1:{listener.getsockname()[1]}") == {"x": 1}
            thread.join()


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


# Answers that are none


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


def test_models_of_something_else_are_told() -> None:
    with Script(httpx.Response(200, json=[])).client() as client, pytest.raises(RequestFailed, match="list of models"):
        client.models()


def test_ready_tells_a_wrong_address_from_a_server_that_is_not() -> None:
    script = Script(busy(), httpx.ReadTimeout("late"), httpx.ConnectError("refused"), httpx.Response(404))
    with script.client() as client:
        assert [client.ready(), client.live(), client.ready()] == [False, False, False]
        with pytest.raises(RequestFailed, match="got 404"):
            client.ready()
    assert len(script.requests) == 4


# How it is made


@pytest.mark.parametrize(
    "url", ["localhost:9696", "ftp://test", "http://", "", "http://u:secret@test", "http://t/?a=1", "http://[::1"]
)
def test_a_wrong_address_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="url: expected one such as http://localhost:9696") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "how", [{"retries": -1}, {"max_rows_per_request": 0}, {"timeout_s": 0}, {"timeout_s": math.nan}]
)
def test_settings_out_of_range_are_told(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"), Script(ok).client(**how) as client:
        client.predict({"x": 1})


def test_concurrency_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        AsyncClient(URL, concurrency=0)


def test_without_httpx_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fairlead\[client\]'"):
        Client(URL)


def test_importing_the_client_imports_neither_httpx_nor_numpy() -> None:
    code = "import sys, fairlead.client; print(sorted({'httpx', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_repr_tells_where() -> None:
    with Script(ok).client(model="churn") as client:
        assert repr(client) == "Client('http://test', model='churn')"
