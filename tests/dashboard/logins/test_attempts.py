"""How often someone may try: by name and by address, over threads and processes, and whatever the clock does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from fairlead.dashboard.logins.attempts import Attempt, Attempts
from fairlead.dashboard.logins.users_file import UsersFile
from guarded_hub import Clock

LIMIT, WINDOW_S = 3, 60.0


@pytest.fixture
def file(tmp_path: Path) -> UsersFile:
    made = UsersFile(tmp_path / "users.sqlite")
    made.make()
    return made


@pytest.fixture
def attempts(file: UsersFile, clock: Clock) -> Attempts:
    return Attempts(file, LIMIT, WINDOW_S, clock)


def begin(attempts: Attempts, name: str, address: str | None = "192.0.2.1") -> Attempt:
    return attempts.begin(name, None if address is None else ip_address(address))


def let_through(attempts: Attempts, name: str, address: str | None) -> bool:
    return begin(attempts, name, address).wait_s == 0


def test_a_hundred_from_one_address_are_looked_at_thrice(attempts: Attempts) -> None:
    assert [let_through(attempts, f"user {place}", "192.0.2.1") for place in range(100)] == [True] * 3 + [False] * 97
    assert let_through(attempts, "user 1", "192.0.2.2")


def test_a_hundred_for_one_name_from_everywhere_are_looked_at_thrice(attempts: Attempts) -> None:
    assert [let_through(attempts, "ann", f"192.0.2.{place}") for place in range(100)] == [True] * 3 + [False] * 97
    assert let_through(attempts, "bob", "192.0.2.50")


def test_one_name_written_in_many_ways_is_one(attempts: Attempts) -> None:
    ways = ["ann", "ANN", " Ann ", "ａｎｎ", "aNN\n"]
    assert [let_through(attempts, way, f"192.0.2.{place}") for place, way in enumerate(ways)] == [True] * 3 + [
        False
    ] * 2


def test_what_is_no_name_counts_as_one(attempts: Attempts) -> None:
    ways = ["", "x" * 500, "\ud800", "a\0b"]
    assert [let_through(attempts, way, f"192.0.2.{place}") for place, way in enumerate(ways)] == [True] * 3 + [False]


@pytest.mark.parametrize(
    "addresses",
    [
        ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::", "2001:db8::ffff:ffff:ffff:ffff"],
        ["192.0.2.1"] * 4,
        ["fe80::1%eth0", "fe80::2%eth1", "fe80::3", "fe80::4"],
        [None] * 4,
    ],
    ids=["one network of version 6", "version 4", "with a zone", "none"],
)
def test_addresses_of_one_owner_count_as_one(addresses: list[str | None], attempts: Attempts) -> None:
    assert [let_through(attempts, f"user {place}", address) for place, address in enumerate(addresses)] == [
        True, True, True, False,
    ]  # fmt: skip
    assert let_through(attempts, "someone", "2001:db8:0:1::1")


def test_they_may_try_again_one_by_one(attempts: Attempts, clock: Clock) -> None:
    for _ in range(3):
        assert let_through(attempts, "ann", "192.0.2.1")
        clock.now_s += 10
    assert begin(attempts, "ann", "192.0.2.9").wait_s == pytest.approx(30)
    clock.now_s += 29
    assert begin(attempts, "ann", "192.0.2.9").wait_s == pytest.approx(1)
    clock.now_s += 1
    assert let_through(attempts, "ann", "192.0.2.9")
    # The second of the three still counts, for ten seconds.
    assert begin(attempts, "ann", "192.0.2.9").wait_s == pytest.approx(10)


def test_what_was_not_looked_at_does_not_make_it_longer(attempts: Attempts, clock: Clock) -> None:
    for _ in range(50):
        begin(attempts, "ann", "192.0.2.1")
        clock.now_s += 1
    assert begin(attempts, "ann", "192.0.2.1").wait_s == pytest.approx(WINDOW_S - 50)


def test_who_succeeds_is_not_counted_but_those_before_are(attempts: Attempts) -> None:
    for _ in range(20):
        attempts.succeed(begin(attempts, "ann", "192.0.2.1"))
    assert let_through(attempts, "ann", "192.0.2.1")
    assert let_through(attempts, "ann", "192.0.2.1")
    # Whoever has a user of their own cannot make room by it for guesses at another's password.
    attempts.succeed(begin(attempts, "mallory", "192.0.2.1"))
    assert let_through(attempts, "ann", "192.0.2.1")
    assert not let_through(attempts, "ann", "192.0.2.1")
    assert not let_through(attempts, "mallory", "192.0.2.1")


def test_those_at_once_are_not_all_let_through(file: UsersFile) -> None:
    # Each as in a worker of its own.
    with ThreadPoolExecutor(16) as pool:
        through = list(pool.map(lambda _: let_through(Attempts(file, LIMIT, WINDOW_S), "ann", "192.0.2.1"), range(64)))
    assert through.count(True) == LIMIT


@pytest.mark.parametrize("back_s", [1, 59, 3600, 1_600_000_000])
def test_a_clock_that_is_set_back_opens_nothing_and_locks_nobody_out_for_long(
    back_s: float, attempts: Attempts, clock: Clock
) -> None:
    for _ in range(3):
        begin(attempts, "ann", "192.0.2.1")
    clock.now_s -= back_s
    assert begin(attempts, "ann", "192.0.2.1").wait_s == pytest.approx(WINDOW_S)
    clock.now_s += WINDOW_S
    assert let_through(attempts, "ann", "192.0.2.1")


def test_neither_names_nor_addresses_are_kept_in_the_clear(attempts: Attempts, file: UsersFile) -> None:
    begin(attempts, "my-password-by-mistake", "192.0.2.123")
    content = file.path.read_bytes()
    assert b"my-password" not in content
    assert b"192.0.2" not in content


def test_what_no_longer_counts_is_not_kept(attempts: Attempts, file: UsersFile, clock: Clock) -> None:
    for place in range(50):
        begin(attempts, f"user {place}", f"192.0.2.{place}")
    clock.now_s += WINDOW_S
    begin(attempts, "ann", "192.0.2.200")
    with file.reading() as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (2,)
