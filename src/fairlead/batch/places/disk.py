"""Disks of this machine: what may fail there, told as an error of the input or the output.

Layer L3; imports errors only.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fairlead.errors import InputError, OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BUFFER_BYTES = 1024 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EEXIST})


@contextmanager
def told(where: str) -> Iterator[None]:
    """Tell what a disk refuses while it is written to.

    Parameters
    ----------
    where : what is written.

    Raises
    ------
    OutputError
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{where}: {_reason(error)}") from error


@contextmanager
def told_reading(where: str) -> Iterator[None]:
    """Tell what a disk refuses while it is read.

    Raises
    ------
    InputError
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{where}: cannot be read ({reason}): see its name, its rights and the disk") from error


class OutputFile(io.FileIO):
    """A file whose writes are told by `told`: who writes, pyarrow too, hands on the error as it is.

    Parameters
    ----------
    descriptor : of the open file, which is this one's from now on.
    where : what is written, for messages.
    """

    def __init__(self, descriptor: int, where: str) -> None:
        super().__init__(descriptor, "r+")
        self._where = where

    def write(self, data: ReadableBuffer, /) -> int:
        with told(self._where):
            return super().write(data)


def buffered(descriptor: int, where: str) -> io.BufferedWriter:
    """Give a file object for a file that is written."""
    return io.BufferedWriter(OutputFile(descriptor, where), BUFFER_BYTES)


def discard(file: io.BufferedWriter) -> None:
    """Close a file without writing what is still held: that could fail again."""
    file.raw.close()


def sync(directory: str) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return f"no space left ({reason}): free some and start again, with --resume to keep what is done"
    if error.errno in _REFUSED:
        return f"cannot be written to ({reason}): allow this user to, or name another OUTPUT"
    if error.errno == errno.ENAMETOOLONG:
        return f"its name is too long ({reason}), with .NAME.partial beside it while it is written: name a shorter one"
    if error.errno == errno.EISDIR:
        return "a directory is in the way: remove it, or name another OUTPUT"
    if error.errno in _IN_THE_WAY:
        return f"a file is in the way of its directory ({reason}): remove it, or name another OUTPUT"
    return f"cannot be written ({reason}): see the disk, or name another OUTPUT"
