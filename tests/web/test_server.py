"""Real servers in processes of their own: start, signals, workers, what only a socket shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairlead.config import ModelSettings, WebSettings
from fairlead.errors import BundleError, ServeError
from fairlead.web.server import bind, serve

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}


def eventually(check: Any, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def serve_bundles(*bundles: Path, **settings: Any) -> None:
    serve([ModelSettings(str(bundle)) for bundle in bundles], WebSettings(**settings))


def complaints(err: str) -> list[str]:
    """Give the lines of a log that are more than news."""
    return [line for line in err.splitlines() if " INFO " not in line]


def answers(url: str) -> bool:
    try:
        return httpx.post(f"{url}/predict", json=GOOD).status_code == 200
    except httpx.TransportError:
        return False


def children(pid: int) -> list[int]:
    """Give the workers among a process's children; the other one is multiprocessing's resource tracker."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_it_answers_over_a_socket(server: Any) -> None:
    with httpx.Client(base_url=server.url) as client:
        one = client.post("/predict", json=GOOD)
        assert one.status_code == 200
        assert client.get("/predict", params=GOOD).json() == one.json()
        for row in client.post("/predict", json=[GOOD, GOOD]).json():
            # A batch may be summed in another order than a lone row.
            assert row["churn_probability"] == pytest.approx(one.json()["churn_probability"], rel=1e-12)
        assert client.head("/predict", params=GOOD).headers["content-length"] == one.headers["content-length"]
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert client.get("/docs").status_code == client.get("/docs/swagger-ui-bundle.js").status_code == 200
        assert client.put("/predict").headers["allow"] == "GET, HEAD, POST"
        assert "date" in one.headers
        assert "server" not in one.headers


