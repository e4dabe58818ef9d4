"""Rows of a function of the user's, by its import path: ``rides:row``, ``rides:store.row``, or an object with a `row`.

It may be of any kind: a plain one, a method, a closure, one with a cache. Layer L3; imports the user's module.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from fairlead.dashboard.rows.lookup import MAX_LISTED, Found
from fairlead.dashboard.rows.options import RowsOptions
from fairlead.dashboard.rows.records import RowMaker, index_text, outcome
from fairlead.errors import DashboardError
from fairlead.schema import Schema

_EXPECTED = "a function of an index, or an object with a method `row`, and `y`, `exists` or `indexes` if it has them"


def prepare_function(options: RowsOptions, folder: Path) -> dict[str, Any]:
    """Import a function, from `folder` if it is not installed. See `prepare`."""
    _Functions(options.source, folder)
    return {
        "kind": "function",
        "source": options.source,
        "path": str(folder),
        "index": options.index,
        "target": options.target,
    }


class FunctionSource:
    """Has a function find rows. See `Source`.

    Parameters
    ----------
    part : of the manifest, from `prepare_function`.
    schema : of the model.

    Raises
    ------
    DashboardError
        When it cannot be imported.
    """

    ttl_s: float | None = 30.0

    def __init__(self, part: Mapping[str, Any], schema: Schema) -> None:
        self._source: str = part["source"]
        self._target: str | None = part["target"]
        self._functions = _Functions(self._source, Path(part["path"]))
        self._rows = RowMaker(schema)

    def find(self, index: str) -> Found | None:
        functions = self._functions
        try:
            if functions.exists is not None and not functions.exists(index):
                return None
            values = _values(functions.row(index))
            if values is None:
                return None
            y = _outcome(values.get(self._target or "") if functions.y is None else functions.y(index))
        except KeyError:  # how a dict or a frame says that it has no such row
            return None
        except Exception as error:
            raise self._failed(error) from error
        return Found(self._rows.record(values, self._source), y)

    def indexes(self) -> list[str] | None:
        if self._functions.indexes is None:
            return None
        try:
            texts = (index_text(value) for value in self._functions.indexes())
            return list(islice((text for text in texts if text is not None), MAX_LISTED + 1))
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        pass

    def _failed(self, error: Exception) -> DashboardError:
        if isinstance(error, DashboardError):
            return error
        reason = str(error).partition("\n")[0]
        return DashboardError(f"{self._source}: the function failed ({type(error).__name__}: {reason}): mend it")


class _Functions:
    """What was found under an import path.

    Attributes
    ----------
    row, y, exists, indexes : functions of an index, the last one of nothing; None for what there is not.
    """

    def __init__(self, source: str, folder: Path) -> None:
        name, _, path = source.partition(":")
        module = _imported(name, folder, source)
        found: Any = module
        try:
            for part in path.split("."):
                found = getattr(found, part)
        except AttributeError as error:
            raise DashboardError(f"{source}: not found: {error}") from error
        is_class = isinstance(found, type)
        is_object = not is_class and callable(getattr(found, "row", None))
        if is_class or not (is_object or callable(found)):
            what = "a class" if is_class else f"one of {type(found).__name__}"
            raise DashboardError(f"{source}: expected {_EXPECTED}, got {what}")
        self.row: Callable[[str], Any] = found.row if is_object else found
        if inspect.iscoroutinefunction(self.row):
            raise DashboardError(f"{source}: expected a function that can be called, got an async one")
        self.y: Callable[[str], Any] | None = getattr(found, "y", None) if is_object else None
        self.exists: Callable[[str], Any] | None = getattr(found, "exists", None) if is_object else None
        self.indexes: Callable[[], Iterable[Any]] | None = getattr(found, "indexes", None) if is_object else None


def _imported(name: str, folder: Path, source: str) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # at the end: a file there shall not stand for a library
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        reason = str(error).partition("\n")[0]
        raise DashboardError(
            f"{source}: the module cannot be imported from {folder} ({type(error).__name__}: {reason})"
        ) from error
    own = folder.joinpath(*name.split("."))
    files = [file for file in (own.with_suffix(".py"), own / "__init__.py") if file.exists()]
    if files and not any(file.samefile(module.__file__ or "/") for file in files):
        raise DashboardError(
            f"{source}: {files[0]} cannot be imported, since {module.__file__} has its name: rename it"
        )
    return module


def _outcome(value: Any) -> Any:
    return outcome(value.item() if hasattr(value, "item") else value)  # an array or a Series of one, too


def _values(found: Any) -> dict[str, Any] | None:
    """Make a mapping of what a function gives: a mapping or a Series, or a DataFrame of one row."""
    if found is None:
        return None
    if hasattr(found, "iloc") and hasattr(found, "columns"):
        if len(found) > 1:
            raise ValueError(f"expected a DataFrame of one row, got {len(found):,}")
        return {str(name): found[name].iloc[0] for name in found.columns} if len(found) else None
    if not hasattr(found, "keys"):
        raise TypeError(f"expected a mapping or a DataFrame of one row, got one of {type(found).__name__}")
    return {str(name): found[name] for name in found.keys()}  # noqa: SIM118  # not every such thing is a mapping
