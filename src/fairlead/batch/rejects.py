"""The side file of rejected rows: a line of JSON for each, with its number and all that is wrong with it.

Layer L3; imports `places`.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import msgspec
from msgspec import Struct

from fairlead.batch.places.place import Draft, Place
from fairlead.errors import TooManyRejects
from fairlead.schema import Problem


class Reject(Struct, frozen=True):
    """A rejected row.

    Parameters
    ----------
    row : its number in the input, counted from 0; a CSV's header is not counted.
    errors : what is wrong with it, at paths such as ``$.tenure``.
    """

    row: int
    errors: tuple[Problem, ...]


class Rejects:
    """Collects the rejects of one file; the side file is begun with the first of them.

    Parameters
    ----------
    place, path : of the side file.
    where : the input, for messages.
    allowed : how many there may be; None for any number.
    """

    def __init__(self, place: Place, path: str, where: str, allowed: int | None) -> None:
        self.count = 0
        self.path = path
        self._place = place
        self._where = where
        self._allowed = allowed
        self._stack = ExitStack()
        self._draft: Draft | None = None
        self._encode = msgspec.json.Encoder().encode_lines

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def add(self, rejections: dict[int, tuple[Problem, ...]], first_row: int) -> None:
        """Tell rows of a chunk.

        Parameters
        ----------
        rejections : by place in the chunk, in order.
        first_row : the number of the chunk's first row.

        Raises
        ------
        TooManyRejects
        """
        if not rejections:
            return
        if self._draft is None:
            self._draft = self._stack.enter_context(self._place.write(self.path))
        lines = [
            Reject(first_row + place, tuple(problem.alone() for problem in problems))
            for place, problems in rejections.items()
        ]
        self._draft.file.write(self._encode(lines))
        self.count += len(lines)
        if self._allowed is not None and self.count > self._allowed:
            last = lines[self._allowed - self.count]
            raise TooManyRejects(
                f"{self._where}: more than {self._allowed:,} rows were refused (--max-rejects), "
                f"the last of them row {last.row:,}: {last.errors[0]}"
            )

    def publish(self) -> None:
        """Put the side file in place; where there is nothing to tell, none remains of an earlier run."""
        if self._draft is None:
            self._place.delete(self.path)
        else:
            self._draft.publish()
