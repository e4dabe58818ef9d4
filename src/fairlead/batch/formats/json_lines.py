"""Lines of JSON become records, and what is none a rejection.

Layer L3; imports msgspec and numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from fairlead.batch.formats.form import Rows
from fairlead.predict.validate import type_name
from fairlead.schema import Problem

_BROKEN = object()
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Lines:
    """Some whole lines.

    Parameters
    ----------
    number : of the first line in the file, from 1.
    """

    number: int
    text: bytes


@dataclass(frozen=True)
class RecordsParser:
    """Makes records of lines, which keep the keys they have, or those to `keep`. See `Parser`."""

    keep: tuple[str, ...] | None

    def rows(self, chunk: Lines) -> Rows:
        values = decoded(chunk.text)
        records, places, rejections = records_of(values)
        kept = records
        if self.keep is not None:
            kept = [{name: record.get(name) for name in self.keep} for record in records]
        return Rows(records, kept, len(values), places if rejections else None, rejections)


def decoded(text: bytes) -> list[Any]:
    """Decode the lines that are not blank; what is no JSON in UTF-8 becomes something that is no record."""
    lines = [line for line in text.split(b"\n") if line and not line.isspace()]
    try:
        return list(map(_decode, lines))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return list(map(_decoded_line, lines))


def _decoded_line(line: bytes) -> Any:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _BROKEN


def records_of(
    values: list[Any],
) -> tuple[list[dict[str, Any]], npt.NDArray[np.int64], dict[int, tuple[Problem, ...]]]:
    """Part records from other values.

    Returns
    -------
    The records, their places among the values, and what is wrong with the other values by their places.
    """
    places = [place for place, value in enumerate(values) if isinstance(value, dict)]
    if len(places) == len(values):
        return values, np.arange(len(values)), {}
    rejections: dict[int, tuple[Problem, ...]] = {
        place: (Problem(f"$[{place}]", "a JSON object", _got(value)),)
        for place, value in enumerate(values)
        if not isinstance(value, dict)
    }
    return [values[place] for place in places], np.array(places, dtype=np.int64), rejections


def _got(value: object) -> str:
    return "text that is not JSON" if value is _BROKEN else type_name(value)
