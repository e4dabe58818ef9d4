"""Pages are run: their blocks in order, in one shell, in a copy of the repository, against their outputs.

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


def blocks_of(page: Path, port: int) -> list[tuple[str, str]]:
    """Give a page's blocks, language and text, with the port 9696 replaced."""
    return BLOCK.findall(page.read_text(encoding="utf-8").replace("9696", str(port)))


def run_page(page: Path, port: int, copy: Path, timeout_s: int = 240) -> int:
    """Run a page's commands in a new copy of the repository; give how many outputs were compared."""
    blocks = blocks_of(page, port)
    copy_of_the_repository(copy)
    done = subprocess.run(
        ["bash", "-c", script_of(blocks, port)], cwd=copy, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout + done.stderr

    printed = dict(re.findall(r"^@@ (\d+)\n(.*?)(?=^@@ |\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    compared = 0
    for (place, (language, _)), (_, (next_language, expected)) in pairwise(enumerate(blocks)):
        if language in COMMANDS and next_language not in COMMANDS:
            output = printed[str(place)].strip()
            assert re.fullmatch(pattern_of(expected), output, re.DOTALL), f"expected\n{expected}\ngot\n{output}"
            compared += 1
    return compared


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


def copy_of_the_repository(target: Path) -> None:
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (target / ".venv").symlink_to(sys.prefix)
