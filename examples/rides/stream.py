"""Rides as they happen: events on a Kinesis stream are scored and published to another, by Lambda and by two copies of
`fairlead stream`, of which one is killed.

    python examples/rides/stream.py [--rides 20000] [--out DIR]

Kinesis is moto's server, on loopback, started and ended here; where AWS_ENDPOINT_URL_KINESIS is set it uses that one.
Needs `pip install 'fairlead[build,stream]' 'moto[server]'`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from run import HERE, RIDE, build, generate, train

HOST, REGION = "127.0.0.1", "eu-west-1"
EVENTS, PREDICTIONS, DEAD_LETTERS = "ride_events", "ride_predictions", "ride_dead_letters"
START_S, WORK_S, CHUNK = 60, 300, 500
ENVELOPE = {"FAIRLEAD_STREAM_FEATURES": "ride", "FAIRLEAD_STREAM_ID": "ride_id"}
BAD = [b"not JSON", b'{"ride": [130, 205], "ride_id": 1}', b'{"ride": {"PULocationID": "130"}, "ride_id": 2}']
# moto's Kinesis loses records that two clients put at once; so it is asked one thing at a time.
SERVER = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

run_simple(sys.argv[1], int(sys.argv[2]), DomainDispatcherApplication(create_backend_app))
"""
console = Console(highlight=False, soft_wrap=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def kinesis(log: Path) -> Iterator[None]:
    """Have a Kinesis: the one that the environment names, or a server of our own for as long as this lasts."""
    if os.environ.get("AWS_ENDPOINT_URL_KINESIS"):
        yield
        return
    port = free_port()
    with log.open("wb") as output:
        server = subprocess.Popen([sys.executable, "-c", SERVER, HOST, str(port)], stdout=output, stderr=output)
    os.environ |= {
        "AWS_ENDPOINT_URL_KINESIS": f"http://{HOST}:{port}",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    try:
        deadline = time.monotonic() + START_S
        while not listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"moto's server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        console.print(f"a Kinesis at {HOST}:{port}, until this ends")
        yield
    finally:
        server.kill()
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def make_streams(client: Any) -> None:
    for name, shards in ((EVENTS, 2), (PREDICTIONS, 1), (DEAD_LETTERS, 1)):
        client.create_stream(StreamName=name, ShardCount=shards)
        client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})


def ask_lambda(bundle: Path) -> Any:
    """Give the handler the event of a function that is tried out, as Kinesis would."""
    from fairlead.stream.aws_lambda import handler

    os.environ |= {**ENVELOPE, "MODEL_LOCATION": str(bundle), "TEST_RUN": "True"}
    data = base64.b64encode(json.dumps({"ride": RIDE, "ride_id": 256}).encode()).decode()
    record = {
        "kinesis": {"partitionKey": "1", "sequenceNumber": "49630081666084879290", "data": data},
        "eventSource": "aws:kinesis",
        "eventID": "shardId-000000000000:49630081666084879290",
        "eventSourceARN": f"arn:aws:kinesis:{REGION}:000000000000:stream/{EVENTS}",
    }
    return handler({"Records": [record]}, None)


