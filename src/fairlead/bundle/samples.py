"""The user's sample of data: read it, and tell what its columns are.

Layer L1, build time only; pandas is imported when a sample is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fairlead.errors import FairleadError, SchemaError, SourceError
from fairlead.extras import require
from fairlead.schema import Feature, FeatureType, Scalar

if TYPE_CHECKING:
    import pandas as pd

# More distinct strings than this are text or ids, not categories.
_MOST_CATEGORIES = 1000
_SUFFIXES = (".csv", ".parquet", ".jsonl", ".json")


def read_sample(path: Path, target: str | None) -> pd.DataFrame:
    """Read a sample of training data, CSV, Parquet or JSON lines by suffix, without its target.

    Raises
    ------
    SourceError
        When it is missing, broken, empty, or has no column `target`.
    """
    pandas = require("pandas", "build")
    if path.suffix not in _SUFFIXES:
        raise SourceError(f"{path}: expected {', '.join(_SUFFIXES)}, got {path.suffix or 'no suffix'}")
    try:
        if path.suffix == ".csv":
            frame = pandas.read_csv(path)
        elif path.suffix == ".parquet":
            frame = pandas.read_parquet(path)
        else:
            frame = pandas.read_json(path, lines=path.suffix == ".jsonl")
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except FairleadError:
        raise
    except Exception as error:  # every reader has its own errors
        raise SourceError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    return without_target(frame, target, str(path))


def without_target(frame: pd.DataFrame, target: str | None, where: str) -> pd.DataFrame:
    """Take the target out of a sample.

    Raises
    ------
    SourceError
        When the sample is empty or has no such column.
    """
    if target is not None and target not in frame.columns:
        raise SourceError(f"{where}: no column {target!r}; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise SourceError(f"{where}: has no rows")
    return frame if target is None else frame.drop(columns=[target])


def feature_of(name: str, column: pd.Series[Any]) -> Feature:
    """Describe one column of a sample."""
    kind = _type_of(name, column)
    present = column.dropna()
    numbers = kind in ("int", "float") and len(present) > 0
    return Feature(
        name=name,
        type=kind,
        nullable=bool(column.isna().any()),
        categories=_categories(present) if kind == "string" else None,
        minimum=float(present.min()) if numbers else None,
        maximum=float(present.max()) if numbers else None,
    )


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Make records as a client would send them: plain Python values, null for NaN, datetimes as they are."""
    columns = {str(name): _plain(frame[name]) for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def example_of(record: dict[str, Any]) -> dict[str, Any]:
    """Make a record that JSON can hold."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def _plain(column: pd.Series[Any]) -> list[Any]:
    if column.dtype.kind == "M":
        return [
            None if missing else value.to_pydatetime() for value, missing in zip(column, column.isna(), strict=True)
        ]
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _type_of(name: str, column: pd.Series[Any]) -> FeatureType:
    kind = column.dtype.kind
    if kind in "bOU" or kind not in "iufM":
        kinds = {type(value) for value in column.dropna()}
        if kinds <= {bool, np.bool_} and kinds:
            return "bool"
        if kinds <= {str}:
            return "string"
        if kinds <= {int, float}:
            return "float"
        raise SchemaError(
            f"{name}: expected one of bool, int, float, string, datetime, "
            f"got {', '.join(sorted(kind.__name__ for kind in kinds))}: declare it with --schema"
        )
    names: dict[str, FeatureType] = {"i": "int", "u": "int", "f": "float", "M": "datetime"}
    return names[kind]


def _categories(present: pd.Series[Any]) -> tuple[Scalar, ...] | None:
    distinct = sorted(set(present.tolist()))
    return tuple(distinct) if len(distinct) <= _MOST_CATEGORIES else None
