"""Rate limits in one process and over several real ones, some of which are killed."""

from __future__ import annotations

import hashlib
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import ServeError
from fairlead.web.keys import Key
from fairlead.web.rate_limit import RateLimiter


def key(name: str, requests_per_s: float | None, burst: int | None = None) -> Key:
    return Key(name, hashlib.sha256(name.encode()).digest(), False, requests_per_s, burst)


@contextmanager
def limiter(*keys: Key, path: Path | None = None) -> Iterator[RateLimiter]:
    made = RateLimiter(keys, path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["alone", "shared"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "rates" if request.param == "shared" else None


# Asks for one key as fast as it can until a time; tells when it began and ended, and how often it was admitted.
HAMMER = """
import sys, time, hashlib
from pathlib import Path
from fairlead.web.keys import Key
from fairlead.web.rate_limit import RateLimiter
key = Key("k", hashlib.sha256(b"k").digest(), False, float(sys.argv[2]), int(sys.argv[3]))
limiter = RateLimiter([key], Path(sys.argv[1]))
print("ready", flush=True)
end = float(sys.stdin.readline())
first, admitted = time.monotonic(), 0
while time.monotonic() < end:
    admitted += limiter.wait_s(key) == 0.0
print(first, time.monotonic(), admitted, flush=True)
"""


@contextmanager
def hammers(count: int, path: Path, requests_per_s: float, burst: int) -> Iterator[list[subprocess.Popen[str]]]:
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HAMMER, str(path), str(requests_per_s), str(burst)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        try:
            for one in started:
                assert one.stdout is not None
                assert one.stdout.readline() == "ready\n"
            yield started
        finally:
            for one in started:
                one.kill()


def test_a_key_without_a_limit_never_waits_nor_makes_a_file(path: Path | None) -> None:
    free = key("free", None)
    with limiter(free, path=path) as limits:
        assert {limits.wait_s(free) for _ in range(1000)} == {0.0}
    assert path is None or not path.exists()


def test_a_burst_is_admitted_and_then_the_rate(path: Path | None) -> None:
    slow = key("slow", 20.0, 5)
    with limiter(slow, path=path) as limits:
        began = time.monotonic()
        assert [limits.wait_s(slow) for _ in range(5)] == [0.0] * 5
        wait_s = limits.wait_s(slow)
        assert 0 < wait_s <= 0.05 + 1e-9
        # What was refused does not count.
        assert limits.wait_s(slow) <= wait_s
        time.sleep(wait_s)
        assert limits.wait_s(slow) == 0.0
        assert time.monotonic() - began >= 0.05


def test_the_time_told_is_the_time_to_wait(path: Path | None) -> None:
    slow = key("slow", 0.001, 1)
    with limiter(slow, path=path) as limits:
        assert limits.wait_s(slow) == 0.0
        assert limits.wait_s(slow) == pytest.approx(1000, abs=5)


def test_keys_do_not_disturb_each_other(path: Path | None) -> None:
    one, free, two = key("one", 0.001, 1), key("free", None), key("two", 0.001, 2)
    with limiter(one, free, two, path=path) as limits:
        assert limits.wait_s(one) == 0.0
        assert limits.wait_s(one) > 0
        assert [limits.wait_s(two) for _ in range(3)][:2] == [0.0, 0.0]
        assert limits.wait_s(two) > 0
        assert limits.wait_s(free) == 0.0


@settings(max_examples=30)
@given(st.floats(50, 20000), st.integers(1, 50), st.integers(1, 400))
def test_never_more_than_the_rate_and_the_burst(requests_per_s: float, burst: int, asked: int) -> None:
    one = key("one", requests_per_s, burst)
    with limiter(one) as limits:
        began = time.monotonic()
        admitted = sum(limits.wait_s(one) == 0.0 for _ in range(asked))
        took_s = time.monotonic() - began
    assert min(asked, burst) <= admitted <= requests_per_s * took_s + burst


def test_workers_that_know_other_keys_share_those_they_have_in_common(tmp_path: Path) -> None:
    one, two, three = key("one", 0.001, 1), key("two", 0.001, 1), key("three", 0.001, 1)
    path = tmp_path / "rates"
    with limiter(one, two, path=path) as old, limiter(three, two, path=path) as new:
        assert old.wait_s(one) == old.wait_s(two) == new.wait_s(three) == 0.0
        assert min(old.wait_s(one), old.wait_s(two), new.wait_s(two), new.wait_s(three)) > 0
    assert path.stat().st_size == 3 * 16
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [1e18, float("inf"), float("nan")], ids=str)
def test_a_time_left_by_another_boot_locks_nobody_out(tmp_path: Path, left: float) -> None:
    one = key("one", 100.0, 2)
    path = tmp_path / "rates"
    path.write_bytes(struct.pack("=8sd", one.digest[:8], left))
    with limiter(one, path=path) as limits:
        assert 0 < limits.wait_s(one) <= 0.01 + 1e-9
        time.sleep(0.011)
        assert limits.wait_s(one) == 0.0


def test_half_a_slot_left_by_a_killed_worker_is_written_over(tmp_path: Path) -> None:
    one, path = key("one", 0.001, 1), tmp_path / "rates"
    path.write_bytes(b"half")
    with limiter(one, path=path) as limits, limiter(one, path=path) as others:
        assert limits.wait_s(one) == 0.0
        assert others.wait_s(one) > 0


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="No such file or directory"):
        RateLimiter([key("one", 1.0, 1)], tmp_path / "none" / "rates")


