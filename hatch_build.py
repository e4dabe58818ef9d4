"""Builds the C extension where there is a C compiler, and goes on without it where there is none.

hatchling calls this for a wheel and for an editable install; `pyproject.toml` names it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/fairlead/predict/_trees.c"
EXTENSION = "src/fairlead/predict/_trees.abi3.so"
# What the original adds and multiplies one after the other must not be fused, as some machines could.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden")
LINK = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)


def command(root: Path, target: Path, extra: tuple[str, ...] = ()) -> list[str]:
    """Say how the extension is compiled."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_path('include')}"
    return [*compiler, *FLAGS, *LINK, *extra, include, str(root / SOURCE), "-o", str(target), "-lm"]


def compiled(root: Path) -> str | None:
    """Compile the extension beside its source, in one step; why not, where it cannot be, and then none is left."""
    target = root / EXTENSION
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        subprocess.run(command(root, partial), check=True, capture_output=True, text=True, timeout=300)
        partial.replace(target)
    except (OSError, subprocess.SubprocessError) as error:
        partial.unlink(missing_ok=True)
        target.unlink(missing_ok=True)  # made of an older source
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no C compiler ({error.filename})"
    if isinstance(error, subprocess.CalledProcessError):
        return str(error.stderr.strip() or f"exit code {error.returncode}").splitlines()[0]
    return str(error)


class CustomBuildHook(BuildHookInterface):
    """Puts the extension into the wheel, which is then one for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        reason = compiled(Path(self.root))
        if reason is not None:
            self.app.display_warning(f"fairlead: no C extension, trees run in onnxruntime: {reason}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp311-abi3-{platform}"
        build_data["pure_python"] = False
        build_data["artifacts"].append(f"/{EXTENSION}")
