"""What is to be built, from all that says something of it: the options of a call, an explainer.yaml, a dashboard.yaml.

Whatever is wrong with them is found here, before anything is computed. Layer L3.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fairlead import config
from fairlead.bundle.obtain import obtain
from fairlead.bundle.read import Bundle, is_called_bundle, open_bundle
from fairlead.bundle.samples import read_sample
from fairlead.dashboard.boards.options import (
    Params,
    check,
    read_dashboard_yaml,
    wants_decision_trees,
    wants_interactions,
)
from fairlead.dashboard.building.data import DEFAULT_SAMPLE
from fairlead.dashboard.building.projects import Project, is_project, read_explainer_yaml
from fairlead.dashboard.explainer.explain import ExplainerOptions
from fairlead.dashboard.rows.data_file import Wanted, read_table
from fairlead.dashboard.rows.function import prepare_function
from fairlead.dashboard.rows.options import RowsOptions, is_function, is_postgres
from fairlead.dashboard.store import SUFFIX
from fairlead.errors import DashboardError
from fairlead.schema import Kind

if TYPE_CHECKING:
    import pandas as pd

Precision = Literal["float64", "float32"]
ModelOutput = Literal["probability", "logodds"]


@dataclass(frozen=True)
class DashboardOptions:
    """What a build may be told beyond its source. None is what an explainer.yaml says, else the default.

    Parameters
    ----------
    data : the rows to explain.
    target, index : their columns with what was observed, and with what each row is called.
    sample : rows to explain at most; None for all.
    dashboard_yaml : options of the dashboard, as explainerdashboard writes them.
    title, description, tabs : of the dashboard.
    precision : of what is kept of each row.
    interactions : compute SHAP interactions; by default if the options of the dashboard ask for them.
    positive_class_only : of several classes, explain one only.
    model_output : what SHAP values add up to; by default what is exact and cheap for the model.
    rows : more rows, looked up one by one.
    static : where to write the dashboard as one page, too.
    """

    data: Path | None = None
    target: str | None = None
    index: str | None = None
    sample: int | None = DEFAULT_SAMPLE
    dashboard_yaml: Path | None = None
    title: str | None = None
    description: str | None = None
    tabs: tuple[str, ...] = ()
    precision: Precision | None = None
    interactions: bool | None = None
    positive_class_only: bool = False
    model_output: ModelOutput | None = None
    rows: RowsOptions | None = None
    static: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be built.

    Parameters
    ----------
    source : the bundle or the model.
    target_path : the store to make.
    kind : what the model is said to do; None where nothing is said.
    data, target, index : as in `DashboardOptions`.
    params : options of ExplainerDashboard, checked.
    explainer : options of the explainer.
    inputs : files and directories that it is made of, absolute.
    warnings : what the user should know.
    """

    source: str
    target_path: Path
    kind: Kind | None
    data: Path
    target: str | None
    index: str | None
    params: Params
    explainer: ExplainerOptions
    inputs: tuple[Path, ...]
    warnings: tuple[str, ...] = field(default_factory=tuple)


def plan_of(source: str | Path, target_path: Path | None, options: DashboardOptions) -> Plan:
    """Bring together what is said of a dashboard, and refuse what does not fit.

    Parameters
    ----------
    source : a bundle, what a bundle can be made of, or an explainer.yaml.
    target_path : the store to make; beside an explainer.yaml, else in this directory, when none is named.

    Raises
    ------
    DashboardError
    """
    project = read_explainer_yaml(Path(source)) if is_project(source) else None
    dashboard_yaml = options.dashboard_yaml or (None if project is None else project.dashboard_yaml)
    params, warnings = _params(dashboard_yaml, options)
    data = options.data or (_file_of(options.rows) if project is None else project.data)
    if data is None:
        raise DashboardError(f"{source}: expected rows to explain: give a file of them with --data")
    if options.sample is not None and options.sample < 2:
        raise DashboardError(f"expected a sample of 2 rows or more, got {options.sample}")
    if options.static is not None:
        _check_page(options.static)
    if options.rows is not None:
        _check_rows(options.rows)
    found = str(source) if project is None else str(project.source)
    if not (Path(found).exists() or config.is_address(found) or config.is_class(found)):
        raise DashboardError(f"{found}: no such bundle or model")
    inputs = [None if project is None else project.path, dashboard_yaml, data, _file_of(options.rows), Path(found)]
    return Plan(
        source=found,
        target_path=(target_path or _default_target(found, project)).absolute(),
        kind=project.kind if project is not None else None,
        data=data,
        target=options.target or (project.target if project is not None else None),
        index=options.index or (project.index if project is not None else None),
        params=params,
        explainer=ExplainerOptions(
            precision=options.precision or "float64",
            interactions=wants_interactions(params) if options.interactions is None else options.interactions,
            positive_class_only=options.positive_class_only,
            model_output=options.model_output,
            decision_trees=wants_decision_trees(params),
            params={} if project is None else project.params,
        ),
        inputs=tuple(dict.fromkeys(path.absolute() for path in inputs if path is not None and path.exists())),
        warnings=warnings,
    )


