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
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.schema import Schema

HOOKS = Path(__file__).parent / "schemathesis_hooks.py"
# At least so many requests in all tests together; 0 for what takes some seconds.
CASES = int(os.environ.get("FAIRLEAD_SCHEMATHESIS_CASES", "0"))
# Of those that are made up at random, for each operation; the systematic ones are always all there.
EXAMPLES = max(8, CASES // 40)
TIMEOUT_S = 60 + CASES // 5
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
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"ops sha256:{hashlib.sha256(KEY.encode()).hexdigest()} admin\n")
    return path


def findings(server: Any, folder: Path, *options: str, config: str = "") -> int:
    """Run schemathesis against a server, fail with its report if it finds anything, and count its requests."""
    report, settings = folder / "report.json", folder / "schemathesis.toml"
    settings.write_text(f'hooks = "{HOOKS}"\n{config}')
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"]
    how = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--generation-deterministic"]
    how += ["--continue-on-failure", "--suppress-health-check", "all", "--no-color"]
    how += ["--report", "json", "--report-json-path", str(report)]
    run = subprocess.run(
        [*command, server.url + "/openapi.json", *how, *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=folder,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    count: int = json.loads(report.read_text())["test_cases"]["generated"]
    print(f"{count} requests")
    return count


def test_models_side_by_side(
    start: Any, churn_bundle: Path, price_bundle: Path, quote_bundle: Path, tmp_path: Path
) -> None:
    """Without keys."""
    with start(churn_bundle, price_bundle, quote_bundle) as server:
        findings(server.wait_until_ready(), tmp_path)


def test_a_model_alone_behind_keys(start: Any, iris_bundle: Path, keys_file: Path, tmp_path: Path) -> None:
    """Of numbers alone; with the paths that name no model, and all but those that change what is loaded."""
    with start(iris_bundle, more=("--api-keys-file", str(keys_file))) as server:
        findings(server.wait_until_ready(), tmp_path, *SHOW_KEY, "--exclude-path-regex", CHANGES)


@pytest.mark.parametrize("name", ["churn", "none"])
def test_models_come_and_go(
    start: Any, churn_bundle: Path, price_bundle: Path, keys_file: Path, tmp_path: Path, name: str
) -> None:
    only = ("--include-path-regex", "^/v2/repository/")
    with start(churn_bundle, price_bundle, more=("--api-keys-file", str(keys_file))) as server:
        findings(server.wait_until_ready(), tmp_path, *SHOW_KEY, *only, config=f'[parameters]\n"path.name" = "{name}"')
