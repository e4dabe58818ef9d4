"""schemathesis reads /openapi.json and sends what it describes, and what it does not, to servers as users start them.

`make test` sends some thousands of requests, the same each time. For more of them, and always at least so many:

    FAIRLEAD_SCHEMATHESIS_CASES=5000 .venv/bin/pytest tests/web/test_schemathesis.py -s
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.schema import Schema

HOOKS = Path(__file__).parent / "schemathesis_hooks.py"
# At least so many requests to the models that are side by side; 0 for what takes some seconds.
CASES = int(os.environ.get("FAIRLEAD_SCHEMATHESIS_CASES", "0"))
# Of those that are made up at random, for each operation; the systematic ones are always all there.
EXAMPLES = max(6, CASES // 20)
TIMEOUT_S = 120 + CASES // 10
COMMAND = [sys.executable, "-m", "schemathesis.cli"]
# What asks is not what is measured, and takes twice as long when it is.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
HOW = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--generation-deterministic"]
HOW += ["--continue-on-failure", "--suppress-health-check", "all", "--no-color", "--report", "json"]
KEY = "an-admin-key"
# Without others at its side: of two keys the server takes the one in X-API-Key, whatever the other is.
SHOW_KEY = ("--header", f"Authorization: Bearer {KEY}", "--generation-with-security-parameters", "false")
CHANGES = "^/v2/repository/models/"

QUOTE = """
class Quote:
    def predict(self, since, express, pieces, weight, note):
        lines = [{"pieces": pieces, "note": note}] if express else None
        return {"since": since.year, "cost": [weight, None], "lines": lines}
"""


@pytest.fixture(scope="module")
def quote_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a native bundle `quote`: a function of all types of features, which answers what it likes."""
    folder = tmp_path_factory.mktemp("quote")
    code = folder / "quote_model.py"
    code.write_text(QUOTE)
    schema = {
        "features": [
            {"name": "since", "type": "datetime"},
            {"name": "express", "type": "bool", "default": False},
            {"name": "pieces", "type": "int", "nullable": True},
            {"name": "weight", "type": "float", "column": "Weight in kg"},
            {"name": "note", "type": "string", "nullable": True, "default": None},
        ]
    }
    rows = pd.DataFrame(
        {
            "since": pd.to_datetime(["2024-02-29T12:30:00Z", "2025-01-01T00:00:00Z"]),
            "express": [True, False],
            "pieces": [1, 2],
            "Weight in kg": [1.0, 2.5],
            "note": ["brittle", None],
        }
    )
    options = BuildOptions(data=rows, schema=Schema.parse(schema), code=code)
    return fairlead.build("quote_model:Quote", folder / "quote", options).path


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, ...]:
    """Give the flags of a server that knows one key, an admin's."""
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"ops sha256:{hashlib.sha256(KEY.encode()).hexdigest()} admin\n")
    return ("--api-keys-file", str(path))


@pytest.fixture
def find(start: Any, tmp_path: Path) -> Callable[..., int]:
    """How to look for findings: ``find(bundle, …, flags=(), options=(), config="")`` starts a server and asks it."""

    def run(*bundles: Path, flags: tuple[str, ...] = (), options: tuple[str, ...] = (), config: str = "") -> int:
        report, settings = tmp_path / "report.json", tmp_path / "schemathesis.toml"
        settings.write_text(f'hooks = "{HOOKS}"\n{config}')
        with start(*bundles, more=flags) as server:
            url = server.wait_until_ready().url + "/openapi.json"
            command = [*COMMAND, "--config-file", settings, "run", url, *HOW, *options, "--report-json-path", report]
            asked = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=tmp_path, env=ENVIRONMENT
            )
        assert asked.returncode == 0, asked.stdout + asked.stderr
        count: int = json.loads(report.read_text())["test_cases"]["generated"]
        print(f"{count} requests")
        return count

    return run


def test_models_side_by_side(
    find: Callable[..., int], churn_bundle: Path, price_bundle: Path, quote_bundle: Path
) -> None:
    """Answer anybody."""
    assert find(churn_bundle, price_bundle, quote_bundle) >= max(4000, CASES)


def test_a_model_alone_behind_keys(find: Callable[..., int], iris_bundle: Path, keys: tuple[str, ...]) -> None:
    """Is of numbers alone, and has the paths that name no model."""
    assert find(iris_bundle, flags=keys, options=(*SHOW_KEY, "--exclude-path-regex", CHANGES)) >= 1500


@pytest.mark.parametrize("name", ["churn", "none"])
def test_models_come_and_go(
    find: Callable[..., int], churn_bundle: Path, price_bundle: Path, keys: tuple[str, ...], name: str
) -> None:
    """By themselves: what is asked of a model that was unloaded is 404, which would hide anything else."""
    only = ("--include-path-regex", "^/v2/repository/")
    config = f'[parameters]\n"path.name" = "{name}"'
    assert find(churn_bundle, price_bundle, flags=keys, options=(*SHOW_KEY, *only), config=config) >= 80
