"""The dates that fill templates: as a flag has them, as a schedule gives them.

Layer L3; imports errors and `templates`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fairlead.batch.templates import UNITS, Unit, fields
from fairlead.errors import ConfigError, InputError

_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}))?)?)?", re.ASCII)
_DATES = "2026, 2026-10, 2026-10-05 or 2026-10-05T03"
_MAX_DATES = 100_000


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
        return datetime(*(numbers + [1, 1][len(numbers) - 1 :])), UNITS[len(numbers) - 1]  # type: ignore[arg-type]  # 3 and more
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


def moments_of(input: str, output: str, date: str | None, scheduled: datetime, shift: int = 0) -> tuple[datetime, ...]:
    """Give the dates that fill two templates; none where they have no fields.

    >>> moments_of("{year}/{month}.csv", "scored/{year}/{month}.csv", None, datetime(2026, 11, 2, 3), -1)
    (datetime.datetime(2026, 10, 1, 0, 0),)

    Raises
    ------
    InputError, OutputError
        When a template is none, or does not go with the date.
    """
    if date is not None:
        check_fineness(input, output, date)
        return parse_backfill(date) if ".." in date else (parse_date(date)[0],)
    names = (*fields(input), *fields(output))
    if not names:
        return ()
    return (_moved(scheduled, max((unit for unit in UNITS if unit in names), key=UNITS.index), shift),)


def _moved(moment: datetime, unit: Unit, count: int) -> datetime:
    """Give when the year, month, day or hour begins that is `count` of them after that of `moment`."""
    try:
        if unit in ("year", "month"):
            months = moment.month - 1 + count if unit == "month" else 12 * count
            return datetime(moment.year + months // 12, months % 12 + 1, 1)
        if unit == "day":
            return datetime(moment.year, moment.month, moment.day) + timedelta(days=count)
        return datetime(moment.year, moment.month, moment.day, moment.hour) + timedelta(hours=count)
    except (ValueError, OverflowError):
        raise ConfigError(f"shift: expected a small number, got {count}: there is no such {unit}") from None


def zone_of(timezone: str | None) -> ZoneInfo:
    """Give a time zone by its name, UTC for none.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    try:
        return ZoneInfo(timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"timezone: expected a name such as Europe/Berlin, got {timezone}: see its name") from error


def _next(moment: datetime, unit: Unit) -> datetime:
    if unit == "year":
        return moment.replace(year=moment.year + 1)
    if unit == "month":
        return moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1)
    return moment + (timedelta(days=1) if unit == "day" else timedelta(hours=1))
