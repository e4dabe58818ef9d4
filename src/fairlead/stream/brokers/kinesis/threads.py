"""Threads for calls that wait for an answer, some for each purpose: one must not hold up another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Given = TypeVarTuple("Given")


class Threads:
    """A few threads, started when they are needed.

    Parameters
    ----------
    count : how many calls run at once; more wait.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "fairlead-kinesis")

    async def run(self, work: Callable[[*Given], T], *given: *Given) -> T:
        """Call a function in a thread. When this is cancelled the call goes on, and what it gives is dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*given))

    def close(self) -> None:
        """Begin no more calls; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
