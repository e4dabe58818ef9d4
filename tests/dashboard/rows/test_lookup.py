from typing import Any

import pytest

from fairlead.dashboard.rows.lookup import CachedRows, Found
from fairlead.errors import DashboardError


class Source:
    """Has one row, and may be away."""

    ttl_s = None

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_away = False
        self.listed: list[str] | None = ["a"]

    def find(self, index: str) -> Found | None:
        self.asked.append(index)
        if self.is_away:
            raise DashboardError("away")
        return Found({"age": 3}, 1) if index == "a" else None

    def indexes(self) -> list[str] | None:
        if self.is_away:
            raise DashboardError("away")
        return self.listed

    def close(self) -> None:
        self.asked.append("closed")


def test_all_that_is_asked_of_a_row_is_one_look_up() -> None:
    source = Source()
    rows = CachedRows(source)
    record: dict[str, Any] = rows.record("a") or {}
    record["age"] = 4
    assert (rows.exists("a"), rows.y("a"), rows.record("a")) == (True, 1, {"age": 3})
    assert (rows.exists("b"), rows.y("b"), rows.record("b")) == (False, None, None)
    assert source.asked == ["a", "b"]
    rows.close()
    assert source.asked[-1] == "closed"


def test_what_a_source_fails_for_is_told_until_it_works_again() -> None:
    source = Source()
    rows = CachedRows(source)
    source.is_away = True
    with pytest.raises(DashboardError, match="away"):
        rows.exists("a")
    assert rows.trouble == "away"
    source.is_away = False
    assert rows.exists("a")
    assert rows.trouble is None
    source.is_away = True
    assert rows.exists("a")
    assert rows.indexes() is None
    assert rows.trouble == "away"


def test_what_nobody_can_choose_from_is_not_listed() -> None:
    source = Source()
    rows = CachedRows(source)
    assert rows.indexes() == ["a"]
    source.listed = [str(place) for place in range(1001)]
    assert rows.indexes() is None
    source.listed = None
    assert rows.indexes() is None


def test_a_long_index_takes_no_room() -> None:
    source = Source()
    rows = CachedRows(source)
    assert not any(rows.exists("b" * 300) for _ in range(2))
    assert len(source.asked) == 2
