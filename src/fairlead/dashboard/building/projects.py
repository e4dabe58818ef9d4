"""Projects of explainerdashboard, read as they are: an explainer.yaml, with paths from the file's own place.

Both spellings of its keys are known, those of the file and those of the Python call that writes it. Layer L3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.dashboard.yaml_files import nearest, section
from fairlead.errors import DashboardError
from fairlead.schema import Kind

# The spelling of the Python call, and what the file says.
_SPELLINGS = {"target_col": "data_target", "index_col": "data_index"}
_KEYS = (
    "modelfile", "datafile", "explainerfile", "data_target", "data_index", "explainer_type", "dashboard_yaml", "params",
)  # fmt: skip
_KINDS: dict[str, Kind] = {"classifier": "classifier", "regression": "regressor"}


@dataclass(frozen=True)
class Project:
    """What an explainer.yaml says.

    Parameters
    ----------
    path : of the file itself.
    source : the model.
    data : the rows, with the target.
    target, index : columns of the data; no index, and the rows' places are it.
    explainerfile : where explainerdashboard would put its own dump.
    dashboard_yaml : options of the dashboard; None where there is no such file.
    kind : what the model is said to do; None where nothing is said.
    params : of the explainer's constructor.
    """

    path: Path
    source: Path
    data: Path
    target: str | None
    index: str | None
    explainerfile: Path
    dashboard_yaml: Path | None
    kind: Kind | None
    params: dict[str, Any] = field(default_factory=dict)


def is_project(source: str | Path) -> bool:
    """Whether a source is an explainer.yaml rather than a model."""
    return Path(source).suffix in (".yaml", ".yml")


def read_explainer_yaml(path: Path) -> Project:
    """Read an explainer.yaml.

    Raises
    ------
    DashboardError
        When it is missing, no such file, or names what is not there.
    """
    path = path.absolute()
    told = _spelled(path, section(path, "explainer"))
    kind = told.get("explainer_type")
    if kind is not None and kind not in _KINDS:
        raise DashboardError(f"{path}: explainer_type: expected {' or '.join(_KINDS)}, got {kind!r}")
    params = told.get("params") or {}
    if not isinstance(params, dict):
        raise DashboardError(f"{path}: params: expected a mapping, got {type(params).__name__}")
    dashboard = _path(path, told, "dashboard_yaml", "dashboard.yaml")
    return Project(
        path=path,
        source=_there(path, told, "modelfile"),
        data=_there(path, told, "datafile"),
        target=_column(path, told, "data_target"),
        index=_column(path, told, "data_index"),
        explainerfile=_path(path, told, "explainerfile", "explainer.joblib"),
        # Written into every explainer.yaml, whether there is one or not.
        dashboard_yaml=dashboard if dashboard.exists() else None,
        kind=None if kind is None else _KINDS[kind],
        params=params,
    )


def _spelled(path: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in told.items():
        name = _SPELLINGS.get(key, key)
        if name not in _KEYS:
            raise DashboardError(f"{path}: unknown key {key!r}: {nearest(str(key), (*_KEYS, *_SPELLINGS))}")
        if name in found:
            raise DashboardError(f"{path}: {key} and {name} are one and the same: keep one of them")
        found[name] = value
    return found


def _path(path: Path, told: Mapping[str, Any], key: str, default: str | None = None) -> Path:
    value = told.get(key) or default
    if not isinstance(value, str):
        raise DashboardError(f"{path}: {key}: expected a path, got {'nothing' if value is None else repr(value)}")
    return path.parent / Path(value).expanduser()


def _there(path: Path, told: Mapping[str, Any], key: str) -> Path:
    found = _path(path, told, key)
    if not found.exists():
        raise DashboardError(f"{path}: {key}: no such file: {found} (paths start where the YAML is)")
    return found


def _column(path: Path, told: Mapping[str, Any], key: str) -> str | None:
    value = told.get(key)
    if value is not None and not isinstance(value, str):
        raise DashboardError(f"{path}: {key}: expected the name of a column, got {value!r}")
    return value
