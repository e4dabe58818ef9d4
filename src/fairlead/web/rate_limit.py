"""How often each key may ask, counted over all worker processes of the machine.

Second step of a request where keys are configured. The rule is GCRA: of each key only the time is kept at
which its past requests would be paid off at its rate, and a request is admitted when that is at most the
burst ahead. That one float64 a key lies in a small file which every worker maps, and its eight bytes are
locked by `fcntl.lockf` while they change: the kernel gives the lock back when a worker is killed. The
clock is CLOCK_MONOTONIC, which all processes of a machine share.

Why not `limits` (5.8): without a Redis, Valkey, Memcached or MongoDB server each process counts for itself.
`pyrate-limiter` (4.5) shares through SQLite, a process of its own or a semaphore that dies with its holder.
Imports the standard library and what lies below the modes.

Source: ITU-T I.371 (2004) annex A, the virtual scheduling form of the Generic Cell Rate Algorithm
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fairlead.errors import ServeError
from fairlead.web.keys import Key

# Whose it is (the beginning of the key's digest), and the time when its requests are paid off.
_SLOT = struct.Struct("=8sd")


class _Limit(NamedTuple):
    place: int  # of the time, counted in float64
    interval_s: float  # between two requests, in the long run
    horizon_s: float  # how far ahead the time may be once a request is admitted


class RateLimiter:
    """Admits each key's requests at its rate.

    Parameters
    ----------
    keys : those without a limit cost nothing.
    path : a file in a local directory that all workers share and nobody else may write; made when it is
        missing. Workers may know different keys. None counts for this process alone.

    Raises
    ------
    ServeError
        When the file cannot be made or opened.
    """

    def __init__(self, keys: Iterable[Key], path: Path | None = None) -> None:
        limited = [key for key in keys if key.requests_per_s is not None]
        self._file: int | None = None
        self._map: mmap.mmap | None = None
        self._times: array[float] | memoryview[float] = array("d", bytes(8 * len(limited)))
        # `lockf` is between processes; the threads of one would pass it side by side.
        self._between_threads = threading.Lock()
        places = list(range(len(limited)))
        if path is not None and limited:
            try:
                places = self._open(path, [key.digest[:8] for key in limited])
            except OSError as error:
                self.close()
                raise ServeError(f"{path}: the workers' common rate limits need this file: {error.strerror}") from error
        self._limits = {
            key.digest: _limit(key.requests_per_s or 0.0, key.burst or 1, place)
            for key, place in zip(limited, places, strict=True)
        }

    def wait_s(self, key: Key) -> float:
        """Admit a request now and give 0.0, or give the seconds after which it would be admitted.

        A request that is not admitted does not count. Under contention this waits for the microsecond in
        which another process holds the key's bytes.
        """
        if key.requests_per_s is None:
            return 0.0
        limit = self._limits[key.digest]
        with self._between_threads:
            if self._file is None:
                return _admit(self._times, limit)
            start = 8 * limit.place
            fcntl.lockf(self._file, fcntl.LOCK_EX, 8, start)
            try:
                return _admit(self._times, limit)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 8, start)

    def close(self) -> None:
        """Give the file back; it is the caller's to remove."""
        if isinstance(self._times, memoryview):
            self._times.release()
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
        self._times, self._map, self._file = array("d"), None, None

    def _open(self, path: Path, owners: list[bytes]) -> list[int]:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            slots = _claim(self._file, owners)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._map = mmap.mmap(self._file, (max(slots) + 1) * _SLOT.size)
        self._times = memoryview(self._map).cast("d")
        return [2 * slot + 1 for slot in slots]


def _claim(file: int, owners: list[bytes]) -> list[int]:
    """Give each owner's slot, new ones at the end: a worker that was started later may know other keys."""
    content = os.pread(file, os.fstat(file).st_size, 0)
    count = len(content) // _SLOT.size
    slots = _SLOT.iter_unpack(content[: count * _SLOT.size])
    known = {owner: slot for slot, (owner, _) in enumerate(slots)}
    for owner in owners:
        if owner not in known:
            # Written, not only made room for: a page that a full disk has no room for would be a SIGBUS later.
            os.pwrite(file, _SLOT.pack(owner, 0.0), count * _SLOT.size)
            known[owner] = count
            count += 1
    return [known[owner] for owner in owners]


def _limit(requests_per_s: float, burst: int, place: int) -> _Limit:
    interval_s = 1 / requests_per_s
    return _Limit(place, interval_s, burst * interval_s)


def _admit(times: array[float] | memoryview[float], limit: _Limit) -> float:
    now = time.monotonic()
    latest = now + limit.horizon_s
    paid_off = times[limit.place]
    # Later than any request of this limit can have made it: left by a boot before, or by a higher limit.
    if not paid_off <= latest:
        times[limit.place] = paid_off = latest
    after = max(now, paid_off) + limit.interval_s
    if after <= latest:
        times[limit.place] = after
        return 0.0
    return after - latest
