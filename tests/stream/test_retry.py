from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import Any

import pytest

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.progress import Progress
from fairlead.stream.retry import Retry


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note how long is waited, instead of waiting."""
    noted: list[float] = []

    async def sleep(pause_s: float) -> None:
        noted.append(pause_s)

    monkeypatch.setattr("fairlead.stream.retry.asyncio.sleep", sleep)
    return noted


@pytest.fixture
def progress() -> Progress:
    made = Progress("price", None, lambda: [])
    made.waits_for("")
    return made


def failing(times: int, *, reasons: list[str] | None = None) -> Any:
    left = list(reasons or ["away"] * times)

    async def work() -> int:
        if left:
            raise BrokerUnavailable(left.pop(0))
        return 42

    return work


def test_pauses_grow_to_a_bound_and_are_not_alike(pauses: list[float], progress: Progress) -> None:
    assert asyncio.run(Retry(progress).until_done("publish", failing(1100))) == 42
    assert len(pauses) == 1100
    for number, pause_s in enumerate(pauses):
        longest_s = min(0.1 * 2 ** min(number, 10), 10.0)
        assert longest_s / 2 <= pause_s <= longest_s
    assert len(set(pauses)) > 1000
    assert all(one <= other * 4 for other, one in pairwise(pauses))


def test_what_fails_is_told_until_it_succeeds(
    pauses: list[float], progress: Progress, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fairlead"), "propagate", True)  # whoever logged in this process before
    caplog.set_level(logging.INFO, "fairlead.stream")
    seen: list[tuple[str, str]] = []
    reasons = ["away", "away", "busy", "busy"]
    work = failing(0, reasons=reasons)

    async def watched() -> int:
        seen.append((progress.status().status, progress.status().reason))
        return int(await work())

    retry = Retry(progress)
    assert asyncio.run(retry.until_done("publish", watched)) == 42
    assert seen == [("ready", ""), *[("not ready", f"publish: {reason}") for reason in reasons]]
    assert (progress.status().status, progress.retries) == ("ready", 4)
    assert [record.getMessage() for record in caplog.records] == [
        "publish: tried again until it succeeds: away",
        "publish: tried again until it succeeds: busy",
        "publish: it succeeded at try 5",
    ]
    caplog.clear()
    asyncio.run(retry.until_done("publish", failing(1, reasons=["busy"])))
    assert len(caplog.records) == 2  # another time is told again


def test_all_else_is_raised(pauses: list[float], progress: Progress) -> None:
    async def work() -> None:
        raise BrokerError("no such stream")

    with pytest.raises(BrokerError, match="no such stream"):
        asyncio.run(Retry(progress).until_done("receive", work))
    assert pauses == []


def test_a_pause_may_be_cancelled(progress: Progress) -> None:
    async def work() -> None:
        waiting = asyncio.create_task(Retry(progress).until_done("receive", failing(10)))
        while not progress.retries:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(work())
