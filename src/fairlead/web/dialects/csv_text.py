"""CSV in and out: a header with the features' names, then a record a line.

``Content-Type: text/csv; header=absent`` leaves the header out, and the columns are in the schema's order. Values are
read as in a query string: an empty field is null.

Source: RFC 4180
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from fairlead.bundle.manifest import Manifest
from fairlead.predict.intake import Intake
from fairlead.predict.validate import Validated
from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import Content
from fairlead.web.dialects.accept import CSV
from fairlead.web.dialects.outputs import columns_of
from fairlead.web.dialects.rows import Write, column_keys
from fairlead.web.problems import Refusal
from fairlead.web.sources import shifted

# What may be between the commas of a column of numbers for JSON's reader to take it as `parse_text` would.
_NUMBERS = re.compile(r"[0-9eE+.,-]*")
_BOOLS = {"true": True, "false": False, "": None}
_read_ints = msgspec.json.Decoder(list[int | None]).decode
_read_floats = msgspec.json.Decoder(list[float | None]).decode


def source(call: Call, intake: Intake) -> CsvRecords:
    """Take a body apart into lines.

    Raises
    ------
    Refusal
        ``bad_request`` when it is no CSV; ``invalid_records`` when its columns are not the features;
        ``unsupported_media_type`` for another charset than UTF-8.
    """
    parameters = call.fields.get(b"content-type", b"").lower().replace(b" ", b"").replace(b'"', b"").split(b";")[1:]
    charsets = [parameter[8:] for parameter in parameters if parameter.startswith(b"charset=")]
    if any(charset not in (b"utf-8", b"utf8", b"us-ascii") for charset in charsets):
        raise wire.unsupported(b"text/csv; charset=utf-8")
    try:
        text = call.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal("bad_request", f"expected CSV in UTF-8, got another byte at {error.start}") from error
    lines, numbers = _split(text)
    if b"header=absent" in parameters:
        return CsvRecords(list(intake.schema.names), lines, numbers, intake)
    if not lines:
        raise Refusal("bad_request", "expected CSV with a header that names the features, got no line")
    header = _read_lines(lines[:1], numbers)[0]
    return CsvRecords(column_keys(intake.schema, header), lines[1:], numbers[1:], intake)


class CsvRecords:
    """Lines of CSV that are read when their turn has come.

    Parameters
    ----------
    keys : what the fields are in a record.
    lines : one a record.
    numbers : of the lines in the body, from 1.
    intake : checks the records.
    """

    def __init__(self, keys: Sequence[str], lines: Sequence[str], numbers: Sequence[int], intake: Intake) -> None:
        self.n_rows = len(lines)
        self._keys = keys
        self._lines = lines
        self._numbers = numbers
        self._intake = intake
        types = {feature.name: feature.type for feature in intake.schema.features}
        self._types = [types.get(key, "string") for key in keys]
        self._features = [key in types for key in keys]

    def take(self, start: int, stop: int) -> Validated:
        rows = _read_lines(self._lines[start:stop], self._numbers[start:stop])
        width = len(self._keys)
        if all(len(row) == width for row in rows) and (records := self._records(rows)) is not None:
            checked = self._intake.check(records)
            if not checked.rejections:
                return shifted(checked, start)
            self._intake.counts.ignored_keys -= checked.ignored_keys
        return shifted(self._take_each(rows, start), start)

    def _records(self, rows: Sequence[list[str]]) -> list[dict[str, Any]] | None:
        """Read columns at once; None where something has to be told."""
        try:
            columns = [
                _read_column(kind, column) if is_feature else column
                for kind, is_feature, column in zip(self._types, self._features, zip(*rows, strict=True), strict=True)
            ]
        except (msgspec.DecodeError, ValueError, KeyError):
            return None
        return [dict(zip(self._keys, row, strict=True)) for row in zip(*columns, strict=True)]

    def _take_each(self, rows: Sequence[list[str]], start: int) -> Validated:
        records: list[object] = []
        told: dict[int, list[Problem]] = {}
        for place, row in enumerate(rows):
            if len(row) != len(self._keys):
                got = f"{len(row)} on line {self._numbers[start + place]}"
                told[place] = [Problem(f"$[{place}]", f"{len(self._keys)} fields", got)]
                records.append(None)
                continue
            record, unread = self._intake.parse_text(dict(zip(self._keys, row, strict=True)))
            records.append(record)
            if unread:
                told[place] = [_at(problem, place) for problem in unread]
        checked = self._intake.check(records)
        rejections: dict[int, tuple[Problem, ...]] = {}
        for place in sorted(told.keys() | checked.rejections.keys()):
            found = told.get(place, [])
            # A field that could not be read is missing in the record: it was told already, and better.
            paths = {problem.path for problem in found}
            if records[place] is not None:
                found = found + [p for p in checked.rejections.get(place, ()) if p.path not in paths]
            rejections[place] = tuple(found)
        kept = [
            (row, place) for row, place in zip(checked.rows, checked.places, strict=True) if place not in rejections
        ]
        return Validated([row for row, _ in kept], [place for _, place in kept], rejections)


def _at(problem: Problem, place: int) -> Problem:
    return Problem(f"$[{place}]{problem.path[1:]}", problem.expected, problem.got)


def _read_column(kind: str, column: Sequence[str]) -> Sequence[Any]:
    if kind in ("int", "float"):
        joined = ",".join(column)
        if not _NUMBERS.fullmatch(joined):
            raise ValueError
        if "" in column:
            joined = ",".join([text or "null" for text in column])
        values: list[Any] = (_read_ints if kind == "int" else _read_floats)(b"[" + joined.encode() + b"]")
        if len(values) != len(column):  # a quoted field held a comma
            raise ValueError
        return values
    if kind == "bool":
        return [_BOOLS[text.lower()] for text in column]
    return [text or None for text in column] if "" in column else column


def _split(text: str) -> tuple[list[str], Sequence[int]]:
    """Give the records' lines, without blank ones, and their numbers; a quoted field may hold line breaks."""
    lines = text.split("\n")
    if '"' in text and any(line.count('"') & 1 for line in lines):
        return _split_quoted(lines)
    if lines and not lines[-1]:
        lines.pop()
    if "" not in lines and "\r" not in lines:
        return lines, range(1, len(lines) + 1)
    numbers = [number for number, line in enumerate(lines, 1) if line not in ("", "\r")]
    return [lines[number - 1] for number in numbers], numbers


