"""Scored rows become lines of CSV: a header, then a line a row, each ended by a line feed.

Null is an empty field; an empty string is a pair of quotes, which readers that know no difference take for null too.
Fields are in quotes where they must be. Structs become columns, ``probabilities.LABEL``. Numbers are in their
shortest form that gives the same number again, NaN is null, times are as in RFC 3339.

Layer L3; imports pyarrow when something is written.

Source: RFC 4180
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from fairlead.batch.formats.compression import TextWriter, packed
from fairlead.batch.formats.form import Compression
from fairlead.errors import OutputError

if TYPE_CHECKING:
    import pyarrow as pa


class CsvEncoder:
    """Makes lines of tables. See `Encoder`."""

    def __init__(self, compression: Compression | None) -> None:
        self._compression = compression

    def encode(self, scored: pa.Table) -> bytes:
        if not scored.num_rows:
            return b""
        return packed(_lines(_flat(scored)), self._compression)


def encoder(schema: pa.Schema, compression: Compression | None) -> CsvEncoder:
    """Give what encodes for the writer.

    Raises
    ------
    OutputError
        When a column has no place in CSV, such as one of lists, or two have the same name there.
    """
    _check(_flat(schema.empty_table()).schema)
    return CsvEncoder(compression)


def writer(file: Any, schema: pa.Schema, compression: Compression | None) -> TextWriter:
    """Begin a file of CSV with its header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(_flat(schema.empty_table()).column_names)
    return TextWriter(file, compression, text.getvalue().encode())


def _flat(table: pa.Table) -> pa.Table:
    """Make columns of structs."""
    import pyarrow as pa

    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    return table


def _check(schema: pa.Schema) -> None:
    import pyarrow as pa

    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        try:
            if not (pa.types.is_nested(kind) or _is_binary(kind)):
                pa.nulls(0, kind).cast(pa.string())
                continue
        except pa.ArrowNotImplementedError:
            pass
        raise OutputError(
            f"{field.name}: expected a column that CSV can hold, got one of {kind}: write JSONL or Parquet, "
            "or leave it out with --keep"
        )
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise OutputError(f"expected columns of different names, got {twice[0]} twice: leave one out with --keep")


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(
        (pa.types.is_binary(kind), pa.types.is_large_binary(kind), pa.types.is_fixed_size_binary(kind))
    ) or pa.types.is_binary_view(kind)


def _lines(table: pa.Table) -> bytes:
    import numpy as np
    import pyarrow.compute as pc

    *columns, last = [_texts(column.combine_chunks()) for column in table.columns]
    nulls: dict[str, Any] = {"null_handling": "replace", "null_replacement": ""}
    last = pc.binary_join_element_wise(last, "", "\n", **nulls)
    lines = pc.binary_join_element_wise(*columns, last, ",", **nulls)
    # Strings of an array lie one after the other: they are the file already.
    _, places, text = lines.buffers()
    ends = np.frombuffer(places, np.int32)
    return text.slice(0, int(ends[len(lines)])).to_pybytes()  # type: ignore[no-any-return]  # pyarrow has no types


def _texts(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _texts(column.dictionary).take(column.indices)
    if pa.types.is_timestamp(kind):
        return _times(column)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    text = column.cast(pa.string())
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return _quoted(text) if is_text else text


def _times(column: pa.Array) -> pa.Array:
    """Write times in UTC where they have a zone, and as they are where they have none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    text = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
    return pc.replace_substring_regex(text, r"\.0+(Z?)\z", r"\1")


def _quoted(text: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    needs = pc.or_(pc.match_substring_regex(text, '[",\r\n]'), pc.equal(text, ""))
    if not pc.any(needs).as_py():
        return text
    inside = pc.replace_substring(text, '"', '""')
    return pc.if_else(needs, pc.binary_join_element_wise('"', inside, '"', ""), text)
