"""The servers that docs/servers.md names, each started for real, and nginx in front of two of ours.

Each server is one test: started once, asked in every form, put under load, and told to end.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.schema import Schema

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
ROWS = [{**GOOD, "tenure": tenure} for tenure in range(32)]
PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
START_S = 30
# Made once: httpx takes longer to make one for each client than the servers for all answers.
TLS = ssl.create_default_context()
BIN = Path(sys.executable).parent

GUNICORN = ("gunicorn", "--no-control-socket", "-w", "2", "-b", "127.0.0.1:{port}")
# By name: the module that `python -m` runs, and its arguments.
SERVERS: dict[str, tuple[str, ...]] = {
    "gunicorn-sync": (*GUNICORN, 'fairlead.web:wsgi("churn/")'),
    "gunicorn-gthread": (*GUNICORN, "-k", "gthread", "--threads", "8", "wsgi:app"),
    "gunicorn-preload": (*GUNICORN, "--preload", "wsgi:app"),
    "gunicorn-preload-gthread": (*GUNICORN, "--preload", "-k", "gthread", "--threads", "4", "wsgi:app"),
    "gunicorn-asgi": (*GUNICORN, "-k", "asgi", 'fairlead.web:asgi("churn/")'),
    "gunicorn-uvicorn": (*GUNICORN, "--preload", "-k", "uvicorn_worker.UvicornWorker", "asgi:app"),
    "uvicorn": ("uvicorn", "--workers", "2", "--port", "{port}", "asgi:app"),
    "hypercorn": ("hypercorn", "-w", "2", "-b", "127.0.0.1:{port}", "asgi:app"),
    "waitress": ("waitress", "--listen=127.0.0.1:{port}", "wsgi:app"),
    "uwsgi": ("uwsgi", "--ini", "uwsgi.ini", "--http11-socket", "127.0.0.1:{port}"),
}
NEEDED = {"gunicorn-uvicorn": "uvicorn_worker", "uwsgi": "pyuwsgi"}


class Running:
    """A server process, with what it printed."""

    def __init__(self, command: list[str], url: str, folder: Path, **environ: str) -> None:
        self.url = url
        self._log = folder / f"{command[-1].rpartition('/')[2]}-{url.rpartition(':')[2]}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                # CI=true turns a part of onnxruntime off that would make a fork hang.
                env={name: value for name, value in os.environ.items() if name != "CI"} | environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self, path: str = "/readyz") -> Running:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(self.url + path).status_code == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError(f"the server did not start: {self.printed}")

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def needs(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: run `make install`")


def start_server(name: str, port: int, folder: Path, **environ: str) -> Running:
    module, *arguments = (part.format(port=port) for part in SERVERS[name])
    needs(NEEDED.get(name, module))
    command = [str(BIN / "uwsgi")] if module == "uwsgi" else [sys.executable, "-m", module]
    return Running([*command, *arguments], f"http://127.0.0.1:{port}", folder, **environ)


def block(language: str) -> str:
    """Give the page's one block of a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    text: str = found[0]
    return text


def put_apps(folder: Path, bundle: Path, name: str = "churn") -> Path:
    """Put what a user writes beside a bundle."""
    (folder / name).symlink_to(bundle)
    for kind in ("wsgi", "asgi"):
        (folder / f"{kind}.py").write_text(f'import fairlead.web\n\napp = fairlead.web.{kind}("{name}/")\n')
    (folder / "uwsgi.ini").write_text(re.sub("^http11-socket = .*\n", "", block("ini"), flags=re.MULTILINE))
    return folder


@pytest.fixture(scope="module")
def folder(churn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_apps(tmp_path_factory.mktemp("servers"), churn_bundle)


@pytest.fixture(scope="module")
def expected(churn_bundle: Path) -> list[Any]:
    predictions: list[Any] = list(fairlead.load(churn_bundle).run(ROWS).predictions)
    return predictions


def same(got: Any, expected: Any) -> bool:
    """Whether predictions are equal; a batch may be summed in another order than a lone row."""
    return bool(
        got["prediction"] == expected["prediction"]
        and got["churn_probability"] == pytest.approx(expected["churn_probability"], rel=1e-12)
    )


def check_every_form(client: httpx.Client, expected: list[Any]) -> None:
    one = client.post("/predict", json=GOOD, headers={"x-request-id": "form-1"})
    assert (one.status_code, one.headers["x-request-id"], one.headers["x-model-version"]) == (200, "form-1", "1")
    assert same(client.post("/predict", json=ROWS[3]).json(), expected[3])
    many = client.post("/models/churn/predict", json=ROWS).json()
    assert len(many) == len(ROWS)
    assert all(map(same, many, expected))
    assert client.get("/predict", params=GOOD).json() == one.json()
    head = client.head("/predict", params=GOOD)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(one.content)))
    assert client.head("/docs").status_code == client.get("/docs").status_code == 200
    # On a connection of its own: after so large an answer gunicorn 26's ASGI worker may not read the next request.
    assert len(client.get("/docs/swagger-ui-bundle.js", headers={"connection": "close"}).content) > 1_000_000
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
    bad = client.post("/predict", json={**GOOD, "tenure": "x"})
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (422, "$.tenure")
    assert bad.headers["content-type"] == "application/problem+json"
    assert client.get("/nowhere").status_code == 404
    assert client.put("/predict").status_code == 405
    body = one.request.content
    chunks = (body[start : start + 7] for start in range(0, len(body), 7))
    assert client.post("/predict", content=chunks).json() == one.json()
    late = client.post("/predict", json=GOOD, headers={"x-request-timeout": "0.000000001"})
    assert late.status_code in (200, 503, 504)
    # Last: what a server does with the rest of such a body, and the connection, is its own business.
    assert client.post("/predict", content=b" " * (10 * 1024 * 1024 + 1)).status_code == 413


