"""README.md is run, and what else stands at the door of the repository holds what it promises."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pages import COMMANDS, ROOT, blocks_of, run_page


def test_readme_runs_as_it_stands(tmp_path: Path, free_port: int) -> None:
    page = ROOT / "README.md"
    assert sum(language in COMMANDS for language, _ in blocks_of(page, free_port)) >= 4
    assert run_page(page, free_port, tmp_path / "fairlead") >= 3


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), f"{page}: {link}"


def test_make_alone_lists_the_commands() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\w+)", done.stdout, re.MULTILINE)
    assert {"demo", "serve", "test", "lock", "clean"} <= set(listed)


@pytest.mark.parametrize("lock", ["run.txt", "test.txt"])
def test_locks_hold_exact_versions_and_no_addresses(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert not re.search(r"://|file:|--index|--find-links|/(tmp|home|opt|root|work)/", text)
    pinned = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert pinned
    assert all(re.match(r"[a-z0-9.-]+(\[[a-z,]+\])?==\S+", line) for line in pinned)


def test_ci_calls_make_test_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and line[0] != "#"]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "CI=true exec make test"]
