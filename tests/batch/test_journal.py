from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from fairlead.batch import journal
from fairlead.batch.formats import Form
from fairlead.batch.journal import Entry
from fairlead.batch.places import place_of
from fairlead.batch.places.place import Stamp

STAMP = Stamp(10, "1")
ENTRY = Entry("a.csv", STAMP, "sha256:b", "o", rows_in=3, rows_out=2, rejects=1, duration_s=0.5, output_size_bytes=20)


def test_an_entry_is_one_line_and_comes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "_journal" / "a.csv.json")
    place = place_of(path, {})

    journal.write(place, path, ENTRY)

    assert journal.read(place, path) == ENTRY
    assert Path(path).read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("keep", [0, 1, 40, -2, -3])
def test_what_is_torn_is_no_entry(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    path.write_bytes(msgspec.json.encode(ENTRY)[:keep])

    assert journal.read(place_of(str(path), {}), str(path)) is None


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"[]", b'{"input": 3}', b'"a'])
def test_garbage_is_no_entry(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    path.write_bytes(data)

    assert journal.read(place_of(str(path), {}), str(path)) is None
    assert journal.read(place_of(str(path), {}), str(tmp_path / "none.json")) is None


def test_what_is_the_same_is_done() -> None:
    assert journal.is_done(ENTRY, "a.csv", STAMP, "sha256:b", "o", Stamp(20, "another time"))


@pytest.mark.parametrize(
    "now",
    [
        ("b.csv", STAMP, "sha256:b", "o", Stamp(20, "9")),
        ("a.csv", Stamp(11, "1"), "sha256:b", "o", Stamp(20, "9")),
        ("a.csv", Stamp(10, "2"), "sha256:b", "o", Stamp(20, "9")),
        ("a.csv", STAMP, "sha256:c", "o", Stamp(20, "9")),
        ("a.csv", STAMP, "sha256:b", "p", Stamp(20, "9")),
        ("a.csv", STAMP, "sha256:b", "o", Stamp(21, "9")),
        ("a.csv", STAMP, "sha256:b", "o", None),
    ],
)
def test_what_changed_is_done_again(now: tuple[str, Stamp, str, str, Stamp | None]) -> None:
    assert not journal.is_done(ENTRY, *now)


def test_a_database_is_never_done() -> None:
    entry = msgspec.structs.replace(ENTRY, stamp=None)

    assert not journal.is_done(entry, "a.csv", None, "sha256:b", "o", Stamp(20, "9"))


def test_options_that_change_the_output_change_the_digest() -> None:
    form = Form("csv")
    digests = {
        journal.options_digest(None, "utf-8", form),
        journal.options_digest((), "utf-8", form),
        journal.options_digest(("a", "b"), "utf-8", form),
        journal.options_digest(("b", "a"), "utf-8", form),
        journal.options_digest(None, "latin-1", form),
        journal.options_digest(None, "utf-8", dataclasses.replace(form, compression="gzip")),
        journal.options_digest(None, "utf-8", Form("jsonl")),
    }
    assert len(digests) == 7
    assert journal.options_digest(("a",), "utf-8", form) == journal.options_digest(("a",), "utf-8", Form("csv"))
