"""Options of ExplainerDashboard, as a dashboard.yaml holds them: read, and checked before anything long is done.

Nothing but names of explainerdashboard's own passes, since such a file may name any callable of any module. Layer L3;
imports explainerdashboard when options are checked.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fairlead.dashboard.environment import library
from fairlead.dashboard.store import EXPLAINER
from fairlead.dashboard.yaml_files import nearest, section
from fairlead.errors import DashboardError

TABS = (
    "importances", "model_summary", "contributions", "whatif", "shap_dependence", "shap_interaction", "decision_trees",
)  # fmt: skip
INTERACTION_TAB = "shap_interaction"
TREES_TAB = "decision_trees"
# Of explainerdashboard's components, those that show what only some models have.
_CLASSES = {
    INTERACTION_TAB: ("ShapInteractionsComposite", "ShapInteractionsTab"),
    TREES_TAB: (
        "DecisionTreesComposite", "DecisionTreesComponent", "DecisionPathTableComponent", "DecisionPathGraphComponent",
    ),
}  # fmt: skip
# Decided by how a dashboard is served.
_OURS = frozenset(
    {
        "server", "mode", "width", "height", "port", "name", "url_base_pathname", "routes_pathname_prefix",
        "requests_pathname_prefix", "sagemaker", "dash_kwargs",
    }
)  # fmt: skip
_FROM_ELSEWHERE = ("bootstrap", "external_stylesheets")
_MODULES = ("explainerdashboard", "sklearn.metrics")

Params = dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """Options of ExplainerDashboard that are known.

    Parameters
    ----------
    params : by name, those of its components among them.
    warnings : what becomes of others.
    """

    params: Params
    warnings: tuple[str, ...] = ()


def read_dashboard_yaml(path: Path) -> Params:
    """Read the options of a dashboard.yaml, those of components among them, as they are.

    Raises
    ------
    DashboardError
        When it is missing, cut off, or of another kind.
    """
    told = section(path, "dashboard").get("params") or {}
    if not isinstance(told, dict) or not isinstance(told.get("kwargs") or {}, dict):
        raise DashboardError(f"{path}: params: expected a mapping of options, as to_yaml writes them")
    params = {key: value for key, value in told.items() if key != "kwargs"}
    return params | (told.get("kwargs") or {})


def yaml_of(params: Mapping[str, Any]) -> bytes:
    """Write options in explainerdashboard's own form, which `read_dashboard_yaml` reads."""
    import yaml

    own = own_parameters()
    told = {key: value for key, value in params.items() if key in own}
    told["kwargs"] = {key: value for key, value in params.items() if key not in own}
    config = {"dashboard": {"explainerfile": EXPLAINER, "params": told}}
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()


def check(params: Mapping[str, Any], where: str) -> Checked:
    """Take what a dashboard may be told, and refuse what it does not know.

    Parameters
    ----------
    where : what to call the options in an error.

    Raises
    ------
    DashboardError
        Naming the option that is unknown, or that must not be in a file.
    """
    if params.get("logins"):
        raise DashboardError(
            f"{where}: logins: passwords do not belong in a file of options: take them out, and add people "
            "with `fairlead dashboard users add NAME`"
        )
    own = own_parameters()
    known = own.keys() | _component_parameters()
    found: Params = {}
    warnings = []
    for name, value in params.items():
        if name not in known:
            raise DashboardError(f"{where}: unknown option {name!r}: {nearest(str(name), tuple(known))}")
        if name == "logins":
            continue
        if name not in _OURS:
            found[name] = value
        elif value not in (None, {}, own[name]):
            warnings.append(f"{where}: {name} is left out: how a dashboard is reached is told to `serve`")
    warnings += [
        f"{where}: {name}: whoever looks at the dashboard fetches it from elsewhere"
        for name in _FROM_ELSEWHERE
        if found.get(name)
    ]
    if found.get("tabs") is not None:
        tabs = found["tabs"] if isinstance(found["tabs"], list) else [found["tabs"]]
        for tab in tabs:
            _check_tab(tab, where)
        found["tabs"] = tabs
    for value in found.values():
        for called in _callables(value):
            find(called.get("module"), called.get("name"), where)
    for name in ("title", "description"):
        if not isinstance(found.get(name, ""), str | None):
            raise DashboardError(f"{where}: {name}: expected text, got {found[name]!r}")
    return Checked(found, tuple(warnings))


