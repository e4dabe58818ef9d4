"""Paths with dates in them: `rides/{year:04d}/{month:02d}.parquet`, and the dates that fill them.

Layer L3; imports errors only.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from string import Formatter
from typing import Literal, get_args

from fairlead.errors import InputError, OutputError

Unit = Literal["year", "month", "day", "hour"]
UNITS: tuple[Unit, ...] = get_args(Unit)
_KNOWN = ", ".join(f"{{{unit}}}" for unit in UNITS)
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}))?)?)?", re.ASCII)
_DATES = "2026, 2026-10, 2026-10-05 or 2026-10-05T03"
# Digits, and nothing that may become another part of a path.
_FORM = re.compile(r"\d{0,2}d?", re.ASCII)
_MAX_DATES = 100_000
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


def parse_date(text: str) -> tuple[datetime, Unit]:
    """Read a year, a month, a day or an hour: when it begins, and which of them it is.

    >>> parse_date("2026-10")
    (datetime.datetime(2026, 10, 1, 0, 0), 'month')

    Raises
    ------
    InputError
        For another form, or a date that there is not.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        raise InputError(f"{text}: expected a date such as {_DATES}: write it so")
    numbers = [int(part) for part in found.groups() if part is not None]
    try:
        return datetime(*(numbers + [1, 1][len(numbers) - 1 :])), UNITS[len(numbers) - 1]  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{text}: there is no such date ({error}): see its numbers") from None


def parse_backfill(text: str) -> tuple[datetime, ...]:
    """Read a range of dates, both ends among them, in steps of what its ends are.

    >>> [moment.month for moment in parse_backfill("2026-01..2026-03")]
    [1, 2, 3]

    Raises
    ------
    InputError
        For another form, a range that ends before it begins, ends of two kinds, or more than 100,000 dates.
    """
    first, separator, last = text.partition("..")
    if not separator:
        raise InputError(f"{text}: expected a range such as 2026-01..2026-06: write it so")
    (moment, unit), (end, unit_of_end) = parse_date(first), parse_date(last)
    if unit != unit_of_end:
        raise InputError(f"{text}: begins with a {unit} and ends with a {unit_of_end}: give two of the same kind")
    if end < moment:
        raise InputError(f"{text}: ends before it begins: turn it round")
    moments = [moment]
    while moments[-1] < end:
        if len(moments) == _MAX_DATES:
            raise InputError(f"{text}: expected at most {_MAX_DATES:,} dates, got more: part the range")
        moments.append(_next(moments[-1], unit))
    return tuple(moments)


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


def check_fineness(input: str, output: str, text: str) -> None:
    """See that a date, or a range of dates, says as much as the templates ask for.

    Raises
    ------
    InputError
        When one has a field that the date leaves open.
    """
    given = text.partition("..")[0]
    unit = parse_date(given)[1]
    for where, template in (("INPUT", input), ("OUTPUT", output)):
        for name in fields(template):
            if UNITS.index(name) > UNITS.index(unit):
                raise InputError(
                    f"{where} has {{{name}}}, and {given} is a {unit}: give the {name} too, as in {_DATES}"
                )


def _next(moment: datetime, unit: Unit) -> datetime:
    if unit == "year":
        return moment.replace(year=moment.year + 1)
    if unit == "month":
        return moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1)
    return moment + (timedelta(days=1) if unit == "day" else timedelta(hours=1))
