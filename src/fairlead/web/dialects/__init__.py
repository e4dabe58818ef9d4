"""The forms in which clients ask for predictions; one file a form.

A dialect reads a request into a `Job` and says how the predictions are written; admission, batching,
deadlines and errors are the same for all of them, in `endpoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.predict.intake import Intake
    from fairlead.predict.validate import Row
    from fairlead.web.calls import Call
    from fairlead.web.jobs import Source
    from fairlead.web.problems import Header, Refusal

JSON = b"application/json"


class Content(NamedTuple):
    """The body of an answer.

    Parameters
    ----------
    body, media_type : what is sent.
    headers : others that belong to it.
    """

    body: bytes
    media_type: bytes = JSON
    headers: tuple[Header, ...] = ()


class Question(NamedTuple):
    """What a request asks.

    Parameters
    ----------
    rows : checked rows, all of them; or, empty,
    write : makes the answer of the predictions, which are in the request's order.
    origin : the JSONPath of the array of records in the request; None for a record that came alone.
    source : what gives the rows slice by slice.
    """

    rows: Sequence[Row]
    write: Callable[[list[Any]], Content]
    origin: str | None = "$"
    source: Source | None = None


class Dialect(Protocol):
    """One form of asking.

    Attributes
    ----------
    name : for metrics and logs.
    methods : of HTTP, in capitals.
    """

    @property
    def name(self) -> str: ...
    @property
    def methods(self) -> tuple[str, ...]: ...

    def read(self, call: Call, intake: Intake) -> Question:
        """Read a request.

        Raises
        ------
        Refusal
            When it is not of this form, or its only record breaks the schema.
        """
        ...

    def refused(self, refusal: Refusal) -> bytes:
        """Give the body of a refusal, a problem document, with what clients of this form look for besides."""
        ...