def _split_quoted(lines: Sequence[str]) -> tuple[list[str], list[int]]:
    records: list[str] = []
    numbers: list[int] = []
    open_since: int | None = None
    parts: list[str] = []
    for number, line in enumerate(lines, 1):
        is_odd = line.count('"') % 2
        if open_since is None and not is_odd:
            if line not in ("", "\r"):
                records.append(line)
                numbers.append(number)
        elif open_since is None:
            open_since, parts = number, [line]
        else:
            parts.append(line)
            if is_odd:
                records.append("\n".join(parts))
                numbers.append(open_since)
                open_since = None
    if open_since is not None:
        raise Refusal("bad_request", f"expected CSV: a quote on line {open_since} is never closed")
    return records, numbers


def _read_lines(lines: Sequence[str], numbers: Sequence[int]) -> list[list[str]]:
    reader = csv.reader(lines, strict=True)
    rows: list[list[str]] = []
    try:
        rows.extend(reader)
    except csv.Error as error:
        number = numbers[min(len(rows), len(numbers) - 1)]
        raise Refusal("bad_request", f"expected CSV as RFC 4180 has it: {_told(error)}, on line {number}") from error
    if len(rows) != len(lines):
        raise Refusal("bad_request", "expected CSV as RFC 4180 has it: a quote stands inside a field without quotes")
    return rows


def _told(error: csv.Error) -> str:
    return "a field is too long" if "larger than" in str(error) else "a quote or a line break stands where none may"


def writer(manifest: Manifest, has_header: bool = True) -> Write:
    """Make what writes predictions as CSV; probabilities get a column a class, ``probabilities.LABEL``."""
    columns = columns_of(manifest)
    header = [name for c in columns for name in ([f"{c.name}.{label}" for label in c.labels] if c.labels else [c.name])]
    media_type = CSV + (b"; charset=utf-8" if has_header else b"; charset=utf-8; header=absent")

    def write(predictions: list[Any]) -> Content:
        lists: list[Sequence[Any]] = []
        for column in columns:
            values = column.values(predictions)
            if column.type == "probabilities":
                lists += [[value[label] for value in values] for label in column.labels]
            elif column.type == "bool":
                lists.append(["true" if value else "false" for value in values])
            else:
                lists.append(values)
        text = io.StringIO()
        out = csv.writer(text)
        if has_header:
            out.writerow(header)
        out.writerows(zip(*lists, strict=True))
        return Content(text.getvalue().encode(), media_type)

    return write
