"""`fairlead stream` against the least that its work can cost: the predictor alone, and a consumer that only copies.

python benchmarks/stream.py [--data telco-churn.csv] [--repeats 5] [--events 50000]

Memory: the loop with events and answers in this process's memory, beside `Predictor.run` on the same batches, in turns.
Redis: a real server on loopback; the whole command in a process of its own, and one that reads, writes and acknowledges
the same batches with redis-py and hiredis and looks at nothing, in turns; the clock runs from first to last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import redis
from results import ROOT, TELCO, Figure, build, median, train, write

import fairlead
from fairlead.bundle.read import open_bundle
from fairlead.predict.predictor import Predictor
from fairlead.repository.deployments import Deployment, Variant
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import memory, open_sink, open_source
from fairlead.stream.consumer import Consumer
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.envelope import Envelope
from fairlead.stream.models import Models
from fairlead.stream.progress import Progress
from fairlead.stream.records import Message
from fairlead.stream.retry import Retry

PAGE = ROOT / "docs" / "benchmarks.md"
BATCH = 500
START_S, WORK_S = 30, 120
FEATURES, ID = "customer", "customer_id"
COPY = """
import sys
import redis

client, n_events = redis.Redis(port=int(sys.argv[1])), int(sys.argv[2])
client.xgroup_create("events", "copy", id="0")
done = 0
while done < n_events:
    [[_, entries]] = client.xreadgroup("copy", "one", {"events": ">"}, count=int(sys.argv[3]))
    pipe = client.pipeline(transaction=False)
    for _, fields in entries:
        pipe.xadd(sys.argv[4], fields)
    pipe.execute()
    client.xack("events", "copy", *[entry_id for entry_id, _ in entries])
    done += len(entries)
"""


def make_events(customers: pd.DataFrame, n_events: int) -> list[dict[str, Any]]:
    drawn = customers.sample(n_events, replace=True, random_state=1)
    rows = msgspec.json.decode(drawn.to_json(orient="records"))
    return [{FEATURES: row, ID: number} for number, row in enumerate(rows)]


def alone(predictor: Predictor, data: list[bytes]) -> float:
    """Give the rows a second of the predictor, on records that were just decoded, as each is seen once only."""
    records = [msgspec.json.decode(one)[FEATURES] for one in data]
    start = time.perf_counter()
    for first in range(0, len(records), BATCH):
        predictor.run(records[first : first + BATCH])
    return len(data) / (time.perf_counter() - start)


async def through_memory(bundle: Path, data: list[bytes]) -> float:
    """Give the events a second of the loop."""
    for name in ("events", "answers", "dead"):
        memory.forget(name)
    stream = memory.stream("events")
    stream.publish([Message(one, str(number)) for number, one in enumerate(data)])
    stream.close()
    source = open_source("memory://events", SourceOptions())
    sink, dead = open_sink("memory://answers", {}), open_sink("memory://dead", {})
    models = Models("telco", Envelope((FEATURES,), (ID,)), 1 << 20)
    deployment = Deployment(name="telco", stable=Variant.of(open_bundle(bundle)))
    await models.prepare(deployment)
    await models.serve(deployment)
    progress = Progress("telco", None, source.lag)
    await source.start()
    letters = DeadLetters("memory://events", None, None)
    consumer = Consumer(source, sink, dead, letters, models, progress, Retry(progress), BATCH, 0.05)
    start = time.perf_counter()
    await consumer.run()
    took_s = time.perf_counter() - start
    assert len(memory.stream("answers").messages) == len(data)
    return len(data) / took_s


@contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """Run a Redis that keeps nothing on the disk."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    server = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        deadline = time.monotonic() + START_S
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise SystemExit("redis-server did not start") from None
                time.sleep(0.05)
        client.close()
        yield port
    finally:
        server.terminate()
        server.wait()


def timed(command: list[str], client: redis.Redis, output: str, n_events: int) -> float:
    """Give the events a second of a process that writes one entry for each."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        first, start = 0, 0.0
        deadline = time.monotonic() + WORK_S
        while (done := client.xlen(output)) < n_events:
            if done and not first:
                first, start = done, time.perf_counter()
            if time.monotonic() > deadline or (process.poll() is not None and client.xlen(output) < n_events):
                process.kill()
                raise SystemExit(f"{command[:4]} ended at {done} of {n_events}: {process.communicate()[1].decode()}")
            time.sleep(0.005)
        return (n_events - first) / (time.perf_counter() - start)
    finally:
        process.terminate()
        process.communicate()
        client.delete(output)


def through_redis(bundle: Path, data: list[bytes], repeats: int, directory: Path) -> tuple[list[float], list[float]]:
    """Give the events a second of the command, and of the one that copies."""
    ours: list[float] = []
    copied: list[float] = []
    with redis_server(directory) as port:
        client = redis.Redis(port=port)
        pipe = client.pipeline(transaction=False)
        for one in data:
            pipe.xadd("events", {"data": one})
        pipe.execute()
        address = f"redis://127.0.0.1:{port}"
        for _ in range(repeats):
            group = secrets.token_hex(4)
            command = [sys.executable, "-m", "fairlead", "stream", str(bundle), "--from", f"{address}/events"]
            command += ["--to", f"{address}/answers", "--dead-letter", f"{address}/dead", "--group", group]
            command += ["--features", FEATURES, "--id", ID, "--max-records", str(BATCH), "--port", "0"]
            command += ["--state-directory", str(directory)]
            ours.append(timed(command, client, "answers", len(data)))
            script = [sys.executable, "-c", COPY, str(port), str(len(data)), str(BATCH), "copies"]
            copied.append(timed(script, client, "copies", len(data)))
            client.xgroup_destroy("events", "copy")
        assert client.xlen("dead") == 0
        client.close()
    return ours, copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TELCO, help="the published Telco file; made-up data without it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--results", type=Path, default=PAGE, help="the page to write")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        forest = train(chosen.data, folder)
        bundle = folder / "telco"
        build(forest, bundle)
        events = make_events(pd.read_csv(forest.data).drop(columns="churn"), chosen.events)
        data = [msgspec.json.encode(event) for event in events]
        predictor = fairlead.load(bundle)
        # As the command does: what was made at start stays.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000)
        turns = [
            (alone(predictor, data), asyncio.run(through_memory(bundle, data))) for _ in range(chosen.repeats + 1)
        ][1:]  # the first warms up
        ours, copied = through_redis(bundle, data, chosen.repeats, folder)
    run_per_s, memory_per_s = (median([turn[i] for turn in turns]) for i in (0, 1))
    redis_per_s, copy_per_s = median(ours), median(copied)
    figures = [
        Figure("`Predictor.run` on decoded records", run_per_s, "rows/s"),
        Figure("memory to memory, JSON in and out", memory_per_s, "events/s"),
        Figure("memory to memory / `Predictor.run`", memory_per_s / run_per_s, "×", 0.7, at_least=True),
        Figure("Redis to Redis: a consumer that only copies", copy_per_s, "events/s"),
        Figure("Redis to Redis: `fairlead stream`", redis_per_s, "events/s", 20_000, at_least=True),
        Figure("Redis to Redis: `fairlead stream` / the copy", redis_per_s / copy_per_s, "×"),
    ]
    told = (
        f"{forest.told}: {chosen.events:,} customers drawn from them, as JSON with an id, in batches of {BATCH}; "
        f"ColumnTransformer and a forest of 100; medians of {chosen.repeats} runs each, in turns; one consumer"
    )
    write(chosen.results, "stream", told, figures)


if __name__ == "__main__":
    main()
