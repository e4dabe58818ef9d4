"""README.md is run: its blocks in order, in one shell, in a copy of the repository, against its outputs.

A ```bash or ```python block is a command; a ```text or ```json block is the output of the command
before it, where `…` stands for what differs from run to run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {"bash", "python"}
LEFT_OUT = (".venv", ".git", "demo", "build", ".*_cache", "__pycache__", ".coverage*", ".hypothesis")

# make finds this environment filled. A server in the background is ready before the next block begins.
PRELUDE = """
set -euo pipefail
make() {{ command make --no-print-directory -o .venv/.filled-run -o .venv/.filled-package PORT={port} "$@"; }}
ready() {{ for _ in $(seq 300); do curl -sf localhost:{port}/readyz >/dev/null && return; sleep 0.1; done; false; }}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"""


def script_of(blocks: list[tuple[str, str]], port: int) -> str:
    parts = [PRELUDE.format(port=port)]
    for place, (language, text) in enumerate(blocks):
        if language not in COMMANDS:
            continue
        parts.append(f"printf '\\n@@ {place}\\n'\n")  # an answer over HTTP ends in no newline
        parts.append(text if language == "bash" else f"python - <<'PYTHON'\n{text}PYTHON\n")
        if text.rstrip().endswith("&"):
            parts.append("ready\n")
    return "".join(parts)


def pattern_of(expected: str) -> str:
    return ".*?".join(re.escape(part) for part in expected.strip().split("…"))


def copy_of_the_repository(target: Path) -> Path:
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (target / ".venv").symlink_to(sys.prefix)
    return target


def test_readme_runs_as_it_stands(tmp_path: Path, free_port: int) -> None:
    text = (ROOT / "README.md").read_text().replace("9696", str(free_port))
    blocks = BLOCK.findall(text)
    assert sum(language in COMMANDS for language, _ in blocks) >= 4
    copy = copy_of_the_repository(tmp_path / "fairlead")

    done = subprocess.run(
        ["bash", "-c", script_of(blocks, free_port)], cwd=copy, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr

    printed = dict(re.findall(r"^@@ (\d+)\n(.*?)(?=^@@ |\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    compared = 0
    for (place, (language, _)), (_, (next_language, expected)) in pairwise(enumerate(blocks)):
        if language in COMMANDS and next_language not in COMMANDS:
            output = printed[str(place)].strip()
            assert re.fullmatch(pattern_of(expected), output, re.DOTALL), f"expected\n{expected}\ngot\n{output}"
            compared += 1
    assert compared >= 3


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
