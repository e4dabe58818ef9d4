"""Rows of a file, brought into a form in which one of millions is found at once.

    rows.arrow     every row, compressed in batches of 1,024: to read one costs a batch, less than a millisecond
    digests.npy    where in it the row of an index is, see `keys`
    places.npy

Both are mapped into memory: what workers read is there once, and a small part of it. Layer L3; imports pyarrow.

Source: https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fairlead.dashboard.rows.chunks import Chunk, RowsFile, checked_schema
from fairlead.dashboard.rows.keys import Keys, KeysWriter
from fairlead.dashboard.rows.lookup import MAX_LISTED, Found
from fairlead.dashboard.rows.records import TOLD, json_record, refusal
from fairlead.errors import DashboardError
from fairlead.schema import Problem, Schema

_ROWS = "rows.arrow"
_BATCH_ROWS = 1024


def prepare_file(file: RowsFile, folder: Path, step: Callable[[str, float], None]) -> dict[str, Any]:
    """Write the rows of a file into `folder`, with the memory of some of them. See `prepare`."""
    told = f"rows of {file.path.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(_Writer(folder, file)) as writer:
            for chunk in file.chunks():
                writer.add(chunk)
                step(told, 0.95 * chunk.share)
            keys = writer.finish()
    except OSError as error:
        raise DashboardError(f"{folder}: rows cannot be written: {error.strerror or error}") from error
    with closing(_Batches(folder, file.schema)) as batches:
        _refuse_repeated(file, keys, batches)
        examples = list(islice(batches.indexes(), TOLD))
    step(told, 1.0)
    return {
        "kind": "file",
        "source": str(file.path.absolute()),
        "index": file.index,
        "target": file.target if writer.has_outcomes else None,
        "n_rows": writer.n_rows,
        "examples": examples,
    }


class FileSource:
    """Finds rows of a file that was prepared. See `Source`.

    Raises
    ------
    DashboardError
        When it is not there or broken.
    """

    ttl_s: float | None = None

    def __init__(self, folder: Path, part: Mapping[str, Any], schema: Schema) -> None:
        self._n_rows: int = part["n_rows"]
        self._folder = folder
        try:
            self._keys = Keys(folder)
            self._batches = _Batches(folder, schema)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._broken(error) from error

    def find(self, index: str) -> Found | None:
        try:
            for place in self._keys.places(index):
                found = self._batches.find(int(place), index)
                if found is not None:
                    return found
        except (OSError, IndexError, pa.ArrowException) as error:
            raise self._broken(error) from error
        return None

    def indexes(self) -> list[str] | None:
        return list(self._batches.indexes()) if self._n_rows <= MAX_LISTED else None

    def close(self) -> None:
        self._batches.close()

    def _broken(self, error: Exception) -> DashboardError:
        reason = str(error).partition("\n")[0]
        return DashboardError(f"{self._folder}: the dashboard's rows are broken: {reason}: build it again")


class _Writer:
    """Writes rows in their order, and counts what is wrong with them."""

    def __init__(self, folder: Path, file: RowsFile) -> None:
        self.n_rows = 0
        self.has_outcomes = False
        self._file = file
        self._keys = KeysWriter(folder)
        self._schema = _stored(file.schema)
        # Buffers of a batch that are read together are small: one thread is the fastest.
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        self._sink = pa.OSFile(str(folder / _ROWS), "wb")
        self._batches = pa.ipc.new_file(self._sink, self._schema, options=options)
        self._waiting = self._schema.empty_table()
        self._n_refused = 0
        self._problems: list[Problem] = []

    def add(self, chunk: Chunk) -> None:
        first = self.n_rows
        self.n_rows += len(chunk.indexes)
        indexes = [index for index in chunk.indexes if index]
        if len(indexes) < len(chunk.indexes):
            row = first + next(place for place, index in enumerate(chunk.indexes) if not index) + 1
            raise DashboardError(
                f"{self._file.path}: row {row:,} has no {self._file.index}: give each row an index to look it up by"
            )
        self._keys.add(indexes)
        self._refuse(chunk, first)
        if self._n_refused:
            return  # it will be refused: the rest is read to tell how much of it
        self.has_outcomes |= chunk.outcomes is not None
        outcomes = pa.nulls(len(indexes), pa.string()) if chunk.outcomes is None else pa.array(chunk.outcomes)
        columns = [*chunk.features.columns, pa.array(indexes, pa.string()), outcomes]
        table = pa.concat_tables([self._waiting, pa.Table.from_arrays(columns, schema=self._schema)]).combine_chunks()
        whole = table.num_rows - table.num_rows % _BATCH_ROWS
        self._write(table.slice(0, whole))
        self._waiting = table.slice(whole)

    def _write(self, table: pa.Table) -> None:
        if table.num_rows:
            self._batches.write_table(table, max_chunksize=_BATCH_ROWS)

    def _refuse(self, chunk: Chunk, first: int) -> None:
        self._n_refused += len(chunk.refused)
        for problems in chunk.refused.values():
            if len(self._problems) >= TOLD:
                break
            self._problems += [problem.shifted(first) for problem in problems]

    def finish(self) -> Keys:
        """Write the rest.

        Raises
        ------
        DashboardError
            When there was no row, or one that the schema refuses.
        """
        if self._n_refused:
            raise refusal(str(self._file.path), self._n_refused, self.n_rows, self._problems)
        if not self.n_rows:
            raise DashboardError(f"{self._file.path}: has no rows")
        self._write(self._waiting)
        self._batches.close()
        self._sink.close()
        return self._keys.finish()

    def close(self) -> None:
        self._keys.close()
        self._sink.close()


class _Batches:
    """Reads rows by their place. Threads may share it."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._names = schema.names
        self._map = pa.memory_map(str(folder / _ROWS))
        self._lock = threading.Lock()
        self._reader = pa.ipc.open_file(self._map, options=pa.ipc.IpcReadOptions(use_threads=False))
        if not self._reader.schema.equals(_stored(schema)):
            raise pa.ArrowInvalid("expected the columns of the dashboard's model, got others")

    def find(self, place: int, index: str) -> Found | None:
        """Give the row at a place, None when it is the one of another index."""
        *values, found, outcome = (column[0].as_py() for column in self._at(place).columns)
        if found != index:
            return None
        y = None if outcome is None else msgspec.json.decode(outcome)
        return Found(json_record(self._names, values), y)

    def index(self, place: int) -> str:
        return str(self._at(place).column(len(self._names))[0])

    def indexes(self) -> Iterator[str]:
        """Give the indexes in the file's order."""
        for batch in range(self._reader.num_record_batches):
            with self._lock:
                found = self._reader.get_batch(batch)
            yield from found.column(len(self._names)).to_pylist()

    def close(self) -> None:
        self._map.close()

    def _at(self, place: int) -> pa.RecordBatch:
        batch, row = divmod(place, _BATCH_ROWS)
        with self._lock:
            return self._reader.get_batch(batch).slice(row, 1)


def _stored(schema: Schema) -> pa.Schema:
    """Give the columns of the file: numbered, since an index may be called as a feature is."""
    kinds = [field.type for field in checked_schema(schema)]
    fields = [(f"feature {place}", kind) for place, kind in enumerate(kinds)]
    return pa.schema([*fields, ("index", pa.string()), ("outcome", pa.string())])


def _refuse_repeated(file: RowsFile, keys: Keys, batches: _Batches) -> None:
    repeated: list[str] = []
    for places in keys.shared():
        twice = _first_twice(places, batches)
        repeated += [] if twice is None else [twice]
        if len(repeated) == TOLD:
            break
    if repeated:
        raise DashboardError(
            f"{file.path}: {keys.count_shared():,} rows have a {file.index} that an earlier row has, such as "
            f"{', '.join(map(repr, repeated))}: expected one row of each"
        )


def _first_twice(places: npt.NDArray[np.unsignedinteger], batches: _Batches) -> str | None:
    seen: set[str] = set()
    for place in places:
        index = batches.index(int(place))
        if index in seen:
            return index
        seen.add(index)
    return None
