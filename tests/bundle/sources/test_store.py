from __future__ import annotations

import pytest

from fairlead.bundle.sources.store import RemoteFile, fingerprint, listing
from fairlead.errors import SourceError


@pytest.mark.parametrize("name", ["model.pkl", "data/ü ber.txt", "a..b/..c", ".hidden"])
def test_good_names(name: str) -> None:
    assert RemoteFile(name).name == name


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "a\\b", "a\nb", "a\0b", "x" * 256]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="expected"):
        RemoteFile(name)


def test_a_listing_is_sorted_and_fits_on_a_disk() -> None:
    assert [file.name for file in listing([RemoteFile("b"), RemoteFile("a/c")], "there")] == ["a/c", "b"]
    with pytest.raises(SourceError, match="there: expected the files of a model, there are none"):
        listing([], "there")
    with pytest.raises(SourceError, match="a is there twice"):
        listing([RemoteFile("a"), RemoteFile("a/b/c")], "there")
    with pytest.raises(SourceError, match="a is there twice"):
        listing([RemoteFile("a"), RemoteFile("a")], "there")


def test_a_fingerprint_sees_every_change() -> None:
    one = fingerprint([RemoteFile("a", 1, "x")])
    assert one == fingerprint([RemoteFile("a", 1, "x")])
    assert len({one, fingerprint([RemoteFile("b", 1, "x")]), fingerprint([RemoteFile("a", 2, "x")]),
                fingerprint([RemoteFile("a", 1, "y")])}) == 4  # fmt: skip
