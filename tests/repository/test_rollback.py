"""A canary is taken back for what it did of late, and for nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config import CanarySettings
from fairlead.repository.rollback import Bounds, Counts, Judge, Tally

BOUNDS = Bounds(max_error_rate=0.05, max_latency_s=0.2, min_requests=100, window_s=60)


def test_the_bounds_are_those_of_the_settings() -> None:
    settings = CanarySettings("next", max_error_rate=0.1, max_latency_s=0.5, min_requests=7, window_s=8)
    assert Bounds.of(settings) == Bounds(0.1, 0.5, 7, 8)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (Counts(150, 0, 0), None),
        (Counts(100, 5, 5), None),
        (Counts(99, 99, 99), None),
        (Counts(150, 18, 0), "18 of 150 requests in 60 s failed, which is 12 %; the bound is 5 %"),
        (
            Counts(150, 0, 12),
            "12 of 150 requests in 60 s took longer than 0.2 s, which is 8 %; the bound is 5 %",
        ),
        (Counts(150, 18, 150), "18 of 150 requests in 60 s failed, which is 12 %; the bound is 5 %"),
    ],
)
def test_what_is_out_of_bounds_is_told(counts: Counts, reason: str | None) -> None:
    assert Judge(BOUNDS).add(counts, 0.0) == reason


def test_no_failure_at_all_may_be_asked_for() -> None:
    judge = Judge(Bounds(0.0, None, 1, 60))
    assert judge.add(Counts(10_000, 0, 10_000), 0) is None
    assert judge.add(Counts(1, 1, 0), 1) == "1 of 10001 requests in 60 s failed, which is 0.01 %; the bound is 0 %"


def test_what_workers_counted_comes_together() -> None:
    judge = Judge(BOUNDS)
    assert judge.add(Counts(60, 10, 0), 0.0) is None
    assert judge.add(Counts(60, 10, 0), 0.1) is not None


def test_what_is_long_ago_is_forgotten() -> None:
    judge = Judge(BOUNDS)
    assert judge.add(Counts(90, 90, 0), 0.0) is None
    assert judge.add(Counts(), 60.0) is None
    assert judge.add(Counts(100, 5, 0), 60.0) is None
    assert judge.add(Counts(1, 1, 0), 119.9) is not None
    assert judge.add(Counts(100, 0, 0), 120.0) is None


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))))
def test_a_window_is_judged_as_if_it_came_at_once(steps: list[tuple[float, int, int, int]]) -> None:
    judge, now_s, seen = Judge(BOUNDS), 0.0, list[tuple[float, Counts]]()
    for wait_s, requests, failed, slow in steps:
        now_s += wait_s
        counts = Counts(requests, min(failed, requests), min(slow, requests))
        seen.append((now_s, counts))
        of_late = sum((one for at_s, one in seen if at_s > now_s - 60), Counts())
        assert judge.add(counts, now_s) == Judge(BOUNDS).add(of_late, 0.0)


def test_a_tally_counts_what_failed_and_what_was_slow() -> None:
    tally = Tally(0.2)
    tally.add(False, 200_000_000)
    tally.add(False, 200_000_001)
    tally.add(True, 1)
    counts = tally.take()
    assert counts == Counts(3, 1, 1)
    assert tally.take() == Counts()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(counts), type=Counts) == counts


def test_without_a_bound_nothing_is_slow() -> None:
    tally = Tally(None)
    tally.add(False, 10**15)
    assert tally.take() == Counts(1, 0, 0)
