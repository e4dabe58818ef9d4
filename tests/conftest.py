"""Fixtures that more than one test module uses, and the rule that a skip must not pass unnoticed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

# Before anybody imports numpy, and for all that tests start: many processes share two cores here, and threads of
# a BLAS that spin while they wait take them from each other.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import hypothesis
import numpy as np

# How long an example takes says nothing where many processes share two cores; CI tries the same examples every time.
hypothesis.settings.register_profile("fairlead", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("fairlead")

ROOT = Path(__file__).parent.parent
# Outside the repository: data that a clone elsewhere does not have.
SHARED = ROOT.parent / "shared"
NOT_SHARED = "not in a clone of its own:"
# A container may be forbidden to; what such a test shows is shown by others with a limit in place of a small disk.
NO_MOUNT = "cannot mount a small disk:"

# Small bundles, built once a process of the test run; servers, started by the first test that asks for one.
pytest_plugins = [
    "homes", "registry", "postgres", "kinesis", "lambda_runtime", "kafka_cluster", "nats_server", "rabbitmq",
    "redis_server",
]  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin every test, and the fixtures that it is the first to use, with the same random numbers.

    What scikit-learn fits without a `random_state` draws from numpy's global generator.
    """
    np.random.seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail in CI what was skipped, unless it lacks data that only the authors have, or a right that root may lack."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a whole module, which is skipped before any of its tests is known."""
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    told = str(report.longrepr)
    if report.skipped and os.environ.get("CI") and NOT_SHARED not in told and NO_MOUNT not in told:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and CI takes no skips: {report.longrepr}"


@pytest.fixture(scope="session")
def telco_csv() -> Path:
    """Give the public Telco churn file, 7,043 rows, as it is published."""
    path = SHARED / "data" / "telco-churn.csv"
    if not path.exists():
        pytest.skip(f"{NOT_SHARED} {path}")
    return path


@pytest.fixture
def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def iris_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the compiled bundle of examples/iris; do not change it."""
    out = tmp_path_factory.mktemp("iris")
    example = ROOT / "examples" / "iris" / "run.py"
    subprocess.run([sys.executable, example, "--out", out], check=True, capture_output=True, timeout=120)
    return out / "iris"


# What takes long to start is started by one process of the test run only, which then has all the tests that need it.
_ALONE = (
    "mlflow_server", "moto_kinesis", "postgres_server", "prefect_home", "rabbit_server", "ray_cluster", "redis_server",
    "town",
)  # fmt: skip

# Pages and examples: begun late, the last of them would be waited for alone.
_LONG = {"test_docs.py", "test_examples.py", "test_readme.py"}


@pytest.hookimpl(tryfirst=True)  # before xdist, which looks for the groups then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests of one costly fixture together, for `--dist loadgroup`, and begin with those that take longest."""
    items.sort(key=lambda item: item.path.name not in _LONG)
    for item in items:
        for name in _ALONE:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))
