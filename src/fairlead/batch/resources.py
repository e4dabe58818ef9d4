"""What a run takes of its machine: cores and memory. Layer L3; imports pyarrow.

Source: sched_getaffinity(2); ``cpu.max`` in https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path

import pyarrow as pa

# Source: mallopt(3) and glibc's malloc.h
_M_ARENA_MAX = -8
_ARENAS = 2
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def core_count() -> int:
    """Count the cores that this process may run on, within what its container is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota_us, period_us = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # there is no such file, or no quota in it
        return cores
    return max(1, min(cores, -(-quota_us // period_us)))


def use_lean_memory() -> None:
    """Let this process hand back what it needs no longer, while chunks come and go in several threads.

    Arrow's own default, mimalloc, keeps a third more than jemalloc, at no gain in speed; and glibc keeps heaps of what
    was freed, as many as there are threads, eight times the number of cores.
    """
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's alone
        mallopt(_M_ARENA_MAX, _ARENAS)


def keep_pandas_out() -> None:
    """Let Arrow believe that there is no pandas: it imports it with its first array, to ask whether that is one.

    Saves a fifth of a second and 35 MB. Nothing becomes a frame in this process afterwards; those of a pool are others.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)
