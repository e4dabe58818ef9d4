"""A file of rows as an Arrow table: the columns that are wanted, each read as what its feature is.

CSV and JSON have no types of their own: a text that is none of its feature's type is a problem of its row, and a class
or an index stays the text that it is. Layer L3; pandas and pyarrow are imported when a file is read.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead.errors import DashboardError
from fairlead.extras import require
from fairlead.predict.validate import EXPECTED, child_path
from fairlead.schema import Feature, Problem

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TAIL_BYTES = 1 << 16
_TRUTH = {"true": True, "false": False, True: True, False: False}


@dataclass(frozen=True)
class Wanted:
    """What is to be read of a file.

    Parameters
    ----------
    features : found by name, or by the column that the model was trained with.
    others : further columns, which have to be there.
    texts : those of `others` that are text whatever they look like: ``007`` is no number.
    """

    features: Sequence[Feature]
    others: Sequence[str] = ()
    texts: Collection[str] = ()

    def of(self, columns: Sequence[str]) -> list[str]:
        """Pick from the columns that there are."""
        known = {name for feature in self.features for name in (feature.name, feature.source)} | set(self.others)
        return [name for name in columns if name in known]

    def all_texts(self) -> set[str]:
        """Name the columns that are not to be guessed at: of text, and of datetimes, which are read afterwards."""
        kinds = ("string", "datetime")
        features = {name for one in self.features if one.type in kinds for name in (one.name, one.source)}
        others = {name for one in self.features if one.type not in kinds for name in (one.name, one.source)}
        return features | (set(self.texts) - others)


@dataclass(frozen=True)
class FileTable:
    """What was read.

    Parameters
    ----------
    table : a row each, in the file's order.
    problems : of texts that are none of their feature's type, by row; they are null in the table.
    """

    table: pa.Table
    problems: dict[int, list[Problem]] = field(default_factory=dict)


def read_table(path: Path, wanted: Wanted) -> FileTable:
    """Read a file by its suffix.

    Raises
    ------
    DashboardError
        When it is missing, broken, cut off, being written, or lacks one of the other columns.
    """
    require("pyarrow", "dashboard")
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DashboardError(f"{path}: expected {', '.join(_READERS)}, got {path.suffix or 'no suffix'}")
    try:
        before = facts(path)
        found = reader(path, wanted)
        is_changed = facts(path) != before
    except DashboardError:
        raise
    except FileNotFoundError as error:
        raise DashboardError(f"{path}: no such file") from error
    except Exception as error:  # every reader has its own errors
        raise DashboardError(f"{path}: cannot be read as {path.suffix[1:]}, maybe half-written: {error}") from error
    if is_changed:
        raise DashboardError(f"{path}: changed while it was read: try again when it is written")
    return found


def facts(path: Path) -> tuple[int, int, int]:
    """Give what changes when a file is written to."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_parquet(path: Path, wanted: Wanted) -> FileTable:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _check_columns(path, names, wanted)
        return FileTable(file.read(columns=wanted.of(names)))


def _read_csv(path: Path, wanted: Wanted) -> FileTable:
    pandas = require("pandas", "dashboard")
    columns = [str(name) for name in pandas.read_csv(path, nrows=0).columns]
    _check_columns(path, columns, wanted)
    check_end(path, len(columns))
    names, texts = wanted.of(columns), wanted.all_texts()
    frame = pandas.read_csv(path, usecols=names, dtype={name: str for name in names if name in texts})
    return typed(frame, wanted)


def _read_json(path: Path, wanted: Wanted) -> FileTable:
    pandas = require("pandas", "dashboard")
    content = path.read_bytes()
    # pandas's own reader guesses at types, and is off by a last place.
    records = msgspec.json.Decoder().decode_lines(content) if path.suffix == ".jsonl" else msgspec.json.decode(content)
    frame = pandas.DataFrame(records)
    _check_columns(path, list(map(str, frame.columns)), wanted)
    return typed(frame[wanted.of(list(frame.columns))], wanted)


_READERS: dict[str, Callable[[Path, Wanted], FileTable]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".json": _read_json,
}


def _check_columns(path: Path, there: Sequence[str], wanted: Wanted) -> None:
    for name in wanted.others:
        if name not in there:
            raise DashboardError(f"{path}: no column {name!r}; it has {', '.join(there)}")


def check_end(path: Path, n_columns: int) -> None:
    """Refuse a file that ends in the middle of a row, whose missing fields pandas takes for nulls."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    last = tail.rpartition(b"\n")[2].decode(errors="replace")
    n_fields = len(next(csv.reader([last]), []))
    if last and n_fields < n_columns:
        raise DashboardError(
            f"{path}: its last row has {n_fields} of {n_columns} fields: it is half-written, wait for the rest"
        )


def typed(frame: pd.DataFrame, wanted: Wanted) -> FileTable:
    """Read what came as text, or as nothing in particular, as what its feature is."""
    import pyarrow as pa

    problems: dict[int, list[Problem]] = {}
    columns: dict[str, Any] = {}
    for feature in wanted.features:
        name = next((name for name in (feature.name, feature.source) if name in frame), None)
        if name is None or frame[name].dtype.kind in "biuf":
            continue
        if feature.type != "string":
            columns[name] = read = _parsed(frame[name], feature)
            for row in (read.isna() & frame[name].notna()).to_numpy().nonzero()[0].tolist():
                problem = Problem(child_path(f"$[{row}]", feature.name), EXPECTED[feature.type], "text that is not one")
                problems.setdefault(row, []).append(problem)
    return FileTable(pa.Table.from_pandas(frame.assign(**columns), preserve_index=False), problems)


def _parsed(column: pd.Series[Any], feature: Feature) -> pd.Series[Any]:
    """Read texts; what cannot be read becomes null."""
    pandas = require("pandas", "dashboard")
    parsed: pd.Series[Any]
    if feature.type == "datetime":
        # In UTC, which one without a zone is taken to be in.
        parsed = pandas.to_datetime(column, utc=True, errors="coerce", format="ISO8601").dt.tz_convert(None)
    elif feature.type == "bool":
        parsed = column.map(lambda value: _TRUTH.get(value.lower() if isinstance(value, str) else value))
    else:
        parsed = pandas.to_numeric(column, errors="coerce")
    return parsed
