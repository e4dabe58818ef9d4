"""The form of an answer that a request asks for with ``Accept``: JSON unless it names another first.

Source: RFC 9110 section 12.5.1
"""

from __future__ import annotations

from typing import Any

from fairlead.predict.intake import Intake
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import JSON, Content
from fairlead.web.dialects.rows import Write

CSV = b"text/csv"
ARROW = b"application/vnd.apache.arrow.stream"
JSON_LINES = (b"application/jsonlines", b"application/x-ndjson", b"application/jsonl")
_OFFERED = (JSON, CSV, ARROW, *JSON_LINES)


def writer(call: Call, intake: Intake, write: Write) -> Write:
    """Give what writes the answer: `write`, which makes JSON, or another.

    Raises
    ------
    MissingExtra
        When Arrow is asked for and pyarrow is not installed.
    """
    accept = call.fields.get(b"accept")
    if accept is None or accept in (b"*/*", JSON):
        return write
    chosen = preferred(accept)
    if chosen == CSV:
        from fairlead.web.dialects import csv_text

        return csv_text.writer(intake.manifest, b"header=absent" not in call.fields.get(b"content-type", b""))
    if chosen == ARROW:
        from fairlead.web.dialects import arrow

        return arrow.writer(intake.manifest)
    if chosen in JSON_LINES:
        return lambda predictions: Content(_lines(predictions), chosen)
    return write


def preferred(accept: bytes) -> bytes:
    """Give the media type that a request likes best among those there are; what nobody can serve gets JSON.

    >>> preferred(b"text/csv;q=0.5, application/json;q=0.1")
    b'text/csv'
    >>> preferred(b"text/html, */*")
    b'application/json'
    """
    best, best_quality = JSON, 0.0
    for part in accept.lower().split(b","):
        media, *parameters = (piece.strip() for piece in part.split(b";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                quality = _quality(parameter[2:])
        named = JSON if media in (b"*/*", b"application/*") else media
        if named in _OFFERED and quality > best_quality:
            best, best_quality = named, quality
    return best


def _quality(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _lines(predictions: list[Any]) -> bytes:
    return b"".join(wire.encode(prediction) + b"\n" for prediction in predictions)
