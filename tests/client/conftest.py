"""A real server with a bundle of its own, and a clock that nobody waits for."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fairlead
from client.replies import Clock
from fairlead.bundle.build import BuildOptions
from fairlead.client import Client, clients, exchange
from fairlead.schema import Schema

START_S = 30


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a compiled classifier `churn` with nulls, and a bool among its outputs."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    folder = tmp_path_factory.mktemp("client")
    rows = pd.DataFrame(
        {
            "tenure": [41, 1, 2, 60, 30, 3],
            "charges": [79.85, 90.0, None, 20.5, 30.0, 99.0],
            "contract": ["yearly", "monthly", "monthly", "yearly", "yearly", "monthly"],
        }
    )
    numbers = ("numbers", SimpleImputer(), ["tenure", "charges"])
    words = ("words", OneHotEncoder(handle_unknown="ignore"), ["contract"])
    model = make_pipeline(ColumnTransformer([numbers, words]), LogisticRegression()).fit(rows, [0, 1, 1, 0, 0, 1])
    (folder / "model.pickle").write_bytes(pickle.dumps(model))
    features = [
        {"name": "tenure", "type": "int"},
        {"name": "charges", "type": "float", "nullable": True},
        {"name": "contract", "type": "string"},
    ]
    options = BuildOptions(
        data=rows,
        schema=Schema.parse({"features": features}),
        outputs=("prediction=prediction", "probabilities=probabilities", "churn=probability:1 >= 0.5"),
        engine="onnx",
    )
    return fairlead.build(folder / "model.pickle", folder / "churn", options).path


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    random = np.random.default_rng(7)
    charges = random.normal(60, 20, 53)
    charges[::5] = np.nan
    columns = {
        "tenure": random.integers(0, 72, 53),
        "charges": charges,
        "contract": random.choice(["monthly", "yearly"], 53),
    }
    return pd.DataFrame(columns, index=pd.Index([f"customer {i}" for i in range(53)], name="who"))


@pytest.fixture(scope="session")
def url(bundle: Path) -> Iterator[str]:
    """Run `fairlead serve` and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fairlead", "serve", bundle, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            with Client(url) as client:
                for _ in range(START_S * 50):
                    if process.poll() is not None or client.ready():
                        break
                    time.sleep(0.02)
            assert process.poll() is None, process.communicate()
            yield url
        finally:
            process.terminate()
            process.communicate(timeout=START_S)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the client's clock, its sleep, and chance: a jitter is as long as it may be."""
    clock = Clock()
    for module in (clients, exchange):
        monkeypatch.setattr(module, "monotonic", clock.monotonic)
    monkeypatch.setattr(clients, "sleep", clock.sleep)
    monkeypatch.setattr(exchange, "uniform", lambda low, high: high)
    return clock
