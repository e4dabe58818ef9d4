"""Numbers in files that processes map into their memory, in prometheus_client's multiprocess format.

Layer L2; imports nothing of fairlead.

Source: https://prometheus.github.io/client_python/multiprocess/ and ``prometheus_client/mmap_dict.py``
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

Numbers: TypeAlias = "memoryview[float]"


def owner_of(pid: int) -> str:
    """Give how a process's files are named."""
    # Not the library's own name: a model may use it for metrics of its own, in the same process.
    return f"fairlead-{pid}"


@contextlib.contextmanager
def locked(directory: Path, how: int) -> Iterator[None]:
    """Keep readers and `bury` out of each other's way; `how` is `fcntl.LOCK_SH` or `fcntl.LOCK_EX`."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


def bury(directory: Path, pid: int) -> None:
    """Take away the gauges of a process that ended, and add its counts to those of all the dead.

    So there are files of the living, and one of each kind for the dead, however often a worker crashes.
    Nobody reads while this writes.

    Parameters
    ----------
    pid : of a process that was waited for, and so cannot write.
    """
    owners = (owner_of(pid), str(pid))
    with locked(directory, fcntl.LOCK_EX):
        for owner in owners:
            for gauges in directory.glob(f"gauge_live*_{owner}.db"):
                gauges.unlink()
        for kind in ("counter", "histogram", "summary"):
            files = [file for owner in owners if (file := directory / f"{kind}_{owner}.db").exists()]
            if files:
                _merge(files, directory / f"{kind}_dead.db")


# The format of a file: how many bytes are used, padding, then entries of a key's length, the key, spaces up to
# a multiple of 8, the value and a time that is not used here.
_HEADER = struct.Struct("i4x")
_LENGTH = struct.Struct("i")
_VALUE = struct.Struct("dd")
_SIZE_BYTES = 16 * 1024


class NumberFile:
    """Named numbers in a file that is mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._places: dict[str, int] = {}
        if path.exists():
            # Of a process that had this one's id before: its counts go on.
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._used, entries = _read(path)
            self._places = {key: at // 8 for key, _, at in entries}
            self._map(os.fstat(self._fd).st_size)
            return
        # A reader must never meet a file without a header.
        new = path.with_suffix(".new")
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._used = _HEADER.size
        self._map(_SIZE_BYTES)
        self._mapped[: _HEADER.size] = _HEADER.pack(self._used)
        new.rename(path)

    def find(self, keys: Iterable[str]) -> tuple[Numbers, list[int]]:
        """Give the numbers of the file, and the places of some, made if need be."""
        places = [self._places[key] if key in self._places else self._append(key) for key in keys]
        return self._numbers, places

    def _append(self, key: str) -> int:
        entry = _entry(key, 0.0)
        end = self._used + len(entry)
        if end > len(self._mapped):
            self._map(len(self._mapped) * 2)
        self._mapped[self._used : end] = entry
        self._mapped[: _LENGTH.size] = _LENGTH.pack(end)
        self._used = end
        self._places[key] = place = (end - _VALUE.size) // 8
        return place

    def _map(self, size: int) -> None:
        """Map so many bytes; who holds numbers of the old mapping writes to the same file."""
        # A hole in the file would kill the process, with SIGBUS, when the disk is full at the first write to it.
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            os.truncate(self._fd, max(size, os.fstat(self._fd).st_size))
        self._mapped = mmap.mmap(self._fd, size)
        self._numbers = memoryview(self._mapped).cast("d")

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._fd)


def _entry(key: str, value: float) -> bytes:
    encoded = key.encode()
    spaces = b" " * (8 - (len(encoded) + _LENGTH.size) % 8)
    return _LENGTH.pack(len(encoded)) + encoded + spaces + _VALUE.pack(value, 0.0)


def _read(path: Path) -> tuple[int, list[tuple[str, float, int]]]:
    """Give how much of a file is used, and each entry's key, value and place in bytes."""
    data = path.read_bytes()
    (used,) = _LENGTH.unpack_from(data)
    entries, at = [], _HEADER.size
    while at < used:
        (length,) = _LENGTH.unpack_from(data, at)
        key = data[at + _LENGTH.size : at + _LENGTH.size + length].decode()
        at += _LENGTH.size + length + 8 - (length + _LENGTH.size) % 8
        entries.append((key, _VALUE.unpack_from(data, at)[0], at))
        at += _VALUE.size
    return used, entries


def _merge(files: Sequence[Path], into: Path) -> None:
    totals: dict[str, float] = {}
    for file in (*files, into) if into.exists() else files:
        for key, value, _ in _read(file)[1]:
            totals[key] = totals.get(key, 0.0) + value
    entries = b"".join(_entry(key, value) for key, value in totals.items())
    new = into.with_suffix(".new")
    new.write_bytes(_HEADER.pack(_HEADER.size + len(entries)) + entries)
    new.rename(into)
    for file in files:
        file.unlink()
