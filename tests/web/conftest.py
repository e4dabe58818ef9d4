"""Real bundles, and real servers on them as a user starts them."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.config import CacheSettings, ModelSettings, WebSettings
from fairlead.schema import Schema
from fairlead.web.app import App
from fairlead.web.gate import make_gate
from fairlead.web.models import Loader, load_all
from fairlead.web.server import take_control

START_S = 20
COMMAND = [sys.executable, "-m", "fairlead", "serve"]


class Server:
    """A `fairlead serve` process on a port of its own."""

    def __init__(self, *bundles: Path, workers: int = 1, port: int | None = None, more: tuple[str, ...] = ()) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = [*map(str, bundles), "--port", str(self.port), "--workers", str(workers), *more]
        self.started_at = time.perf_counter()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until_ready(self) -> Server:
        """Return as soon as a request is answered."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + "/readyz").status_code == 200:
                    return self
            time.sleep(0.01)
        self.process.kill()
        raise AssertionError(f"the server did not start: {self.process.communicate()}")

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; give exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=START_S)
        return self.process.returncode, out, err

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.communicate(timeout=START_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class InProcess:
    """A client that calls the app in this process."""

    def __init__(self, app: App) -> None:
        self.app = app

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **how)

        return asyncio.run(go())

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.request("GET", path, **how)

    def post(self, path: str, **how: Any) -> httpx.Response:
        return self.request("POST", path, **how)


@pytest.fixture(scope="session")
def start() -> type[Server]:
    """How to start a server: ``start(bundle, …, workers=1)``; use it as a context."""
    return Server


@pytest.fixture(scope="session")
def app_of() -> Callable[..., App]:
    """How to make the app of bundles: ``app_of(bundle, …, max_body_bytes=100)``."""

    def make(*bundles: Path, **settings: Any) -> App:
        web = WebSettings(**settings)
        models = [ModelSettings(str(bundle)) for bundle in bundles]
        loader = Loader(web.max_queue_rows)
        app = App(load_all(models, loader), make_gate(web), loader)
        take_control(app, models, CacheSettings())
        return app

    return make


@pytest.fixture(scope="session")
def in_process(app_of: Callable[..., App]) -> Callable[..., InProcess]:
    """How to call the app of bundles without a server."""
    return lambda *bundles, **settings: InProcess(app_of(*bundles, **settings))


@pytest.fixture(scope="session")
def churn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a compiled classifier `churn` with categories, a default, nulls and a bool among its outputs."""
    from sklearn.linear_model import LogisticRegression

    schema = {
        "features": [
            {"name": "tenure", "type": "int", "minimum": 0, "maximum": 72, "unit": "months"},
            {"name": "charges", "type": "float", "nullable": True, "default": None, "description": "Charges a month"},
            {"name": "contract", "type": "string", "categories": ["monthly", "yearly"]},
        ]
    }
    rows = pd.DataFrame(
        {
            "tenure": [41, 1, 2, 60, 30, 3],
            "charges": [79.85, 90.0, None, 20.5, 30.0, 99.0],
            "contract": ["yearly", "monthly", "monthly", "yearly", "yearly", "monthly"],
        }
    )
    model = pipeline(["tenure", "charges"], ["contract"], LogisticRegression()).fit(rows, [0, 1, 1, 0, 0, 1])
    outputs = (
        "prediction=prediction",
        "probabilities=probabilities",
        "churn_probability=probability:1",
        "churn=probability:1 >= 0.5",
    )
    options = BuildOptions(data=rows, schema=Schema.parse(schema), outputs=outputs, version="1", engine="onnx")
    return build(tmp_path_factory.mktemp("churn"), "churn", model, options)


@pytest.fixture(scope="session")
def price_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a compiled regressor `price` whose schema forbids other keys and other categories."""
    from sklearn.linear_model import LinearRegression

    schema = {
        "extra": "forbid",
        "features": [
            {"name": "size", "type": "float"},
            {"name": "town", "type": "string", "categories": ["Delft", "Gouda"], "closed": True},
        ],
    }
    rows = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "town": ["Delft", "Gouda", "Delft", "Gouda"]})
    model = pipeline(["size"], ["town"], LinearRegression()).fit(rows, [30.0, 90.0, 110.0, 150.0])
    outputs = ("price=prediction", "is_dear=prediction > 100")
    options = BuildOptions(data=rows, schema=Schema.parse(schema), outputs=outputs, engine="onnx")
    return build(tmp_path_factory.mktemp("price"), "price", model, options)


@pytest.fixture(scope="session")
def sleeper_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a native bundle `sleeper` of a class that sleeps `seconds`, and raises when they are negative."""
    folder = tmp_path_factory.mktemp("sleeper")
    code = folder / "sleeper_model.py"
    code.write_text(SLEEPER)
    schema = Schema.parse({"features": [{"name": "seconds", "type": "float"}]})
    rows = pd.DataFrame({"seconds": [0.0, 0.01]})
    options = BuildOptions(data=rows, schema=schema, code=code)
    return fairlead.build("sleeper_model:Sleeper", folder / "sleeper", options).path


SLEEPER = """
import time


class Sleeper:
    def predict(self, seconds):
        if seconds < 0:
            raise ValueError(f"cannot sleep {seconds} s")
        time.sleep(seconds)
        return {"slept": seconds}
"""


@pytest.fixture(scope="session")
def server(churn_bundle: Path) -> Iterator[Server]:
    """Give a server of `churn` that tests share; do not stop it."""
    with Server(churn_bundle) as running:
        yield running.wait_until_ready()


def pipeline(numbers: list[str], categories: list[str], estimator: Any) -> Any:
    """Make an unfitted pipeline for a frame of numbers and categories."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("numbers", SimpleImputer(), numbers), ("categories", encoder, categories)])
    return make_pipeline(columns, estimator)


def build(folder: Path, name: str, model: Any, options: BuildOptions) -> Path:
    """Build a bundle of a trained model, as `fairlead build` does."""
    source = folder / f"{name}.pkl"
    source.write_bytes(pickle.dumps(model))
    return fairlead.build(source, folder / name, options).path
