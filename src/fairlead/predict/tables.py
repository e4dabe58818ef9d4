"""Arrow tables on their way to the engine: columns picked, types checked, bad rows set aside.

The counterpart of `validate` for many rows at once. Layer L1; pyarrow is imported when a table comes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from fairlead.errors import InvalidRecords
from fairlead.schema import Feature, Problem, Schema

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class CheckedTable:
    """The rows of a table that passed.

    Parameters
    ----------
    table : a column a feature, in the schema's order and under its names; NaN has become null.
    places : int64, where each row stood in the input.
    rejections : problems by place in the input.
    """

    table: pa.Table
    places: npt.NDArray[np.int64]
    rejections: dict[int, tuple[Problem, ...]] = field(default_factory=dict)


def is_table(data: object) -> TypeGuard[pa.Table]:
    """Whether `data` is an Arrow table, without importing pyarrow to know."""
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(data, pyarrow.Table)


def checked_table(table: pa.Table, schema: Schema) -> CheckedTable:
    """Check a table against a schema.

    Raises
    ------
    InvalidRecords
        When a column is missing, of another type, or, with ``extra: forbid``, too many.
    """
    import pyarrow as pa

    problems: list[Problem] = []
    columns: list[pa.ChunkedArray] = []
    for feature in schema.features:
        found = _column(table, feature)
        if found is None:
            problems.append(Problem(f"$.{feature.name}", f"a column of {feature.type}", "none"))
        elif (cast := _cast(found, feature)) is None:
            problems.append(Problem(f"$.{feature.name}", f"a column of {feature.type}", f"one of {found.type}"))
        else:
            columns.append(cast)
    if schema.extra == "forbid":
        known = {feature.name for feature in schema.features} | {feature.source for feature in schema.features}
        problems += [Problem(f"$.{name}", "no such column", "one") for name in table.column_names if name not in known]
    if problems:
        raise InvalidRecords(problems)
    picked = pa.table(dict(zip(schema.names, columns, strict=True)))
    return _without_bad_rows(picked, schema)


def _column(table: pa.Table, feature: Feature) -> pa.ChunkedArray | None:
    import pyarrow as pa

    for name in (feature.name, feature.source):
        if name in table.column_names:
            return table.column(name)
    if feature.default is UNSET:
        return None
    return pa.chunked_array([pa.array([feature.default] * table.num_rows, type=_arrow_type(feature))])


def _arrow_type(feature: Feature) -> Any:
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "string": pa.string(),
        "datetime": pa.timestamp("us", tz="UTC"),
    }[feature.type]


def _cast(column: pa.ChunkedArray, feature: Feature) -> pa.ChunkedArray | None:
    """Bring a column to its feature's type, or None where that would change what it says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if pa.types.is_floating(kind):
        # pandas writes null as NaN, and turns integers with nulls into floats.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    fits = {
        "bool": pa.types.is_boolean(kind),
        "int": is_number,
        "float": is_number,
        "string": pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind),
        "datetime": pa.types.is_timestamp(kind),
    }[feature.type]
    if not (fits or pa.types.is_null(kind)):
        return None
    try:
        return column.cast(_arrow_type(feature))
    except pa.ArrowInvalid:
        return None


def _without_bad_rows(table: pa.Table, schema: Schema) -> CheckedTable:
    rejections: dict[int, list[Problem]] = {}
    for feature, column in zip(schema.features, table.columns, strict=True):
        for mask, expected, got in _bad(feature, column, schema.is_closed(feature)):
            for place in np.flatnonzero(mask).tolist():
                rejections.setdefault(place, []).append(Problem(f"$[{place}].{feature.name}", expected, got))
    keep = np.ones(table.num_rows, dtype=bool)
    keep[list(rejections)] = False
    if rejections:
        table = table.filter(keep)
    return CheckedTable(table, np.flatnonzero(keep), {place: tuple(found) for place, found in rejections.items()})


def _bad(feature: Feature, column: pa.ChunkedArray, closed: bool) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    if column.null_count and not feature.nullable:
        found.append((np.asarray(column.is_null()), f"a {feature.type}", "null"))
    if feature.type == "float":
        infinite = np.asarray(pc.fill_null(pc.is_inf(column), False))
        if infinite.any():
            found.append((infinite, "a finite number", "an infinity"))
    if closed:
        known = pa.array(list(feature.categories or ()), type=column.type)
        unknown = np.asarray(pc.and_(pc.invert(pc.is_in(column, value_set=known)), column.is_valid()))
        if unknown.any():
            found.append((unknown, "one of the known categories", f"another {feature.type}"))
    return found
