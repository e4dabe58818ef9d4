"""Where files are read and written: what every kind of place can do.

Layer L3; imports errors only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Stamp:
    """What tells whether a file is still the same.

    Parameters
    ----------
    size_bytes : its length.
    version : what changes with every write: nanoseconds of its last change on a disk, the ETag in S3.
    """

    size_bytes: int
    version: str


class Draft(AbstractContextManager["Draft"], Protocol):
    """A file that is being written and that nobody sees yet. Left without `publish`, nothing remains of it.

    Attributes
    ----------
    file : a binary file object to write to.
    """

    file: Any

    def publish(self) -> None:
        """Put the file in place, whole and on the disk, in one step."""
        ...


class Place(Protocol):
    """A kind of place, such as this machine's disks, or S3. Paths are texts as the user gave them."""

    def find(self, pattern: str) -> list[str]:
        """List the files of a glob, of a directory (all below it) or the one file of that name, sorted by name.

        Names that begin with ``_`` or ``.`` below a directory or glob are left out: they are side files.

        Raises
        ------
        InputError
            When there is none.
        """
        ...

    def stamp(self, path: str) -> Stamp | None:
        """Look at a file; None where there is none."""
        ...

    def open(self, path: str) -> AbstractContextManager[Any]:
        """Open a file for reading: a seekable binary file object, which pyarrow can read too.

        Raises
        ------
        InputError
            When it is not there or cannot be read; from reads, when it changed since it was opened.
        """
        ...

    def write(self, path: str) -> AbstractContextManager[Draft]:
        """Begin a file.

        Raises
        ------
        OutputError
            When it cannot be written there, or another run is writing it; from writes and `publish` too.
        """
        ...

    def get(self, path: str) -> bytes | None:
        """Read a small file; None where there is none."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Put a small file in place, whole and on the disk, in one step."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        ...