def test_it_may_be_closed_twice(path: Path | None) -> None:
    limits = RateLimiter([key("one", 1.0, 1)], path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    limits.close()
    limits.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 2 * (path is not None)


def test_processes_together_keep_to_the_rate(tmp_path: Path) -> None:
    rate, burst, lasts_s = 200.0, 20, 1.5
    with hammers(4, tmp_path / "rates", rate, burst) as started:
        end = time.monotonic() + lasts_s
        told = [one.communicate(f"{end}\n", timeout=60)[0].split() for one in _told(started, end)]
    began = min(float(first) for first, _, _ in told)
    ended = max(float(last) for _, last, _ in told)
    admitted = sum(int(count) for _, _, count in told)
    assert admitted <= rate * (ended - began) + burst
    # Nothing is lost either: somebody asks every few microseconds.
    assert admitted >= 0.6 * (rate * (end - began) + burst)


def _told(started: list[subprocess.Popen[str]], end: float) -> list[subprocess.Popen[str]]:
    """Let all begin before the first is waited for."""
    for one in started:
        assert one.stdin is not None
        one.stdin.write(f"{end}\n")
        one.stdin.flush()
    return started


def test_killed_processes_lock_nobody_out(tmp_path: Path) -> None:
    path, one = tmp_path / "rates", key("k", 1000.0, 10)
    for _ in range(5):
        with hammers(3, path, 1000.0, 10) as started:
            _told(started, time.monotonic() + 60)
            time.sleep(0.05)
            for process in started:
                process.kill()
                assert process.wait(timeout=30) == -signal.SIGKILL
    with limiter(one, path=path) as limits:
        time.sleep(0.02)
        assert limits.wait_s(one) == 0.0


def test_a_process_killed_while_it_holds_the_lock_gives_it_back(tmp_path: Path) -> None:
    path, one = tmp_path / "rates", key("k", 1000.0, 10)
    script = (
        "import fcntl, os, sys, time; file = os.open(sys.argv[1], os.O_RDWR); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(0.5); os.kill(os.getpid(), 9)"
    )
    with limiter(one, path=path) as limits:
        holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            began = time.monotonic()
            assert limits.wait_s(one) == 0.0
            assert time.monotonic() - began > 0.1  # it was held, and is given back by the kernel
    assert holder.returncode == -signal.SIGKILL
