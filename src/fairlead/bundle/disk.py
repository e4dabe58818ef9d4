"""The cache's directory as a disk sees it: what may fail there, told as an error, and files put there whole.

Layer L1, below `transfer`, `locks` and `cache`; imports errors only.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairlead.errors import CacheError, CacheFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_ANOTHER = "name another directory with cache.directory in fairlead.yaml or FAIRLEAD_CACHE_DIRECTORY"


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Tell what a disk refuses as an error of the cache.

    Parameters
    ----------
    place : the directory or file that is worked on.

    Raises
    ------
    CacheFull, CacheError
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise CacheFull(f"{place}: no space left ({reason}): free some, or {_ANOTHER}") from error
        if error.errno in READ_ONLY:
            raise CacheError(f"{place}: cannot be written to ({reason}): {_ANOTHER}") from error
        raise CacheError(f"{place}: cannot be used ({reason}): {_ANOTHER}") from error


def check_space(directory: Path, needed_bytes: int) -> None:
    """Refuse what will not fit before the first byte of it is fetched.

    Raises
    ------
    CacheFull
    """
    with told(directory):
        free = shutil.disk_usage(directory).free
    if needed_bytes > free:
        raise CacheFull(
            f"{directory}: expected room for {size_text(needed_bytes)}, got {size_text(free)}: free some, or {_ANOTHER}"
        )


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all; it survives a loss of power when its directory is synced."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(directory: Path) -> int:
    """Count the bytes of all files below a directory; what goes away meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(folder) / name).lstat().st_size
    return total


def size_text(size_bytes: int) -> str:
    """Tell a size to a person."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
