"""When a canary is taken back: too many of its requests failed, or took too long, of late.

Each process that answers counts with a `Tally`; one process feeds what they counted to a `Judge`. Nothing here
looks at a clock.

Layer L2; imports msgspec only.
"""

from __future__ import annotations

from collections import deque
from typing import Self

from msgspec import Struct

from fairlead.config import CanarySettings

# What may take longer than `max_latency_s`, that being a 95th percentile.
_SLOW_SHARE = 0.05


class Bounds(Struct, frozen=True):
    """What a canary may do; the fields are those of `CanarySettings`."""

    max_error_rate: float
    max_latency_s: float | None
    min_requests: int
    window_s: float

    @classmethod
    def of(cls, settings: CanarySettings) -> Self:
        """Take the bounds of a canary's settings."""
        return cls(settings.max_error_rate, settings.max_latency_s, settings.min_requests, settings.window_s)


class Counts(Struct, frozen=True):
    """What a canary did in some time.

    Parameters
    ----------
    requests : answered, or failed.
    failed : of these, by a fault that is not the caller's.
    slow : of these, took longer than `Bounds.max_latency_s`.
    """

    requests: int = 0
    failed: int = 0
    slow: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.failed + other.failed, self.slow + other.slow)

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.requests - other.requests, self.failed - other.failed, self.slow - other.slow)


class Tally:
    """Counts a canary's requests in one process, of one thread.

    Parameters
    ----------
    max_latency_s : what is slow is longer; None when nothing is.
    """

    def __init__(self, max_latency_s: float | None) -> None:
        self._limit_ns = float("inf") if max_latency_s is None else max_latency_s * 1e9
        self._requests = self._failed = self._slow = 0

    def add(self, failed: bool, duration_ns: int) -> None:
        """Count one request."""
        self._requests += 1
        self._failed += failed
        self._slow += duration_ns > self._limit_ns

    def take(self) -> Counts:
        """Give what was counted since the last time."""
        counts = Counts(self._requests, self._failed, self._slow)
        self._requests = self._failed = self._slow = 0
        return counts


class Judge:
    """Looks back on what a canary did, and says when that is out of bounds. Make one for each canary.

    Parameters
    ----------
    bounds : what it may do.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._total = Counts()
        self._window: deque[tuple[float, Counts]] = deque()

    def add(self, counts: Counts, now_s: float) -> str | None:
        """Hear what was counted since the last time, by one process or by all.

        Parameters
        ----------
        now_s : of a clock that never goes back.

        Returns
        -------
        Why the canary is to be taken back; None while it may stay.
        """
        self._window.append((now_s, counts))
        self._total += counts
        while self._window[0][0] <= now_s - self._bounds.window_s:
            self._total -= self._window.popleft()[1]
        return self._reason()

    def _reason(self) -> str | None:
        bounds, total = self._bounds, self._total
        if total.requests < bounds.min_requests:
            return None
        found = [(total.failed, "failed", bounds.max_error_rate)]
        if bounds.max_latency_s is not None:
            found.append((total.slow, f"took longer than {bounds.max_latency_s:g} s", _SLOW_SHARE))
        for count, what, allowed in found:
            if count > allowed * total.requests:
                share = count / total.requests
                return (
                    f"{count} of {total.requests} requests in {bounds.window_s:g} s {what}, "
                    f"which is {share * 100:.3g} %; the bound is {allowed * 100:.3g} %"
                )
        return None
