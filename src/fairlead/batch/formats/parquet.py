"""Parquet in and out, and tables on their way through a run.

Layer L3; imports pyarrow.

Source: https://arrow.apache.org/docs/cpp/parquet.html; ``ARROW:schema`` is the schema as an IPC message in base64.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.batch.formats.form import CHUNK_ROWS, Compression, Piece, ReadOptions, Rows
from fairlead.errors import InputError, InvalidRecords
from fairlead.predict.tables import checked_table
from fairlead.schema import Schema

# Row groups are read through a window of so many bytes a column, however large they are.
_WINDOW_BYTES = 1024 * 1024
_GROUP_ROWS = 4 * CHUNK_ROWS
# Small row groups are read together, so that chunks are not small as well.
_PIECE_ROWS = 16 * CHUNK_ROWS


class ParquetReader:
    """Reads a Parquet file. See `form.Reader`.

    Raises
    ------
    InputError
        When it is no Parquet file, or lacks a column.
    """

    def __init__(self, file: Any, where: str, schema: Schema, options: ReadOptions) -> None:
        self._where = where
        try:
            metadata = pq.read_metadata(file)
            found = metadata.schema.to_arrow_schema()
            self._file = pq.ParquetFile(
                file,
                metadata=metadata,
                read_dictionary=_words(found, schema),
                buffer_size=_WINDOW_BYTES,
                page_checksum_verification=True,
            )
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{where}: expected a Parquet file: {_first_line(error)}") from error
        self.n_rows: int | None = self._file.metadata.num_rows
        self.parser, self._columns, self.kept_schema = table_parser(found, where, schema, options)
        if options.keep is None and found.metadata:
            # What pandas says of its index holds as long as every column is there.
            self.kept_schema = self.kept_schema.with_metadata(found.metadata)

    @property
    def pieces(self) -> list[Piece]:
        metadata = self._file.metadata
        found: list[Piece] = []
        first = n_rows = 0
        for group in range(metadata.num_row_groups):
            n_rows += metadata.row_group(group).num_rows
            if n_rows >= _PIECE_ROWS or group == metadata.num_row_groups - 1:
                found.append((first, group + 1))
                first, n_rows = group + 1, 0
        return found

    def chunks(self, piece: Piece = None) -> Iterator[tuple[Any, float | None]]:
        pieces = self.pieces if piece is None else [piece]
        groups = [range(*found) for found in pieces if found is not None]
        total = sum(self._file.metadata.row_group(group).num_rows for each in groups for group in each)
        done = 0
        try:
            for each in groups:
                batches = self._file.iter_batches(CHUNK_ROWS, row_groups=list(each), columns=self._columns)
                for chunk in _gathered(batches):
                    done += chunk.num_rows
                    yield chunk, done / total
        except (pa.ArrowException, OSError) as error:
            told = f"{self._where}: broken after row {done:,} of {total:,}: {_first_line(error)}"
            raise InputError(f"{told}: have the file written again") from error


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Make chunks of batches, which end where a row group ends: another one has another list of words."""
    waiting: list[pa.RecordBatch] = []
    n_rows = 0
    for batch in batches:
        waiting.append(batch)
        n_rows += batch.num_rows
        if n_rows >= CHUNK_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, n_rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _words(found: pa.Schema, schema: Schema) -> list[str]:
    """Name the columns whose words are read as they are stored, as places in a list of words.

    Those of known categories: their codes are found once a word, however often it stands in the file.
    """
    features = [feature for feature in schema.features if feature.type == "string" and feature.categories]
    names = {name for feature in features for name in (feature.name, feature.source)}
    return [
        field.name
        for field in found
        if field.name in names and (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
    ]


class TableParser:
    """Makes rows of a chunk that is an Arrow table already.

    Parameters
    ----------
    keep : the names of the columns to keep.
    """

    def __init__(self, keep: Sequence[str]) -> None:
        self._keep = list(keep)

    def rows(self, chunk: pa.Table) -> Rows:
        return Rows(chunk, chunk.select(self._keep), chunk.num_rows)


def table_parser(
    found: pa.Schema, where: str, schema: Schema, options: ReadOptions
) -> tuple[TableParser, list[str], pa.Schema]:
    """Say how tables of a schema are read.

    Returns
    -------
    What makes rows of them; the names of the columns that are needed; and the schema of those that are kept.

    Raises
    ------
    InputError
        When a feature or a column to keep is not among the columns, or of another type.
    """
    twice = sorted({name for name in found.names if found.names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: expected columns of different names, got {twice[0]} twice")
    try:
        checked_table(found.empty_table(), schema)
    except InvalidRecords as error:
        raise InputError(f"{where}: {error}\nits columns are {', '.join(found.names)}") from error
    keep = kept_names(found.names, where, options)
    sources = {name for feature in schema.features for name in (feature.name, feature.source)}
    return TableParser(keep), [name for name in found.names if name in sources or name in keep], _schema(found, keep)


def kept_names(names: Sequence[str], where: str, options: ReadOptions) -> list[str]:
    """Choose the columns to keep.

    Raises
    ------
    InputError
        When one is not there.
    """
    missing = [name for name in options.keep or () if name not in names]
    if missing:
        raise InputError(f"{where}: expected the column {missing[0]} to keep, got {', '.join(names)}")
    return list(names if options.keep is None else options.keep)


def _schema(found: pa.Schema, keep: Sequence[str]) -> pa.Schema:
    return pa.schema([found.field(name) for name in keep])


class TableEncoder:
    """Leaves the columns of a table to the writer, which encodes them in order."""

    def encode(self, scored: Any) -> Any:
        return scored


class ParquetWriter:
    """Writes tables, a few of them in a row group. See `form.Writer`.

    Parameters
    ----------
    schema : what a reader of the file shall see. A column of text may come as a dictionary, and is stored as one.
    """

    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self._file = file
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, encoded: pa.Table) -> None:
        self._waiting.append(encoded)
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            self._write()

    def close(self) -> None:
        if self._waiting:
            self._write()
        if self._writer is None:
            self._writer = self._begin(self._schema)
        self._writer.close()

    def __del__(self) -> None:
        if self._writer is not None:
            # Of a run that was broken off: Arrow's would write the end of the file into one that is closed.
            self._writer.is_open = False

    def _write(self) -> None:
        group = pa.concat_tables(self._waiting).unify_dictionaries()
        self._waiting.clear()
        if self._writer is None:
            self._writer = self._begin(group.schema)
        self._writer.write_table(group)

    def _begin(self, stored: pa.Schema) -> pq.ParquetWriter:
        # Hardly two probabilities are the same: a dictionary of them would be given up after a megabyte.
        words = [field.name for field in stored if not pa.types.is_floating(field.type)]
        writer = pq.ParquetWriter(
            self._file, stored.remove_metadata(), use_dictionary=words, compression="snappy", store_schema=False
        )
        told = {"ARROW:schema": base64.b64encode(self._schema.serialize().to_pybytes()).decode()}
        metadata = {key.decode(): value.decode() for key, value in (self._schema.metadata or {}).items()}
        writer.add_key_value_metadata(metadata | told)
        return writer


def reader(
    file: Any, size_bytes: int, where: str, compression: Compression | None, schema: Schema, options: ReadOptions
) -> ParquetReader:
    """Open a Parquet file for reading; see `ParquetReader`."""
    return ParquetReader(file, where, schema, options)


def encoder(schema: pa.Schema, compression: Compression | None) -> TableEncoder:
    """Give what encodes for the writer."""
    return TableEncoder()


def writer(file: Any, schema: pa.Schema, compression: Compression | None) -> ParquetWriter:
    """Begin a Parquet file."""
    return ParquetWriter(file, schema)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
