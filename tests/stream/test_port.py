from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest

from fairlead.monitor.metrics import Metrics
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from fairlead.monitor.sockets import bind, listen
from fairlead.stream.port import Port
from fairlead.stream.progress import Progress
from fairlead.stream.records import Lag


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    directory = prepare_directory()
    yield Metrics()
    remove_directory(directory)


def test_it_answers_probes_and_scrapes(metrics: Metrics) -> None:
    progress = Progress("price", metrics, lambda: [Lag("one", 5, 1.5)])

    async def work(listener: socket.socket) -> None:
        port = Port(progress.status, progress.tell_lag, metrics)
        answering = asyncio.create_task(port.answer(listener))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            found = await client.get("/livez")
            assert (found.status_code, found.json()) == (200, {"status": "live"})
            found = await client.get("/readyz")
            assert found.status_code == 503
            assert found.headers["content-type"] == "application/json"
            assert {"status": "not ready", "reason": "it is starting"}.items() <= found.json().items()
            progress.waits_for("")
            found = await client.get("/readyz")
            assert (found.status_code, found.json()["lag"]) == (200, [{"partition": "one", "records": 5, "age_s": 1.5}])
            progress.failed("publish", "away")
            found = await client.get("/readyz")
            assert (found.status_code, found.json()["reason"]) == (503, "publish: away")
            for accept in ("", "application/openmetrics-text"):
                found = await client.get("/metrics", headers={"accept": accept})
                assert found.headers["content-type"].startswith(accept or "text/plain")
                assert 'fairlead_stream_lag_records{model="price",partition="one"} 5.0' in found.text
            assert (await client.get("/predict")).status_code == 404
            assert (await client.post("/livez")).status_code == 405
            # A client that keeps its connection does not hold up the end.
            port.should_exit = True
            await asyncio.wait_for(answering, 10)

    with bind("127.0.0.1", 0) as listener:
        listen(listener, "127.0.0.1", 0)
        asyncio.run(work(listener))
