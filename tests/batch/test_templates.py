from __future__ import annotations

from datetime import datetime

import pytest

from fairlead.batch.templates import check, check_fineness, fields, fill, parse_backfill, parse_date
from fairlead.errors import InputError, OutputError

MONTH = "rides/{year:04d}/{month:02d}.parquet"
OCTOBER = (datetime(2026, 10, 1),)


def test_a_template_is_filled() -> None:
    moment = datetime(2026, 1, 2, 3)

    assert fill(MONTH, moment) == "rides/2026/01.parquet"
    assert fill("{{{day}}}/{hour:03d}-{year}.csv", moment) == "{2}/003-2026.csv"
    assert fields(MONTH) == ("year", "month")
    assert fields("plain.csv") == ()


@pytest.mark.parametrize(
    "template",
    [
        "{minute}",
        "{}",
        "{0}",
        "{year.real}",
        "{year[0]}",
        "{year!r}",
        "{year:{month}}",
        "{Month}",
        "{ year}",
        "{year:c}",
        "{month:/>4}",
        "{day:s}",
    ],
)
def test_unknown_fields_are_refused_with_the_known_ones(template: str) -> None:
    with pytest.raises(InputError, match=r"expected one of \{year\}, \{month\}, \{day\}, \{hour\}"):
        fill(template, datetime(2026, 1, 1))


@pytest.mark.parametrize("template", ["a{b.csv", "a}b.csv", "{year"])
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="double the braces"):
        fill(template, datetime(2026, 1, 1))


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


def test_templates_and_dates_that_belong_together() -> None:
    check("in.csv", "out.csv", ())
    check(MONTH, "scores/", parse_backfill("2026-01..2026-06"))
    check("in.csv", MONTH, OCTOBER)


@pytest.mark.parametrize(
    ("input", "output", "dates", "reason"),
    [
        (MONTH, "out/", (), r"INPUT has \{year\} and no date was given: give --date"),
        ("in.csv", "out.csv", OCTOBER, "neither INPUT nor OUTPUT has one of"),
        ("in.csv", MONTH, parse_backfill("2026-01..2026-02"), "INPUT is the same for 2026-01-01"),
        ("{year}.csv", MONTH, parse_backfill("2026-01..2026-02"), "INPUT is the same"),
        ("{yaer}.csv", MONTH, OCTOBER, "expected one of"),
    ],
)
def test_templates_and_dates_that_do_not(input: str, output: str, dates: tuple[datetime, ...], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check(input, output, dates)


@pytest.mark.parametrize(
    ("output", "reason"), [(MONTH, r"OUTPUT has \{year\} and no date was given"), ("{x}", "expected one of")]
)
def test_what_is_wrong_with_the_output(output: str, reason: str) -> None:
    with pytest.raises(OutputError, match=reason):
        check("in.csv", output, ())


def test_a_date_says_as_much_as_the_template_asks_for() -> None:
    check_fineness(MONTH, "out/", "2026-10")
    check_fineness(MONTH, "{year}.csv", "2026-10-05..2026-10-09")
    with pytest.raises(InputError, match=r"OUTPUT has \{day\}, and 2026-10 is a month: give the day too"):
        check_fineness(MONTH, "{day}.csv", "2026-10")
    with pytest.raises(InputError, match=r"INPUT has \{month\}, and 2025 is a year"):
        check_fineness(MONTH, "out/", "2025..2026")
