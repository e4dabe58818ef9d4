"""What a client raises when there is no prediction.

    RequestFailed               request_failed       an answer that is no prediction; asking again will not help
    ├── ServiceUnavailable      service_unavailable  no connection, 429, 502 or 503, to the last retry
    └── DeadlineExceeded        deadline_exceeded    no answer within `timeout_s`, or the server says so (504)

Records that the server refuses are `fairlead.errors.InvalidRecords`, as where they are predicted without one.
Imports the base of all errors only.
"""

from __future__ import annotations

from typing import ClassVar

from fairlead.errors import FairleadError


class RequestFailed(FairleadError):
    """A server answered with something else than a prediction.

    Parameters
    ----------
    message : what was asked, what came, and what to do.
    status : of the answer; None when there was none.
    problem : the code in the server's problem document, such as ``model_failed``; None when it sent no such.
    request_id : what to look for in the server's log.
    retry_after_s : how long the server asked to wait; None when it did not say.
    """

    code: ClassVar[str] = "request_failed"

    def __init__(
        self,
        message: str,
        status: int | None = None,
        problem: str | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class ServiceUnavailable(RequestFailed):
    """No server could be reached, or it was overloaded, until retries or time were spent."""

    code = "service_unavailable"
    retryable = True


class DeadlineExceeded(RequestFailed):
    """There was no answer within the time that the caller gave."""

    code = "deadline_exceeded"
    retryable = True
