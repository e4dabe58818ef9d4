"""First step of a prediction: records become rows of the schema, or a list of all that is wrong.

The common case is one call into msgspec, which checks and converts every record in C, from decoded
objects or straight from JSON. Only when that refuses are the records walked one by one in Python, to
name each problem of each.

Layer L1; imports msgspec and numpy only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta

from fairlead.schema import Feature, Problem, Schema

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_TYPES: dict[str, Any] = {
    "bool": bool,
    "int": Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)],
    "float": float,
    "string": str,
    "datetime": datetime,
}
EXPECTED = {
    "bool": "a boolean",
    "int": "an integer",
    "float": "a number",
    "string": "a string",
    "datetime": "a date and time (RFC 3339)",
}
# JSON's own grammar of numbers, so that a value means the same in text and in a body. An integer may end in
# `.0`, because that is how pandas writes a column of integers with nulls.
_INT_TEXT = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_FLOAT_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BOOL_TEXT = {"true": True, "false": False}
# Names that msgspec takes for no field; records with such are read one by one.
_NOT_A_FIELD = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
_NOT_ONE = "text that is not one"
Row = tuple[Any, ...]
_astuple = msgspec.structs.astuple


@dataclass(frozen=True)
class Validated:
    """Rows that passed, and what was wrong with the others.

    Parameters
    ----------
    rows : values in the schema's order, one tuple for each record that passed.
    places : where each of `rows` stood in the input.
    rejections : problems by place in the input.
    ignored_keys : keys that are no feature, over all records.
    """

    rows: list[Row]
    places: Sequence[int]
    rejections: dict[int, tuple[Problem, ...]] = field(default_factory=dict)
    ignored_keys: int = 0


class Validator:
    """Checks decoded records against a schema.

    Parameters
    ----------
    schema : what is accepted.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._names = frozenset(schema.names)
        self._all_required = all(feature.default is UNSET for feature in schema.features)
        self._rows_type: Any = None
        self._decode_row: Callable[[bytes], Any] | None = None
        if not any(map(_NOT_A_FIELD.search, schema.names)):
            self._rows_type = list[_row_type(schema, schema.extra == "forbid")]  # type: ignore[misc]  # a type made here
            # Straight from JSON nobody sees other keys, which have to be counted: it refuses them.
            self._decode_row = msgspec.json.Decoder(_row_type(schema, True)).decode
        self._closed = [
            (i, frozenset(feature.categories or ()) | ({None} if feature.nullable else set()))
            for i, feature in enumerate(schema.features)
            if schema.is_closed(feature)
        ]
        self._floats = [i for i, feature in enumerate(schema.features) if feature.type == "float"]
        self._datetimes = [i for i, feature in enumerate(schema.features) if feature.type == "datetime"]
        self._by_name = {feature.name: feature for feature in schema.features}

    def check(self, records: Sequence[object]) -> Validated:
        """Check every record; never raises for what is in them.

        Parameters
        ----------
        records : decoded JSON objects; anything else among them is a problem of its own.
        """
        if self._rows_type is None:
            return self._check_each(records)
        try:
            structs: list[Any] = msgspec.convert(records, self._rows_type)
            rows: list[Row] = list(map(_astuple, structs))
            if self._datetimes:
                rows = [self._in_utc(row) for row in rows]
        except (msgspec.ValidationError, OverflowError):
            return self._check_each(records)
        if self._closed and not all(self._in_categories(row) for row in rows):
            return self._check_each(records)
        if not all(self._is_finite(row) for row in rows):
            return self._check_each(records)
        return Validated(rows, range(len(rows)), ignored_keys=self._count_ignored(records))

    def read(self, body: bytes) -> Row | None:
        """Read one record straight from JSON, in one step and without an object in between.

        Returns
        -------
        Its row; None for all that `check` has to look at: a record with a problem or with other keys, a
        body that is no record at all.
        """
        if self._decode_row is None:
            return None
        try:
            row: Row = _astuple(self._decode_row(body))
            if self._datetimes:
                row = self._in_utc(row)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError):
            return None
        # JSON has no NaN and no infinities, and a number too large for a float is an error above.
        return None if self._closed and not self._in_categories(row) else row

    def row_type(self, others: Mapping[str, Any], *, takes_unseen: bool = True) -> type[msgspec.Struct] | None:
        """Give what msgspec decodes a record of JSON as, for `rows`; None where it cannot.

        Parameters
        ----------
        others : names that a record has besides its features, and their types; the attributes are ``o0`` and so on.
        takes_unseen : whether strings outside the known categories are taken. One type that takes none is read, and
            encoded afterwards, in a quarter less time: each string is the one that is known, and none is made.
        """
        if self._rows_type is None or any(map(_NOT_A_FIELD.search, others)):
            return None
        return _row_type(self.schema, True, others, takes_unseen)

    def rows(self, records: Sequence[msgspec.Struct]) -> list[Row] | None:
        """Make rows of records that were decoded as `row_type`; None where one needs `check`, as of `read`."""
        rows: list[Row] = list(map(_astuple, records))
        if rows and len(rows[0]) > (n := len(self.schema.features)):
            rows = [row[:n] for row in rows]
        if self._datetimes:
            try:
                rows = [self._in_utc(row) for row in rows]
            except OverflowError:
                return None
        # JSON has no NaN and no infinities, and a number too large for a float is an error of the decoder's.
        return None if self._closed and not all(map(self._in_categories, rows)) else rows

    def parse_text(self, fields: Mapping[str, str]) -> tuple[dict[str, object], list[Problem]]:
        """Read values written as text, as in a query string or CSV, by the features' types.

        Returns
        -------
        A record to be checked, without the fields that could not be read; and a problem for each of
        those, at ``$.name``. An empty field is null.
        """
        record: dict[str, object] = {}
        problems: list[Problem] = []
        for name, text in fields.items():
            feature = self._by_name.get(name)
            if feature is None:
                record[name] = text
                continue
            try:
                record[name] = _parse(feature, text)
            except ValueError as error:
                problems.append(Problem(child_path("$", name), EXPECTED[feature.type], str(error)))
        return record, problems

    def _check_each(self, records: Sequence[object]) -> Validated:
        rows: list[Row] = []
        places: list[int] = []
        rejections: dict[int, tuple[Problem, ...]] = {}
        good: list[object] = []
        for place, record in enumerate(records):
            row, problems = self._read(record, f"$[{place}]")
            if problems:
                rejections[place] = tuple(problems)
            else:
                rows.append(row)
                places.append(place)
                good.append(record)
        return Validated(rows, places, rejections, self._count_ignored(good))

    def _read(self, record: object, path: str) -> tuple[Row, list[Problem]]:
        if not isinstance(record, Mapping):
            return (), [Problem(path, "an object", type_name(record))]
        values: list[Any] = []
        problems: list[Problem] = []
        for feature in self.schema.features:
            here = child_path(path, feature.name)
            if feature.name in record:
                value, found = _read_value(feature, record[feature.name], here, self.schema.is_closed(feature))
                values.append(value)
                problems += found
            elif feature.default is UNSET:
                problems.append(Problem(here, EXPECTED[feature.type], "nothing"))
            else:
                values.append(default_of(feature))
        if self.schema.extra == "forbid":
            unknown = {str(key): value for key, value in record.items() if key not in self._names}
            problems += [
                Problem(child_path(path, key), "no such feature", type_name(value)) for key, value in unknown.items()
            ]
        return tuple(values), problems

    def _in_utc(self, row: Row) -> Row:
        return tuple(_in_utc(value) if i in self._datetimes else value for i, value in enumerate(row))

    def _in_categories(self, row: Row) -> bool:
        return all(row[i] in known for i, known in self._closed)

    def _is_finite(self, row: Row) -> bool:
        # NaN and infinities are not JSON, but Python callers can send them.
        return all((value := row[i]) is None or value - value == 0 for i in self._floats)

    def _count_ignored(self, records: Sequence[Any]) -> int:
        if self._all_required:
            return sum(map(len, records)) - len(records) * len(self._names)
        return sum(len(record.keys() - self._names) for record in records)


