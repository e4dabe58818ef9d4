"""How features are shown: the schema's own, under names and as values that explainerdashboard can hold.

    record of the schema ──frame──▶ row of an explainer ──table, records──▶ the same record

What the library cannot hold goes by a stand-in, and comes back as what it was: a missing number is -999, a missing
word ``missing``, a bool ``true`` or ``false``, a datetime its RFC 3339 text, and ``<`` looks like ``‹``, because its
pages in one file escape nothing.

Layer L3; pandas and pyarrow are imported when a frame is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import UNSET

from fairlead.errors import DashboardError
from fairlead.predict.tables import arrow_type
from fairlead.predict.validate import EXPECTED
from fairlead.schema import Feature, Schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MISSING_NUMBER = -999.0
MISSING_WORD = "missing"
# How -999 itself is held in a column where it would mean missing.
_REAL = math.nextafter(MISSING_NUMBER, 0.0)
# Ids of Dash hold no dot and no brace; a click on a plot is cut at spaces and at `=` to find the name.
_NAME = str.maketrans({".": "․", "{": "(", "}": ")", " ": "\N{NO-BREAK SPACE}", "=": "＝", "<": "‹", ">": "›"})
_MARK = "\N{ZERO WIDTH SPACE}"  # tells a character or word from the one that stands in for another
_BEYOND = 2.0**63  # no integer of 64 bits; the predictor says so when it is left as it is
_RESERVED = frozenset({MISSING_WORD, "NaN"})  # the library takes NaN for a missing word, too
_PLAIN = {"‹": "<", "›": ">"}
_STAND_IN = re.compile(f"([‹›]?)({_MARK}*)")
_BOOLS: dict[str, bool | None] = {"false": False, "true": True, MISSING_WORD: None}


def shown_name(name: str) -> str:
    """Write a feature's name as one that Dash takes for an id.

    >>> shown_name("sepal.length")
    'sepal․length'
    """
    return name.translate(_NAME)


def shown_text(text: str) -> str:
    """Write text so that no page takes it for markup.

    >>> shown_text("<b>")
    '‹b›'
    """
    if _MARK not in text and "<" not in text and ">" not in text and "‹" not in text and "›" not in text:
        return text
    marked = text.replace(_MARK, 2 * _MARK).replace("‹", "‹" + _MARK).replace("›", "›" + _MARK)
    return marked.replace("<", "‹").replace(">", "›")


def meant_text(shown: str) -> str:
    """Give back what `shown_text` was given.

    >>> meant_text(shown_text("<b> ‹b›"))
    '<b> ‹b›'
    """
    if _MARK not in shown and "‹" not in shown and "›" not in shown:
        return shown
    return _STAND_IN.sub(_meant, shown)


def _meant(match: re.Match[str]) -> str:
    sign, marks = match.groups()
    is_plain = len(marks) % 2 == 0
    return (_PLAIN[sign] if sign and is_plain else sign) + _MARK * (len(marks) // 2)


class Display:
    """Goes between records of a schema and the frame that an explainer holds.

    Parameters
    ----------
    schema : of the records.

    Attributes
    ----------
    columns : what each feature is shown as, unique, in the schema's order.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.columns: list[str] = []
        for feature in schema.features:
            name = shown_name(feature.name)
            while name in self.columns:
                name += "'"
            self.columns.append(name)
        self._by_name = dict(zip(schema.names, self.columns, strict=True))

    def column(self, name: str) -> str:
        """Give what a feature is shown as; a name that is none's is written in the same way."""
        return self._by_name.get(name) or shown_name(name)

    def words(self) -> dict[str, list[str]]:
        """List the columns that hold words, with those that the schema knows."""
        return {
            column: _known_words(feature)
            for column, feature in zip(self.columns, self.schema.features, strict=True)
            if not _is_number(feature)
        }

    def fixed(self, column: str) -> bool:
        """Whether a column holds no words but those that the schema knows."""
        feature = self.schema.features[self.columns.index(column)]
        return feature.type == "bool" or (feature.type == "string" and self.schema.is_closed(feature))

    def whole(self) -> list[str]:
        """List the columns that hold integers."""
        return [c for c, feature in zip(self.columns, self.schema.features, strict=True) if feature.type == "int"]

    def frame(self, records: Sequence[Mapping[str, Any]], index: Sequence[str]) -> pd.DataFrame:
        """Make the frame of records.

        Parameters
        ----------
        records : valid by the schema; values as JSON has them, or as a validated row has.
        index : what each is called.

        Returns
        -------
        A column each of `columns`: float64, or int64 where nothing can be missing; words as objects, as a categorical
        where the schema knows them all.
        """
        import pandas as pd

        columns = {}
        for column, feature in zip(self.columns, self.schema.features, strict=True):
            default = None if feature.default is UNSET else feature.default
            values = [record.get(feature.name, default) for record in records]
            if _is_number(feature):
                columns[column] = pd.Series(_numbers(values, feature))
            else:
                kind = pd.CategoricalDtype(_known_words(feature)) if self.fixed(column) else object
                columns[column] = pd.Series([_word(value, feature) for value in values], dtype=kind)
        frame = pd.DataFrame(columns)
        frame.index = pd.Index([shown_text(name) for name in index], dtype=object)
        return frame

    def table(self, frame: pd.DataFrame) -> pa.Table:
        """Make the Arrow table that a predictor of the schema takes; other columns of the frame are left out.

        A number in a column of integers is rounded: a plot of the library's asks for such between them.

        Raises
        ------
        DashboardError
            When a column holds what `frame` would never put there.
        """
        import pyarrow as pa

        columns = [
            (_number_array if _is_number(feature) else _word_array)(frame[column], feature)
            for column, feature in zip(self.columns, self.schema.features, strict=True)
        ]
        return pa.table(columns, names=list(self.schema.names))

    def records(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """Give back the records of a frame, with values as JSON has them."""
        table = self.table(frame)
        columns = [
            [None if value is None else _rfc3339(value) for value in column.to_pylist()]
            if feature.type == "datetime"
            else column.to_pylist()
            for column, feature in zip(table.columns, self.schema.features, strict=True)
        ]
        return [dict(zip(self.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_number(feature: Feature) -> bool:
    return feature.type in ("int", "float")


def _known_words(feature: Feature) -> list[str]:
    known: list[str] = []
    if feature.type == "bool":
        known = ["false", "true"]
    elif feature.type == "string":
        known = [_word(value, feature) for value in feature.categories or ()]
    return [*known, MISSING_WORD] if feature.nullable else known


def _numbers(values: Sequence[Any], feature: Feature) -> Any:
    if not feature.nullable:
        return np.array(values, dtype=np.int64 if feature.type == "int" else np.float64)
    array = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    array[array == MISSING_NUMBER] = _REAL
    array[np.isnan(array)] = MISSING_NUMBER
    return array


def _word(value: Any, feature: Feature) -> str:
    if value is None:
        return MISSING_WORD
    if feature.type == "bool":
        return "true" if value else "false"
    if feature.type == "datetime":
        return _rfc3339(value)
    return value + _MARK if value in _RESERVED else shown_text(value)


def _rfc3339(value: str | datetime) -> str:
    moment = msgspec.convert(value, datetime)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _number_array(column: pd.Series[Any], feature: Feature) -> pa.Array:
    import pyarrow as pa

    values = column.to_numpy()
    if values.dtype.kind == "i" and not feature.nullable:
        return pa.array(values.astype(np.int64 if feature.type == "int" else np.float64))
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise _unfit(feature) from error
    missing = np.isnan(numbers)
    if feature.nullable:
        missing |= numbers == MISSING_NUMBER
        numbers = np.where(numbers == _REAL, MISSING_NUMBER, numbers)
    if feature.type == "int" and not (np.abs(numbers) >= _BEYOND).any():
        return pa.array(np.rint(np.where(missing, 0, numbers)).astype(np.int64), mask=missing)
    return pa.array(numbers, mask=missing)


def _word_array(column: pd.Series[Any], feature: Feature) -> pa.Array:
    """Look each word up once, however often it stands in the column."""
    import pandas as pd
    import pyarrow as pa

    try:
        codes, words = pd.factorize(column.to_numpy(dtype=object))
        meant = [_value(word, feature) for word in words]
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(feature) from error
    if feature.type != "string":
        return pa.array(meant, arrow_type(feature.type)).take(pa.array(codes, mask=codes < 0))
    missing = np.array([value is None for value in meant] + [True])[codes]
    words_array = pa.array(["" if value is None else value for value in meant], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=missing), words_array)


def _value(word: str, feature: Feature) -> Any:
    if feature.type == "bool":
        return _BOOLS[word]
    if word == MISSING_WORD:
        return None
    return msgspec.convert(word, datetime) if feature.type == "datetime" else meant_text(word)


def _unfit(feature: Feature) -> DashboardError:
    return DashboardError(
        f"{feature.name}: expected {EXPECTED[feature.type]}, as a dashboard shows it, got another value"
    )
