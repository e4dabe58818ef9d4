"""45 models behind one server with memory for 10, asked unevenly: what the worker takes, and what requests notice.

python benchmarks/many_models.py [--repeats 3]

The models are forests of three sizes under 45 names. How often each is asked falls with its place in the row (Zipf's
law). A turn lasts `SECONDS`; the worker's resident memory is read every 20 ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from results import Figure, median, options, write
from sklearn.ensemble import RandomForestRegressor

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.bundle.manifest import DESCRIPTOR, decode_descriptor, encode_descriptor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from load import (  # what tests share lies in their folder
    Served,
    Tally,
    connected,
    for_seconds,
    get,
    post,
    quantile,
)

MODELS, IN_MEMORY = 45, 10
TREES = (40, 60, 80)
SECONDS, CLIENTS = 20.0, 8
RECORD = {"a": 0.5, "b": -0.5, "c": 0.1}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MB = 1_000_000


@dataclass(frozen=True)
class Turn:
    """What came of one run under load; memory in bytes."""

    tally: Tally
    most: int
    loads: int
    evictions: int


def make_bundles(folder: Path) -> Path:
    """Build forests of a few sizes, and give them many names."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(4_000, 3)), columns=list(RECORD))
    y = X["a"] * X["b"] + rng.normal(size=len(X))
    bundles = folder / "bundles"
    bundles.mkdir()
    for number, n_trees in enumerate(TREES):
        source = folder / f"forest-{n_trees}.pkl"
        source.write_bytes(pickle.dumps(RandomForestRegressor(n_trees, random_state=1).fit(X, y)))
        built = fairlead.build(source, folder / f"forest-{n_trees}", BuildOptions(data=X, engine="onnx")).path
        for place in range(number, MODELS, len(TREES)):
            rename(shutil.copytree(built, bundles / f"model-{place:02}"), f"model-{place:02}")
    return bundles


def rename(bundle: Path, name: str) -> None:
    """Give a bundle another name, and so another digest."""
    descriptor = bundle / DESCRIPTOR
    data = descriptor.read_bytes()
    manifest = msgspec.structs.replace(decode_descriptor(data, str(descriptor)), name=name)
    descriptor.write_bytes(encode_descriptor(manifest, json.loads(data.rpartition(b"# sha256: ")[0])))


def resident_bytes(pid: int) -> int:
    """Read a process's RSS. Source: proc(5), statm."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE_BYTES


def request(place: int) -> bytes:
    return post(RECORD, f"/models/model-{place:02}/predict")


async def base_of(server: Served) -> int:
    """Ask what loads nothing, then read the memory."""
    async with connected(server.port) as connection:
        for _ in range(200):
            for asked in (get("/openapi.json"), get("/metrics"), post({}, "/models/model-00/predict")):
                assert (await connection.ask(asked)).status in (200, 422)
    return resident_bytes(server.process.pid)


async def load_all(server: Served) -> None:
    async with connected(server.port) as connection:
        for place in range(MODELS):
            assert (await connection.ask(request(place))).status == 200


async def ask_unevenly(port: int, until: Callable[[], bool], seed: int) -> Tally:
    """Let clients ask one model after the other, the first most often."""
    tally, chance = Tally(), random.Random(seed)
    places, weights = range(MODELS), [1 / (place + 1) for place in range(MODELS)]

    async def ask() -> None:
        async with connected(port) as connection:
            while not until():
                (place,) = chance.choices(places, weights)
                start_s = time.perf_counter()
                answer = await connection.ask(request(place))
                tally.take(answer, time.perf_counter() - start_s, None)

    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return tally


async def run(server: Served, seed: int) -> Turn:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, resident_bytes(server.process.pid))
            await asyncio.sleep(0.02)

    watching = asyncio.ensure_future(watch())
    tally = await ask_unevenly(server.port, for_seconds(SECONDS), seed)
    watching.cancel()
    async with connected(server.port) as connection:
        metrics = (await connection.ask(get("/metrics"))).body.decode()
    return Turn(tally, most, counted(metrics, "fairlead_model_loads"), counted(metrics, "fairlead_model_evictions"))


def counted(metrics: str, name: str) -> int:
    return sum(int(float(value)) for value in re.findall(rf"^{name}_total\{{.*\}} (\S+)$", metrics, re.MULTILINE))


def main() -> None:
    chosen = options(__doc__, repeats=3)
    turns: list[Turn] = []
    bases: list[int] = []
    with tempfile.TemporaryDirectory() as directory:
        bundles = make_bundles(Path(directory))
        with Served(bundles) as server:
            base = asyncio.run(base_of(server))
            asyncio.run(load_all(server))
            one = (resident_bytes(server.process.pid) - base) / MODELS
        budget = round(IN_MEMORY * one)
        for seed in range(chosen.repeats):
            with Served(bundles, flags=("--memory-budget-bytes", str(budget))) as server:
                bases.append(asyncio.run(base_of(server)))
                turns.append(asyncio.run(run(server, seed)))

    def middle(values: Sequence[float]) -> float:
        return median(list(values))

    allowed = [1.2 * budget + base for base in bases]
    latencies = [turn.tally.latencies_s for turn in turns]
    asked = [sum(turn.tally.statuses.values()) for turn in turns]
    figures = [
        Figure("a model", one / MB, "MB"),
        Figure("the budget", budget / MB, "MB"),
        Figure("base: the worker with nothing loaded", middle(bases) / MB, "MB"),
        Figure("the most it took under load", middle([turn.most for turn in turns]) / MB, "MB"),
        Figure(
            "the most it took / (1.2 × the budget + the base)",
            middle([turn.most / most for turn, most in zip(turns, allowed, strict=True)]),
            "×",
            1,
        ),
        Figure(
            "requests that were not answered",
            sum(n - turn.tally.statuses[200] for n, turn in zip(asked, turns, strict=True)),
            "",
            0,
        ),
        Figure(
            "requests that found their model loaded",
            middle([100 * (1 - turn.loads / n) for turn, n in zip(turns, asked, strict=True)]),
            "%",
        ),
        Figure("loads a second", middle([turn.loads / SECONDS for turn in turns]), ""),
        Figure("models let go a second", middle([turn.evictions / SECONDS for turn in turns]), ""),
        Figure("time to an answer, p50", middle([quantile(times, 0.5) for times in latencies]) * 1e3, "ms"),
        Figure("time to an answer, p99", middle([quantile(times, 0.99) for times in latencies]) * 1e3, "ms"),
    ]
    forests = f"{MODELS} forests of {', '.join(map(str, TREES))} trees"
    told = f"{forests}, {CLIENTS} clients, 1 worker; medians of {chosen.repeats} turns of {SECONDS:g} s"
    write(chosen.results, "many_models", told, figures)


if __name__ == "__main__":
    main()
