"""Tries again what a broker or a model could not do now, with growing pauses, and tells of it.

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from fairlead.errors import BrokerUnavailable
from fairlead.stream.progress import Progress, Step

T = TypeVar("T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0

logger = logging.getLogger("fairlead.stream")


class Retry:
    """Tries again.

    Parameters
    ----------
    progress : told of every failure, and of the success after it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told: dict[Step, str] = {}

    async def until_done(self, step: Step, work: Callable[[], Awaitable[T]]) -> T:
        """Do something until no broker is away; raises all else that it raises.

        Parameters
        ----------
        step : what it is, for people.
        """
        for tries in count(1):
            try:
                done = await work()
            except BrokerUnavailable as error:
                await self.failed(step, error, tries)
                continue
            self.succeeded(step, tries)
            return done
        raise AssertionError  # `count` does not end

    async def failed(self, step: Step, error: Exception, tries: int) -> None:
        """Tell of a failure, and wait before another try: longer each time, and not all copies of a consumer alike.

        Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (equal jitter).
        """
        self._progress.failed(step, str(error))
        if self._told.get(step) != str(error):  # one that stays is logged once
            self._told[step] = str(error)
            logger.warning("%s: tried again until it succeeds: %s", step, error)
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(tries - 1, 10), _LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s / 2 + random.random() * pause_s / 2)

    def succeeded(self, step: Step, tries: int) -> None:
        """Tell of a success."""
        if tries > 1:
            self._progress.succeeded(step)
            self._told.pop(step, None)
            logger.info("%s: it succeeded at try %d", step, tries)