class Load(threading.Thread):
    """Clients that ask over and over until the block ends; every answer has to be right."""

    def __init__(self, url: str, expected: list[Any], n_clients: int = 32) -> None:
        super().__init__()
        self.url, self.expected, self.n_clients = url, expected, n_clients
        self.is_over = False
        self.request_ids: list[str] = []
        self.wrong: list[Any] = []

    def run(self) -> None:
        with ThreadPoolExecutor(self.n_clients) as pool:
            list(pool.map(self._ask, range(self.n_clients)))

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=20, verify=TLS) as client:
            while not self.is_over:
                place = (number + len(self.request_ids)) % len(ROWS)
                try:
                    answer = client.post(f"{self.url}/predict", json=ROWS[place])
                    if answer.status_code != 200 or not same(answer.json(), self.expected[place]):
                        self.wrong.append((answer.status_code, answer.text))
                    self.request_ids.append(answer.headers.get("x-request-id", ""))
                except (httpx.HTTPError, ValueError) as error:
                    self.wrong.append(repr(error))

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.join()


def processes_seen(url: str) -> set[str]:
    """Give the processes that answer, as their request ids tell them apart."""
    seen = set()
    deadline = time.monotonic() + 15
    while len(seen) < 2 and time.monotonic() < deadline:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: httpx.get(f"{url}/livez"), range(16))
            seen |= {answer.headers["x-request-id"].rpartition("-")[0] for answer in answers}
    return seen


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_answers_as_ours_does(name: str, folder: Path, free_port: int, expected: list[Any]) -> None:
    with start_server(name, free_port, folder) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=20) as client:
            check_every_form(client, expected)
        if name != "waitress":
            assert len(processes_seen(server.url)) == 2, server.printed
        with Load(server.url, expected) as load:
            time.sleep(1)
        assert load.wrong == []
        assert len(load.request_ids) > 100
        assert len(set(load.request_ids)) == len(load.request_ids)
        # waitress knows no SIGTERM.
        server.process.send_signal(signal.SIGINT if name == "waitress" else signal.SIGTERM)
        assert server.process.wait(START_S) == 0, server.printed
        assert "Traceback" not in server.printed
        assert "SIGABRT" not in server.printed
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url + "/livez")


@pytest.mark.parametrize("name", ["gunicorn-gthread", "gunicorn-asgi", "waitress", "uwsgi"])
def test_a_bundle_that_is_none_ends_the_start(name: str, tmp_path: Path, free_port: int) -> None:
    put_apps(tmp_path, tmp_path)
    with start_server(name, free_port, tmp_path) as server:
        assert server.process.wait(START_S) not in (0, -signal.SIGKILL)
        assert "churn" in server.printed


@pytest.mark.parametrize("kind", ["forest", "boosting"])
def test_a_native_model_survives_the_fork(kind: str, tmp_path: Path, free_port: int) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

    rows = pd.DataFrame({"size": [float(number) for number in range(60)]})
    model = RandomForestRegressor(20) if kind == "forest" else HistGradientBoostingRegressor(max_iter=5)
    model.fit(rows, rows["size"] * 2)
    source = tmp_path / "model.pkl"
    source.write_bytes(pickle.dumps(model))
    schema = Schema.parse({"features": [{"name": "size", "type": "float"}]})
    options = BuildOptions(data=rows, schema=schema, engine="native")
    bundle = fairlead.build(source, tmp_path / "native", options).path
    wanted = fairlead.load(bundle).run([{"size": 7.0}]).predictions[0]
    put_apps(tmp_path, bundle, "house")
    with start_server("gunicorn-preload-gthread", free_port, tmp_path) as server:
        server.wait_until_ready()
        with ThreadPoolExecutor(8) as pool:
            asked = [
                pool.submit(httpx.post, f"{server.url}/predict", json={"size": 7.0}, timeout=15) for _ in range(40)
            ]
        assert [one.result().json() for one in asked] == [wanted] * 40
        server.process.terminate()
        assert server.process.wait(START_S) == 0, server.printed