def wants_interactions(params: Mapping[str, Any]) -> bool:
    """Whether options ask for the tab of interactions."""
    return bool(_wanted(params, INTERACTION_TAB))


def wants_decision_trees(params: Mapping[str, Any]) -> bool | None:
    """Whether options ask for the tab of decision trees; None where they say nothing, and it is shown if it can be."""
    return _wanted(params, TREES_TAB)


def _wanted(params: Mapping[str, Any], name: str) -> bool | None:
    if params.get("tabs") is not None:
        return any(is_of(tab, name) for tab in params["tabs"])
    return bool(params[name]) if name in params else None


def is_of(tab: Any, name: str) -> bool:
    """Whether a tab, as options name it, is the one of interactions, or of decision trees."""
    return tab == name or (isinstance(tab, dict) and tab.get("name") in _CLASSES[name])


def own_parameters() -> dict[str, Any]:
    """Give the parameters of ExplainerDashboard itself, and their defaults."""
    parameters = inspect.signature(library().ExplainerDashboard.__init__).parameters
    return {name: one.default for name, one in parameters.items() if name not in ("self", "explainer", "kwargs")}


def _component_parameters() -> set[str]:
    """Name the parameters of all components, which take what ExplainerDashboard itself does not know."""
    names = {name for component in _components().values() for name in inspect.signature(component.__init__).parameters}
    return names - {"self", "explainer", "kwargs"}


def _components() -> dict[str, Any]:
    library()
    custom = import_module("explainerdashboard.custom")
    base = import_module("explainerdashboard.dashboard_methods").ExplainerComponent
    return {name: found for name, found in vars(custom).items() if inspect.isclass(found) and issubclass(found, base)}


def _check_tab(tab: Any, where: str) -> None:
    if isinstance(tab, str):
        if tab not in TABS:
            raise DashboardError(f"{where}: unknown tab {tab!r}: {nearest(tab, TABS)}")
        return
    if not isinstance(tab, dict) or not isinstance(tab.get("params") or {}, dict):
        raise DashboardError(f"{where}: tabs: expected a name or a component of explainerdashboard, got {tab!r}")
    found = find(tab.get("module"), tab.get("name"), where)
    if found not in _components().values():
        raise DashboardError(f"{where}: {tab['module']}.{tab['name']} is no component of explainerdashboard")
    takes = set(inspect.signature(found.__init__).parameters)
    if "kwargs" in takes:
        takes |= _component_parameters()
    for name in tab.get("params") or {}:
        if name not in takes:
            raise DashboardError(f"{where}: {tab['name']}: unknown option {name!r}: {nearest(str(name), tuple(takes))}")


def find(module: Any, name: Any, where: str) -> Any:
    """Find what options name, in modules that may be named.

    Raises
    ------
    DashboardError
        When it is elsewhere, or not there.
    """
    may = isinstance(module, str) and any(module == one or module.startswith(f"{one}.") for one in _MODULES)
    if not may or not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise DashboardError(
            f"{where}: {module}.{name}: only what is explainerdashboard's own may be named, since it is run"
        )
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DashboardError(
            f"{where}: {module}.{name}: there is none in this version of explainerdashboard"
        ) from error


def _callables(value: Any) -> Iterator[dict[str, Any]]:
    """Find what explainerdashboard writes in the place of a function."""
    if isinstance(value, dict):
        if isinstance(value.get("__callable__"), dict):
            yield value["__callable__"]
        for one in value.values():
            yield from _callables(one)
    elif isinstance(value, list):
        for one in value:
            yield from _callables(one)
