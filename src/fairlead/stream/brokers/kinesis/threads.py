"""Threads for calls that wait for an answer, some for each purpose: one must not hold up another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple

from fairlead.repository.threads import in_thread

T = TypeVar("T")
Given = TypeVarTuple("Given")


class Threads:
    """A few threads, none of which keeps the process from ending: a service may never answer.

    Parameters
    ----------
    count : how many calls run at once; more wait.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    async def run(self, work: Callable[[*Given], T], *given: *Given) -> T:
        """Call a function in a thread. When this is cancelled the call goes on, and what it gives is dropped."""
        async with self._free:
            return await in_thread(partial(work, *given), is_gentle=False)
