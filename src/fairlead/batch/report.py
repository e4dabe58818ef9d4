"""What is told of a run: while it goes on, to a `Progress`; and at its end, as a `Report`.

Layer L3; imports msgspec only.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class FileReport(Struct, frozen=True):
    """What became of one input.

    Parameters
    ----------
    input, output : where it was read and written.
    rows_in, rows_out, rejects : rows; the first is the sum of the others.
    duration_s : seconds that it took.
    skipped : whether `resume` found it done already; the figures are then those of that time.
    rejects_file : where the rejected rows are told, None where there are none.
    """

    input: str
    output: str
    rows_in: int
    rows_out: int
    rejects: int
    duration_s: float
    skipped: bool = False
    rejects_file: str | None = None


class Report(Struct, frozen=True):
    """What became of a run.

    Parameters
    ----------
    name, version, digest : of the bundle.
    files : one a file, in the order of the plan.
    duration_s : seconds of the whole run.
    """

    name: str
    version: str
    digest: str
    files: tuple[FileReport, ...]
    duration_s: float

    @property
    def rows_in(self) -> int:
        return sum(file.rows_in for file in self.files)

    @property
    def rows_out(self) -> int:
        return sum(file.rows_out for file in self.files)

    @property
    def rejects(self) -> int:
        return sum(file.rejects for file in self.files)


class Progress(Protocol):
    """Is told how far a run is. Called from one thread, some times a second; what it raises ends the run."""

    def planned(self, n_files: int) -> None:
        """Hear how many files there are."""
        ...

    def began(self, input: str, output: str, n_rows: int | None) -> None:
        """Hear that a file is begun; its number of rows, where that is known ahead."""
        ...

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None:
        """Hear how much of the file was read, and of what share of it that is, from 0 to 1, where known."""
        ...

    def finished(self, file: FileReport) -> None:
        """Hear that a file is done, or was done already."""
        ...


class Silent:
    """A `Progress` that tells nobody."""

    def planned(self, n_files: int) -> None: ...

    def began(self, input: str, output: str, n_rows: int | None) -> None: ...

    def advanced(self, rows_in: int, rejects: int, share: float | None) -> None: ...

    def finished(self, file: FileReport) -> None: ...
