"""Rows from outside: millions of them stay in a file, a database or behind a function, and are looked up one by one.

    prepare (at the build) ──▶ folder and a part of the manifest ──open_rows (in each worker)──▶ Rows

Layer L3; what a source needs is imported when there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fairlead.dashboard.rows.lookup import CachedRows, Source
from fairlead.dashboard.rows.options import RowsOptions, is_function, is_postgres
from fairlead.errors import DashboardError
from fairlead.schema import Schema

__all__ = ["Rows", "RowsOptions", "open_rows", "prepare"]

_ADDRESS = "postgresql://USER@HOST/DATABASE"


class Rows(Protocol):
    """Looks rows up by their index, in any thread.

    What asks for a row raises `DashboardError` when the source does not answer, or gives one that the schema refuses.

    Attributes
    ----------
    trouble : why the last look-up failed, for the page; None once one works again.
    """

    trouble: str | None

    def record(self, index: str) -> dict[str, Any] | None:
        """Give a row by the schema's names: numbers, text, null, datetimes as RFC 3339; None when there is none."""

    def y(self, index: str) -> Any | None:
        """Give what was observed, a number, a truth or text, as it stands there; None when it is not known."""

    def exists(self, index: str) -> bool:
        """Whether there is such a row."""

    def indexes(self) -> list[str] | None:
        """List the indexes; None when there are too many, or they cannot be listed, now or ever."""

    def close(self) -> None:
        """Let go of files and connections."""


def prepare(options: RowsOptions, schema: Schema, folder: Path, step: Callable[[str, float], None]) -> dict[str, Any]:
    """Check a source, and bring the rows of a file into a form to look them up in.

    Parameters
    ----------
    schema : of the model.
    folder : for what is written; made when there is something to write.
    step : is told what is done and how much of it, 0 to 1.

    Returns
    -------
    What the manifest has to keep, for `open_rows`; it holds no password.

    Raises
    ------
    DashboardError
        When the source is missing, broken or does not fit the schema, or two rows have one index.
    """
    source = options.source
    if is_postgres(source):
        from fairlead.dashboard.rows.postgres import prepare_postgres

        return prepare_postgres(options, schema)
    if options.query is not None or options.index_query is not None:
        raise DashboardError(f"{source}: got a query: give {_ADDRESS}, or leave it out")
    if is_function(source):
        from fairlead.dashboard.rows.function import prepare_function

        return prepare_function(options, Path.cwd())
    if "://" in source:
        raise DashboardError(f"{source.partition('://')[0]}://…: expected a file, {_ADDRESS} or module:function")
    if options.index is None:
        raise DashboardError(f"{source}: expected the column that rows are looked up by: give --index")
    from fairlead.dashboard.rows.chunks import RowsFile
    from fairlead.dashboard.rows.file import prepare_file

    return prepare_file(RowsFile(Path(source), schema, options.index, options.target), folder, step)


def open_rows(folder: Path, part: Mapping[str, Any], schema: Schema, environ: Mapping[str, str]) -> Rows:
    """Open what `prepare` made, in the process that is to look rows up.

    Parameters
    ----------
    folder, part : what `prepare` was given and gave.
    environ : ``FAIRLEAD_ROWS`` is the address of a database, with its password.

    Raises
    ------
    DashboardError
        When what was prepared is not there, or the function cannot be imported. A database is asked only when a row
        is.
    """
    kind = part["kind"]
    source: Source
    if kind == "postgres":
        from fairlead.dashboard.rows.connections import VARIABLE
        from fairlead.dashboard.rows.postgres import PostgresSource

        source = PostgresSource(part, schema, environ.get(VARIABLE, part["source"]))
    elif kind == "function":
        from fairlead.dashboard.rows.function import FunctionSource

        source = FunctionSource(part, schema)
    else:
        from fairlead.dashboard.rows.file import FileSource

        source = FileSource(folder, part, schema)
    return CachedRows(source)
