"""What INPUT means: its files, date by date, and the directories that they are named from.

Layer L3; imports `templates`, `formats` and `places`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from posixpath import dirname

from fairlead.batch import templates
from fairlead.batch.formats import named
from fairlead.batch.places import names, place_of
from fairlead.errors import InputError

_SHOWN = 5


@dataclass(frozen=True)
class Batch:
    """What INPUT means for one date, and where it goes.

    Parameters
    ----------
    pattern, output : INPUT and OUTPUT with the date in them.
    files : what is there; the pattern itself where it names one file.
    """

    pattern: str
    output: str
    files: list[str]

    @property
    def is_several(self) -> bool:
        return self.files != [self.pattern]


def batches_of(input: str, output: str, dates: tuple[datetime, ...], environ: Mapping[str, str]) -> list[Batch]:
    """Find the files of all dates, before anything is scored.

    Raises
    ------
    InputError
        When there is none, or none for some of the dates.
    """
    found, missing = [], []
    patterns = [(templates.fill(input, date), templates.fill(output, date)) for date in dates or (templates.ANY,)]
    place = place_of(patterns[0][0], environ)
    for pattern, to in patterns:
        try:
            found.append(Batch(pattern, to, place.find(pattern)))
        except names.NotThere:
            if len(patterns) == 1:
                raise
            missing.append(pattern)
    if missing:
        raise InputError(f"{len(missing)} of {len(patterns)} dates have no input: {_some(missing)}: see their names")
    return found


def fixed_folder(batch: Batch) -> str:
    """Give the directory that a pattern's files are named from."""
    if not batch.is_several:
        return dirname(batch.pattern)
    if names.is_glob(batch.pattern):
        return names.split(batch.pattern)[0]
    return batch.pattern.rstrip("/") or "/"


def fixed_of_all(input: str) -> str:
    """Give the directory that the files of all dates are named from."""
    parts = input.split("/")
    first = next(index for index, part in enumerate(parts) if templates.fields(part) or names.is_glob(part))
    return templates.fixed(parts[:first])


def relative(folder: str, file: str) -> str:
    """Give a file's name below a directory that it is in."""
    return file[len(folder) :].lstrip("/") if folder else file


def refuse_unknown(batches: list[Batch]) -> None:
    """Refuse files whose names tell no format, rather than leave them out.

    Raises
    ------
    InputError
    """
    unknown: list[str] = []
    reason = ""
    for file in (file for batch in batches for file in batch.files):
        try:
            named(file)
        except InputError as error:
            unknown.append(file)
            reason = reason or str(error)
    if unknown:
        raise InputError(reason if len(unknown) == 1 else f"{reason}; {len(unknown)} are so: {_some(unknown)}")


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
