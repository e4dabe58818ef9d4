"""Both clients against a real server, against the app in memory, and against connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pandas as pd
import pytest

import fairlead
import fairlead.web
from client.replies import URL, ok, problem
from fairlead.client import AsyncClient, Client, DeadlineExceeded, RequestFailed, ServiceUnavailable
from fairlead.config import WebSettings
from fairlead.errors import InvalidRecords

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}


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


def test_concurrency_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        AsyncClient(URL, concurrency=0)


def test_requests_at_once_fit_into_a_servers_queue() -> None:
    parameters = inspect.signature(AsyncClient).parameters
    at_once = parameters["max_rows_per_request"].default * parameters["concurrency"].default
    assert 4 * at_once <= WebSettings().max_queue_rows


def test_importing_the_client_imports_neither_httpx_nor_numpy() -> None:
    code = "import sys, fairlead.client; print(sorted({'httpx', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
