"""What PostgreSQL's driver gives becomes columns that a predictor takes and a file can hold.

Layer L3; imports pyarrow.

Source: https://arrow.apache.org/adbc/current/driver/postgresql.html#supported-types
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from fairlead.batch.formats.form import Rows
from fairlead.batch.formats.parquet import TableParser
from fairlead.schema import Feature, Schema


@dataclass(frozen=True)
class PostgresParser:
    """Makes rows of what the driver gives. See `Parser`."""

    schema: Schema
    tables: TableParser

    def rows(self, chunk: pa.Table) -> Rows:
        return self.tables.rows(plain_table(chunk, self.schema))


def plain_table(table: pa.Table, schema: Schema) -> pa.Table:
    """Bring columns to types that files have too.

    ``numeric`` becomes float64 for a feature and where no precision is declared, and a decimal elsewhere; ``uuid``
    and JSON become text; a date becomes a time for a feature.
    """
    features = {name: feature for feature in schema.features for name in (feature.name, feature.source)}
    columns = [
        _plain(column, field, features.get(field.name))
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _plain(column: pa.ChunkedArray, field: pa.Field, feature: Feature | None) -> pa.ChunkedArray:
    kind = field.type
    if isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric":
        text = _storage(column)
        # Its NaN has no place in a decimal, and is null wherever it goes.
        text = pc.if_else(pc.equal(text, "nan"), pa.scalar(None, pa.string()), text)
        return text.cast(pa.float64() if feature is not None else _decimal(field))
    if isinstance(kind, pa.UuidType):
        return pa.chunked_array([[None if v is None else str(_uuid(v)) for v in column.to_pylist()]], pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return _storage(column)
    if feature is not None and feature.type == "datetime" and pa.types.is_date(kind):
        return column.cast(pa.timestamp("us"))
    if feature is not None and feature.type == "string" and feature.categories and pa.types.is_string(kind):
        return column.dictionary_encode()
    return column


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(bytes=value)


def _decimal(field: pa.Field) -> pa.DataType:
    """Read how a ``numeric`` was declared: ``((precision << 16) | scale) + 4``, or -1 where it was not."""
    declared = int((field.metadata or {}).get(b"POSTGRESQL:typmod", -1)) - 4
    precision, scale = declared >> 16, declared & 0x7FF
    return pa.decimal128(precision, scale) if 0 <= scale <= precision <= 38 and declared > 0 else pa.float64()
