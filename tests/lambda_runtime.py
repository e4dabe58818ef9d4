"""AWS Lambda for tests: the Runtime API, and a function's process, which is Lambda's own client for Python.

A pytest plugin. The API hands out one event at a time and takes its answer, as Lambda does.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from fairlead.bundle.build import BuildOptions, build
from fairlead.stream.aws_lambda.function import Function
from registry import clean_environ, need

WAIT_S = 60
END_S = 20
HANDLER = "fairlead.stream.aws_lambda.handler"
_ROOT = "/2018-06-01/runtime"
_TOKEN = {"Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"}
# The user's own class, with a ride for each way to go wrong.
MOODY = """
class Moody:
    def predict(self, trip_distance: float):
        if trip_distance == 13:
            raise ValueError("no 13")
        if trip_distance == 14:
            return "x" * 1_100_000
        if trip_distance == 15:
            return [float("nan")]
        if trip_distance == 16:
            return "\\N{SNOWMAN}" * 100_000
        return trip_distance * 2
"""


class InvocationError(Exception):
    """A function raised.

    Attributes
    ----------
    kind, message : of what it raised.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(f"{told['errorType']}: {told['errorMessage']}")
        self.kind = told["errorType"]
        self.message = told["errorMessage"]


class RuntimeApi:
    """What a function's process asks for events, and gives answers to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._events: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.asked.set()
                given = api._events.get()
                if given is None:
                    self.close_connection = True
                    return
                request_id, event = given
                headers = {"Lambda-Runtime-Aws-Request-Id": request_id, "Content-Type": "application/json", **_TOKEN}
                headers["Lambda-Runtime-Deadline-Ms"] = str(int((time.time() + WAIT_S) * 1000))
                headers["Lambda-Runtime-Invoked-Function-Arn"] = "arn:aws:lambda:us-east-1:123456789012:function:rides"
                self._send(200, event, headers)

            def do_POST(self) -> None:
                chunked = self.headers.get("Transfer-Encoding") == "chunked"
                body = self._chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length", 0)))
                api.answers.put((self.path.rpartition("/")[2], json.loads(body, parse_constant=_no_json)))
                api.asked.set()
                self._send(202, b"{}", {})

            def _chunks(self) -> bytes:
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def put(self, event: Any) -> None:
        """Have an event handed out; None for no more."""
        self._events.put(None if event is None else (str(uuid.uuid4()), json.dumps(event).encode()))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class LambdaProcess:
    """A function that runs as in Lambda.

    Attributes
    ----------
    was_ready : whether it asked for an event; else `failure` tells why it did not start.
    """

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.api = RuntimeApi()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `end`
        own = {"AWS_LAMBDA_RUNTIME_API": self.api.address, "AWS_LAMBDA_FUNCTION_NAME": "rides", "NO_PROXY": "127.0.0.1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", HANDLER],
            env=clean_environ() | own | environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        while not self.api.asked.wait(0.05):
            assert self.process.poll() is None, self.log()
        self.failure = None if self.api.answers.empty() else self.api.answers.get()[1]

    def invoke(self, event: Any) -> Any:
        """Have an event answered.

        Raises
        ------
        InvocationError
            When the function raises.
        """
        self.api.put(event)
        kind, told = self.api.answers.get(timeout=WAIT_S)
        if kind == "error":
            raise InvocationError(told)
        return told

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def end(self) -> None:
        self.process.terminate()
        self.api.put({})  # while it waits for an event it does not see to its signals, such as coverage's
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self.api.put(None)
        self.process.kill()
        self.process.wait()
        self.api.close()
        self._log.close()


def _no_json(constant: str) -> None:
    raise AssertionError(f"an answer is no JSON: it has {constant}")


@pytest.fixture(scope="session")
def start_lambda(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, str]], LambdaProcess]]:
    """Start functions, each with an environment; they end with the test run."""
    need("awslambdaric", "mangum", "boto3")
    started: list[LambdaProcess] = []

    def start(environ: dict[str, str]) -> LambdaProcess:
        started.append(LambdaProcess(environ, tmp_path_factory.mktemp("lambda")))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def function() -> Iterator[Callable[[dict[str, str]], Function]]:
    """Make functions that are called here, each with an environment."""
    made: list[Function] = []

    def make(environ: dict[str, str]) -> Function:
        made.append(Function(environ))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def rides_bundle(make_bundle: Any) -> Path:
    """Give a bundle of rides, with the output of the course that they come from."""
    rides = pd.DataFrame(
        {"PULocationID": [130, 7, 41], "DOLocationID": [205, 41, 7], "trip_distance": [3.66, 1.5, 9.0]}
    )
    model = LinearRegression().fit(rides, [20.0, 8.0, 41.0])
    path: Path = make_bundle(model, "rides", data=rides, outputs=("ride_duration=prediction",))
    return path


@pytest.fixture(scope="session")
def moody_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle of a model that fails for some rides."""
    folder = tmp_path_factory.mktemp("moody")
    code = folder / "moody_model.py"
    code.write_text(MOODY)
    options = BuildOptions(code=code, outputs=("ride_duration=prediction",))
    return build("moody_model:Moody", folder / "moody", options).path


RIDE = {"PULocationID": 130, "DOLocationID": 205, "trip_distance": 3.66}
# As the course has it: features in `ride`, and what tells rides apart beside them.
ENVELOPE = {"FAIRLEAD_STREAM_FEATURES": "ride", "FAIRLEAD_STREAM_ID": "ride_id"}
SHARD = "shardId-000000000000"


def kinesis_event(*payloads: object, first: int = 1, stream: str = "ride_events") -> dict[str, Any]:
    """Make an event of Kinesis: of texts as they are, bytes, and all else as JSON; numbered from `first`."""
    return {"Records": [_record(payload, number, stream) for number, payload in enumerate(payloads, first)]}


def _record(payload: object, number: int, stream: str) -> dict[str, Any]:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "1",
            "sequenceNumber": str(number),
            "data": payload if isinstance(payload, str) else base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": 1654161514.132,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:{number}",
        "eventName": "aws:kinesis:record",
        "awsRegion": "us-east-1",
        "eventSourceARN": f"arn:aws:kinesis:us-east-1:123456789012:stream/{stream}",
    }


def ride(ride_id: object, **values: Any) -> dict[str, Any]:
    return {"ride": {**RIDE, **values}, "ride_id": ride_id}


def key_of(number: int, stream: str = "ride_events") -> str:
    return f"{stream}/{SHARD}/{number}"
