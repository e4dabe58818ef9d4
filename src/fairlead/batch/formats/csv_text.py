"""CSV: a header with the columns' names, then a record a line.

Values are read as over HTTP: an empty field is null. Where CSV is written too, all columns stay the text that they
are. A line with more or fewer fields than the header is a rejected row.

Layer L3; imports pyarrow when a file is read or written.

Source: RFC 4180
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fairlead.batch.formats.compression import TextStream
from fairlead.batch.formats.csv_lines import encoder, writer
from fairlead.batch.formats.csv_parser import CsvParser
from fairlead.batch.formats.csv_records import first_end, record_blocks
from fairlead.batch.formats.form import Compression, Parser, Piece, ReadOptions
from fairlead.batch.formats.text_blocks import Block
from fairlead.errors import InputError, InvalidRecords
from fairlead.predict.tables import arrow_type, checked_table
from fairlead.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CsvReader", "encoder", "reader", "writer"]


class CsvReader:
    """Reads a file of CSV. See `Reader`; its chunks are blocks of text.

    Raises
    ------
    InputError
        When it has no header, or that lacks a feature or a column to keep, or names a column twice.
    """

    n_rows: int | None = None
    pieces: Sequence[Piece] = (None,)

    def __init__(self, stream: TextStream, where: str, schema: Schema, options: ReadOptions) -> None:
        from fairlead.batch.formats.parquet import kept_names

        self._stream = stream
        self._blocks = record_blocks(stream, options.encoding, where)
        header, self._first = self._read_header(where)
        features = _features(header, schema, where)
        kept = tuple(header.index(name) for name in kept_names(header, where, options))
        parser = CsvParser(schema, header, features, kept, options.to == "csv", where)
        self.parser: Parser = parser
        self.kept_schema: pa.Schema = parser.kept_schema()

    def chunks(self, piece: Piece = None) -> Iterator[tuple[Block, float | None]]:
        if self._first.text:
            yield self._first, self._stream.share
        for block in self._blocks:
            yield block, self._stream.share

    def _read_header(self, where: str) -> tuple[tuple[str, ...], Block]:
        """Take the header off the first block."""
        for block in self._blocks:
            text = block.text.lstrip(b"\r\n")
            if text:
                start = block.start + len(block.text) - len(text)
                end = first_end(Block(start, text), where)
                return _header(text[:end], where), Block(start + end, text[end:])
        raise InputError(f"{where}: expected CSV with a header that names the columns, got an empty file")


def reader(
    file: Any, size_bytes: int, where: str, compression: Compression | None, schema: Schema, options: ReadOptions
) -> CsvReader:
    """Open a file of CSV for reading; see `CsvReader`."""
    return CsvReader(TextStream(file, size_bytes, where, compression), where, schema, options)


def _header(line: bytes, where: str) -> tuple[str, ...]:
    try:
        names = next(csv.reader(io.StringIO(line.decode(), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8, got another byte in the header: see --encoding") from error
    except csv.Error as error:
        raise InputError(f"{where}: expected CSV with a header, got a line of another form ({error})") from error
    if "" in names:
        place = names.index("") + 1
        raise InputError(f"{where}: expected a name for each column, got none for column {place} of {len(names)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: expected columns of different names, got {twice[0]} twice")
    return tuple(names)


def _features(header: tuple[str, ...], schema: Schema, where: str) -> dict[str, int]:
    """Find the features' columns, by their names or those of the training."""
    import pyarrow as pa

    names = {feature.name: feature.name if feature.name in header else feature.source for feature in schema.features}
    types = {names[feature.name]: arrow_type(feature.type) for feature in schema.features}
    try:
        checked_table(pa.schema([(name, types.get(name, pa.string())) for name in header]).empty_table(), schema)
    except InvalidRecords as error:
        raise InputError(f"{where}: {error}\nits columns are {', '.join(header)}") from error
    return {feature: header.index(name) for feature, name in names.items() if name in header}
