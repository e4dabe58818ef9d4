"""Reads a file of rows piece by piece, CSV, Parquet or JSON lines, by suffix: as a dashboard's own data are read.

Layer L3; imports pyarrow, and pandas when a file is not Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.dashboard.rows.data_file import FileTable, Wanted, check_end, facts, typed
from fairlead.dashboard.rows.records import check_columns, index_text, outcome
from fairlead.errors import DashboardError, InvalidRecords
from fairlead.extras import require
from fairlead.predict.tables import arrow_type, checked_table
from fairlead.schema import Problem, Schema

CHUNK_ROWS = 1 << 16


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file, in its order.

    Parameters
    ----------
    features : a column a feature, in the schema's order, of `arrow_type`; without the rows that the schema refuses.
    indexes : of every row, None where it is missing.
    outcomes : what was observed of every row, as JSON; None when the file does not tell.
    refused : problems by place in the chunk.
    share : how much of the file is read, 0 to 1.
    """

    features: pa.Table
    indexes: list[str | None]
    outcomes: list[str] | None
    refused: Mapping[int, Sequence[Problem]]
    share: float


@dataclass(frozen=True)
class RowsFile:
    """A file of rows.

    Parameters
    ----------
    path : the file.
    schema : of the model.
    index, target : names of columns; of the latter there may be none in the file.
    """

    path: Path
    schema: Schema
    index: str
    target: str | None

    def chunks(self) -> Iterator[Chunk]:
        """Read the file from its beginning.

        Raises
        ------
        DashboardError
            When it is missing, broken, of another kind, or lacks a column.
        """
        readers: dict[str, Callable[[], Iterator[Chunk]]] = {
            ".csv": self._csv,
            ".parquet": self._parquet,
            ".jsonl": self._jsonl,
        }
        suffix = self.path.suffix
        if suffix not in readers:
            raise DashboardError(f"{self.path}: expected {', '.join(readers)}, got {suffix or 'no suffix'}")
        try:
            before = facts(self.path)
            yield from readers[suffix]()
            is_changed = facts(self.path) != before
        except FileNotFoundError as error:
            raise DashboardError(f"{self.path}: no such file") from error
        except InvalidRecords as error:
            raise DashboardError(f"{self.path}: its columns do not fit the model: {error}") from error
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # every reader has its own
            reason = str(error).partition("\n")[0]
            raise DashboardError(
                f"{self.path}: cannot be read as {suffix[1:]}: {reason}: have the file written again"
            ) from error
        if is_changed:
            raise DashboardError(f"{self.path}: changed while it was read: try again when it is written")

    def _csv(self) -> Iterator[Chunk]:
        pandas = require("pandas", "dashboard")
        columns = [str(name) for name in pandas.read_csv(self.path, nrows=0).columns]
        self._check(columns)
        check_end(self.path, len(columns))
        names, texts = self._wanted.of(columns), self._wanted.all_texts()
        kinds = {name: str for name in names if name in texts}
        has_target = self.target in columns
        with (
            self.path.open("rb") as file,
            pandas.read_csv(file, usecols=names, dtype=kinds, chunksize=CHUNK_ROWS) as frames,
        ):
            size = self.path.stat().st_size
            for frame in frames:
                outcomes = map(_read_outcome, frame[self.target]) if has_target else None
                yield self._chunk(typed(frame, self._wanted), frame[self.index], outcomes, file.tell() / size)

    def _jsonl(self) -> Iterator[Chunk]:
        pandas = require("pandas", "dashboard")
        own = self._features
        for records, share in self._records():
            frame = pandas.DataFrame([{name: record[name] for name in record if name in own} for record in records])
            indexes = [record.get(self.index) for record in records]
            outcomes = [record.get(self.target) for record in records] if self.target is not None else None
            yield self._chunk(typed(frame, self._wanted), indexes, outcomes, share)

    def _records(self) -> Iterator[tuple[list[dict[str, Any]], float]]:
        """Read JSON lines, some at a time, and how much of the file that is."""
        size = max(self.path.stat().st_size, 1)
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        done = 0
        with self.path.open("rb") as file:
            lines = enumerate(file, 1)
            while several := list(islice(lines, CHUNK_ROWS)):
                records = []
                for number, line in several:
                    done += len(line)
                    try:
                        if line.strip():
                            records.append(decode(line))
                    except msgspec.MsgspecError as error:
                        raise ValueError(f"line {number:,}: {error}") from error
                if records:
                    yield records, done / size

    def _parquet(self) -> Iterator[Chunk]:
        with closing(pq.ParquetFile(self.path, page_checksum_verification=True)) as file:
            columns = file.schema_arrow.names
            self._check(columns)
            wanted = self._wanted.of(columns)
            done = 0
            for batch in file.iter_batches(CHUNK_ROWS, columns=wanted):
                table = pa.Table.from_batches([batch])
                done += table.num_rows
                outcomes = table.column(self.target).to_pylist() if self.target in columns else None
                indexes = _texts(table.column(self.index))
                yield self._chunk(FileTable(table), indexes, outcomes, done / file.metadata.num_rows)

    @property
    def _features(self) -> set[str]:
        return {name for feature in self.schema.features for name in (feature.name, feature.source)}

    @property
    def _wanted(self) -> Wanted:
        others = [self.index] if self.target is None else [self.index, self.target]
        return Wanted(self.schema.features, others, others)

    def _chunk(self, found: FileTable, indexes: Iterable[Any], outcomes: Iterable[Any] | None, share: float) -> Chunk:
        own = self._features
        features = found.table.select([name for name in found.table.column_names if name in own])
        checked = checked_table(features, self.schema)
        return Chunk(
            checked.table.cast(checked_schema(self.schema)),
            [index_text(value) for value in indexes],
            None if outcomes is None else [msgspec.json.encode(outcome(value)).decode() for value in outcomes],
            # What could not be read is null in the table, and refused once more where null is.
            dict(sorted({**checked.rejections, **found.problems}.items())),
            share,
        )

    def _check(self, columns: Sequence[str]) -> None:
        if self.index not in columns:
            raise DashboardError(
                f"{self.path}: no column {self.index!r} to look rows up by; it has {', '.join(columns)}: see --index"
            )
        check_columns(columns, self.schema, str(self.path))


def checked_schema(schema: Schema) -> pa.Schema:
    """Give names and types of the columns of `Chunk.features`."""
    return pa.schema([(feature.name, arrow_type(feature.type)) for feature in schema.features])


def _texts(column: pa.ChunkedArray) -> list[Any]:
    """Give indexes, integers as text at once; what is text may be marked as bytes only."""
    kind = column.type
    is_cast = pa.types.is_integer(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    found: list[Any] = (column.cast(pa.string()) if is_cast else column).to_pylist()
    return found


def _read_outcome(text: Any) -> Any:
    """Read what was observed: a number or a truth where it is written as one, and ``007`` is not."""
    if not isinstance(text, str):
        return text
    try:
        value = msgspec.json.decode(text.lower() if text.lower() in ("true", "false") else text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, (bool, int, float)) else text
