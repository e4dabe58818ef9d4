"""How a store was built, kept in it so that it can be built again: elsewhere, later, and without a password in it.

Layer L3; stdlib and msgspec.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from fairlead.dashboard.building.plan import DashboardOptions
from fairlead.dashboard.rows.address import without_password
from fairlead.dashboard.rows.connections import VARIABLE
from fairlead.dashboard.rows.options import RowsOptions, is_function, is_postgres
from fairlead.dashboard.store import Recipe
from fairlead.errors import DashboardError


def recipe_of(source: str | Path, options: DashboardOptions) -> Recipe:
    """Write down what a build is told, with absolute paths."""
    paths = {
        name: path.absolute()
        for name in ("data", "dashboard_yaml", "static")
        if (path := getattr(options, name)) is not None
    }
    rows = None if options.rows is None else replace(options.rows, source=_kept(options.rows.source))
    kept = replace(options, **paths, rows=rows)
    return Recipe(
        source=str(Path(source).absolute() if Path(source).exists() else source),
        directory=str(Path.cwd()),
        options=msgspec.to_builtins(kept, enc_hook=os.fspath),
    )


def options_of(recipe: Recipe) -> DashboardOptions:
    """Give what a build was told; the password of a database comes from the environment."""
    options = msgspec.convert(recipe.options, DashboardOptions, dec_hook=lambda kind, value: kind(value))
    rows: RowsOptions | None = options.rows
    if rows is not None and is_postgres(rows.source):
        rows = replace(rows, source=os.environ.get(VARIABLE, rows.source))
    return replace(options, rows=rows)


@contextlib.contextmanager
def where(recipe: Recipe) -> Iterator[None]:
    """Be in the directory that a build ran in.

    Raises
    ------
    DashboardError
        When there is none any more.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.chdir(recipe.directory))
        except OSError as error:
            raise DashboardError(
                f"{recipe.directory}: the directory that the dashboard was built in cannot be entered "
                f"({error.strerror}): make it again, or build the dashboard from another"
            ) from error
        yield


def environment_of(options: DashboardOptions) -> dict[str, str]:
    """Give what another process needs in its environment to have the same rows."""
    rows = options.rows
    if rows is None or not is_postgres(rows.source) or VARIABLE in os.environ:
        return {}
    return {VARIABLE: rows.source}


def _kept(source: str) -> str:
    if is_postgres(source):
        return without_password(source)
    return source if is_function(source) else str(Path(source).absolute())