def test_a_chunked_body(server: Any) -> None:
    def chunks(body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    whole = httpx.post(server.url + "/predict", json=GOOD)
    response = httpx.post(server.url + "/predict", content=chunks(whole.request.content))
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.json() == whole.json()


def test_a_huge_body_is_refused_and_the_connection_goes_on(server: Any) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(12):
            yield b" " * 1024 * 1024

    with httpx.Client(base_url=server.url) as client:
        assert client.post("/predict", content=b" " * (10 * 1024 * 1024 + 1)).status_code == 413
        assert client.post("/predict", content=endless()).status_code == 413
        assert client.post("/predict", json=GOOD).status_code == 200


def test_a_client_that_leaves_in_the_middle_hurts_nobody(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert answers(server.url)


def test_it_tells_where_each_model_is(start: Any, churn_bundle: Path, price_bundle: Path) -> None:
    with start(churn_bundle, price_bundle) as server:
        server.wait_until_ready()
        assert httpx.post(f"{server.url}/models/churn/predict", json=GOOD).status_code == 200
        assert httpx.get(f"{server.url}/predict").status_code == 404
        server.process.terminate()
        code, out, err = server.end()
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 2
    assert all(f"{server.url}/docs" in line for line in lines)
    assert f"{server.url}/models/churn/predict" in lines[0]
    assert f"{server.url}/models/price/predict" in lines[1]
    assert complaints(err) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_accepted_requests_finish(start: Any, sleeper_bundle: Path, workers: int, sign: int) -> None:
    got: list[httpx.Response] = []

    def ask() -> None:
        got.append(httpx.post(f"{server.url}/predict", json={"seconds": 1.5}, timeout=20))

    with start(sleeper_bundle, workers=workers) as server:
        server.wait_until_ready()
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        assert httpx.get(f"{server.url}/livez", timeout=0.5).status_code == 200
        if sign == signal.SIGINT:
            # Ctrl-C reaches every process of the terminal's group.
            os.killpg(server.process.pid, sign)
        else:
            server.process.send_signal(sign)
        asking.join()
        code, _, err = server.end()
    assert [response.status_code for response in got] == [200]
    assert code == 0
    assert complaints(err) == []


def test_while_draining_it_is_not_ready_and_then_refuses(start: Any, sleeper_bundle: Path) -> None:
    with start(sleeper_bundle) as server, ThreadedPost(server.url, {"seconds": 1.5}) as post:
        server.wait_until_ready()
        post.start()
        time.sleep(0.5)
        server.process.terminate()
        eventually(lambda: readiness(server.url) != 200, within_s=0.8)
        eventually(lambda: readiness(server.url) is None, within_s=0.8)
        assert server.process.poll() is None
        assert server.end()[0] == 0


class ThreadedPost(threading.Thread):
    """A request that is under way while the test goes on."""

    def __init__(self, url: str, body: object) -> None:
        super().__init__()
        self.url, self.body = url, body
        self.response: httpx.Response | None = None

    def run(self) -> None:
        self.response = httpx.post(f"{self.url}/predict", json=self.body, timeout=20)

    def __enter__(self) -> ThreadedPost:
        return self

    def __exit__(self, *_: object) -> None:
        self.join()
        assert self.response is not None
        assert self.response.status_code == 200


def readiness(url: str) -> int | None:
    """Give the status of the probe, None when nothing listens."""
    try:
        return httpx.get(f"{url}/readyz").status_code
    except httpx.TransportError:
        return None


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_the_users_own_failure_is_500_and_its_traceback_is_in_the_log(start: Any, sleeper_bundle: Path) -> None:
    with start(sleeper_bundle) as server:
        server.wait_until_ready()
        response = httpx.post(f"{server.url}/predict", json={"seconds": -77.5})
        assert response.status_code == 500
        server.process.terminate()
        _, _, err = server.end()
    document = response.json()
    assert document["type"] == "urn:problem-type:fairlead:model_failed"
    assert "77.5" not in response.text
    assert document["request_id"] in err
    assert "Traceback" in err


def test_two_workers_answer_and_a_dead_one_is_replaced(start: Any, churn_bundle: Path) -> None:
    with start(churn_bundle, workers=2) as server:
        # One worker may answer before the other is up; the line comes when both are.
        assert server.process.stdout.readline().startswith("churn 1 ")
        first = children(server.process.pid)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        eventually(lambda: len(set(children(server.process.pid)) - {first[0]}) == 2)
        for _ in range(20):
            assert answers(server.url)
        server.process.terminate()
        code, out, err = server.end()
    assert code == 0
    assert out == ""
    assert f"worker {first[0]} died with exit code -9" in err


def test_workers_end_when_their_parent_was_killed(start: Any, churn_bundle: Path) -> None:
    with start(churn_bundle, workers=2) as server:
        server.wait_until_ready()
        server.process.kill()
        # They hold its standard output open for as long as they live.
        assert server.end()[0] == -signal.SIGKILL
        assert not is_open(server.port)


def test_requests_are_logged_when_asked(start: Any, churn_bundle: Path) -> None:
    with start(churn_bundle, more=("--access-log",)) as server:
        server.wait_until_ready()
        server.process.terminate()
        _, out, err = server.end()
    line = json.loads(next(line for line in out.splitlines() if "/readyz" in line))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/readyz", 200)
    assert complaints(err) == []


def test_a_taken_port_is_told_in_one_line(start: Any, server: Any, churn_bundle: Path) -> None:
    with pytest.raises(ServeError, match=f"port {server.port} on 127.0.0.1 is taken: .*--port") as caught:
        serve_bundles(churn_bundle, port=server.port)
    assert "\n" not in str(caught.value)
    with start(churn_bundle, port=server.port) as other:
        code, _, err = other.end()
    assert code != 0
    assert "is taken" in err


def test_an_address_that_cannot_be_had() -> None:
    with pytest.raises(ServeError, match=r"cannot listen on no\.such\.host\.invalid port 9696"):
        bind("no.such.host.invalid", 9696)
    with pytest.raises(ServeError, match=r"cannot listen on 127\.0\.0\.1 port 99999"):
        bind("127.0.0.1", 99999)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_changed_bundle_is_refused_before_anything_listens(
    tmp_path: Path, churn_bundle: Path, workers: int, free_port: int
) -> None:
    changed = shutil.copytree(churn_bundle, tmp_path / "churn")
    with (changed / "model.onnx").open("r+b") as file:
        file.write(b"\x00")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        serve_bundles(changed, port=free_port, workers=workers)
    assert not is_open(free_port)


@pytest.mark.parametrize("workers", [1, 2])
def test_bundles_of_one_name_are_refused(churn_bundle: Path, workers: int, free_port: int) -> None:
    with pytest.raises(ServeError, match="churn: two bundles have this name"):
        serve_bundles(churn_bundle, churn_bundle, port=free_port, workers=workers)


def test_serving_imports_nothing_that_trains(churn_bundle: Path) -> None:
    code = (
        "import sys, fairlead.web.server, fairlead.web.workers\n"
        f"fairlead.web.asgi({str(churn_bundle)!r})\n"
        "print({name.partition('.')[0] for name in sys.modules} "
        "& {'sklearn', 'pandas', 'mlflow', 'scipy', 'pyarrow', 'onnx', 'joblib', 'websockets', 'swagger_ui'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
