"""Where the rows of a large request come from: checked in slices, when their turn in a batch has come.

Reading ten megabytes at once would hold up every other request for as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fairlead.predict.intake import Intake
from fairlead.predict.validate import Validated
from fairlead.schema import Problem
from fairlead.web import wire


class Records:
    """Records that are decoded already.

    Parameters
    ----------
    records : as JSON gives them.
    intake : checks them.
    """

    def __init__(self, records: Sequence[object], intake: Intake) -> None:
        self.n_rows = len(records)
        self._records = records
        self._intake = intake

    def take(self, start: int, stop: int) -> Validated:
        return shifted(self._intake.check(self._records[start:stop]), start)


class RawRecords:
    """JSON values that were told apart, but not decoded.

    Parameters
    ----------
    raws : the elements of an array.
    intake : checks them.
    """

    def __init__(self, raws: Sequence[msgspec.Raw], intake: Intake) -> None:
        self.n_rows = len(raws)
        self._raws = raws
        self._intake = intake

    def take(self, start: int, stop: int) -> Validated:
        # Well-formed, or splitting the array would have failed; only nesting may still be too deep.
        records: list[Any] = wire.decode(b"[" + b",".join(map(bytes, self._raws[start:stop])) + b"]")
        return shifted(self._intake.check(records), start)


class MadeRecords:
    """Records that are made of something else when they are needed: of arrays, of columns, of lines of text.

    Parameters
    ----------
    n_rows : how many there are.
    make : gives those from one place to before another.
    intake : checks them.
    locate : names the place in the request of a value, by its record's place and its path there, as ``.tenure``;
        None where the request is an array of the records.
    """

    def __init__(
        self,
        n_rows: int,
        make: Callable[[int, int], Sequence[object]],
        intake: Intake,
        locate: Callable[[int, str], str] | None = None,
    ) -> None:
        self.n_rows = n_rows
        self._make = make
        self._intake = intake
        self._locate = locate

    def take(self, start: int, stop: int) -> Validated:
        checked = shifted(self._intake.check(self._make(start, stop)), start)
        return checked if self._locate is None or not checked.rejections else located(checked, self._locate)


def located(checked: Validated, locate: Callable[[int, str], str]) -> Validated:
    """Name the problems of records where the values are in the request."""
    rejections = {
        place: tuple(
            Problem(locate(place, problem.path[problem.path.index("]") + 1 :]), problem.expected, problem.got)
            for problem in problems
        )
        for place, problems in checked.rejections.items()
    }
    return Validated(checked.rows, checked.places, rejections, checked.ignored_keys)


def shifted(checked: Validated, start: int) -> Validated:
    """Count places and paths of a slice from the first record of the request."""
    if not start:
        return checked
    rejections = {
        place + start: tuple(problem.moved(place + start) for problem in problems)
        for place, problems in checked.rejections.items()
    }
    return Validated(checked.rows, [place + start for place in checked.places], rejections, checked.ignored_keys)