def _params(dashboard_yaml: Path | None, options: DashboardOptions) -> tuple[Params, tuple[str, ...]]:
    """Give the options of the dashboard: of its file, then of the call."""
    params: Params = {}
    where = "options"
    if dashboard_yaml is not None:
        where = str(dashboard_yaml)
        params = read_dashboard_yaml(dashboard_yaml)
    given = {"title": options.title, "description": options.description, "tabs": list(options.tabs) or None}
    checked = check(params | {name: value for name, value in given.items() if value is not None}, where)
    if options.interactions is not None and checked.params.get("tabs") is None:
        checked.params["shap_interaction"] = options.interactions
    return checked.params, checked.warnings


def _check_page(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise DashboardError(f"{path}: its directory does not exist: make it first")
    if path.is_dir():
        raise DashboardError(f"{path}: expected a file for the page, there is a directory: name a file in it")


def _check_rows(rows: RowsOptions) -> None:
    """Refuse rows that are not to be had, before a model is built that they are looked at with."""
    file = _file_of(rows)
    if is_function(rows.source):
        prepare_function(rows, Path.cwd())
    elif file is not None and not file.exists():
        raise DashboardError(f"{file}: no such file: see --rows")


def _file_of(rows: RowsOptions | None) -> Path | None:
    """Give the file of rows from outside, when they are in one."""
    if rows is None or is_postgres(rows.source) or is_function(rows.source) or "://" in rows.source:
        return None
    return Path(rows.source)


def _default_target(source: str, project: Project | None) -> Path:
    if project is not None:
        return project.explainerfile.with_suffix(SUFFIX)
    if not Path(source).exists():
        raise DashboardError(f"{source}: name the store to make with -o, such as -o titanic{SUFFIX}")
    return Path(Path(source).absolute().stem + SUFFIX)


class _Progress:
    """Tells the steps of a build what goes on while a bundle is brought."""

    def __init__(self, step: Callable[[str, float], None]) -> None:
        self._step = step

    def step(self, text: str) -> None:
        self._step(text, 0.0)

    def bytes(self, done: int, total: int | None) -> None:
        self._step("fetch", done / total if total else 0.0)


@dataclass(frozen=True)
class FoundBundle:
    """The bundle that a plan is about.

    Parameters
    ----------
    bundle : on this machine.
    key : what the plan's source stands for, where it is an address; None for what lies here.
    warnings : what the user should know.
    """

    bundle: Bundle
    key: str | None = None
    warnings: tuple[str, ...] = ()


def bundle_of(plan: Plan, step: Callable[[str, float], None]) -> FoundBundle:
    """Have the bundle that a plan is about.

    A model that is none yet is built, with the rows as its sample.

    Parameters
    ----------
    step : as of `build.build`.

    Raises
    ------
    SourceError, BundleError
        As `obtain`.
    DashboardError
        When it does something else than the project says.
    """
    if is_called_bundle(Path(plan.source)):
        found = FoundBundle(open_bundle(Path(plan.source)))
    else:
        from fairlead.bundle.build import BuildOptions

        own = [name for name in (plan.target, plan.index) if name is not None]
        read_table(plan.data, Wanted((), own, own))  # a model may take minutes to build, and these a moment to miss
        options = BuildOptions(data=_features(plan.data, own))
        obtained = obtain(plan.source, config.read(None, os.environ, {}).cache, os.environ, _Progress(step), options)
        key = obtained.key if config.is_address(plan.source) else None
        found = FoundBundle(open_bundle(obtained.path), key, obtained.warnings)
    kind = found.bundle.manifest.kind
    if plan.kind is not None and kind != plan.kind:
        raise DashboardError(f"{plan.source}: expected a {plan.kind}, as explainer_type says, got a {kind}")
    return found


def _features(data: Path, others: list[str]) -> pd.DataFrame:
    return read_sample(data, None).drop(columns=others)
