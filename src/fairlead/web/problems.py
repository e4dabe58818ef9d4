"""The answers that are no success, and the one table from an error's code to its HTTP status.

Whatever goes wrong with a request becomes a `Refusal`, and that a problem document. Imports msgspec and
what lies below the modes.

Source: RFC 9457 (Problem Details for HTTP APIs)
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from fairlead.errors import FairleadError, ModelFailed
from fairlead.schema import Problem

Header = tuple[bytes, bytes]

PROBLEM_TYPE = "urn:problem-type:fairlead:"

# Every refusal's status by its code. `FairleadError`s that are not here are the server's fault: 500.
STATUS: dict[str, int] = {
    "not_json": 400,
    "bad_query": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid_records": 422,
    "model_failed": 500,
    "internal": 500,
    "not_ready": 503,
}

logger = logging.getLogger("fairlead.web")


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is not a success.

    Parameters
    ----------
    type : `PROBLEM_TYPE` and the error's code.
    title, status : the status in words and as a number.
    detail : what was wrong and what to do, without any value of the request.
    errors : every problem of every record.
    request_id : for an answer 500, what to look for in the server's log.

    Source: RFC 9457 section 3; `errors` and `request_id` are extension members (section 3.2).
    """

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Problem, ...]
    request_id: str | None = None


class Refusal(Exception):
    """A request that is answered with a problem document.

    Parameters
    ----------
    code : a key of `STATUS`.
    detail : for people; must hold no value of the request.
    errors : every problem of every record.
    headers : added to the answer's.
    request_id : set when the server's log says more.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[Problem] = (),
        headers: Sequence[Header] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = STATUS.get(code, 500)
        self.headers = list(headers)
        self.document = ProblemDocument(
            PROBLEM_TYPE + code, HTTPStatus(self.status).phrase, self.status, detail, tuple(errors), request_id
        )

    @property
    def body(self) -> bytes:
        """The problem document as JSON."""
        return msgspec.json.encode(self.document)


def failure(error: Exception) -> Refusal:
    """Log an error with its traceback and make the answer 500 that tells where to find it."""
    request_id = uuid.uuid4().hex
    logger.error("request %s failed", request_id, exc_info=error)
    code = error.code if isinstance(error, FairleadError) else "internal"
    who = "the model" if isinstance(error, ModelFailed) else "the server"
    detail = f"{who} failed on this request: the server's log has the reason under request id {request_id}"
    return Refusal(code if code in STATUS else "internal", detail, request_id=request_id)
