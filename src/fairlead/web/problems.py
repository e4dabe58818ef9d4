"""The answers that are no success, and the one table from an error's code to its HTTP status.

Whatever goes wrong with a request becomes a `Refusal`, and that a problem document. Imports msgspec and
what lies below the modes.

Source: RFC 9457 (Problem Details for HTTP APIs)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from fairlead.errors import FairleadError, ModelFailed
from fairlead.schema import Problem

Header = tuple[bytes, bytes]

PROBLEM_JSON = b"application/problem+json"
PROBLEM_JSON_TYPE: Header = (b"content-type", PROBLEM_JSON)
PROBLEM_TYPE = "urn:problem-type:fairlead:"

# Every refusal's status by its code. `FairleadError`s that are not here are the server's fault: 500.
STATUS: dict[str, int] = {
    "not_json": 400,
    "bad_query": 400,
    "bad_header": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_request": 408,
    "conflict": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid_records": 422,
    "rate_limited": 429,
    "headers_too_large": 431,
    "model_failed": 500,
    "internal": 500,
    "not_ready": 503,
    "overloaded": 503,
    "deadline": 504,
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
    error : the detail once more, where a protocol wants it under this name.

    Source: RFC 9457 section 3; `errors` and `request_id` are extension members (section 3.2).
    """

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Problem, ...]
    request_id: str | None = None
    error: str | None = None


class Refusal(Exception):
    """A request that is answered with a problem document.

    Parameters
    ----------
    code : a key of `STATUS`.
    detail : for people; must hold no value of the request.
    errors : every problem of every record.
    headers : added to the answer's.
    request_id : set when the server's log says more.
    n_records : how many records the schema refused.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[Problem] = (),
        headers: Sequence[Header] = (),
        request_id: str | None = None,
        n_records: int = 0,
    ) -> None:
        super().__init__(detail)
        self.status = STATUS.get(code, 500)
        self.n_records = n_records
        self.headers = list(headers)
        self.document = ProblemDocument(
            PROBLEM_TYPE + code, HTTPStatus(self.status).phrase, self.status, detail, tuple(errors), request_id
        )

    @property
    def body(self) -> bytes:
        """The problem document as JSON."""
        return msgspec.json.encode(self.document)

    def body_with_error(self) -> bytes:
        """Give the same with the detail under ``error`` too, where clients of other protocols look for it."""
        return msgspec.json.encode(msgspec.structs.replace(self.document, error=self.document.detail))


def failure(error: Exception, request_id: str, errors: Sequence[Problem] = ()) -> Refusal:
    """Log an error with its traceback and make the answer 500 that tells where to find it."""
    logger.error("request %s failed", request_id, exc_info=error, extra={"request_id": request_id})
    code = error.code if isinstance(error, FairleadError) else "internal"
    who = "the model" if isinstance(error, ModelFailed) else "the server"
    detail = f"{who} failed on this request: the server's log has the reason under request id {request_id}"
    return Refusal(code if code in STATUS else "internal", detail, errors, request_id=request_id)


def invalid(problems: Sequence[Problem], where: str, n_records: int = 1) -> Refusal:
    """Make the answer 422 with every problem of the `n_records` that were refused."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return Refusal("invalid_records", f"{count} in {where}", problems, n_records=n_records)


def invalid_array(
    rejections: Mapping[int, Sequence[Problem]], n_records: int, origin: str = "$", n_unchecked: int = 0
) -> Refusal:
    """Make the answer 422 for an array, at the JSONPath `origin`, of which some records are refused.

    Parameters
    ----------
    n_records : that were looked at.
    n_unchecked : that come after them and were not, because this is enough.
    """
    problems = [problem for place in sorted(rejections) for problem in rejections[place]]
    rest = f"; the {n_unchecked} after them were not checked" if n_unchecked else ""
    return invalid(rebased(problems, origin), f"{len(rejections)} of {n_records} records{rest}", len(rejections))


def rebased(problems: Sequence[Problem], origin: str) -> Sequence[Problem]:
    """Name problems of an array, at ``$[3].x``, where it is in the request: at ``$.instances[3].x``.

    Those that are named so already stay as they are.
    """
    if origin == "$":
        return problems
    return [
        Problem(origin + problem.path[1:], problem.expected, problem.got) if problem.path.startswith("$[") else problem
        for problem in problems
    ]
