"""Where in a file the row of an index is: digests of all indexes, sorted, and the rows they belong to.

Two memory-mapped arrays, of 8 and mostly 4 bytes a row, that all workers share. Two indexes may have one digest, so
whoever looks up compares the index in the row. Layer L3; imports numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

DIGESTS = "digests.npy"
PLACES = "places.npy"
_CHUNK = 1 << 20
_BUCKETS = 256
_BITS = 56  # of a digest, below those that tell its bucket


def digests_of(indexes: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Digest indexes, the same in every process and release.

    Returns
    -------
    uint64, shape (n_indexes,).
    """
    parts = [blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() for text in indexes]
    return np.frombuffer(b"".join(parts), np.dtype("<u8")).astype(np.uint64, copy=False)


def _array(path: Path, kind: np.dtype[Any], length: int) -> np.memmap[Any, Any]:
    make: Any = np.lib.format.open_memmap
    array: np.memmap[Any, Any] = make(path, "w+", kind, (length,))
    return array


class KeysWriter:
    """Takes the indexes of rows in their order, and sorts them on disk, with the memory of some of them.

    Parameters
    ----------
    folder : where the arrays go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unsorted = folder / "digests.partial"
        self._file: BinaryIO = self._unsorted.open("wb")
        self._sizes = np.zeros(_BUCKETS, np.int64)

    def add(self, indexes: Sequence[str]) -> None:
        digests = digests_of(indexes)
        self._sizes += np.bincount(digests >> np.uint64(_BITS), minlength=_BUCKETS)
        self._file.write(digests.tobytes())

    def finish(self) -> Keys:
        """Sort what was added, at least one index."""
        self._file.close()
        found = np.memmap(self._unsorted, np.uint64, "r")
        digests = _array(self._folder / DIGESTS, np.dtype(np.uint64), len(found))
        places = _array(self._folder / PLACES, np.min_scalar_type(len(found)), len(found))
        starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._part(found, digests, places, starts)
        for start, end in pairwise(starts):
            order = np.argsort(digests[start:end], kind="stable")
            digests[start:end] = digests[start:end][order]
            places[start:end] = places[start:end][order]
        digests.flush()
        places.flush()
        self._unsorted.unlink()
        return Keys(self._folder)

    @staticmethod
    def _part(
        found: npt.NDArray[np.uint64],
        digests: npt.NDArray[np.uint64],
        places: npt.NDArray[np.unsignedinteger],
        starts: npt.NDArray[np.int64],
    ) -> None:
        """Bring each digest to its bucket, where rows stay in their order."""
        edges = np.arange(1, _BUCKETS, dtype=np.uint64) << np.uint64(_BITS)
        ends = starts[:-1].copy()
        for first in range(0, len(found), _CHUNK):
            chunk = np.asarray(found[first : first + _CHUNK])
            order = np.argsort(chunk, kind="stable")
            parts = np.split(order, np.searchsorted(chunk[order], edges))
            for bucket, part in enumerate(parts):
                room = slice(ends[bucket], ends[bucket] + len(part))
                digests[room] = chunk[part]
                places[room] = first + part
                ends[bucket] = room.stop

    def close(self) -> None:
        """Leave it unfinished."""
        self._file.close()


class Keys:
    """Finds the rows that may have an index. Threads may share it.

    Raises
    ------
    OSError, ValueError
        When the arrays are not there or broken.
    """

    def __init__(self, folder: Path) -> None:
        self._digests: npt.NDArray[np.uint64] = np.load(folder / DIGESTS, mmap_mode="r")
        self._places: npt.NDArray[np.unsignedinteger] = np.load(folder / PLACES, mmap_mode="r")

    def places(self, index: str) -> npt.NDArray[np.unsignedinteger]:
        """Give the places of rows with the digest of this index: one at most, but for a rare coincidence."""
        return self._with(digests_of([index])[0])

    def count_shared(self) -> int:
        """Count rows whose digest an earlier row has."""
        return sum(len(pairs) for pairs in self._pairs())

    def shared(self) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """Give the places of rows that share a digest."""
        last = None
        for pairs in self._pairs():
            for digest in np.unique(self._digests[pairs]):
                if digest != last:  # a chunk may end within one
                    yield self._with(digest)
                last = digest

    def _with(self, digest: np.uint64) -> npt.NDArray[np.unsignedinteger]:
        first, end = (int(np.searchsorted(self._digests, digest, side)) for side in ("left", "right"))
        return self._places[first:end]

    def _pairs(self) -> Iterator[npt.NDArray[np.int64]]:
        for first in range(0, len(self._digests) - 1, _CHUNK):
            chunk = self._digests[first : first + _CHUNK + 1]
            yield np.flatnonzero(chunk[1:] == chunk[:-1]) + first
