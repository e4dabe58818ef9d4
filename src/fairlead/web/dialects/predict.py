"""fairlead's own form: ``POST /predict`` with an object or an array, ``GET /predict?a=1&b=x``.

An object gives an object, an array an array in the same order; so do CSV and Arrow, by content type.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from fairlead.predict.intake import Intake
from fairlead.predict.validate import child_path, type_name
from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import JSON, Content, Question, accept
from fairlead.web.dialects.rows import Write
from fairlead.web.dialects.rows import ask as ask_source
from fairlead.web.problems import Refusal, invalid, invalid_array
from fairlead.web.sources import RawRecords

# A larger array is told apart first and decoded in slices.
_LARGE_BYTES = 64 * 1024
# What asks for nothing but JSON.
_ANY = (None, b"*/*", JSON)
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Body:
    """Objects and arrays, CSV, and Arrow in the body.

    Parameters
    ----------
    max_body_bytes : how large what comes out of an Arrow stream may be.
    """

    name = "predict"
    methods = ("POST",)

    def __init__(self, max_body_bytes: int = wire.MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes

    def read(self, call: Call, intake: Intake) -> Question:
        fields = call.fields
        if fields.get(b"content-type") != b"application/json" and (media := wire.media_type(fields)) != JSON:
            return self._read_other(call, intake, media)
        one: Write = _write_one
        many: Write = write_many
        if fields.get(b"accept") not in _ANY:
            one, many = accept.writer(call, intake, one), accept.writer(call, intake, many)
        row = intake.read(call.body)
        if row is not None:
            return Question((row,), one, None)
        if len(call.body) > _LARGE_BYTES and call.body.lstrip(b" \t\r\n")[:1] == b"[":
            return Question((), many, source=RawRecords(_split_array(call.body), intake))
        return ask(wire.decode(call.body), intake, one, many)

    def _read_other(self, call: Call, intake: Intake, media: bytes) -> Question:
        write = accept.writer(call, intake, write_many)
        if media == accept.CSV:
            from fairlead.web.dialects import csv_text

            return ask_source(csv_text.source(call, intake), write, "$")
        if media == accept.ARROW:
            from fairlead.web.dialects import arrow

            return ask_source(arrow.source(call.body, intake, self._max_body_bytes), write, "$")
        raise wire.unsupported(JSON, accept.CSV, accept.ARROW)

    def refused(self, refusal: Refusal) -> bytes:
        return refusal.body


class Query:
    """One record in the query string."""

    name = "predict"
    methods = ("GET", "HEAD")

    def read(self, call: Call, intake: Intake) -> Question:
        fields, repeated = _read_query(call.query)
        features = frozenset(intake.schema.names)
        several = {name: count for name, count in repeated.items() if name in features}
        problems = [Problem(child_path("$", name), "one value", f"{count} values") for name, count in several.items()]
        record, unread = intake.parse_text({name: text for name, text in fields.items() if name not in several})
        problems += unread
        checked = intake.check([record])
        # A field that could not be read is missing in the record: it was told already, and better.
        told = {problem.path for problem in problems}
        problems += [p for p in map(Problem.alone, checked.rejections.get(0, ())) if p.path not in told]
        if problems:
            raise invalid(problems, "the record")
        return Question(checked.rows, accept.writer(call, intake, _write_one), None)

    def refused(self, refusal: Refusal) -> bytes:
        return refusal.body


def ask(data: Any, intake: Intake, one: Write, many: Write) -> Question:
    """Ask for what was decoded, an object or an array of them."""
    if type(data) is list:
        checked = intake.check(data)
        if checked.rejections:
            raise invalid_array(checked.rejections, len(data))
        return Question(checked.rows, many)
    if type(data) is not dict:
        raise invalid([Problem("$", "an object or an array", type_name(data))], "the record")
    checked = intake.check([data])
    if checked.rejections:
        raise invalid([problem.alone() for problem in checked.rejections[0]], "the record")
    return Question(checked.rows, one, None)


def write_many(predictions: list[Any]) -> Content:
    """Answer with an array."""
    return Content(wire.encode(predictions))


def _write_one(predictions: list[Any]) -> Content:
    return Content(wire.encode(predictions[0]))


def _split_array(body: bytes) -> list[msgspec.Raw]:
    try:
        return _split(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wire.not_json(body, error) from error


def _read_query(query: bytes) -> tuple[dict[str, str], dict[str, int]]:
    """Give the fields of a query string, and how often each repeated one was there."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise Refusal("bad_query", "expected a query string in UTF-8") from error
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields, {}
    keys = [key for key, _ in pairs]
    return fields, {key: count for key in fields if (count := keys.count(key)) > 1}
