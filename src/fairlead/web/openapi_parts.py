"""What the parts of the OpenAPI document share: refusals, answers and forms other than JSON.

Every refusal stands once among the document's responses, and operations refer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fairlead.web.json_schema import Json

PROBLEM: Json = {
    "type": "object",
    "description": "Problem details (RFC 9457). It tells the type of a bad value, never the value.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "JSONPath of the bad value", "examples": ["$[3].tenure"]},
                    "expected": {"type": "string"},
                    "got": {"type": "string"},
                },
                "required": ["path", "expected", "got"],
                "additionalProperties": False,
            },
        },
        "request_id": {"type": "string"},
        "error": {"type": "string", "description": "`detail` once more, where a protocol wants it under this name"},
    },
    "required": ["type", "title", "status", "detail", "errors"],
    "additionalProperties": False,
}
PROBLEM_WITH_ERROR: Json = {"allOf": [{"$ref": "#/components/schemas/Problem"}], "required": ["error"]}

_TEXTS = {
    400: "Not of the form that it says it is, or a header or the query cannot be read",
    401: "There is no such API key",
    403: "This API key may not",
    404: "There is no such model, version or path",
    405: "Another method is expected",
    408: "The request did not come within the time that it may take",
    409: "Nothing was changed: the new version cannot be served, or there is nothing of the kind",
    413: "The body is too large",
    415: "The body is of a content type or encoding that is not read here",
    422: "The schema refuses some of the input: every problem of every record, by path",
    429: "This API key has made as many requests as it may",
    431: "The headers are too large",
    500: "The model or the server failed: the server's log has the reason under `request_id`",
    503: "Not ready, or more waits than can be answered in time",
    504: "The model did not answer in the time that the request had",
}
_HEADERS = {
    401: {"WWW-Authenticate": "How to send a key"},
    405: {"Allow": "The methods that are expected"},
    415: {"Accept": "Content types that are read", "Accept-Encoding": "Encodings that are read"},
    429: {"Retry-After": "When to come again, in seconds"},
    503: {"Retry-After": "When to come again, in seconds"},
}
# What may become of any request; of one with a body; of a change to the models.
ASKED = (401, 403, 404, 405, 408, 429, 431, 500, 503)
SENT = (*ASKED, 400, 413, 415, 422, 504)
ADMIN = (*ASKED, 400, 409, 413, 415, 422)


def refusals() -> Json:
    """Make the document's responses."""
    found: Json = {}
    for suffix, schema in (("", "Problem"), ("WithError", "ProblemWithError")):
        for status, text in _TEXTS.items():
            headers = {"X-Request-ID": _REQUEST_ID, **{n: _header(t) for n, t in _HEADERS.get(status, {}).items()}}
            content = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
            found[f"{status}{suffix}"] = {"description": text, "headers": headers, "content": content}
    return found


def refused(status: int, with_error: bool = False) -> Json:
    """Refer to a refusal."""
    # A connection may be given up before it is known what the request is for.
    suffix = "WithError" if with_error and status not in (408, 431) else ""
    return {"$ref": f"#/components/responses/{status}{suffix}"}


def responses_of(answer: Json, statuses: Sequence[int], with_error: bool = False) -> Json:
    """Make the responses of an operation."""
    return {"200": answer, **{str(status): refused(status, with_error) for status in sorted(set(statuses))}}


def good(schema: Json, more: Json | None = None, model: bool = False, headers: Json | None = None) -> Json:
    """Describe an answer 200 in JSON, or in `more` forms."""
    sent = {"X-Request-ID": _REQUEST_ID, **(headers or {})}
    if model:
        sent["X-Model-Version"] = _header("The version of the model that answered")
    content = {"application/json": {"schema": schema}, **(more or {})}
    return {"description": HTTPStatus.OK.phrase, "headers": sent, "content": content}


def table(arrow: bool = False, lines: bool = False) -> Json:
    """Describe the forms of tables."""
    forms: Json = {"text/csv": {"schema": {"type": "string", "description": "A header with names, then a row a line"}}}
    if arrow:
        forms["application/vnd.apache.arrow.stream"] = {"schema": {"type": "string", "format": "binary"}}
    if lines:
        forms["application/jsonlines"] = {"schema": {"type": "string", "description": "JSON, one a line"}}
    return forms


def closed(properties: Json, optional: Sequence[str] = ()) -> Json:
    """Describe an object that has these members and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def array(items: Json | dict[str, Any]) -> Json:
    """Describe an array."""
    return {"type": "array", "items": items}


def _header(text: str) -> Json:
    return {"description": text, "schema": {"type": "string"}}


_REQUEST_ID = _header("The request's own, or one made here")
