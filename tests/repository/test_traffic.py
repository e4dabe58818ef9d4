"""Traffic between two versions: the share is right, a caller stays, and a larger weight gives nobody back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import ConfigError
from fairlead.repository.traffic import Sticky, bucket, feature_key, goes_to_canary

KEYS = [f"user-{number}".encode() for number in range(20_000)]
WEIGHTS = st.floats(0, 1)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("header:X-User-Id", "header", "x-user-id"),
        ("cookie:Session", "cookie", "Session"),
        ("feature:customer: id", "feature", "customer: id"),
    ],
)
def test_what_a_caller_is_known_by_is_read(text: str, kind: str, name: str) -> None:
    sticky = Sticky.parse(text)
    assert (sticky.kind, sticky.name) == (kind, name)


@pytest.mark.parametrize("text", ["", "header", "header:", "cookie:a b", "feature:", "query:user", "header:x\n"])
def test_what_is_nothing_of_a_request_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="sticky: expected header:NAME, cookie:NAME or feature:NAME, got "):
        Sticky.parse(text)


def test_callers_are_spread_evenly() -> None:
    tenths = [0] * 10
    for key in KEYS:
        tenths[int(bucket(key, "churn") * 10)] += 1
    # Each is binomial with a standard deviation of 42: nobody changes the hash, so this never fails by chance.
    assert all(abs(count - 2000) < 4 * 42 for count in tenths)


def test_two_models_part_their_callers_each_in_its_own_way() -> None:
    both = sum(goes_to_canary(key, 0.1, "churn") and goes_to_canary(key, 0.1, "price") for key in KEYS)
    assert 100 < both < 300


@given(st.binary(), st.text(), WEIGHTS, WEIGHTS)
def test_a_larger_weight_gives_no_caller_back(key: bytes, salt: str, one: float, other: float) -> None:
    assert 0 <= bucket(key, salt) < 1
    low, high = sorted((one, other))
    assert goes_to_canary(key, low, salt) <= goes_to_canary(key, high, salt)
    assert not goes_to_canary(key, 0.0, salt)
    assert goes_to_canary(key, 1.0, salt)


def test_a_caller_has_the_same_place_in_every_process() -> None:
    script = "from fairlead.repository.traffic import bucket; print(bucket(b'user-1', 'churn'))"
    for seed in ("0", "1"):
        environ = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
        assert float(done.stdout) == bucket(b"user-1", "churn")
    # A change of the hash would give every caller of a running canary another version.
    assert bucket(b"user-1", "churn") == 0.25208503063238863


def test_without_a_key_chance_decides() -> None:
    random.seed(7)
    share = sum(goes_to_canary(None, 0.25, "churn") for _ in range(10_000)) / 10_000
    assert abs(share - 0.25) < 0.02
    assert not any(goes_to_canary(None, 0.0, "churn") for _ in range(100))
    assert all(goes_to_canary(None, 1.0, "churn") for _ in range(100))


def test_a_feature_has_one_key_whatever_it_came_as() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert feature_key(7) == feature_key(7.0) == b"7"
    assert feature_key(0.0) == feature_key(-0.0)
    assert feature_key(1e300) == feature_key(int(1e300))
    assert feature_key(noon) == feature_key(noon.astimezone(timezone(timedelta(hours=5))))
    assert feature_key(None) is None
    keys = [feature_key(value) for value in (7.5, True, "Tromsø", "", "\ud800", noon)]
    assert len(set(keys)) == len(keys)
    assert None not in keys
