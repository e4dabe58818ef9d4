"""What came back, and what it means: JSON, or one of the errors.

Between `exchange`, which asks, and `errors`; imports msgspec only.

Source: RFC 9110 section 10.2.3 (Retry-After), RFC 9457 (problem documents)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from fairlead.client.errors import DeadlineExceeded, RequestFailed
from fairlead.client.records import Request
from fairlead.errors import InvalidRecords
from fairlead.schema import Problem

PROBLEM_TYPE = "urn:problem-type:fairlead:"
_HINTS = {401: ": give `api_key`, or set FAIRLEAD_API_KEY", 403: ": this `api_key` may not"}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the names of `headers` are found in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Reply = Answer | Exception


class _Document(msgspec.Struct):
    """What is read of a problem document."""

    type: str = "about:blank"
    detail: str = ""
    errors: tuple[Problem, ...] = ()
    request_id: str | None = None

    @property
    def code(self) -> str | None:
        """The server's own name of the problem; None when the document is of somebody else."""
        return self.type.removeprefix(PROBLEM_TYPE) if self.type.startswith(PROBLEM_TYPE) else None


def read(reply: Reply, request: Request) -> Any:
    """Give the JSON of a success.

    Raises
    ------
    InvalidRecords
        With the problems in a 422, at their places among the caller's records.
    RequestFailed
        For everything else that came; `DeadlineExceeded` for a 504.
    """
    if not isinstance(reply, Answer) or reply.status >= 300:
        raise _error(reply, request)
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = f"{reply.headers.get('content-type', 'no content type')} of {len(reply.body)} bytes"
        message = f"{request.url}: expected JSON, got {what}: is this the address of a fairlead server?"
        raise RequestFailed(message, reply.status, None, request.id) from error


def failure(
    kind: type[RequestFailed], reply: Reply, request: Request, attempts: str = "", asked_s: float | None = None
) -> RequestFailed:
    """Make an error of a reply.

    Parameters
    ----------
    attempts : how often was asked, as in `` after 3 attempts``; none for once.
    asked_s : how long the server asked to wait.
    """
    if not isinstance(reply, Answer):
        what = str(reply) or type(reply).__name__
        error = kind(f"{request.url}: {what}{attempts} (request id {request.id})", request_id=request.id)
        error.__cause__ = reply
        return error
    document = _document(reply)
    found_id = document.request_id or reply.headers.get("x-request-id") or request.id
    what = " ".join(filter(None, (str(reply.status), document.code)))
    detail = f": {document.detail}" if document.detail else _hint(reply)
    message = f"{request.url}: expected 200, got {what}{attempts}{detail} (request id {found_id})"
    return kind(message, reply.status, document.code, found_id, asked_s)


def retry_after_s(reply: Reply) -> float | None:
    """Read how long to wait: seconds or a date; None when nothing that can be read says so."""
    if not isinstance(reply, Answer):
        return None
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    when = _date(text)
    # The server's own clock, where it tells it: the two may differ.
    now = _date(reply.headers.get("date", "")) or datetime.now(UTC)
    return None if when is None else max(0.0, (when - now).total_seconds())


def _error(reply: Reply, request: Request) -> InvalidRecords | RequestFailed:
    if not isinstance(reply, Answer):
        return failure(RequestFailed, reply, request)
    document = _document(reply)
    if document.code == "invalid_records" and document.errors:
        return InvalidRecords([_shifted(problem, request.start or 0) for problem in document.errors])
    return failure(DeadlineExceeded if reply.status == 504 else RequestFailed, reply, request)


def _document(answer: Answer) -> _Document:
    try:
        return msgspec.json.decode(answer.body, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Document()  # a proxy's own page


def _shifted(problem: Problem, start: int) -> Problem:
    path = re.sub(r"^\$\[(\d+)\]", lambda match: f"$[{int(match[1]) + start}]", problem.path)
    return Problem(path, problem.expected, problem.got)


def _hint(answer: Answer) -> str:
    if answer.status < 400 and "location" in answer.headers:
        return f": give the address it moved to, {answer.headers['location']}"
    return _HINTS.get(answer.status, "")


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