def _row_type(
    schema: Schema, forbid_other_keys: bool, others: Mapping[str, Any] | None = None, takes_unseen: bool = True
) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = []
    for i, feature in enumerate(schema.features):
        kind = _TYPES[feature.type]
        if not takes_unseen and feature.type == "string" and feature.categories:
            kind = Literal[feature.categories]
        kind = kind | None if feature.nullable else kind
        default = msgspec.NODEFAULT if feature.default is UNSET else default_of(feature)
        fields.append((f"f{i}", kind, default))
    others = others or {}
    fields += [(f"o{i}", kind, msgspec.NODEFAULT) for i, kind in enumerate(others.values())]
    rename = {f"f{i}": feature.name for i, feature in enumerate(schema.features)}
    return msgspec.defstruct(
        "Row",
        fields,
        rename=rename | {f"o{i}": name for i, name in enumerate(others)},
        kw_only=True,
        frozen=True,
        gc=False,
        forbid_unknown_fields=forbid_other_keys,
    )


def default_of(feature: Feature) -> Any:
    """Give a feature's default as a row holds it."""
    return None if feature.default is None else _in_utc(msgspec.convert(feature.default, _TYPES[feature.type]))


def _read_value(feature: Feature, value: object, path: str, closed: bool) -> tuple[Any, list[Problem]]:
    if value is None:
        return None, [] if feature.nullable else [Problem(path, EXPECTED[feature.type], "null")]
    value = _python_value(value)
    try:
        read = _in_utc(msgspec.convert(value, _TYPES[feature.type]))
    except (msgspec.ValidationError, OverflowError):
        return None, [Problem(path, EXPECTED[feature.type], _got(feature, value))]
    if isinstance(read, float) and not math.isfinite(read):
        return None, [Problem(path, "a finite number", "NaN" if math.isnan(read) else "an infinity")]
    if closed and read not in (feature.categories or ()):
        return None, [Problem(path, known_categories(feature), f"another {feature.type}")]
    return read, []


