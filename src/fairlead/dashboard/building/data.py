"""The rows that a dashboard explains: read from the user's file, checked by the bundle's schema, sampled.

Layer L3; pandas and pyarrow are imported when a file is read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.dashboard.rows.data_file import FileTable, Wanted, read_table
from fairlead.dashboard.rows.records import index_text
from fairlead.errors import DashboardError, InvalidRecords
from fairlead.extras import require
from fairlead.predict.tables import checked_table
from fairlead.schema import Problem, Scalar, Schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from fairlead.bundle.read import Bundle

DEFAULT_SAMPLE = 10_000
_SHOWN = 3


@dataclass(frozen=True)
class Observed:
    """Rows of the schema, and what was observed of each.

    Parameters
    ----------
    records : valid by the bundle's schema, with values as JSON has them: a datetime is text (RFC 3339).
    index : what each row is called, unique.
    y : of the same length; the class's number, int64 0..k-1, or what was measured, float64; None when nothing was.
    target : what the model predicts, for people.
    index_name : what the rows are, for people.
    labels : the classes as text, in the order of their numbers; None unless the model is a classifier.
    n_read : rows of the file, of which these are a sample.
    warnings : what the user should know.
    """

    records: list[dict[str, Any]]
    index: list[str]
    y: pd.Series[Any] | None
    target: str
    index_name: str
    labels: tuple[str, ...] | None
    n_read: int = 0
    warnings: tuple[str, ...] = ()


def observe(
    bundle: Bundle,
    path: Path,
    target: str | None,
    index: str | None,
    sample: int | None = DEFAULT_SAMPLE,
    seed: int = 47,
) -> Observed:
    """Read the rows to be explained.

    Parameters
    ----------
    path : CSV, Parquet or JSON by suffix; columns that are neither features nor named here are not read.
    target : the column with what was observed; None for rows of which nothing was.
    index : the column by which people find a row; None for its place in the file.
    sample : rows to draw at most, from each class in proportion; None for all.
    seed : of the draw.

    Raises
    ------
    DashboardError
        When the file is missing or broken, lacks a column, holds rows that the schema refuses, an index that names two
        rows, or a target that is not what the model predicts.
    """
    manifest = bundle.manifest
    classes = manifest.classes
    if sample is not None and sample < 2:
        raise DashboardError(f"expected a sample of 2 rows or more, got {sample}")
    if target in manifest.schema.names:
        raise DashboardError(f"{target}: is a feature of {manifest.name}, so it cannot be what the model predicts")
    others = [name for name in (target, index) if name is not None]
    is_text = classes is not None and all(isinstance(label, str) for label in classes)
    found = read_table(path, Wanted(manifest.schema.features, others, others if is_text else [index] if index else []))
    rows = _checked(path, found, manifest.schema)
    names = list(map(str, range(rows.num_rows))) if index is None else _names(path, index, found.table.column(index))
    kept: npt.NDArray[np.int64] = np.arange(rows.num_rows)
    y = None
    if target is not None:
        y = _observed(path, target, found.table.column(target).to_pylist(), classes)
        kept = np.flatnonzero(~np.isnan(y))
        _check_classes(path, target, y[kept], classes)
    if len(kept) < 2:
        raise DashboardError(f"{path}: expected 2 rows or more to explain, got {len(kept)}")
    if sample is not None:
        groups = np.zeros(len(kept)) if y is None or classes is None else y[kept]
        kept = kept[_drawn(groups, sample, seed)]
    pandas = require("pandas", "dashboard")
    chosen = [names[place] for place in kept]
    observed = None if y is None else y[kept].astype(np.float64 if classes is None else np.int64)
    return Observed(
        records=[_as_json(record) for record in rows.take(kept).to_pylist()],
        index=chosen,
        y=None if observed is None else pandas.Series(observed, index=chosen, name=target),
        target=target or "prediction",
        index_name=index or "row",
        labels=None if classes is None else tuple(map(_text, classes)),
        n_read=rows.num_rows,
        warnings=() if y is None else _left_out(path, str(target), y),
    )


def _checked(path: Path, found: FileTable, schema: Schema) -> pa.Table:
    """Bring the rows into the schema's types and order.

    Raises
    ------
    DashboardError
        With the first problems of the first rows that it refuses.
    """
    known = {name for feature in schema.features for name in (feature.name, feature.source)}
    features = found.table.select([name for name in found.table.column_names if name in known])
    try:
        checked = checked_table(features, schema)
    except InvalidRecords as error:
        raise DashboardError(f"{path}: the model's schema refuses it: {_listed(error.problems)}") from error
    # What could not be read is null in the table, and refused once more where null is.
    problems: Mapping[int, Sequence[Problem]] = {**checked.rejections, **found.problems}
    if problems:
        every = [problem for row in sorted(problems) for problem in problems[row]]
        raise DashboardError(
            f"{path}: the model's schema refuses {len(problems)} of {features.num_rows} rows: {_listed(every)}: "
            "mend them or leave them out"
        )
    return checked.table


def _listed(problems: Sequence[object]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(map(str, problems[:_SHOWN])) + more


def _names(path: Path, index: str, column: pa.ChunkedArray) -> list[str]:
    names = [index_text(name) for name in column.to_pylist()]
    empty = [place for place, name in enumerate(names) if not name]
    if empty:
        shown = ", ".join(map(str, empty[:_SHOWN]))
        raise DashboardError(f"{path}: the index {index!r} is empty in {len(empty)} rows, such as {shown} (from 0)")
    several = [f"{name!r} {count} times" for name, count in Counter(names).most_common(_SHOWN) if count > 1]
    if several:
        raise DashboardError(
            f"{path}: the index {index!r} is to name one row each, got {', '.join(several)}: "
            "name another column with --index, or none"
        )
    return [str(name) for name in names]


def _observed(path: Path, target: str, values: list[Any], classes: Sequence[Scalar] | None) -> npt.NDArray[np.float64]:
    """Give what was observed as numbers, those of the classes where there are any; NaN where nothing was.

    Raises
    ------
    DashboardError
        When it is not what the model predicts.
    """
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    present = [value for value in values if value is not None]
    if not present:
        raise DashboardError(f"{path}: {target!r} is empty in every row: expected what the model predicts")
    if classes is None:
        return _measured(path, target, values, present)
    numbers: dict[Any, int] = {label: number for number, label in enumerate(classes)}
    if all(isinstance(label, str) for label in classes):
        values = [value if value is None else _text(value) for value in values]
        present = [_text(value) for value in present]
    unknown = Counter(value for value in present if value not in numbers)
    if unknown:
        shown = ", ".join(f"{value!r}" for value, _ in unknown.most_common(_SHOWN))
        raise DashboardError(
            f"{path}: {target!r} holds {shown} in {unknown.total()} of {len(values)} rows: "
            f"expected the model's classes, {_choice(classes)}: is it what the model predicts?"
        )
    return np.array([numbers.get(value, np.nan) for value in values], dtype=np.float64)


def _measured(path: Path, target: str, values: list[Any], present: list[Any]) -> npt.NDArray[np.float64]:
    try:
        measured = np.array([np.nan if value is None else _number(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        odd = next(value for value in present if not _is_number(value))
        raise DashboardError(
            f"{path}: {target!r} holds {odd!r}: expected numbers, for a regression: is it what the model predicts?"
        ) from error
    if np.isinf(measured).any():
        raise DashboardError(f"{path}: {target!r} holds an infinity: expected finite numbers")
    return measured


def _number(value: Any) -> float:
    if isinstance(value, str | bool):
        raise TypeError
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        _number(value)
    except (TypeError, ValueError):
        return False
    return True


def _check_classes(path: Path, target: str, y: npt.NDArray[np.float64], classes: Sequence[Scalar] | None) -> None:
    """Refuse rows in which a class does not appear: there is no metric of it."""
    absent = [label for number, label in enumerate(classes or ()) if not (y == number).any()]
    if absent:
        raise DashboardError(
            f"{path}: {target!r} never is {_choice(absent)}: "
            f"expected rows of each class of the model, {_choice(classes or ())}"
        )


def _choice(classes: Sequence[Scalar]) -> str:
    return ", ".join(map(repr, classes[:12])) + (", …" if len(classes) > 12 else "")


def _left_out(path: Path, target: str, y: npt.NDArray[np.float64]) -> tuple[str, ...]:
    missing = int(np.isnan(y).sum())
    return (f"{path}: {missing} of {len(y)} rows have no {target!r} and are left out",) if missing else ()


def _drawn(groups: npt.NDArray[np.float64], sample: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw rows from each group in proportion, at least one, and give their places in order."""
    if sample >= len(groups):
        return np.arange(len(groups))
    values, counts = np.unique(groups, return_counts=True)
    shares = np.maximum(1, np.floor(counts * sample / len(groups)).astype(np.int64))
    # What rounding down left goes to the groups that it took most from; one row each may be more than was asked for.
    lost = counts * sample / len(groups) - shares
    for group in np.argsort(-lost, kind="stable")[: max(0, sample - int(shares.sum()))]:
        shares[group] += 1
    random = np.random.default_rng(seed)
    drawn = [
        random.choice(np.flatnonzero(groups == value), share, replace=False)
        for value, share in zip(values, shares, strict=True)
    ]
    places: npt.NDArray[np.int64] = np.sort(np.concatenate(drawn))
    return places


def _as_json(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _datetime(value) if isinstance(value, datetime) else value for name, value in record.items()}


def _datetime(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
