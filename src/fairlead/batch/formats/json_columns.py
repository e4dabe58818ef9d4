"""Records become columns, for a format that has such: features by the schema, other keys by the values they had first.

Layer L3; imports pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from fairlead.batch.formats.form import Rows
from fairlead.batch.formats.json_lines import Lines, decoded, records_of
from fairlead.errors import InputError
from fairlead.predict.tables import arrow_type
from fairlead.predict.validate import INT64_MAX, INT64_MIN, Validator
from fairlead.schema import Feature, Schema

_MEND = "choose columns with --keep, or write JSONL"
_Record = dict[str, Any]


class _NoColumn(Exception):
    """Values that are of no type that a column can have; tells why."""


def kept_columns(records: Sequence[_Record], schema: Schema, keep: Sequence[str] | None, where: str) -> pa.Schema:
    """Give names and types of the columns to keep: all keys of some records and all features, or those to `keep`.

    Raises
    ------
    InputError
        When values of a key are of types that do not go together.
    """
    types = {feature.name: arrow_type(feature.type) for feature in schema.features}
    names = [*dict.fromkeys(chain(chain.from_iterable(records), types))] if keep is None else list(keep)
    fields: list[tuple[str, pa.DataType]] = []
    for name in names:
        try:
            kind = types.get(name) or _known(_type_of([record.get(name) for record in records]))
        except _NoColumn as error:
            raise InputError(
                f"{where}: {name}: expected values that a column can hold, got {error}: {_MEND}"
            ) from error
        fields.append((name, kind))
    return pa.schema(fields)


@dataclass(frozen=True)
class ColumnsParser:
    """Makes tables of lines. See `Parser`.

    Parameters
    ----------
    kept_schema : names and types of the columns to keep.
    is_all : whether these are all, so that no other key may come.
    where : path of the file, for messages.

    Raises
    ------
    InputError
        From `rows`, when a value does not fit its column, or a key comes that has none.
    """

    schema: Schema
    kept_schema: pa.Schema
    is_all: bool
    where: str

    def rows(self, chunk: Lines) -> Rows:
        values = decoded(chunk.text)
        records, places, rejections = records_of(values)
        checked = Validator(self.schema).check(records)
        for place, problems in checked.rejections.items():
            moved = int(places[place])
            rejections[moved] = tuple(problem.moved(moved) for problem in problems)
        if checked.rejections:
            places = places[list(checked.places)]
            records = [records[place] for place in checked.places]
        columns = zip(*checked.rows, strict=True) if checked.rows else ((),) * len(self.schema.features)
        table = pa.table(dict(zip(self.schema.names, map(_column, self.schema.features, columns), strict=True)))
        kept = self._kept(table, records, _Where(self.where, chunk, places))
        is_whole = not rejections
        return Rows(table, kept, len(values), None if is_whole else places, dict(sorted(rejections.items())))

    def _kept(self, table: pa.Table, records: Sequence[_Record], where: _Where) -> pa.Table:
        if self.is_all and (new := set().union(*records) - set(self.kept_schema.names)):
            row = next(row for row, record in enumerate(records) if not new.isdisjoint(record))
            name = next(key for key in records[row] if key in new)
            raise InputError(f"{where.line(row)} has a key {name}, which none of the first records has: {_MEND}")
        kept = table.select([])
        for field in self.kept_schema:
            column = table.column(field.name) if field.name in table.column_names else _fitted(field, records, where)
            kept = kept.append_column(field.name, column)
        return kept


@dataclass(frozen=True)
class _Where:
    """Tells lines of a file by rows; `places` are those of the rows among the lines that are not blank."""

    path: str
    lines: Lines
    places: Any

    def line(self, row: int) -> str:
        filled = [i for i, line in enumerate(self.lines.text.split(b"\n")) if line and not line.isspace()]
        return f"{self.path}: it changed its schema: line {self.lines.number + filled[self.places[row]]}"


def _column(feature: Feature, values: Sequence[Any]) -> pa.Array:
    column = pa.array(values, arrow_type(feature.type))
    return column.dictionary_encode() if feature.type == "string" and feature.categories else column


def _fitted(field: pa.Field, records: Sequence[_Record], where: _Where) -> pa.Array:
    values = [record.get(field.name) for record in records]
    if not _fits(field.type, values):
        row = next(row for row, value in enumerate(values) if not _fits(field.type, [value]))
        got = _told([values[row]])
        raise InputError(f"{where.line(row)}: {field.name}: expected {field.type}, got {got}: {_MEND}")
    if pa.types.is_floating(field.type):  # Arrow refuses integers that a float64 has no place for
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, field.type)


def _fits(kind: pa.DataType, values: Sequence[Any]) -> bool:
    try:
        return _covers(kind, _type_of(values))
    except _NoColumn:
        return False


def _covers(kind: pa.DataType, found: pa.DataType) -> bool:
    """Whether values of the type `found` fit into a column."""
    if pa.types.is_list(kind) and pa.types.is_list(found):
        return _covers(kind.value_type, found.value_type)
    if pa.types.is_struct(kind) and pa.types.is_struct(found):
        names = {field.name: field.type for field in kind}
        return all(field.name in names and _covers(names[field.name], field.type) for field in found)
    return bool(pa.types.is_null(found) or kind == found or (kind == pa.float64() and found == pa.int64()))


def _told(values: Sequence[Any]) -> str:
    try:
        return f"{_type_of(values)}"
    except _NoColumn as error:
        return str(error)


def _type_of(values: Iterable[Any]) -> pa.DataType:
    """Tell the type of a column of decoded JSON.

    Raises
    ------
    _NoColumn
        When there is none.
    """
    values = [value for value in values if value is not None]
    kinds = set(map(type, values))
    if not kinds:
        return pa.null()
    if kinds == {int} and not (min(values) >= INT64_MIN and max(values) <= INT64_MAX):
        raise _NoColumn("an integer beyond 64 bits")
    if kinds == {list}:
        return pa.list_(_type_of(chain.from_iterable(values)))
    if kinds == {dict}:
        names = dict.fromkeys(chain.from_iterable(values))
        if not names:
            raise _NoColumn("an empty object")
        return pa.struct([(name, _type_of([value.get(name) for value in values])) for name in names])
    if kinds == {int, float}:
        return pa.float64()
    if len(kinds) > 1:
        raise _NoColumn("values of different types")
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}[kinds.pop()]


def _known(kind: pa.DataType) -> pa.DataType:
    """Take what never came for text."""
    if pa.types.is_list(kind):
        return pa.list_(_known(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _known(field.type)) for field in kind])
    return pa.string() if pa.types.is_null(kind) else kind
