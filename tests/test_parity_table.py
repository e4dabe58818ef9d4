"""The table in docs/compile.md: its script works, and the page holds a row for each of its cases."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "parity_table.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("parity_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity_table"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_page_has_a_row_for_each_case(script: Any) -> None:
    table = (ROOT / "docs" / "compile.md").read_text(encoding="utf-8")
    missing = [c for c in script.cases() if f"| {c.step} | {c.setting} |" not in table]
    assert missing == [], "run scripts/parity_table.py"


def test_one_step_is_compared_and_timed() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--only", "minmax"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| MinMaxScaler")]
    assert len(rows) == 2
    assert all("| compiled | 5," in row for row in rows)


def test_markers_are_kept_and_must_be_there(script: Any) -> None:
    page = "a <!-- x --> old <!-- /x --> b"
    once = script.replaced(page, "x", "new")
    assert "old" not in once
    assert script.replaced(once, "x", "new") == once
    with pytest.raises(SystemExit, match="markers"):
        script.replaced("nothing", "x", "new")
