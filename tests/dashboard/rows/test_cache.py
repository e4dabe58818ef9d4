import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fairlead.dashboard.rows.cache import Cache


class Slow:
    """Counts what it is asked; answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()

    def __call__(self, key: str) -> str:
        self.asked.append(key)
        assert self.may_answer.wait(30)
        if key == "bad":
            raise ValueError("away")
        return key.upper()


def all_at_once(cache: Cache[str], key: str, load: Slow) -> list[object]:
    """Ask 23 times at the same time, and give the answers or errors."""

    def ask(_: int) -> object:
        try:
            return cache.get(key, load)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(23) as pool:
        futures = [pool.submit(ask, place) for place in range(23)]
        while not load.asked:
            time.sleep(0.001)
        load.may_answer.set()
        return [future.result() for future in futures]


def test_what_many_ask_at_once_is_looked_up_once() -> None:
    load = Slow()
    assert all_at_once(Cache(4), "a", load) == ["A"] * 23
    assert load.asked == ["a"]


def test_a_failure_is_not_kept() -> None:
    cache: Cache[str] = Cache(4)
    load = Slow()
    answers = all_at_once(cache, "bad", load)
    assert {str(answer) for answer in answers} == {"away"}
    assert cache.get("bad", lambda key: "well again") == "well again"


def test_the_last_ones_are_kept() -> None:
    cache: Cache[str] = Cache(2)
    load = Slow()
    load.may_answer.set()
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key, load) == key.upper()
    assert load.asked == ["a", "b", "c", "b"]


def test_what_is_too_old_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("fairlead.dashboard.rows.cache.time.monotonic", lambda: now)
    cache: Cache[str] = Cache(2, ttl_s=30)
    load = Slow()
    load.may_answer.set()
    for now in (100.0, 129.0, 131.0, 160.0):  # noqa: B007  # the clock reads it
        cache.get("a", load)
    assert load.asked == ["a", "a"]
