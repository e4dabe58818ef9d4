"""The page at /docs, as a browser that reaches nothing but the server shows it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=8000"),
)


def test_a_browser_without_internet_shows_the_routes_and_the_schema(server: Any, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: run `apt-get install chromium`")
    command = [chromium, *FLAGS, *OFFLINE, f"--user-data-dir={tmp_path}", "--dump-dom", f"{server.url}/docs"]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout
    for text in ("/models/churn/predict", "Predict for one record or several", "churn.record", "churn.prediction"):
        assert text in page
    assert "Failed to load" not in page
