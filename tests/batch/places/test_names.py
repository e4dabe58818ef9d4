from __future__ import annotations

import pytest

from fairlead.batch.places.names import leads, matches, split


@pytest.mark.parametrize(
    ("pattern", "folder", "segments"),
    [
        ("*.csv", "", ("*.csv",)),
        ("/*.csv", "/", ("*.csv",)),
        ("a/b/c?.csv", "a/b", ("c?.csv",)),
        ("a/[bc]/d.csv", "a", ("[bc]", "d.csv")),
        ("a/**", "a", ("**", "*")),
        ("a/*/", "a", ("*", "**", "*")),
        ("a/**/", "a", ("**", "*")),
        ("s3://rides/2026/*.csv", "s3://rides/2026", ("*.csv",)),
    ],
)
def test_a_glob_is_parted(pattern: str, folder: str, segments: tuple[str, ...]) -> None:
    assert split(pattern) == (folder, segments)


@pytest.mark.parametrize(
    ("pattern", "name", "is_meant"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "a/b.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "a/b/c.csv", True),
        ("**/x/*.csv", "a/x/c.csv", True),
        ("**/x/*.csv", "a/c.csv", False),
        ("**/**/a", "a", True),
        ("*", "_a", False),
        ("_*", "_a", False),
        ("**/*", "_journal/a", False),
        ("**/*", ".git/a", False),
        ("[!a]?.csv", "bc.csv", True),
    ],
)
def test_what_a_glob_means(pattern: str, name: str, is_meant: bool) -> None:
    segments = tuple(pattern.split("/"))

    assert matches(segments, name.split("/")) == is_meant
    if is_meant:
        assert all(leads(segments, name.split("/")[:depth]) for depth in range(1, name.count("/") + 1))


def test_folders_that_lead_nowhere() -> None:
    assert not leads(("*.csv",), ("a",))
    assert not leads(("b*", "*.csv"), ("a",))
    assert leads(("b*", "**", "*.csv"), ("b", "c", "d"))