def test_workers_of_gunicorn_count_together(folder: Path, free_port: int, tmp_path: Path) -> None:
    with start_server("gunicorn-preload", free_port, folder, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as server:
        server.wait_until_ready()
        assert len(processes_seen(server.url)) == 2
        for _ in range(20):
            httpx.post(f"{server.url}/predict", json=GOOD)
        text = httpx.get(f"{server.url}/metrics").text
        counts = re.findall(r'^fairlead_requests_total\{[^}]*model="churn"[^}]*\} ([\d.]+)', text, re.MULTILINE)
        assert [float(count) for count in counts] == [20.0]


class Nginx(Running):
    """nginx with the page's configuration, on ports of ours."""

    def __init__(self, folder: Path, port: int, upstreams: list[int], passes_prefix: bool) -> None:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if nginx is None:
            pytest.skip("nginx is not installed: run `apt-get install nginx-light`")
        page = block("nginx").replace("listen 80;", f"listen 127.0.0.1:{port};")
        page = re.sub(r"    server 127\.0\.0\.1:9697.*\n", "", page) if len(upstreams) == 1 else page
        for told, ours in zip((9696, 9697), upstreams, strict=False):
            page = page.replace(f"127.0.0.1:{told}", f"127.0.0.1:{ours}")
        if passes_prefix:
            page = page.replace("proxy_pass http://fairlead/;", "proxy_pass http://fairlead;")
        temporary = "\n".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user} pid {folder}/pid; worker_processes 2; error_log stderr warn;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\n{page}}}\n"
        )
        command = [nginx, "-e", "stderr", "-g", "daemon off;", "-c", str(config)]
        super().__init__(command, f"http://127.0.0.1:{port}", folder)


@contextmanager
def behind_nginx(folder: Path, bundle: Path, passes_prefix: bool) -> Iterator[tuple[Nginx, list[Running]]]:
    """Start two of our servers, of two workers each, and nginx in front."""
    ports = [another_port(), another_port()]
    options = ("--workers", "2", "--root-path", "/scoring")
    command = [sys.executable, "-m", "fairlead", "serve", str(bundle), *options, "--port"]
    first, second = (
        Running([*command, str(port)], f"http://127.0.0.1:{port}", folder, FAIRLEAD_WEB_DRAIN_S="0.5") for port in ports
    )
    with first, second, Nginx(folder, another_port(), ports, passes_prefix) as proxy:
        first.wait_until_ready()
        second.wait_until_ready()
        proxy.wait_until_ready("/scoring/readyz")
        yield proxy, [first, second]


def another_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("passes_prefix", [False, True], ids=["stripped", "passed-on"])
def test_behind_nginx_under_a_prefix(
    passes_prefix: bool, tmp_path: Path, churn_bundle: Path, expected: list[Any]
) -> None:
    with behind_nginx(tmp_path, churn_bundle, passes_prefix) as (proxy, ours):
        with httpx.Client(base_url=proxy.url + "/scoring", timeout=20) as client:
            check_every_form(client, expected)
            for page in ("/docs", "/"):
                text = client.get(page, headers={"accept": "text/html"}).text
                links = re.findall(r'(?:src|href)="([^"#]+)"', text)
                assert links
                for link in links:
                    assert client.get("/" + link).status_code == 200, link
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/scoring"}]
            large = client.post("/predict", content=b" " * (11 * 1024 * 1024))
            assert (large.status_code, large.headers["content-type"]) == (413, "application/problem+json")
            assert large.headers["x-request-id"]
        with Load(proxy.url + "/scoring", expected, n_clients=8) as load:
            time.sleep(0.5)
            victims = workers_of(ours[0].process.pid)
            os.kill(victims[0], signal.SIGKILL)
            time.sleep(0.5)
            ours[1].process.terminate()
            assert ours[1].process.wait(START_S) == 0, ours[1].printed
            time.sleep(0.3)
        assert load.wrong == []
        assert len(load.request_ids) > 100


def test_a_killed_worker_of_gunicorn_behind_nginx(
    tmp_path: Path, folder: Path, free_port: int, expected: list[Any]
) -> None:
    with (
        start_server("gunicorn-gthread", free_port, folder) as server,
        Nginx(tmp_path, another_port(), [free_port], False) as proxy,
    ):
        server.wait_until_ready()
        proxy.wait_until_ready("/scoring/readyz")
        assert len(processes_seen(server.url)) == 2
        with Load(proxy.url + "/scoring", expected, n_clients=8) as load:
            time.sleep(0.5)
            os.kill(children_of(server.process.pid)[0], signal.SIGKILL)
            time.sleep(1)
        assert load.wrong == []
        assert len(load.request_ids) > 100


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(pid: int) -> list[int]:
    """Give the workers of `fairlead serve`; its other child is multiprocessing's resource tracker."""
    return [pid for pid in children_of(pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
