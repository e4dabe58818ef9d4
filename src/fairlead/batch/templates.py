"""Paths with dates in them: `rides/{year:04d}/{month:02d}.parquet`, and the dates that fill them.

Layer L3; imports errors only.
"""

from __future__ import annotations

import re
from datetime import datetime
from string import Formatter
from typing import Literal, get_args

from fairlead.errors import InputError, OutputError

Unit = Literal["year", "month", "day", "hour"]
UNITS: tuple[Unit, ...] = get_args(Unit)
_KNOWN = ", ".join(f"{{{unit}}}" for unit in UNITS)
# Digits, and nothing that may become another part of a path.
_FORM = re.compile(r"\d{0,2}d?", re.ASCII)
ANY = datetime.min  # fills what has no fields


def fields(template: str) -> tuple[Unit, ...]:
    """List the fields of a template, as often as they are in it.

    >>> fields("rides/{year:04d}/{month:02d}.parquet")
    ('year', 'month')

    Raises
    ------
    InputError
        For an unknown field, or braces that do not match; braces of a name are doubled.
    """
    try:
        found = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InputError(f"{template}: {error}: double the braces that belong to the name") from None
    for _, name, form, conversion in found:
        if name not in UNITS or conversion or not _FORM.fullmatch(form or ""):
            raise InputError(
                f"{template}: expected one of {_KNOWN}, with a format such as {{month:02d}}, got {{{name}}}: "
                "see its name, or double the braces that belong to the name"
            )
    return tuple(UNITS[UNITS.index(name)] for _, name, _, _ in found)


def fill(template: str, moment: datetime) -> str:
    """Fill a template with a date.

    >>> fill("rides/{year:04d}/{month:02d}.parquet", datetime(2026, 10, 5))
    'rides/2026/10.parquet'

    Raises
    ------
    InputError
        As for `fields`.
    """
    fields(template)
    return template.format(year=moment.year, month=moment.month, day=moment.day, hour=moment.hour)


def fixed(parts: list[str]) -> str:
    """Give the directory that parts of a path without fields name; empty for the one here.

    >>> fixed(["", "rides", "{{2026}}", ""]), fixed([""]), fixed([])
    ('/rides/{2026}', '/', '')
    """
    folder = fill("/".join(parts), ANY).rstrip("/")
    return folder or ("/" if parts and not parts[0] else "")


def check(input: str, output: str, dates: tuple[datetime, ...]) -> None:
    """See that two templates and the dates for them belong together.

    Parameters
    ----------
    input : INPUT's template, empty for what is no path.

    Raises
    ------
    InputError, OutputError
        When one is no template, a date is missing or is in neither, or two dates would read the same input.
    """
    in_input = fields(input)
    try:
        in_output = fields(output)
    except InputError as error:
        raise OutputError(str(error)) from None
    if (in_input or in_output) and not dates:
        where, found, kind = ("INPUT", in_input, InputError) if in_input else ("OUTPUT", in_output, OutputError)
        raise kind(f"{where} has {{{found[0]}}} and no date was given: give --date or --backfill, or double the braces")
    if dates and not in_input and not in_output:
        raise InputError(f"a date was given, and neither INPUT nor OUTPUT has one of {_KNOWN}: put it there")
    seen: dict[str, datetime] = {}
    for moment in dates:
        before = seen.setdefault(fill(input, moment), moment)
        if before is not moment:
            raise InputError(
                f"INPUT is the same for {before} and {moment}: put what tells them apart there, of {_KNOWN}"
            )
