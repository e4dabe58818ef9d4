"""What every file format can do: read a file in chunks, make rows of a chunk, and write scored rows.

A chunk is read in the reading thread, turned into rows and scored wherever there is a free core (in a thread, in
another process, on another machine), encoded there too, and written in order.

Layer L3; imports numpy, and pyarrow for types only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fairlead.schema import Problem

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 32_768
FormatName = Literal["parquet", "csv", "jsonl"]
Compression = Literal["gzip", "zstd"]
# A range of row groups, from the first to before the second; None for a whole file.
Piece = tuple[int, int] | None


@dataclass
class Rows:
    """The rows of a chunk, ready for the predictor.

    Parameters
    ----------
    data : what `Predictor` takes: an Arrow table, or a list of records.
    kept : the columns to keep, row by row those of `data`: a table, or a list of dicts where the rows are records.
    n_rows : rows in the chunk, those that could not be read among them.
    places : int64, where each row of `data` stood in the chunk, counted from 0; None where all are there.
    rejections : problems by place in the chunk, of rows that are not in `data`. Their paths begin with
        ``$[place]``.
    """

    data: pa.Table | list[Any]
    kept: pa.Table | list[dict[str, Any]]
    n_rows: int
    places: npt.NDArray[np.int64] | None = None
    rejections: dict[int, tuple[Problem, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    Parameters
    ----------
    keep : the names of the columns to keep; None for all.
    to : the format that is written: text that came from CSV stays as it is in CSV, records stay records in JSONL.
    encoding : of CSV.
    """

    keep: tuple[str, ...] | None = None
    to: FormatName = "parquet"
    encoding: str = "utf-8"


class Parser(Protocol):
    """Makes rows of chunks. Runs in any thread, and is pickled to run in other processes."""

    def rows(self, chunk: Any) -> Rows: ...


class Reader(Protocol):
    """An open input.

    Attributes
    ----------
    n_rows : how many rows there are, None where that is not known before they are read.
    kept_schema : names and types of the columns that are kept, the same for all chunks, and there also for an
        empty file.
    parser : makes rows of its chunks.
    """

    n_rows: int | None
    kept_schema: pa.Schema
    parser: Parser

    @property
    def pieces(self) -> Sequence[Piece]:
        """The pieces that the file may be read in, on different machines; the whole where it has no such."""
        ...

    def chunks(self, piece: Piece = None) -> Iterator[tuple[Any, float | None]]:
        """Read the file, or a piece of it: chunks in order, each with the share of it read so far, where known.

        No chunk is of two pieces. The same file gives the same chunks, whatever the machine. Not more than one is
        held. A chunk can be pickled.

        Raises
        ------
        InputError
            When the file is no such file, or breaks off.
        """
        ...


class Encoder(Protocol):
    """Makes of scored rows what the writer writes. Runs in any thread, and is pickled to run in other processes."""

    def encode(self, scored: pa.Table | list[dict[str, Any]]) -> Any: ...


class Writer(Protocol):
    """Writes what its encoder made, in order."""

    def write(self, encoded: Any) -> None: ...

    def close(self) -> None:
        """Write what ends the file; the file object itself stays open."""
        ...
