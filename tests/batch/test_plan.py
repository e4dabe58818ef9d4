from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fairlead.batch.dates import parse_backfill
from fairlead.batch.formats import Form
from fairlead.batch.plan import Plan, plan
from fairlead.errors import InputError, OutputError
from registry import S3Server

OCTOBER = (datetime(2026, 10, 1),)
QUARTER = parse_backfill("2026-01..2026-03")
FILES = (
    "one.csv",
    "data/a.csv",
    "data/b.csv.gz",
    "data/sub/c.csv",
    "data/_scores/x.csv",
    "months/2026/01.csv",
    "months/2026/02.csv",
    "months/2026/03.csv",
    "parts/01/a.csv",
    "parts/01/b.csv",
    "parts/02/a.csv",
    "mixed/a.csv",
    "mixed/b.txt",
    "mixed/c.dat",
    "twins/a.csv",
    "twins/a.jsonl",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(input: str, output: str, dates: tuple[datetime, ...] = (), format: Any = None, **more: Any) -> Plan:
    return plan(input, output, dates, format, {}, **more)


def pairs(planned: Plan) -> list[tuple[str, str]]:
    return [(item.input, item.output) for item in planned.items]


def test_one_file() -> None:
    planned = made("one.csv", "out/scores.parquet")

    (item,) = planned.items
    assert (item.input, item.output, item.shown) == ("one.csv", "out/scores.parquet", "one.csv")
    assert (item.input_form, item.output_form) == (Form("csv"), Form("parquet"))
    assert (item.rejects, item.journal) == ("out/_rejects.scores.parquet.jsonl", "out/_journal.scores.parquet.json")
    assert (planned.root, planned.success) == ("out", "out/_SUCCESS.scores.parquet")


def test_one_file_here() -> None:
    planned = made("one.csv", "scores.csv.gz")

    assert planned.items[0].output_form == Form("csv", "gzip")
    assert (planned.items[0].journal, planned.success) == ("_journal.scores.csv.gz.json", "_SUCCESS.scores.csv.gz")
    assert made("one.csv", "/scores.csv").success == "/_SUCCESS.scores.csv"


@pytest.mark.parametrize("output", ["out/", "there", "there/", "./there"])
def test_one_file_into_a_directory(output: str) -> None:
    planned = made("data/a.csv", output)

    root = output.rstrip("/")
    assert pairs(planned) == [("data/a.csv", f"{root}/a.csv")]
    assert planned.success == f"{root}/_SUCCESS"


def test_a_directory() -> None:
    planned = made("data/", "out")

    outputs = [item.output for item in planned.items]
    assert outputs == ["out/a.csv", "out/b.csv.gz", "out/sub/c.csv"]
    assert [item.output_form for item in planned.items] == [Form("csv"), Form("csv", "gzip"), Form("csv")]
    assert planned.items[2].rejects == "out/_rejects/sub/c.csv.jsonl"
    assert planned.items[2].journal == "out/_journal/sub/c.csv.json"
    assert (planned.root, planned.success) == ("out", "out/_SUCCESS")


def test_a_glob_is_several_files_also_when_it_finds_one() -> None:
    assert pairs(made("data/*.csv", "out")) == [("data/a.csv", "out/a.csv")]
    assert pairs(made("data/**/c*", "/out/")) == [("data/sub/c.csv", "/out/sub/c.csv")]


@pytest.mark.parametrize(
    ("format", "outputs"),
    [
        ("parquet", ["out/a.parquet", "out/b.parquet", "out/sub/c.parquet"]),
        ("jsonl", ["out/a.jsonl", "out/b.jsonl.gz", "out/sub/c.jsonl"]),
        ("csv", ["out/a.csv", "out/b.csv.gz", "out/sub/c.csv"]),
    ],
)
def test_a_directory_in_another_format(format: str, outputs: list[str]) -> None:
    planned = made("data", "out/", format=format)

    assert [item.output for item in planned.items] == outputs
    assert {item.output_form.name for item in planned.items} == {format}
    assert [item.output_form.suffix for item in planned.items] == ["." + name.split(".", 1)[1] for name in outputs]


def test_a_name_that_tells_no_format() -> None:
    assert made("one.csv", "scores", format="parquet").items[0].output_form == Form("parquet")
    with pytest.raises(OutputError, match=r"scores: expected a name that ends in .*, give --format, or end it with /"):
        made("one.csv", "scores")
    with pytest.raises(OutputError, match=r"its name says csv and --format parquet: leave out one"):
        made("one.csv", "scores.csv", format="parquet")


def test_a_date() -> None:
    planned = made("months/{year:04d}/{month:02d}.csv", "out/{year:04d}/s-{month:02d}.csv", QUARTER[:1])

    assert pairs(planned) == [("months/2026/01.csv", "out/2026/s-01.csv")]
    assert planned.items[0].journal == "out/_journal/2026/s-01.csv.json"
    assert (planned.root, planned.success) == ("out", "out/_SUCCESS")


def test_a_backfill() -> None:
    planned = made("months/{year}/{month:02d}.csv", "{year}-{month}.parquet", QUARTER)

    assert [item.output for item in planned.items] == ["2026-1.parquet", "2026-2.parquet", "2026-3.parquet"]
    assert (planned.root, planned.success) == ("", "_SUCCESS")


@pytest.mark.parametrize("output", ["out/", "out", "{{out}}/"])
def test_a_backfill_into_a_directory(output: str) -> None:
    planned = made("months/{year}/{month:02d}.csv", output, QUARTER[:2])

    root = output.replace("{{", "{").replace("}}", "}").rstrip("/")
    assert [item.output for item in planned.items] == [f"{root}/2026/01.csv", f"{root}/2026/02.csv"]
    assert planned.root == root


def test_a_backfill_of_directories() -> None:
    dated = made("parts/{month:02d}/*.csv", "out/{month:02d}/", QUARTER[:2])
    assert [item.output for item in dated.items] == ["out/01/a.csv", "out/01/b.csv", "out/02/a.csv"]
    assert dated.items[0].journal == "out/_journal/01/a.csv.json"

    assert pairs(made("parts/{month:02d}/", "out/", QUARTER[:2])) == pairs(dated)


def test_dates_that_have_no_input() -> None:
    with pytest.raises(InputError, match=r"2 of 5 dates have no input: months/2026/04.csv, months/2026/05.csv"):
        made("months/{year}/{month:02d}.csv", "{month}.csv", parse_backfill("2026-01..2026-05"))
    with pytest.raises(InputError, match=r"months/2026/10.csv: expected a file"):
        made("months/{year}/{month:02d}.csv", "{month}.csv", OCTOBER)


@pytest.mark.parametrize(
    ("output", "dates", "reason"),
    [
        ("out.csv", QUARTER, "INPUT names several files, and this is the name of one: end it with /"),
        ("{year}.csv", QUARTER, "would be written for months/2026/01.csv and for months/2026/02.csv"),
        ("s3://b-{month}/x.csv", QUARTER, "expected a bucket that is the same for all dates"),
        ("months/{year}/{month:02d}.csv", QUARTER, "months/2026/01.csv: is an input as well"),
        ("{mnth}.csv", QUARTER, "expected one of"),
    ],
)
def test_outputs_that_coincide(output: str, dates: tuple[datetime, ...], reason: str) -> None:
    with pytest.raises(OutputError, match=reason):
        made("months/{year}/{month:02d}.csv", output, dates)


def test_a_name_of_one_file_for_several() -> None:
    with pytest.raises(OutputError, match="INPUT names several files"):
        made("data", "out.csv")
    assert made("data", "out.csv/").root == "out.csv"


def test_files_of_unknown_formats() -> None:
    with pytest.raises(InputError, match=r"mixed/b.txt: expected a name .*; 2 are so: mixed/b.txt, mixed/c.dat"):
        made("mixed", "out/")
    with pytest.raises(InputError, match=r"mixed/b.txt: expected a name that ends in one of .parquet"):
        made("mixed/b.txt", "out.csv")
    assert len(made("mixed/*.csv", "out/").items) == 1


def test_two_inputs_of_one_output() -> None:
    with pytest.raises(OutputError, match=r"out/a.parquet: would be written for twins/a.csv and for twins/a.jsonl"):
        made("twins", "out", format="parquet")


@pytest.mark.parametrize(
    ("input", "output", "reason"),
    [
        ("one.csv", "one.csv", "is an input as well"),
        ("one.csv", "there/../one.csv", "is an input as well"),
        ("one.csv", ".", "is an input as well"),
        ("one.csv", "link.csv", "is an input as well"),
        ("data", "data", "is an input as well"),
        ("data", "data/scores/", "is among what data names, and the next run would score it again"),
        ("data", "linked/scores/", "is among what data names"),
        ("data/**/*.csv", "data/scores/", r"is among what data/\*\*/\*.csv names"),
        (".", "scores/", r"is among what \. names"),
    ],
)
def test_outputs_that_are_inputs(input: str, output: str, reason: str, here: Path) -> None:
    (here / "link.csv").symlink_to("one.csv")
    (here / "linked").symlink_to("data")
    for name in ("mixed/b.txt", "mixed/c.dat"):
        (here / name).unlink()
    with pytest.raises(OutputError, match=reason):
        made(input, output)
    absolute = f"{here}/{input}" if input != "." else str(here)
    with pytest.raises(OutputError, match=r"is an input as well|is among what"):
        made(absolute, output)


def test_outputs_that_the_next_run_does_not_find() -> None:
    assert made("data/*.csv", "data/scores/").root == "data/scores"
    assert made("data", "data/_scores/").root == "data/_scores"
    assert made("data", "data-scores/").root == "data-scores"
    assert made("data/a.csv", "data/scores.csv").root == "data"


def test_a_database() -> None:
    address = "postgresql://user:secret@host:5432/rides?sslpassword=secret"
    planned = made(address, "out/scores.parquet", query="select 1")

    (item,) = planned.items
    assert (item.input, item.input_form, item.output_form) == (address, None, Form("parquet"))
    assert item.shown == "postgresql://host:5432/rides"
    assert planned.success == "out/_SUCCESS.scores.parquet"
    assert made(address, "out/{month}.csv", OCTOBER, query="select 1").items[0].journal == "out/_journal/10.csv.json"


@pytest.mark.parametrize(
    ("input", "output", "query", "kind", "reason"),
    [
        ("postgresql://h/d", "out.csv", None, InputError, "got no query: give --query"),
        ("one.csv", "out.csv", "select 1", InputError, "got a query: give postgresql://"),
        ("postgresql://h/d", "out/", "select 1", OutputError, "found a directory: name a file in it"),
        ("postgresql://h/d", "there", "select 1", OutputError, "found a directory: name a file in it"),
        ("one.csv", "postgresql://u:secret@h/d", None, InputError, "postgresql://…: expected a path"),
        ("gs://bucket/a.csv", "out.csv", None, InputError, "gs://…: expected a path of this machine or s3://"),
        ("", "out.csv", None, InputError, "expected the path of a file"),
        ("one.csv", "", None, InputError, "expected the path of a file"),
        ("none.csv", "out.csv", None, InputError, "none.csv: expected a file"),
    ],
)
def test_what_is_refused(input: str, output: str, query: str | None, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        made(input, output, query=query)


def test_from_s3_to_here_and_back(s3_server: S3Server) -> None:
    for key in ("plan/in/a.csv", "plan/in/2026/b.csv"):
        s3_server.client.put_object(Bucket="models", Key=key, Body=b"")
    environ = s3_server.environ

    to_here = plan("s3://models/plan/in/", "out", (), None, environ)
    assert pairs(to_here) == [
        ("s3://models/plan/in/2026/b.csv", "out/2026/b.csv"),
        ("s3://models/plan/in/a.csv", "out/a.csv"),
    ]
    there = plan("s3://models/plan/in/**/*.csv", "s3://models/plan/out/", (), "parquet", environ)
    assert there.items[0].output == "s3://models/plan/out/2026/b.parquet"
    assert there.items[0].journal == "s3://models/plan/out/_journal/2026/b.parquet.json"
    assert (there.root, there.success) == ("s3://models/plan/out", "s3://models/plan/out/_SUCCESS")
    one = plan("one.csv", "s3://models/scores.csv", (), None, environ)
    assert (one.root, one.success) == ("s3://models", "s3://models/_SUCCESS.scores.csv")
    assert plan("one.csv", "s3://models/", (), None, environ).items[0].output == "s3://models/one.csv"
    with pytest.raises(OutputError, match=r"s3://models/plan/in/x/2026/b.csv: is among"):
        plan("s3://models/plan/in", "s3://models/plan/in/x/", (), None, environ)


def test_many_dates_are_planned_at_once(here: Path) -> None:
    days = parse_backfill("2020-01-01..2026-12-31")
    for day in days:
        (here / "months" / f"{day:%Y%m%d}.csv").touch()

    planned = made("months/{year:04d}{month:02d}{day:02d}.csv", f"{here}{os.sep}out/", days)

    assert len(planned.items) == len(days)
