"""A board: a dashboard that is loaded in this process, a WSGI application of its own.

Layer L3; imports explainerdashboard when one is loaded.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.bundle.read import open_bundle
from fairlead.dashboard.boards import explainer_file, layout
from fairlead.dashboard.boards.options import check, read_dashboard_yaml
from fairlead.dashboard.environment import library
from fairlead.dashboard.explainer.explain import attach
from fairlead.dashboard.explainer.features import Display
from fairlead.dashboard.rows import Rows, open_rows
from fairlead.dashboard.store import BUNDLE, EXPLAINER, OPTIONS, ROWS, Store, identity
from fairlead.errors import DashboardError
from fairlead.predict.predictor import predictor_of

if TYPE_CHECKING:
    from flask import Flask

# What the explainer's file was written with, and is read with.
LIBRARIES = ("explainerdashboard", "shap", "scikit-learn", "numpy", "pandas", "dash", "plotly")
_TRIES = 3


@dataclass
class Board:
    """A dashboard in this process.

    Parameters
    ----------
    name : of its store.
    title, description : as its options have them.
    store : what it was loaded from.
    server : answers its pages and callbacks.
    explainer : computes what it shows.
    dashboard : the ExplainerDashboard.
    rows : rows from outside; None when there are none.
    """

    name: str
    title: str
    description: str
    store: Store
    server: Flask
    explainer: Any
    dashboard: Any
    rows: Rows | None = None


def load_board(path: Path, prefix: str) -> Board:
    """Load a dashboard from its store, once every file was compared with what was built; one at a time in a process.

    Parameters
    ----------
    prefix : the path under which it is reached, with slashes at both ends.

    Raises
    ------
    DashboardError, BundleError
        When the store is none, changed, or was written with libraries that this process does not have.
    """
    for _ in range(_TRIES - 1):
        before = identity(path)
        try:
            board = _load(path, prefix)
        except Exception:
            if identity(path) == before:
                raise
        else:
            if identity(path) == before:
                return board
        # Another store has come into its place meanwhile.
    return _load(path, prefix)


def _load(path: Path, prefix: str) -> Board:
    store = Store.open(path)
    store.verify()
    params = check(read_dashboard_yaml(store.path / OPTIONS), str(store.path / OPTIONS)).params
    bundle = open_bundle(store.path / BUNDLE)
    schema = bundle.manifest.schema
    rows = None
    if store.manifest.rows is not None:
        rows = open_rows(store.path / ROWS, store.manifest.rows, schema, os.environ)
    predictor = predictor_of(bundle)  # before the explainer, which may hold classes of the module that comes with it
    explainer = _explainer(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # explainerdashboard warns of all that it decides
        attach(explainer, predictor, rows)
        features = dict(zip(Display(schema).columns, schema.features, strict=True))
        is_listed = rows is None or explainer._get_index_list_func is not None
        dashboard = layout.make(explainer, params, prefix, features, is_listed)
    told = store.manifest
    return Board(store.name, told.title, told.description, store, dashboard.app.server, explainer, dashboard, rows)


def library_versions() -> dict[str, str]:
    """Give the versions of the libraries that an explainer's file depends on."""
    return {name: metadata.version(name) for name in LIBRARIES}


def _explainer(store: Store) -> Any:
    library()
    try:
        return explainer_file.load(store.path / EXPLAINER)
    except Exception as error:  # whatever a class that changed since makes of it
        now = library_versions()
        others = [
            f"{name} {version} (here {now.get(name)})"
            for name, version in store.manifest.versions.items()
            if now.get(name) != version
        ]
        cause = f": it was written with {', '.join(others)}" if others else ""
        raise DashboardError(
            f"{store.path / EXPLAINER}: cannot be loaded ({type(error).__name__}: {error}){cause}: build it again"
        ) from error