def send(client: Any, n_rides: int) -> None:
    """Put rides on the stream, and a few events that are none."""
    rides = generate(n_rides).drop(columns="duration").to_dict(orient="records")
    events = [json.dumps({"ride": ride, "ride_id": number}).encode() for number, ride in enumerate(rides)]
    events[len(events) // 2 : len(events) // 2] = BAD
    with bar() as bars:
        task = bars.add_task("events sent", total=len(events))
        for start in range(0, len(events), CHUNK):
            chunk = enumerate(events[start : start + CHUNK], start)
            entries = [{"Data": data, "PartitionKey": str(number)} for number, data in chunk]
            client.put_records(StreamName=EVENTS, Records=entries)
            bars.update(task, advance=len(entries))


def start_copy(bundle: Path, out: Path, number: int) -> subprocess.Popen[bytes]:
    """Start a consumer; those of one group share the shards."""
    command = [sys.executable, "-m", "fairlead", "stream", str(bundle), "--lease-s", "2", "--port", "0"]
    command += ["--from", f"kinesis://{EVENTS}", "--to", f"kinesis://{PREDICTIONS}"]
    command += ["--dead-letter", f"kinesis://{DEAD_LETTERS}", "--state-directory", str(out / "state")]
    with (out / f"consumer-{number}.log").open("wb") as log:
        return subprocess.Popen(command, env={**os.environ, **ENVELOPE}, stdout=log, stderr=log)


class Reader:
    """Reads a stream of one shard."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        shard = client.list_shards(StreamName=name)["Shards"][0]["ShardId"]
        start = client.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        self._iterator = start["ShardIterator"]
        self.found: list[dict[str, Any]] = []

    def read(self) -> None:
        answer = self._client.get_records(ShardIterator=self._iterator)
        self._iterator = answer["NextShardIterator"]
        self.found += [json.loads(record["Data"]) for record in answer["Records"]]


def bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def consume(client: Any, bundle: Path, out: Path, n_rides: int) -> tuple[Reader, Reader]:
    """Have two copies score the stream, kill one of them in the midst, and read what comes out."""
    predictions, dead = Reader(client, PREDICTIONS), Reader(client, DEAD_LETTERS)
    with ExitStack() as stack, bar() as bars:
        copies = [start_copy(bundle, out, number) for number in (1, 2)]
        for copy in copies:
            stack.callback(end, copy)
        task = bars.add_task("rides predicted", total=n_rides)
        deadline = time.monotonic() + WORK_S
        done = 0
        while done < n_rides or len(dead.found) < len(BAD):
            predictions.read()
            dead.read()
            done = len({answer["prediction"]["ride_id"] for answer in predictions.found})
            bars.update(task, completed=done)
            if done > n_rides // 4 and copies[0].poll() is None:
                copies[0].kill()
                bars.console.print(f"copy 1 was killed at {done:,} rides; copy 2 takes its shard over")
            if copies[1].poll() is not None or time.monotonic() > deadline:
                sys.exit(f"copy 2 did not finish:\n{(out / 'consumer-2.log').read_text()[-2000:]}")
            time.sleep(0.02)
    return predictions, dead


def end(copy: subprocess.Popen[bytes]) -> None:
    copy.terminate()
    copy.wait()


def told(predictions: Reader, dead: Reader, n_rides: int) -> None:
    answers = predictions.found
    keys = Counter(answer["idempotency_key"] for answer in answers)
    rides = Counter({answer["idempotency_key"]: answer["prediction"]["ride_id"] for answer in answers}.values())
    console.print(f"{len(answers):,} predictions under {len(keys):,} keys for {n_rides:,} rides")
    if len(rides) != n_rides or max(rides.values()) != 1:
        sys.exit("expected each ride under one key")
    table = Table("ride_id", "ride_duration", "version", "idempotency_key", title="the first", title_justify="left")
    for answer in answers[:5]:
        prediction = answer["prediction"]
        duration = f"{prediction['ride_duration']:.2f}"
        table.add_row(str(prediction["ride_id"]), duration, answer["version"], answer["idempotency_key"])
    console.print(table)
    refused = Table("code", "reason", "the event", title="dead letters", title_justify="left")
    for letter in {letter["idempotency_key"]: letter for letter in dead.found}.values():
        refused.add_row(letter["code"], letter["reason"], base64.b64decode(letter["data"]).decode())
    console.print(refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where the model and the logs go")
    parser.add_argument("--rides", type=int, default=20_000, help="how many events are sent")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)

    with console.status("training and building the model"):
        known = generate()
        known.head(500).to_parquet(out / "rides.parquet")
        train(known, out / "rides.pkl")
        build(out / "rides.pkl", out / "rides.parquet", out / "rides")
    console.print("the Lambda handler answers:", json.dumps(ask_lambda(out / "rides"), indent=2))
    with kinesis(out / "kinesis.log"):
        client = boto3.client("kinesis")
        make_streams(client)
        send(client, options.rides)
        told(*consume(client, out / "rides", out, options.rides), options.rides)


if __name__ == "__main__":
    main()
