"""Arrow's IPC stream in and out: a column a feature, a column an output.

What comes is anybody's bytes: sizes that it declares are added up before anything is allocated, and all offsets are
checked before any is followed.

Source: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format;
https://github.com/apache/arrow/blob/main/format/Message.fbs
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlead.bundle.manifest import Manifest
from fairlead.errors import InvalidRecords
from fairlead.extras import require
from fairlead.predict.intake import Intake
from fairlead.predict.tables import checked_table
from fairlead.predict.validate import EXPECTED, Validated, child_path
from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.dialects import Content
from fairlead.web.dialects.accept import ARROW
from fairlead.web.dialects.outputs import Column, columns_of
from fairlead.web.dialects.rows import Write
from fairlead.web.problems import Refusal, invalid, invalid_array

if TYPE_CHECKING:
    import pyarrow as pa

# What Python's datetime holds, the years 1 to 9999, in microseconds since 1970.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_RECORD_BATCH, _DICTIONARY = 3, 2
# Rows take room when they are answered, even those of columns that take none in Arrow.
_ROWS_A_BYTE = 1


def source(body: bytes, intake: Intake, max_body_bytes: int) -> ArrowRows:
    """Read a stream and check its columns.

    Raises
    ------
    Refusal
        ``bad_request`` when it is broken; ``too_large`` when more comes out of compression and dictionaries
        than a body may have; ``invalid_records`` with every problem.
    MissingExtra
        When pyarrow is not installed.
    """
    require("pyarrow", "build")
    import pyarrow as pa

    try:
        table = _read(body, max_body_bytes)
        checked = checked_table(table, intake.schema)
        too_late = _beyond_datetime(checked.table, intake)
    except InvalidRecords as error:
        raise invalid(error.problems, "the columns") from error
    except (pa.ArrowException, ValueError, KeyError, OverflowError, MemoryError, struct.error, IndexError) as error:
        raise _broken() from error
    rejections = checked.rejections | too_late
    if rejections:
        raise invalid_array(rejections, table.num_rows)
    intake.counts.ignored_keys += checked.ignored_keys
    return ArrowRows(checked.table)


class ArrowRows:
    """Rows of a table that was checked, made into Python's values when their turn has come.

    Parameters
    ----------
    table : a column a feature, in the schema's order.
    """

    def __init__(self, table: pa.Table) -> None:
        self.n_rows: int = table.num_rows
        self._table = table

    def take(self, start: int, stop: int) -> Validated:
        columns = [_values(column.slice(start, stop - start)) for column in self._table.columns]
        return Validated(list(zip(*columns, strict=True)), range(start, stop))


def _values(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    if column.null_count or not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        values: list[Any] = column.to_pylist()
        return values
    numbers: list[Any] = column.to_numpy().tolist()
    return numbers


def _read(body: bytes, max_body_bytes: int) -> pa.Table:
    import pyarrow as pa

    _check_declared(body, max_body_bytes)
    with pa.ipc.open_stream(body) as reader:
        table = reader.read_all()
    if table.num_rows > _ROWS_A_BYTE * len(body):
        raise _broken()
    table.validate(full=True)
    for column in table.columns:
        _check_decoded(column, max_body_bytes)
    return table


def _check_declared(body: bytes, max_body_bytes: int) -> None:
    """Refuse a stream whose compressed buffers would be larger than a body may be."""
    import pyarrow as pa

    total = 0
    messages = pa.ipc.MessageReader.open_stream(body)
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            break
        if message.type in ("record batch", "dictionary"):
            total += _declared_bytes(message.metadata.to_pybytes(), message.body)
            wire.check_size(total, max_body_bytes)


def _declared_bytes(metadata: bytes, body: pa.Buffer | None) -> int:
    """Add up what a batch's buffers are after decompression; 0 when they are not compressed."""
    message = _Flat(metadata, struct.unpack_from("<I", metadata, 0)[0])
    batch = message.table(2)
    if batch is not None and message.byte(1) == _DICTIONARY:
        batch = batch.table(1)
    if batch is None or batch.field(3) is None or body is None:
        return 0
    total = 0
    for offset, length in batch.pairs(2):
        if length >= 8:
            (declared,) = struct.unpack_from("<q", body, offset)
            total += length if declared == -1 else declared
            if declared < -1:
                raise ValueError("a buffer of negative size")
    return total


