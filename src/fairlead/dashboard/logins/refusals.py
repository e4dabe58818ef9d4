"""The answers to who does not come in: a line of text for people, a problem in JSON for what a page asks by itself.

Layer L3; imports flask.

Source: RFC 9457 (problem details)
"""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, jsonify, request

_RETRY_S = 5


def is_page() -> bool:
    """Whether the request is a person's for a page, not a page's for one of its parts."""
    parts = request.path.split("/")
    is_part = "assets" in parts or any(part.startswith("_") for part in parts)
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    return not is_part and mode == "navigate" and request.accept_mimetypes.accept_html


def refusal(status: int, detail: str) -> Response:
    """Make the answer with a status and the reason in one sentence."""
    if is_page():
        response = Response(f"{detail}\n", status, content_type="text/plain; charset=utf-8")
    else:
        response = jsonify(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)
        response.status_code = status
        response.content_type = "application/problem+json"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    if status == HTTPStatus.UNAUTHORIZED:
        # A scheme that no browser opens a window of its own for. Source: RFC 9110 section 15.5.2
        response.headers["WWW-Authenticate"] = 'Session realm="fairlead"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(_RETRY_S)
    return response
