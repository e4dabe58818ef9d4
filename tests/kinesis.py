"""Kinesis for tests: kinesalite, which has the shards' lives right, and moto's server, which has DynamoDB too.

A pytest plugin. A server is started when a test first asks for it, once a process of the test run, and ends with it.
It keeps what tests put there: streams get names of their own.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from registry import GUARD, Process, clean_environ, free_port, need

HOME = Path(__file__).parent / "kinesalite"
START_S = 30
# moto loses records that two clients put at once, and gives a lease to both that want it; so it is asked one thing at a
# time.
MOTO = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app))
"""
END_S = 20
_NUMBERS = itertools.count()


class KinesisServer:
    """What a stream can be made at.

    Attributes
    ----------
    environ : what a client of it needs in its environment.
    client : boto3's, for the tests' own use.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.environ = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
        self.client = self.service("kinesis")

    def service(self, name: str) -> Any:
        import boto3

        return boto3.client(
            name,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )

    def stream(self, shards: int = 1) -> str:
        """Make a stream; give its name."""
        name = f"rides-{os.getpid()}-{next(_NUMBERS)}"
        self.client.create_stream(StreamName=name, ShardCount=shards)
        self.settle(name)
        return name

    def settle(self, name: str) -> None:
        """Wait until a stream can be used."""
        deadline = time.monotonic() + START_S
        while self.client.describe_stream(StreamName=name)["StreamDescription"]["StreamStatus"] != "ACTIVE":
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def shards(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.list_shards(StreamName=name)["Shards"]
        return found

    def put(self, name: str, messages: Sequence[tuple[str, str]]) -> None:
        """Put pairs of partition key and data."""
        entries = [{"PartitionKey": key, "Data": data.encode()} for key, data in messages]
        for start in range(0, len(entries), 500):
            answer = self.client.put_records(StreamName=name, Records=entries[start : start + 500])
            assert answer["FailedRecordCount"] == 0

    def split(self, name: str, shard: str) -> None:
        ends = next(one["HashKeyRange"] for one in self.shards(name) if one["ShardId"] == shard)
        middle = (int(ends["StartingHashKey"]) + int(ends["EndingHashKey"])) // 2
        self.client.split_shard(StreamName=name, ShardToSplit=shard, NewStartingHashKey=str(middle))
        self.settle(name)

    def merge(self, name: str, one: str, other: str) -> None:
        self.client.merge_shards(StreamName=name, ShardToMerge=one, AdjacentShardToMerge=other)
        self.settle(name)

    def read(self, name: str) -> dict[str, list[tuple[str, str]]]:
        """Read a whole stream: pairs of partition key and data by shard."""
        found: dict[str, list[tuple[str, str]]] = {}
        for shard in (one["ShardId"] for one in self.shards(name)):
            asked = {"StreamName": name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
            iterator = self.client.get_shard_iterator(**asked)["ShardIterator"]
            found[shard] = []
            while records := (answer := self.client.get_records(ShardIterator=iterator))["Records"]:
                found[shard] += [(one["PartitionKey"], one["Data"].decode()) for one in records]
                if (iterator := answer.get("NextShardIterator")) is None:
                    break
        return found

    def close(self) -> None:
        self.client.close()


class Kinesalite(KinesisServer):
    """A kinesalite of one's own, which can be ended and begun again with what it had."""

    def __init__(self, folder: Path) -> None:
        if not (HOME / "node_modules" / "kinesalite").is_dir() or not shutil.which("node"):
            pytest.skip("kinesalite is not installed: npm ci --prefix tests/kinesalite --ignore-scripts")
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"http://127.0.0.1:{self._port}")
        self.begin()

    def begin(self) -> None:
        command = ["node", str(HOME / "server.js"), str(self._port), str(self._folder / "db")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", GUARD, "guard", "sh", "-c", 'echo $$ >pid; exec "$@"', "sh", *command],
                cwd=self._folder,
                env=clean_environ(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._listens():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.end()
                raise AssertionError(f"kinesalite did not start: {(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True

    def forward(self) -> None:
        """Put its clock ahead by more than an iterator lives."""
        os.kill(int((self._folder / "pid").read_text()), signal.SIGUSR2)

    def end(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(END_S)
        deadline = time.monotonic() + END_S
        while self._listens():  # killed with its guard, it may end a little later: `begin` must not take it for its own
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        super().close()
        self.end()


Forward = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
Rule = Callable[[str, dict[str, Any], Forward], tuple[int, dict[str, Any]]]


class Between:
    """A proxy before a server of AWS's protocol, which answers some calls in its stead.

    Attributes
    ----------
    rule : is given the operation, the request, and what passes a request on; None passes everything on.
    calls : the operations that came.
    """

    def __init__(self, server: KinesisServer) -> None:
        self.rule: Rule | None = None
        self.calls: list[str] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                between.calls.append(operation)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}

                def forward(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
                    request = urllib.request.Request(server.url, json.dumps(body).encode(), headers)
                    try:
                        with urllib.request.urlopen(request, timeout=30) as answer:
                            return answer.status, json.loads(answer.read() or b"{}")
                    except urllib.error.HTTPError as error:
                        with error:
                            return error.code, json.loads(error.read() or b"{}")

                body = json.loads(asked)
                status, told = forward(body) if between.rule is None else between.rule(operation, body, forward)
                answer = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environ = server.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}"}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def refuse(self, operation: str, code: str, times: int) -> None:
        """Answer the next calls of an operation with an error."""
        left = itertools.count(times, -1)

        def rule(asked: str, body: dict[str, Any], forward: Forward) -> tuple[int, dict[str, Any]]:
            if asked == operation and next(left) > 0:
                return 400, {"__type": code, "message": "as the test wants it"}
            return forward(body)

        self.rule = rule

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")
def kinesalite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinesalite]:
    """Give a kinesalite."""
    need("boto3")
    server = Kinesalite(tmp_path_factory.mktemp("kinesalite"))
    yield server
    server.close()


@pytest.fixture
def own_kinesalite(tmp_path: Path) -> Iterator[Kinesalite]:
    """Give a kinesalite that no other test uses."""
    need("boto3")
    server = Kinesalite(tmp_path)
    yield server
    server.close()


@pytest.fixture(scope="session")
def moto_kinesis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KinesisServer]:
    """Give moto's Kinesis and DynamoDB."""
    need("moto", "boto3")
    port = free_port()
    process = Process(["-c", MOTO, str(port)], port, {}, "/moto-api/", tmp_path_factory.mktemp("moto"))
    server = KinesisServer(process.url)
    yield server
    server.close()
    process.end()


@pytest.fixture
def between(kinesalite_server: Kinesalite) -> Iterator[Between]:
    """Give a proxy before kinesalite."""
    proxy = Between(kinesalite_server)
    yield proxy
    proxy.close()
