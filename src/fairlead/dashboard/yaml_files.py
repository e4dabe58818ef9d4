"""YAML files of explainerdashboard: read as data only, and what was meant by a name that is not known.

Layer L3; PyYAML is imported when a file is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.errors import DashboardError


def section(path: Path, name: str) -> dict[str, Any]:
    """Read the one section of a YAML file of explainerdashboard.

    Raises
    ------
    DashboardError
        When the file is missing, cut off, no plain YAML, or of another kind.
    """
    import yaml

    try:
        read = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise DashboardError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise DashboardError(f"{path}: expected plain YAML, maybe it is half-written: {error}") from error
    if not isinstance(read, dict) or not isinstance(read.get(name), dict):
        raise DashboardError(f"{path}: expected `{name}:` and its keys, as explainerdashboard's to_yaml writes them")
    found: dict[str, Any] = read[name]
    return found


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Name what was most likely meant, or what there is to choose from."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
