"""The predictions that one request asks for, on their way through the batches.

A `Job` holds the rows of a request, or where they come from, and collects what becomes of each; it may
be spread over several batches and share them with others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fairlead.predict.validate import Row, Validated
from fairlead.schema import Problem
from fairlead.web.calls import Call

Answer = dict[str, Any]


class Source(Protocol):
    """Records of a large request, checked in slices so that no other has to wait for all of them."""

    n_rows: int

    def take(self, start: int, stop: int) -> Validated:
        """Check the records from `start` to before `stop`; places and paths count from the request's first."""
        ...


class Job:
    """Rows of one request, to be answered.

    Parameters
    ----------
    call : the request.
    rows : checked rows, all of them; or
    source : what gives them slice by slice.
    finish : called exactly once, when every row is answered or the job failed as a whole.
    write : makes the answer's body of the predictions.
    origin : the JSONPath of the array of records in the request; None for a record that came alone.

    Attributes
    ----------
    answers : in the request's order, None where there is none.
    rejections : problems by place.
    failures : errors of single rows by place.
    error : why there is no answer at all.
    """

    __slots__ = (
        "answers",
        "call",
        "deadline_ns",
        "error",
        "failures",
        "finish",
        "is_over",
        "left",
        "n_rows",
        "origin",
        "rejections",
        "rows",
        "source",
        "taken",
        "write",
    )

    def __init__(
        self,
        call: Call,
        rows: Sequence[Row],
        finish: Callable[[Job], None],
        write: Callable[[list[Any]], Any],
        origin: str | None = "$",
        source: Source | None = None,
    ) -> None:
        self.call = call
        self.rows = rows
        self.source = source
        self.finish = finish
        self.write = write
        self.origin = origin
        self.n_rows = self.left = len(rows) if source is None else source.n_rows
        self.taken = 0
        self.deadline_ns = 0
        self.answers: list[Answer | None] = []
        self.rejections: dict[int, tuple[Problem, ...]] = {}
        self.failures: dict[int, Exception] = {}
        self.error: Exception | None = None
        self.is_over = False

    def take(self, n_rows: int) -> tuple[Sequence[Row], Sequence[int]]:
        """Give the next `n_rows` rows and their places; those that the schema refuses are settled here."""
        start = self.taken
        stop = self.taken = start + n_rows
        if self.source is None:
            return (self.rows if n_rows == self.n_rows else self.rows[start:stop]), range(start, stop)
        checked = self.source.take(start, stop)
        if checked.rejections:
            self.rejections.update(checked.rejections)
            self.left -= len(checked.rejections)
        return checked.rows, checked.places

    def put(self, places: Sequence[int], answers: Sequence[Answer | None]) -> None:
        """Take the answers of the rows at `places`."""
        if len(answers) == self.n_rows:
            self.answers = list(answers)
        else:
            if not self.answers:
                self.answers = [None] * self.n_rows
            for place, answer in zip(places, answers, strict=True):
                self.answers[place] = answer
        self.left -= len(places)

    def settle(self) -> None:
        """Finish when nothing is left to wait for."""
        if not self.left and not self.is_over:
            self.is_over = True
            self.finish(self)

    def fail(self, error: Exception) -> None:
        """Finish without an answer, unless there was one already."""
        if not self.is_over:
            self.is_over = True
            self.error = error
            self.finish(self)
