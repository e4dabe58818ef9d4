"""The Lambda handler against the one of the course: 100 rides of Kinesis in, 100 predictions to Kinesis out.

python benchmarks/lambda_handler.py [--repeats 5] [--results PAGE]

Kinesis is moto's server, in a process of its own on this machine, for both. The handlers are called as Lambda's runtime
calls them, in this process, in turns; each loads its model and makes its client before it is measured. The course's
decodes a ride, predicts it and puts it into the stream before it looks at the next.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
from results import ROOT, Figure, median, write
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import make_pipeline

from fairlead.stream.aws_lambda.function import Function

sys.path.insert(0, str(ROOT / "examples" / "rides"))
from features import prepare
from run import generate

PAGE = ROOT / "docs" / "benchmarks.md"
RIDES = 100
EVENTS = {"course": 3, "fairlead": 40, "fairlead, TEST_RUN": 100, "put_records": 40}
TARGET = 40
START_S = 60
REGION = "eu-west-1"
SOURCE = f"arn:aws:kinesis:{REGION}:123456789012:stream/ride_events"
SHARD = "shardId-000000000000"

Event = dict[str, Any]
Handler = Callable[[Event, Any], Any]


def fit(path: Path) -> Any:
    """Fit the pipeline of the course; one row is predicted by one thread, which is fastest."""
    rides = generate(20_000)
    rides.head(500).to_parquet(path / "rides.parquet")
    forest = RandomForestRegressor(max_depth=20, n_estimators=100, min_samples_leaf=10, random_state=0, n_jobs=-1)
    model = make_pipeline(DictVectorizer(), forest)
    raw = rides.drop(columns="duration").to_dict(orient="records")
    model.fit([prepare(ride) for ride in raw], rides["duration"])
    forest.n_jobs = 1
    (path / "rides.pkl").write_bytes(pickle.dumps(model))
    return model


def build(path: Path) -> Path:
    command = ["build", path / "rides.pkl", "--data", path / "rides.parquet", "--target", "duration"]
    command += ["--code", ROOT / "examples" / "rides" / "features.py", "--output", "ride_duration=prediction"]
    command += ["--name", "rides", "-o", path / "rides"]
    subprocess.run([sys.executable, "-m", "fairlead", *map(str, command)], check=True, capture_output=True)
    return path / "rides"


def course_handler(model: Any, client: Any, stream: str) -> Handler:
    """Give the handler of the course, with its model for the one that it leaves out."""

    def lambda_handler(event: Event, context: Any) -> Any:
        predictions_events = []
        for record in event["Records"]:
            encoded_data = record["kinesis"]["data"]
            decoded_data = base64.b64decode(encoded_data).decode("utf-8")
            ride_event = json.loads(decoded_data)
            ride = ride_event["ride"]
            ride_id = ride_event["ride_id"]
            features = prepare(ride)
            prediction = float(model.predict([features])[0])
            prediction_event = {
                "model": "rides",
                "version": "123",
                "prediction": {"ride_duration": prediction, "ride_id": ride_id},
            }
            client.put_record(StreamName=stream, Data=json.dumps(prediction_event), PartitionKey=str(ride_id))
            predictions_events.append(prediction_event)
        return {"predictions": predictions_events}

    return lambda_handler


def only_put(client: Any, stream: str) -> Handler:
    """Give what puts as many predictions as an event has rides, and does nothing else."""
    data = json.dumps({"model": "rides", "prediction": {"ride_duration": 20.1, "ride_id": "r1"}, "key": "x" * 80})
    entries = [{"Data": data, "PartitionKey": f"r{number}"} for number in range(RIDES)]
    return lambda event, context: client.put_records(StreamName=stream, Records=entries)


def make_events(n_events: int) -> list[Event]:
    """Make events, each of other rides."""
    raw = generate(n_events * RIDES).drop(columns="duration").to_dict(orient="records")
    events = []
    for start in range(0, len(raw), RIDES):
        records = [_record(number, raw[number]) for number in range(start, start + RIDES)]
        events.append({"Records": records})
    return events


def _record(number: int, ride: Event) -> Event:
    data = json.dumps({"ride": ride, "ride_id": f"r{number}"}).encode()
    told = {"partitionKey": "1", "sequenceNumber": str(10**55 + number), "data": base64.b64encode(data).decode()}
    event_id = f"{SHARD}:{10**55 + number}"
    return {"kinesis": told, "eventSource": "aws:kinesis", "eventID": event_id, "eventSourceARN": SOURCE}


def seconds(handler: Handler, events: list[Event]) -> float:
    start = time.perf_counter()
    for event in events:
        handler(event, None)
    return time.perf_counter() - start


def check(course: Any, ours: Any) -> None:
    """See that both answered the same."""
    both = zip(course["predictions"], ours["predictions"], strict=True)
    for one, other in both:
        assert one["prediction"]["ride_id"] == other["prediction"]["ride_id"]
        assert abs(one["prediction"]["ride_duration"] - other["prediction"]["ride_duration"]) < 1e-6


@contextmanager
def moto() -> Iterator[str]:
    """Have moto's server, which ends with this."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("moto's server did not start") from None
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def measured(handlers: dict[str, Handler], events: list[Event], repeats: int) -> dict[str, list[float]]:
    """Give the seconds that a ride takes each handler, turn by turn."""
    found: dict[str, list[float]] = {name: [] for name in handlers}
    for turn in range(repeats + 1):
        for name, handler in handlers.items():
            part = events[: 1 if turn == 0 else EVENTS[name]]
            time_s = seconds(handler, part)
            if turn:  # the first warms up
                found[name].append(time_s / (len(part) * RIDES))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=PAGE, help="the page to write")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, moto() as url:
        model = fit(Path(directory))
        aws = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": REGION}
        environ = {**os.environ, **aws, "AWS_ENDPOINT_URL": url, "MODEL_LOCATION": str(build(Path(directory)))}
        environ |= {"FAIRLEAD_STREAM_FEATURES": "ride", "FAIRLEAD_STREAM_ID": "ride_id"}
        client = boto3.client(
            "kinesis", endpoint_url=url, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
        )
        for stream in ("course", "fairlead", "alone"):
            client.create_stream(StreamName=stream, ShardCount=1)
            client.get_waiter("stream_exists").wait(StreamName=stream)
        handlers = {
            "course": course_handler(model, client, "course"),
            "fairlead": Function(environ | {"PREDICTIONS_STREAM_NAME": "fairlead"}).answer,
            "fairlead, TEST_RUN": Function(environ | {"TEST_RUN": "True"}).answer,
            "put_records": only_put(client, "alone"),
        }
        events = make_events(max(EVENTS.values()))
        check(handlers["course"](events[0], None), handlers["fairlead"](events[0], None))
        found = measured(handlers, events, chosen.repeats)
    course_s, ours_s, test_run_s, put_s = (median(found[name]) for name in handlers)
    ratios = [one / other for one, other in zip(found["course"], found["fairlead"], strict=True)]
    write(
        chosen.results,
        "lambda",
        f"boto3 {version('boto3')}, moto {version('moto')}. DictVectorizer and RandomForest(100); {RIDES} rides an "
        f"event; medians of {chosen.repeats} turns, the ratio turn by turn",
        [
            Figure("the course's handler", 1 / course_s, "rides/s"),
            Figure("`fairlead.stream.aws_lambda.handler`", 1 / ours_s, "rides/s"),
            Figure("`fairlead.stream.aws_lambda.handler` / the course's", median(ratios), "×", TARGET, at_least=True),
            Figure("`fairlead.stream.aws_lambda.handler`, TEST_RUN: nothing is published", 1 / test_run_s, "rides/s"),
            Figure("`put_records` alone", 1 / put_s, "rides/s"),
        ],
    )


if __name__ == "__main__":
    main()
