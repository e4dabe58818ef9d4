from __future__ import annotations

from datetime import datetime

import pytest

from fairlead.batch.dates import parse_backfill
from fairlead.batch.templates import check, fields, fill
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
