"""Records and frames become requests, and the answers take the form of what was given.

Imports msgspec only; pandas and numpy are looked for where a caller has brought them.

Source: RFC 8259 section 6 (JSON has no NaN and no infinities), RFC 3339 section 5.6 (datetimes)
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard
from uuid import uuid4

import msgspec

from fairlead.errors import InvalidRecords
from fairlead.schema import Problem

if TYPE_CHECKING:
    import pandas as pd

MAX_BODY_BYTES = 10 * 1024 * 1024  # what a server takes
_AS_IS = frozenset({str, int, bool, type(None)})


@dataclass(frozen=True)
class Request:
    """One HTTP request, which keeps its id when it is sent again.

    Parameters
    ----------
    url : whom it is for.
    body : of a POST, JSON; None for a GET.
    start : the place of its first record among the caller's; None when one came alone.
    rows : how many records are in it.
    id : sent as ``X-Request-Id``.
    """

    url: str
    body: bytes | None = None
    start: int | None = None
    rows: int = 1
    id: str = field(default_factory=lambda: uuid4().hex)


def count(data: Any) -> int:
    """Count the records.

    Raises
    ------
    TypeError
        When it is neither a frame, a list nor a record.
    """
    if isinstance(data, Mapping):
        return 1
    if not _is_frame(data) and not isinstance(data, list | tuple):
        raise TypeError(f"expected a DataFrame, a list of records or a record, got {type(data).__name__}")
    return len(data)


def requests(url: str, data: Any, max_rows: int) -> Iterator[Request]:
    """Write the records while they are asked for, as many into a body as it may hold.

    Raises
    ------
    InvalidRecords
        At the first that JSON cannot hold.
    """
    if isinstance(data, Mapping):
        yield Request(url, _line(data, "$"))
        return
    lines: list[bytes] = []
    size, start = 2, 0
    for place, line in enumerate(_lines(data, max_rows)):
        if lines and (len(lines) == max_rows or size + len(line) > MAX_BODY_BYTES):
            yield _of_lines(url, lines, start)
            lines, size, start = [], 2, place
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield _of_lines(url, lines, start)


def in_form_of(data: Any, answers: list[dict[str, Any]]) -> Any:
    """Give a dict for a record, a frame with the same index for a frame, and else the list as it is."""
    if isinstance(data, Mapping):
        return answers[0]
    if not _is_frame(data):
        return answers
    import pandas as pd

    return pd.DataFrame(answers, index=data.index, columns=list(answers[0]) if answers else None)


def _is_frame(data: object) -> TypeGuard[pd.DataFrame]:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _of_lines(url: str, lines: list[bytes], start: int) -> Request:
    return Request(url, b"[" + b",".join(lines) + b"]", start, len(lines))


def _lines(data: Any, max_rows: int) -> Iterator[bytes]:
    rows = _rows(data, max_rows) if _is_frame(data) else data
    for place, record in enumerate(rows):
        yield _line(record, f"$[{place}]")


def _rows(frame: pd.DataFrame, max_rows: int) -> Iterator[dict[str, Any]]:
    """Take a frame apart, so many rows at once that it never stands in memory a second time."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise InvalidRecords([Problem("$", "columns of different names", "one name twice")])
    for start in range(0, len(frame), max_rows):
        part = frame.iloc[start : start + max_rows]
        columns = [part.iloc[:, i].astype(object).tolist() for i in range(len(names))]
        for row in zip(*columns, strict=True) if names else itertools.repeat((), len(part)):
            yield dict(zip(names, row, strict=True))


def _line(record: object, path: str) -> bytes:
    """Write one record; what is no object is the server's to refuse."""
    if isinstance(record, Mapping):
        record = {name: v if _is_json(v) else _plain(v, path, name) for name, v in record.items()}
    try:
        return msgspec.json.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRecords([Problem(path, "values that JSON can hold", str(error))]) from error


def _is_json(value: Any) -> bool:
    # The difference is 0 unless the number is NaN or infinite.
    return type(value) in _AS_IS or (type(value) is float and value - value == 0.0)


def _plain(value: Any, path: str, name: str) -> object:
    """Give what JSON has for a value; pandas and numpy need not be there when none of theirs comes."""
    if (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic):
        is_time = isinstance(value, numpy.datetime64)
        value = value.astype("datetime64[us]").item() if is_time else value.item()
    if (pandas := sys.modules.get("pandas")) is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    if isinstance(value, float | Decimal):
        return _finite(float(value), path, name)
    if isinstance(value, datetime):
        # Of a Timestamp, what is below a microsecond is left out, as where a frame is predicted without a server.
        value = datetime.combine(value.date(), value.timetz())
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return value


def _finite(value: float, path: str, name: str) -> float | None:
    if math.isinf(value):
        from fairlead.predict.validate import child_path

        # msgspec would write null, which means something else.
        raise InvalidRecords([Problem(child_path(path, name), "a finite number", "an infinity")])
    return None if math.isnan(value) else value
