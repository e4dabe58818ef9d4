from __future__ import annotations

import itertools
from typing import Literal

from fairlead.stream.brokers.kinesis.shards import Shard, beginnings

# 0 was split into 1 and 2, which were merged into 3; 4 is alone.
LINE = [
    Shard("0", (), True),
    Shard("1", ("0",), True),
    Shard("2", ("0",), True),
    Shard("3", ("1", "2")),
    Shard("4"),
]


def begun(known: set[str], start: Literal["oldest", "newest"]) -> dict[str, str]:
    return {shard.id: where for shard, where in beginnings(LINE, known, start, 1700000000.4)}


def test_oldest_begins_all_at_their_oldest() -> None:
    assert begun(set(), "oldest") == dict.fromkeys("01234", "TRIM_HORIZON")


def test_newest_leaves_out_what_is_closed_and_begins_at_a_time() -> None:
    now = "AT_TIMESTAMP 1700000000"
    assert begun(set(), "newest") == dict.fromkeys("012", "SHARD_END") | {"3": now, "4": now}


def test_heirs_of_known_shards_are_begun_at_their_oldest() -> None:
    assert begun({"0", "4"}, "newest") == dict.fromkeys("123", "TRIM_HORIZON")
    assert begun(set("01234"), "newest") == {}


def test_newest_broken_off_anywhere_begins_nothing_older_when_it_is_taken_up() -> None:
    whole = begun(set(), "newest")
    for count in range(len(whole)):
        written = dict(itertools.islice(whole.items(), count))
        assert written | begun(set(written), "newest") == whole