class _Flat:
    """A table in a flatbuffer. Source: https://flatbuffers.dev/internals/."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._fields = place - struct.unpack_from("<i", data, place)[0]

    def field(self, number: int) -> int | None:
        """Give where a field is; None when it is left out."""
        (size,) = struct.unpack_from("<H", self._data, self._fields)
        at = 4 + 2 * number
        if self._fields < 0 or at + 2 > size:
            return None
        (offset,) = struct.unpack_from("<H", self._data, self._fields + at)
        return self._place + int(offset) if offset else None

    def byte(self, number: int) -> int:
        place = self.field(number)
        return 0 if place is None else self._data[place]

    def table(self, number: int) -> _Flat | None:
        place = self.field(number)
        return None if place is None else _Flat(self._data, place + struct.unpack_from("<I", self._data, place)[0])

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Read a vector of structs of two 64-bit integers."""
        place = self.field(number)
        if place is None:
            return []
        place += struct.unpack_from("<I", self._data, place)[0]
        (count,) = struct.unpack_from("<I", self._data, place)
        end = place + 4 + 16 * count
        return list(struct.iter_unpack("<qq", memoryview(self._data)[place + 4 : end]))


def _check_decoded(column: pa.ChunkedArray, max_body_bytes: int) -> None:
    """Refuse a column that is short only because its values are shared, as of a dictionary."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            if pa.types.is_string(chunk.type.value_type) or pa.types.is_large_string(chunk.type.value_type):
                total += pc.sum(pc.binary_length(chunk.dictionary).cast(pa.int64()).take(chunk.indices)).as_py() or 0
            elif pa.types.is_nested(chunk.type.value_type) or pa.types.is_string_view(chunk.type.value_type):
                raise ValueError("a dictionary of other than plain values")
        elif pa.types.is_string_view(chunk.type):
            total += sum(len(value) for value in chunk.to_numpy(zero_copy_only=False) if value is not None)
        wire.check_size(total, max_body_bytes)


def _beyond_datetime(table: pa.Table, intake: Intake) -> dict[int, tuple[Problem, ...]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rejections: dict[int, tuple[Problem, ...]] = {}
    for feature, column in zip(intake.schema.features, table.columns, strict=True):
        if feature.type != "datetime":
            continue
        us = column.cast(pa.int64())
        odd = pc.or_(pc.less(us, _FIRST_US), pc.greater(us, _LAST_US))
        for place in np.flatnonzero(np.asarray(pc.fill_null(odd, False))).tolist():
            path = child_path(f"$[{place}]", feature.name)
            rejections[place] = (*rejections.get(place, ()), Problem(path, EXPECTED["datetime"], "another date"))
    return rejections


def _broken() -> Refusal:
    return Refusal("bad_request", "expected an Arrow IPC stream with a column a feature, got a broken one")


def writer(manifest: Manifest) -> Write:
    """Make what writes predictions as an Arrow stream; probabilities are a struct of a float64 a class."""
    require("pyarrow", "build")
    import pyarrow as pa

    columns = columns_of(manifest)

    def write(predictions: list[Any]) -> Content:
        table = pa.table({column.name: _array(column, predictions) for column in columns})
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
        return Content(out.getvalue().to_pybytes(), ARROW)

    return write


def _array(column: Column, predictions: list[Any]) -> pa.Array:
    import pyarrow as pa

    if column.type == "json":
        # A user's own function may give anything; what Arrow finds no type for is written as JSON.
        with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
            return pa.array([prediction[column.name] for prediction in predictions])
    return pa.array(column.values(predictions), type=_arrow_type(column))


def _arrow_type(column: Column) -> Any:
    import pyarrow as pa

    if column.type == "probabilities":
        return pa.struct([(label, pa.float64()) for label in column.labels])
    return {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}.get(column.type, pa.string())
