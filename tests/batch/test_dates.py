from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fairlead.batch.dates import check_fineness, moments_of, parse_backfill, parse_date, zone_of
from fairlead.errors import ConfigError, InputError

MONTH = "rides/{year:04d}/{month:02d}.parquet"


@pytest.mark.parametrize(
    ("text", "moment", "unit"),
    [
        ("2026", datetime(2026, 1, 1), "year"),
        ("2026-10", datetime(2026, 10, 1), "month"),
        ("2024-02-29", datetime(2024, 2, 29), "day"),
        ("2026-10-05T03", datetime(2026, 10, 5, 3), "hour"),
    ],
)
def test_dates(text: str, moment: datetime, unit: str) -> None:
    assert parse_date(text) == (moment, unit)


@pytest.mark.parametrize(
    "text", ["", "26", "2026-1", "2026-10-5", "2026-10-05T3:00", "2026-10-05 03", "2026/10", "٢٠٢٦"]
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(InputError, match="expected a date such as 2026, 2026-10"):
        parse_date(text)


@pytest.mark.parametrize("text", ["2026-13", "2026-02-30", "2026-10-05T24", "0000"])
def test_dates_that_there_are_not(text: str) -> None:
    with pytest.raises(InputError, match="there is no such date"):
        parse_date(text)


@pytest.mark.parametrize(
    ("text", "count", "last"),
    [
        ("2026-01..2026-06", 6, datetime(2026, 6, 1)),
        ("2025-11..2026-02", 4, datetime(2026, 2, 1)),
        ("2024-02-28..2024-03-01", 3, datetime(2024, 3, 1)),
        ("2026-10-05T22..2026-10-06T01", 4, datetime(2026, 10, 6, 1)),
        ("2020..2026", 7, datetime(2026, 1, 1)),
        ("2026..2026", 1, datetime(2026, 1, 1)),
        ("9998-12..9999-12", 13, datetime(9999, 12, 1)),
    ],
)
def test_backfills(text: str, count: int, last: datetime) -> None:
    moments = parse_backfill(text)

    assert (len(moments), moments[-1]) == (count, last)
    assert sorted(set(moments)) == list(moments)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-01", "expected a range"),
        ("2026-01..", "expected a date"),
        ("2026-06..2026-01", "ends before it begins"),
        ("2026-01..2026-06-01", "begins with a month and ends with a day"),
        ("1900-01-01T00..2026-01-01T00", "expected at most 100,000 dates"),
    ],
)
def test_what_is_no_backfill(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_backfill(text)


def test_a_date_says_as_much_as_the_template_asks_for() -> None:
    check_fineness(MONTH, "out/", "2026-10")
    check_fineness(MONTH, "{year}.csv", "2026-10-05..2026-10-09")
    with pytest.raises(InputError, match=r"OUTPUT has \{day\}, and 2026-10 is a month: give the day too"):
        check_fineness(MONTH, "{day}.csv", "2026-10")
    with pytest.raises(InputError, match=r"INPUT has \{month\}, and 2025 is a year"):
        check_fineness(MONTH, "out/", "2025..2026")


@pytest.mark.parametrize(
    ("template", "shift", "expected"),
    [
        ("{year}.csv", -1, datetime(2025, 1, 1)),
        ("{year}/{month}.csv", 0, datetime(2026, 1, 1)),
        ("{month}/{year}.csv", -1, datetime(2025, 12, 1)),
        ("{year}/{month}.csv", 13, datetime(2027, 2, 1)),
        ("{year}/{month}/{day}.csv", -31, datetime(2025, 12, 31)),
        ("{year}-{month}-{day}T{hour}.csv", -4, datetime(2026, 1, 30, 23)),
    ],
)
def test_the_date_is_that_of_the_schedule_moved(template: str, shift: int, expected: datetime) -> None:
    scheduled = datetime(2026, 1, 31, 3, 59)
    assert moments_of(template, "scored/", None, scheduled, shift) == (expected,)
    assert moments_of("rides.csv", template, None, scheduled, shift) == (expected,)


def test_a_date_that_is_given_goes_before_the_schedule() -> None:
    now = datetime(2026, 1, 31)
    assert moments_of(MONTH, MONTH, "2025-07", now, -1) == (datetime(2025, 7, 1),)
    assert len(moments_of(MONTH, MONTH, "2025-07..2025-09", now)) == 3
    assert moments_of("rides.csv", "scored.csv", None, now) == ()


def test_zones() -> None:
    assert zone_of(None) == ZoneInfo("UTC")
    assert zone_of("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    for wrong in ("Mars/Base", "../etc/passwd"):
        with pytest.raises(ConfigError, match="timezone: expected a name such as Europe/Berlin"):
            zone_of(wrong)


def test_a_shift_beyond_all_dates() -> None:
    with pytest.raises(ConfigError, match="shift: expected a small number, got -99999999"):
        moments_of(MONTH, MONTH, None, datetime(2026, 1, 31), -99999999)
