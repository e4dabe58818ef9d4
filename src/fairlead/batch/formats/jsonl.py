"""JSON Lines: a record a line, in UTF-8; blank lines are none.

A line that is no JSON object is a rejected row. Where JSON Lines are written too, a record keeps its own keys;
elsewhere there are columns: of the features, by the schema, and of the other keys in the first block, by their values
there.

Layer L3; imports pyarrow.

Source: https://jsonlines.org
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from fairlead.batch.formats.compression import TextStream, TextWriter, packed
from fairlead.batch.formats.form import Compression, Parser, Piece, ReadOptions
from fairlead.batch.formats.json_columns import ColumnsParser, kept_columns
from fairlead.batch.formats.json_lines import Lines, RecordsParser, decoded
from fairlead.batch.formats.text_blocks import Block, blocks
from fairlead.schema import Schema


class JsonReader:
    """Reads a file of JSON Lines. See `Reader`; its chunks are lines.

    Raises
    ------
    InputError
        When the first records have values that no column can hold.
    """

    n_rows: int | None = None
    pieces: Sequence[Piece] = (None,)

    def __init__(self, stream: TextStream, where: str, schema: Schema, options: ReadOptions) -> None:
        self._stream = stream
        self._blocks = blocks(stream.read, _cut, where)
        self._first = next(self._blocks, Block(0, b""))
        records = [record for record in decoded(self._first.text) if isinstance(record, dict)]
        self.parser: Parser
        if options.to == "jsonl":
            names = dict.fromkeys(key for record in records for key in record) if options.keep is None else options.keep
            self.kept_schema = pa.schema([(name, pa.string()) for name in names])  # of any type, in truth
            self.parser = RecordsParser(options.keep)
        else:
            self.kept_schema = kept_columns(records, schema, options.keep, where)
            self.parser = ColumnsParser(schema, self.kept_schema, options.keep is None, where)

    def chunks(self, piece: Piece = None) -> Iterator[tuple[Lines, float | None]]:
        number = 1
        block: Block | None = self._first
        while block is not None and block.text:
            yield Lines(number, block.text), self._stream.share
            number += block.text.count(b"\n")
            block = next(self._blocks, None)


class JsonEncoder:
    """Makes lines of records, or of a table. See `Encoder`.

    Times are as in RFC 3339, in UTC where they have a zone; NaN is null.
    """

    def __init__(self, compression: Compression | None) -> None:
        self._compression = compression

    def encode(self, scored: pa.Table | list[dict[str, Any]]) -> bytes:
        records = _in_utc(scored).to_pylist() if isinstance(scored, pa.Table) else scored
        if not records:
            return b""
        return packed(msgspec.json.Encoder(decimal_format="number").encode_lines(records), self._compression)


def reader(
    file: Any, size_bytes: int, where: str, compression: Compression | None, schema: Schema, options: ReadOptions
) -> JsonReader:
    """Open a file of JSON Lines for reading; see `JsonReader`."""
    return JsonReader(TextStream(file, size_bytes, where, compression), where, schema, options)


def encoder(schema: pa.Schema, compression: Compression | None) -> JsonEncoder:
    """Give what encodes for the writer."""
    return JsonEncoder(compression)


def writer(file: Any, schema: pa.Schema, compression: Compression | None) -> TextWriter:
    """Begin a file of JSON Lines."""
    return TextWriter(file, compression)


def _cut(block: Block, is_last: bool) -> int:
    return len(block.text) if is_last else block.text.rfind(b"\n") + 1


def _in_utc(table: pa.Table) -> pa.Table:
    """Bring times to UTC, and to the microseconds that Python has."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            kind = pa.timestamp("us", field.type.tz and "UTC")
            table = table.set_column(i, field.name, table.column(i).cast(kind, safe=False))
    return table
