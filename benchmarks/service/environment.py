"""An environment for each peer, on its current release, with the scikit-learn the model was trained with.

Made once under `build/`, and again when what the peer requires changed or `--upgrade` says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from peer import Peer

INSTALL_S = 1_800
COMMON = ("pandas",)
VERSIONS = """
import json, platform
from importlib.metadata import distributions
print(json.dumps({"python": platform.python_version(), **{d.name.lower(): d.version for d in distributions()}}))
"""


class InstallFailed(Exception):
    """pip could not; the message is its last line of error."""


@dataclass(frozen=True)
class Environment:
    """An interpreter and the versions of what it can import, by name in lower case; `python` is its own."""

    python: Path
    versions: dict[str, str]

    @property
    def has_same_model(self) -> bool:
        """Whether it can load the pickle made by fairlead's own environment."""
        return self.versions.get("scikit-learn") == version("scikit-learn")


def provide(peer: Peer, folder: Path, upgrade: bool) -> Environment:
    """Have the peer's environment.

    Raises
    ------
    InstallFailed
        When neither the same scikit-learn nor any other can be installed with it.
    """
    if not peer.requirements:
        return Environment(Path(sys.executable), _versions(Path(sys.executable)))
    python = folder / "venv" / "bin" / "python"
    stamp = folder / "venv" / "requirements.json"
    wanted = json.dumps([*peer.requirements, *COMMON, f"scikit-learn=={version('scikit-learn')}"])
    if upgrade or not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder / "venv", ignore_errors=True)
        _install(python, json.loads(wanted), folder / "install.log")
        stamp.write_text(wanted, encoding="utf-8")
    return Environment(python, _versions(python))


def _install(python: Path, wanted: list[str], log: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True, capture_output=True)
    try:
        _pip(python, wanted, log)
    except InstallFailed:
        # The model is then trained again, with what the peer gets along with.
        _pip(python, [*wanted[:-1], "scikit-learn"], log)


def _pip(python: Path, wanted: list[str], log: Path) -> None:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(f"pip took more than {INSTALL_S} s") from error
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallFailed(errors[-1] if errors else f"pip ended with exit code {done.returncode}")


def _versions(python: Path) -> dict[str, str]:
    done = subprocess.run([str(python), "-c", VERSIONS], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