def _python_value(value: object) -> object:
    """Give what a numpy scalar or a pandas Timestamp stands for, as callers in Python send them."""
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return value.item()
    if isinstance(value, datetime) and type(value) is not datetime:
        try:
            return datetime.combine(value.date(), value.timetz())
        except ValueError:  # pandas's NaT, which is a datetime without a date
            return value
    return value


def _in_utc(value: Any) -> Any:
    """Bring a datetime to UTC, which one without a zone is taken to be in, as in an Arrow table.

    Raises
    ------
    OverflowError
        When it is outside the years 1 to 9999 there.
    """
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _got(feature: Feature, value: object) -> str:
    if feature.type in ("int", "float") and isinstance(value, int) and not isinstance(value, bool):
        return "an integer beyond 64 bits" if feature.type == "int" else "a number too large"
    if feature.type == "datetime" and isinstance(value, str):
        return "a string of another form"
    return type_name(value)


def known_categories(feature: Feature) -> str:
    """Say which values a closed feature takes."""
    known = feature.categories or ()
    return f"one of {', '.join(map(str, known[:12]))}{', …' if len(known) > 12 else ''}"


def child_path(path: str, name: str) -> str:
    """Extend a JSONPath: ``$[3].tenure``, or ``$[3]["monthly charges"]`` where no plain name will do."""
    if name.isidentifier():
        return f"{path}.{name}"
    # A lone surrogate cannot be written in UTF-8; only a caller in Python can send one.
    return f"{path}[{msgspec.json.encode(name.encode(errors='backslashreplace').decode()).decode()}]"


def _parse(feature: Feature, text: str) -> object:
    """Read a field; a `ValueError` tells what it is instead."""
    if text == "":
        return None
    if feature.type == "bool":
        if text.lower() not in _BOOL_TEXT:
            raise ValueError(_NOT_ONE)
        return _BOOL_TEXT[text.lower()]
    if feature.type == "int":
        return _parse_int(text)
    if feature.type == "float":
        if not _FLOAT_TEXT.fullmatch(text):
            raise ValueError(_NOT_ONE)
        if not math.isfinite(number := float(text)):
            raise ValueError("a number too large")
        return number
    if feature.type == "datetime":
        try:
            return _in_utc(msgspec.convert(text, datetime))
        except (msgspec.ValidationError, OverflowError) as error:
            raise ValueError(_NOT_ONE) from error
    return text


def _parse_int(text: str) -> int:
    match = _INT_TEXT.fullmatch(text)
    if match is None:
        raise ValueError(_NOT_ONE)
    # Twenty characters hold any number of 64 bits; Python takes long over, or refuses, very long ones.
    if len(match[1]) > 20 or not INT64_MIN <= (number := int(match[1])) <= INT64_MAX:
        raise ValueError("an integer beyond 64 bits")
    return number


def type_name(value: object) -> str:
    """Name a value's type as JSON does, with its article; never the value."""
    names: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number"),
        (str, "a string"),
        (Mapping, "an object"),
        (list, "an array"),
        (tuple, "an array"),
    )
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), f"a {type(value).__name__}")
