from __future__ import annotations

import pytest

from fairlead.batch.places import place_of
from fairlead.batch.places.local import LocalPlace
from fairlead.batch.places.s3 import S3Place
from fairlead.errors import InputError


def test_places_by_their_address() -> None:
    assert isinstance(place_of("s3://rides/2026", {}), S3Place)
    for path in ("rides/2026.csv", "/rides", "C:/rides", "a:b.csv"):
        assert isinstance(place_of(path, {}), LocalPlace)


@pytest.mark.parametrize(
    "path", ["postgresql://u:secret@h/d", "gs://bucket/key", "file:///a.csv", "https://a/b.csv", ""]
)
def test_what_is_no_place(path: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        place_of(path, {})
    assert "secret" not in str(caught.value)
