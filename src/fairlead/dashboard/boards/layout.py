"""The pages of a dashboard, made of its options.

Layer L3; imports explainerdashboard when one is made.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from fairlead.dashboard.boards.downloads import escape_downloads
from fairlead.dashboard.boards.options import INTERACTION_TAB, TREES_TAB, Params, find, is_of, own_parameters
from fairlead.dashboard.environment import library
from fairlead.dashboard.explainer.features import MISSING_NUMBER
from fairlead.errors import DashboardError
from fairlead.schema import Feature

# Points that a plot shows, of which each carries a text: 10,000 are 8 MB to whoever looks.
_PLOTTED = 1000
# Digits of predictions, and of all other numbers with them.
_DIGITS = 6
_MOST_LISTED = 1000


def make(
    explainer: Any, params: Mapping[str, Any], prefix: str, features: Mapping[str, Feature], is_listed: bool = True
) -> Any:
    """Make the ExplainerDashboard of an explainer.

    Parameters
    ----------
    explainer : attached, with all that is shown computed.
    params : as `check` gave them.
    prefix : the path under which it is reached, with slashes at both ends.
    features : of the schema, by the explainer's columns.
    is_listed : whether every row can be chosen from a list; else its name is typed.

    Raises
    ------
    DashboardError
        When an option does not fit the explainer.
    """
    module = library()
    escape_downloads()
    settings = _settings(explainer, params, is_listed)
    tabs = settings.pop("tabs", None)
    try:
        if tabs is not None:
            tabs = _tabs(tabs, explainer, settings)
        dashboard = module.ExplainerDashboard(
            explainer,
            tabs,
            **settings,
            url_base_pathname=prefix,
            sagemaker=False,
            # A protocol for agents, which asks nobody for a password.
            dash_kwargs={"enable_mcp": False},
        )
    except DashboardError:
        raise
    except Exception as error:  # whatever an option that is wrong leads to
        raise DashboardError(
            f"the dashboard cannot be made of its options ({type(error).__name__}: {error}): look at dashboard.yaml"
        ) from error
    # The only text that Dash puts into a page as it is.
    dashboard.app.title = html.escape(dashboard.title)
    _open_inputs(dashboard.app.layout, features)
    _fit_trees(dashboard.app.layout)
    return dashboard


def _settings(explainer: Any, params: Mapping[str, Any], is_listed: bool) -> Params:
    # The first tree is shown until another is chosen.
    given = {"hide_poweredby": True, "round": _DIGITS, "plot_sample": _PLOTTED, "highlight": "0"}
    settings: Params = given | _decoded(dict(params))
    if not is_listed or len(explainer) > _MOST_LISTED:
        settings["index_dropdown"] = False
    for tab, has, what in (
        (INTERACTION_TAB, has_interactions(explainer), "interactions"),
        (TREES_TAB, has_decision_trees(explainer), "decision trees"),
    ):
        if not has:
            _leave_out(settings, tab, what)
    if getattr(explainer, "keeps_one_label", False):
        # Of any other class it would show the values of this one.
        settings |= {"header_hide_selector": True, "pos_label": None}
    return settings


def _leave_out(settings: Params, tab: str, what: str) -> None:
    settings[tab] = False
    if settings.get("tabs") is not None:
        settings["tabs"] = [one for one in settings["tabs"] if not is_of(one, tab)]
        if not settings["tabs"]:
            raise DashboardError(f"tabs: expected one that the explainer has, it has no {what}")


def has_decision_trees(explainer: Any) -> bool:
    """Whether single trees can be told."""
    return hasattr(explainer, "is_tree_explainer")


def has_interactions(explainer: Any) -> bool:
    """Whether SHAP interactions were computed."""
    return hasattr(explainer, "_shap_interaction_values")


def _decoded(value: Any) -> Any:
    """Put the functions of options that were checked in their place."""
    if isinstance(value, dict):
        if isinstance(value.get("__callable__"), dict):
            return find(value["__callable__"]["module"], value["__callable__"]["name"], "dashboard.yaml")
        return {key: _decoded(one) for key, one in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value


def _tabs(tabs: Sequence[Any], explainer: Any, settings: Params) -> list[Any]:
    """Make tabs of what names them; those with options of their own begin with the dashboard's."""
    instantiate = import_module("explainerdashboard.dashboard_methods").instantiate_component
    made: list[Any] = []
    for number, tab in enumerate(tabs, 1):
        if isinstance(tab, str):
            made.append(tab)
            continue
        component = find(tab["module"], tab["name"], "dashboard.yaml")
        if tab.get("params") is None:
            made.append(component)
            continue
        own = {key: value for key, value in tab["params"].items() if key != "name"}
        forced = {key: value for key, value in settings.items() if key == "index_dropdown"}
        takes = inspect.signature(component.__init__).parameters
        general = settings if "kwargs" in takes else {key: value for key, value in settings.items() if key in takes}
        inherited = {key: value for key, value in general.items() if key not in own_parameters()}
        name = tab["params"].get("name") or str(number)
        made.append(instantiate(component, explainer, name=name, **(inherited | own | forced)))
    return made


def _open_inputs(layout: Any, features: Mapping[str, Feature]) -> None:
    """Let any number be typed in a what-if, where browsers refuse one that is finer or further than the sample's."""
    for component in layout._traverse():
        children = getattr(component, "children", None)
        if not isinstance(children, list) or len(children) != 3:
            continue
        label, field, hint = children
        if getattr(field, "type", None) != "number" or (feature := features.get(label.children)) is None:
            continue
        field.step = 1 if feature.type == "int" else "any"
        del field.min, field.max
        if feature.nullable and hint is not None:
            hint.children += f", {MISSING_NUMBER:g} where it is missing"


def _fit_trees(layout: Any) -> None:
    """Let a wide picture of a tree be moved within its card, and say no more that it needs Graphviz."""
    for component in layout._traverse():
        name = str(getattr(component, "id", None))
        if name.startswith("loading-decisionpath-"):
            component.parent_style = {"overflowX": "auto"}
        elif str(getattr(component, "target", None)).startswith("decisionpath-button-"):
            component.children = "Draw the tree and the way of this row through it."
