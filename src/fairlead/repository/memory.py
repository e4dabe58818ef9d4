"""What models take of a process's memory: what the process has before and after each of them comes and goes.

Nothing else tells it: a model is arrays, graphs and objects in the hands of several allocators. The kernel knows what
the process has, and models come one at a time. What does not come back when a model goes, libraries that it brought
along and memory that an allocator keeps for the next, is *kept*: counted neither against that model nor against the
budget, but for a small part of that, and taken up by the models that come after.

Layer L2; imports nothing of fairlead.

Source: proc(5), ``/proc/pid/statm``; malloc_trim(3), mallopt(3)
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Source: malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# A block above this is a mapping of its own. Batches seldom need one, models consist of them.
_LARGE_BYTES = 512 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# By what part of the budget a load may pass it, for the time that it takes.
_LOAD_SHARE = 0.1
# What part of the budget may go to what the process keeps: more of it, and there would be no room for models.
_KEPT_SHARE = 0.2
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Tell what this process has in memory; takes microseconds."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES


def forget_peak() -> bool:
    """Begin anew to watch for the most that this process has had; False where the kernel does not let it.

    Source: proc(5), ``/proc/pid/clear_refs``
    """
    try:
        Path("/proc/self/clear_refs").write_bytes(b"5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Tell the most that this process has had in memory since `forget_peak`. Source: proc(5), VmHWM."""
    found = re.search(rb"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_bytes(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def keep_little() -> None:
    """Have the allocator hand large blocks back as soon as they are freed.

    It learns otherwise to keep up to 64 MB for each thread, which `give_back` does not reach: models are large, and
    loaded in threads.

    Source: mallopt(3), "M_MMAP_THRESHOLD" on its dynamic adjustment
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)


def give_back() -> None:
    """Hand to the kernel what allocators keep for later; takes milliseconds, without the interpreter's lock."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class Grown:
    """How a process grew while a model was loaded.

    Parameters
    ----------
    before, after : resident bytes.
    peak : the most in between.
    is_rough : whether more than the model came, such as a library.
    """

    before: int
    after: int
    peak: int = 0
    is_rough: bool = False


class Seen(NamedTuple):
    """What a bundle took when it was loaded, in bytes.

    Parameters
    ----------
    files : size of its files.
    size : of the model.
    besides : what only the load took.
    """

    files: int
    size: int
    besides: int


class Ledger:
    """Who takes how much of a budget.

    Parameters
    ----------
    budget_bytes : for all models together.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._base: int | None = None
        self._kept = 0
        # By whoever is loaded; and by digest.
        self._held: dict[Hashable, int] = {}
        self._seen: dict[str, Seen] = {}
        self._rough: set[Hashable] = set()

    def expected(self, digest: str, file_bytes: int) -> Seen:
        """Guess what a bundle will take: what it took before, or what others of its size did."""
        if digest in self._seen:
            return self._seen[digest]
        files, sizes, besides = map(sum, zip(*self._seen.values(), strict=True)) if self._seen else (1, 0, 0)
        return Seen(file_bytes, round(file_bytes * sizes / files), round(file_bytes * besides / files))

    def used(self, resident: int) -> int:
        """Tell what is taken when the process has so much; requests that need memory count too."""
        above = 0 if self._base is None else resident - self._base
        above -= max(self._kept - round(self.budget_bytes * _KEPT_SHARE), 0)
        return max(sum(self._held.values()), above)

    def lacks_room(self, resident: int, coming: Seen | None = None) -> bool:
        """Whether the budget is passed, or would be, when one comes besides; a load may pass it, but not by much."""
        used = self.used(resident) + (coming.size if coming else 0)
        return used > self.budget_bytes or (
            coming is not None and used + coming.besides > self.budget_bytes * (1 + _LOAD_SHARE)
        )

    def came(self, who: Hashable, digest: str, file_bytes: int, grown: Grown) -> int:
        """Book a model that was loaded, and tell its size."""
        if self._base is None:
            self._base = grown.before
        more = max(grown.after - grown.before, 0)
        # What it did not grow by, it may have found in what the process had kept.
        found = min(self._kept, max(self.expected(digest, file_bytes).size - more, 0))
        self._kept -= found
        self._held[who] = size = more + found
        if grown.is_rough:
            self._rough.add(who)
        else:
            self._seen[digest] = Seen(max(file_bytes, 1), size, max(grown.peak - grown.after, 0))
        return size

    def went(self, who: Hashable, digest: str, before: int, after: int) -> int:
        """Book a model that was let go, and tell what came back.

        Parameters
        ----------
        before, after : resident bytes.
        """
        size, back = self._held.pop(who), max(before - after, 0)
        self._kept += max(size - back, 0)
        if who in self._rough:
            self._rough.discard(who)
        elif back > size:
            self._seen[digest] = self._seen[digest]._replace(size=back)
        return back

    def size_of(self, who: Hashable) -> int:
        """Tell what somebody who is loaded takes."""
        return self._held[who]
