"""Parameters of explainerdashboard's explainers, as an explainer.yaml has them: which pass, and how they are put.

Layer L3; imports nothing but what the features are shown as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.dashboard.explainer.features import Display, shown_name, shown_text
from fairlead.dashboard.yaml_files import nearest
from fairlead.errors import DashboardError
from fairlead.schema import Feature

# What decides itself here, and the values that mean no more than that; None is always one of them.
_DECIDED: dict[str, tuple[Any, ...]] = {
    "shap": ("guess", "tree", "linear", "kernel"),
    "na_fill": (-999,),
    "strip_pipeline_prefix": (False,),
    "auto_detect_pipeline_cats": (True, False),
    "shap_kwargs": ({},),
    "permutation_metric": (),
    "feature_name_fn": (),
    "X_background": (),
    "idxs": (),
    "cv": (),
    "permutation_cv": (),
}
_IGNORED = frozenset({"n_jobs"})
_BY_OPTIONS = frozenset({"precision", "model_output"})
_OF_CLASSIFIER = frozenset({"labels", "pos_label"})
_PASSED = frozenset({"cats", "cats_notencoded", "descriptions", "units", "target", "index_name"}) | _OF_CLASSIFIER


@dataclass
class Params:
    """Parameters as the library's constructor takes them.

    Parameters
    ----------
    kwargs : for the constructor.
    notes : what the user should know.
    """

    kwargs: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def params_of(given: Mapping[str, Any], display: Display, labels: Sequence[str] | None) -> Params:
    """Check parameters and put them in terms of what is shown.

    Parameters
    ----------
    given : of an explainer.yaml; what the library writes there by default is passed over.
    labels : of the classes; None for a regression.

    Raises
    ------
    DashboardError
        Naming the one that is unknown, has no meaning here, or is of a wrong type.
    """
    _check_names(given, labels is not None)
    told = {name: value for name, value in given.items() if name in _PASSED and value is not None}
    kwargs: dict[str, Any] = {
        name: shown_text(_text(name, told[name])) for name in ("target", "index_name") if name in told
    }
    found = Params(kwargs)
    kwargs["descriptions"] = _descriptions(_mapping("descriptions", told.get("descriptions", {})), display)
    if "cats" in told:
        kwargs["cats"] = _cats(told["cats"], display, found.notes)
    if "cats_notencoded" in told:
        shown = _mapping("cats_notencoded", told["cats_notencoded"]).items()
        known = kwargs.get("cats") or {}
        kwargs["cats_notencoded"] = {shown_name(n): shown_text(v) for n, v in shown if shown_name(n) in known}
    if labels is None:
        kwargs["units"] = _text("units", told.get("units", ""))
        return found
    if told.get("units"):
        raise DashboardError("units: a probability has none: remove it")
    names = [shown_text(str(label)) for label in _list("labels", told.get("labels", list(labels)))]
    if len(names) != len(labels) or len(set(names)) != len(names):
        raise DashboardError(f"labels: expected {len(labels)} different ones, for {', '.join(labels)}, got {names}")
    kwargs |= {"labels": names, "pos_label": _pos_label(told.get("pos_label", 1), names, labels)}
    return found


def _check_names(given: Mapping[str, Any], is_classifier: bool) -> None:
    for name, value in given.items():
        if name in _DECIDED:
            if value is not None and value not in _DECIDED[name]:
                raise DashboardError(f"{name}: fairlead decides this itself, expected no {value!r}: remove it")
        elif name not in _PASSED | _IGNORED | _BY_OPTIONS:
            raise DashboardError(f"{name}: no parameter of an explainer: {nearest(name, tuple(_PASSED))}")
        elif name in _OF_CLASSIFIER and not is_classifier and value is not None:
            raise DashboardError(f"{name}: the model is no classifier: remove it")


def _descriptions(given: Mapping[str, str], display: Display) -> dict[str, str]:
    found = {
        column: _about(feature)
        for column, feature in zip(display.columns, display.schema.features, strict=True)
        if _about(feature)
    }
    return found | {display.column(name): shown_text(text) for name, text in given.items()}


def _about(feature: Feature) -> str:
    """Say what the schema tells of a feature, and how a number that is missing is typed."""
    missing = "-999 where it is missing" if feature.nullable and feature.type in ("int", "float") else None
    said = (feature.description, feature.unit and f"in {feature.unit}", missing)
    return shown_text(", ".join(part for part in said if part))


def _cats(given: Any, display: Display, notes: list[str]) -> dict[str, list[str]]:
    """Find the columns of each group of one-hot columns."""
    entries: list[tuple[str, list[str]]] = []
    for entry in [given] if isinstance(given, dict) else _list("cats", given):
        if isinstance(entry, dict):
            entries += [
                (str(group), [display.column(str(one)) for one in _list(group, names)])
                for group, names in entry.items()
            ]
        else:
            prefix = shown_name(f"{entry}_")
            entries.append((str(entry), [column for column in display.columns if column.startswith(prefix)]))
    found: dict[str, list[str]] = {}
    for group, columns in entries:
        unknown = [column for column in columns if column not in display.columns]
        if unknown:
            raise DashboardError(
                f"cats: {group}: no feature {', '.join(unknown)}; there are {', '.join(display.schema.names)}"
            )
        if columns == [shown_name(group)]:
            continue  # the library writes each plain column into the mapping that it is given
        if shown_name(group) in display.columns:
            notes.append(f"cats: {group} is a feature of the model itself, there is nothing to be put together")
            continue
        if len(columns) < 2:
            raise DashboardError(f"cats: {group}: expected two features {group}_… or more, got {len(columns)}")
        found[shown_name(group)] = columns
    return found


def _pos_label(given: Any, names: Sequence[str], labels: Sequence[str]) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(names):
        return given
    for known in (names, labels):
        if given in known:
            return known.index(given)
    raise DashboardError(f"pos_label: expected one of {', '.join(labels)} or its place from 0 on, got {given!r}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DashboardError(f"{name}: expected text, got {type(value).__name__}")
    return value


def _mapping(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise DashboardError(f"{name}: expected text by name, got {type(value).__name__}")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DashboardError(f"{name}: expected a list, got {type(value).__name__}")
    return value
