"""Arrow tables on their way to the engine: columns picked, types checked, bad rows set aside.

The counterpart of `validate` for many rows at once. Layer L1; pyarrow is imported when a table comes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from fairlead.errors import InvalidRecords
from fairlead.predict.validate import EXPECTED, INT64_MAX, child_path, default_of, known_categories
from fairlead.schema import Feature, FeatureType, Problem, Schema

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class CheckedTable:
    """The rows of a table that passed.

    Parameters
    ----------
    table : a column a feature, in the schema's order and under its names; NaN has become null. A string's column may
        be a dictionary.
    places : int64, where each row stood in the input.
    rejections : problems by place in the input.
    ignored_keys : values in columns that are no feature, in the rows that passed.
    """

    table: pa.Table
    places: npt.NDArray[np.int64]
    rejections: dict[int, tuple[Problem, ...]] = field(default_factory=dict)
    ignored_keys: int = 0


# Rows of a column that are wrong: which, what was expected, what came.
_Bad = tuple[npt.NDArray[np.bool_], str, str]


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
    bad: list[list[_Bad]] = []
    for feature in schema.features:
        wanted = f"a column of {feature.type}"
        count = sum(name in (feature.name, feature.source) for name in table.column_names)
        if count > 1 and table.column_names.count(feature.name) != 1:
            problems.append(Problem(child_path("$", feature.name), wanted, f"{count} columns"))
        elif (found := _column(table, feature)) is None:
            problems.append(Problem(child_path("$", feature.name), wanted, "none"))
        elif (cast := _cast(found, feature)) is None:
            problems.append(Problem(child_path("$", feature.name), wanted, f"one of {found.type}"))
        else:
            columns.append(cast[0])
            bad.append(cast[1] + _bad(feature, cast[0], cast[1], schema.is_closed(feature)))
    known = {feature.name for feature in schema.features} | {feature.source for feature in schema.features}
    extra = [name for name in table.column_names if name not in known]
    if schema.extra == "forbid":
        problems += [Problem(child_path("$", name), "no such column", "one") for name in extra]
    if problems:
        raise InvalidRecords(problems)
    picked = pa.table(dict(zip(schema.names, columns, strict=True)))
    return _without_bad_rows(picked, schema, bad, len(extra))


def _column(table: pa.Table, feature: Feature) -> pa.ChunkedArray | None:
    import pyarrow as pa

    for name in (feature.name, feature.source):
        if name in table.column_names:
            return table.column(name)
    if feature.default is UNSET:
        return None
    return pa.chunked_array([pa.array([default_of(feature)] * table.num_rows, type=arrow_type(feature.type))])


def arrow_type(kind: FeatureType) -> pa.DataType:
    """Give the type that a feature's column is brought to."""
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "string": pa.string(),
        "datetime": pa.timestamp("us", tz="UTC"),
    }[kind]


def _cast(column: pa.ChunkedArray, feature: Feature) -> tuple[pa.ChunkedArray, list[_Bad]] | None:
    """Bring a column to its feature's type, with the rows that have no place in it; None when it is of another."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        if feature.type == "string" and _is_text(column.type.value_type) and not _has_null_word(column):
            return column, []
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_floating(kind):
        # pandas writes null as NaN, and turns integers with nulls into floats.
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    fits = {
        "bool": pa.types.is_boolean(kind),
        "int": is_number,
        "float": is_number or pa.types.is_decimal(kind),
        "string": _is_text(kind),
        "datetime": pa.types.is_timestamp(kind),
    }[feature.type]
    if not (fits or pa.types.is_null(kind)):
        return None
    if pa.types.is_decimal(kind):
        column = column.cast(pa.string())  # Arrow's own cast is off by a last place, that of text is exact
    bad = _not_integers(column) if feature.type == "int" else []
    for mask, _, _ in bad:
        column = pc.if_else(pa.array(mask), pa.scalar(None, column.type), column)
    # Of what is cut off there remain the digits that float64 cannot hold, and what is below a microsecond.
    is_loss_meant = feature.type == "float" or (feature.type == "datetime" and kind != pa.null() and kind.unit == "ns")
    try:
        return column.cast(arrow_type(feature.type), safe=not is_loss_meant), bad
    except pa.ArrowInvalid:
        return None


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _has_null_word(column: pa.ChunkedArray) -> bool:
    """Whether null stands among the words of a dictionary, where a count of nulls does not see it."""
    return any(chunk.dictionary.null_count for chunk in column.chunks)


def _not_integers(column: pa.ChunkedArray) -> list[_Bad]:
    """Find numbers that are no 64-bit integers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_uint64(column.type):
        large = np.asarray(pc.fill_null(pc.greater(column, pa.scalar(INT64_MAX, pa.uint64())), False))
        return [(large, "an integer", "an integer beyond 64 bits")] if large.any() else []
    if not pa.types.is_floating(column.type):
        return []
    values = column.to_numpy()
    with np.errstate(invalid="ignore"):
        broken = ~np.isnan(values) & ~((values == np.floor(values)) & (values >= -(2.0**63)) & (values < 2.0**63))
    return [(broken, "an integer", "a number")] if broken.any() else []


def _without_bad_rows(table: pa.Table, schema: Schema, bad: list[list[_Bad]], n_extra: int) -> CheckedTable:
    rejections: dict[int, list[Problem]] = {}
    for feature, found in zip(schema.features, bad, strict=True):
        for mask, expected, got in found:
            for place in np.flatnonzero(mask).tolist():
                path = child_path(f"$[{place}]", feature.name)
                rejections.setdefault(place, []).append(Problem(path, expected, got))
    keep = np.ones(table.num_rows, dtype=bool)
    keep[list(rejections)] = False
    if rejections:
        table = table.filter(keep)
    ordered = {place: tuple(rejections[place]) for place in sorted(rejections)}
    return CheckedTable(table, np.flatnonzero(keep), ordered, n_extra * table.num_rows)


def _bad(feature: Feature, column: pa.ChunkedArray, told: list[_Bad], closed: bool) -> list[_Bad]:
    """Find rows that the schema refuses, beyond those `told` already, which are null by now."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[_Bad] = []
    if column.null_count and not feature.nullable:
        missing = np.asarray(column.is_null())
        for mask, _, _ in told:
            missing &= ~mask
        if missing.any():
            found.append((missing, EXPECTED[feature.type], "null"))
    infinite = np.zeros(len(column), dtype=bool)
    if feature.type == "float":
        infinite = np.asarray(pc.fill_null(pc.is_inf(column), False))
        if infinite.any():
            found.append((infinite, "a finite number", "an infinity"))
    if closed:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        known = pa.array(list(feature.categories or ()), type=column.type)
        unknown = np.asarray(pc.and_(pc.invert(pc.is_in(column, value_set=known)), column.is_valid())) & ~infinite
        if unknown.any():
            found.append((unknown, known_categories(feature), f"another {feature.type}"))
    return found
