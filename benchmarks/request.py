"""What one request costs inside the server, step by step, beside uvicorn's echo of the same body.

python benchmarks/request.py [--data telco-churn.csv] [--repeats 5]

No socket and no load generator: bytes go into the protocol, and what it writes is counted. So this is the
part of a request that is ours or uvicorn's; the system's own part comes on top for both.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import uvicorn
import uvloop
from results import ROOT, Figure, build, median, options, train, write
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fairlead.bundle.samples import records_of
from fairlead.config import ModelSettings, WebSettings
from fairlead.predict.predictor import Predictor, load
from fairlead.web import wire
from fairlead.web.app import App
from fairlead.web.gate import make_gate
from fairlead.web.models import Loader, load_all
from fairlead.web.protocol import Protocol

PAGE = ROOT / "docs" / "benchmarks.md"
CUSTOMERS = 512
REQUESTS = 8_000
TOGETHER = (1, 16)


class Socket:
    """Takes what the protocol writes, and counts the answers by their status lines."""

    def __init__(self) -> None:
        self.answers = 0

    def write(self, data: bytes) -> None:
        self.answers += data.startswith(b"HTTP/1.1 200")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def microseconds(app: Any, http: type[HttpToolsProtocol], requests: Sequence[bytes], together: int) -> float:
    """Give the time of one request when `together` come in one turn of the event loop."""
    config = uvicorn.Config(app, http=http, lifespan="off", access_log=False, log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Sat, 21 Nov 2026 12:00:00 GMT")]
    connections = []
    for _ in range(together):
        protocol: Any = http(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
        protocol.access_log = False
        protocol.connection_made(Socket())
        connections.append(protocol)
    bodies = cycle(requests)
    start = time.perf_counter()
    for turn in range(REQUESTS // together):
        for protocol in connections:
            protocol.data_received(next(bodies))
        while any(protocol.transport.answers <= turn for protocol in connections):
            await asyncio.sleep(0)
    return (time.perf_counter() - start) / REQUESTS * 1e6


def steps(predictor: Predictor, bodies: Sequence[bytes]) -> dict[str, float]:
    """Give the microseconds of the steps of one row."""
    engine: Any = predictor.engine
    rows = [predictor.intake.read(body) for body in bodies]
    matrices = [engine.encoder.encode([row]) for row in rows]
    prediction = engine.predict_matrix(matrices[0])
    answer = predictor.answer(rows[:1])[0][0]
    return {
        "JSON to a checked row": timed(predictor.intake.read, bodies),
        "row to matrix": timed(lambda row: engine.encoder.encode([row]), rows),
        "trees": timed(engine.predict_matrix, matrices),
        "outputs": timed(lambda _: (predictor._formatter.rows(prediction), prediction.not_finite()), rows),
        "answer to JSON": timed(lambda _: wire.encode(answer), rows),
    }


def timed(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    chosen = list(islice(cycle(arguments), 4_000))
    start = time.perf_counter()
    for argument in chosen:
        call(argument)
    return (time.perf_counter() - start) / len(chosen) * 1e6


def main() -> None:
    chosen = options(__doc__, repeats=5)
    with tempfile.TemporaryDirectory() as directory:
        forest = train(chosen.data, Path(directory))
        bundle = Path(directory) / "telco"
        build(forest, bundle)
        customers = pd.read_csv(forest.data).drop(columns="churn").sample(CUSTOMERS, random_state=1)
        bodies = [msgspec.json.encode(record) for record in records_of(customers)]
        found = measure(bundle, bodies, chosen.repeats)
    told = f"{forest.told}; medians of {chosen.repeats} turns of {REQUESTS:,} requests, other customers each time"
    write(PAGE, "request", told, [Figure(what, value, "µs") for what, value in found.items()])


def measure(bundle: Path, bodies: Sequence[bytes], repeats: int) -> dict[str, float]:
    head = b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1:9696\r\ncontent-type: application/json\r\ncontent-length: "
    requests = [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies]
    all_of: dict[str, list[float]] = {}
    predictor = load(bundle)
    # The access log goes where nobody reads it, as a file on a fast disk would take it.
    real, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    try:
        for _ in range(repeats):
            for what, value in steps(predictor, bodies).items():
                all_of.setdefault(f"one row: {what}", []).append(value)
            for together in TOGETHER:
                for what, log in (
                    ("uvicorn's echo", None),
                    ("fairlead", False),
                    ("fairlead with its access log", True),
                ):
                    name = f"{what}, {together} in a turn"
                    all_of.setdefault(name, []).append(asyncio.run(one(bundle, requests, together, log)))
    finally:
        os.dup2(real, 1)
    return {name: median(values) for name, values in all_of.items()}


async def one(bundle: Path, requests: Sequence[bytes], together: int, log: bool | None) -> float:
    if log is None:
        return await microseconds(echo, HttpToolsProtocol, requests, together)
    web = WebSettings(access_log=log)
    app = App(load_all([ModelSettings(str(bundle))], Loader(web.max_queue_rows)), make_gate(web))
    return await microseconds(app, Protocol.bound_to(app), requests, together)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    uvloop.install()
    main()
