"""Files on this machine's disks.

An output that is a symbolic link is written through: the file that it points to is replaced, the link stays. Layer
L3; imports errors only.

Source: rename(2), flock(2) and fsync(2). A lock belongs to the open file and goes with the process that holds it.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.batch.places import names
from fairlead.batch.places.disk import BUFFER_BYTES, buffered, discard, sync, told, told_reading
from fairlead.batch.places.folders import below, make_folder
from fairlead.batch.places.place import Stamp
from fairlead.bundle.locks import is_at
from fairlead.errors import InputError, OutputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class LocalPlace:
    """Disks of this machine. See `Place`."""

    def find(self, pattern: str) -> list[str]:
        with told_reading(pattern):
            if _status(pattern) is not None:
                return [pattern]
            folder, segments = _parted(pattern)
            prefix = folder if folder in ("", "/") else f"{folder}/"
            found = [prefix + "/".join(name) for name in below(folder or ".", segments)]
        if not found:
            raise names.nothing(pattern)
        return sorted(found)

    def stamp(self, path: str) -> Stamp | None:
        with told_reading(path):
            status = _status(path)
        return None if status is None else _stamp_of(status)

    def open(self, path: str) -> io.BufferedReader:
        with told_reading(path):
            if _status(path) is None:
                what = "something else" if os.path.lexists(path) else "nothing"
                raise names.NotThere(f"{path}: expected a file, found {what}: see its name")
            return io.BufferedReader(_InputFile(path), BUFFER_BYTES)

    def write(self, path: str) -> LocalDraft:
        return LocalDraft(path)

    def get(self, path: str) -> bytes | None:
        with told_reading(path):
            return None if _status(path) is None else Path(path).read_bytes()

    def put(self, path: str, data: bytes) -> None:
        with self.write(path) as draft:
            draft.file.write(data)
            draft.publish()

    def delete(self, path: str) -> None:
        with told(path), suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)  # noqa: PTH108  # `Path` would change the text, and with it the file, of "a/../b"


class LocalDraft:
    """A file that is written beside its place. See `Draft`."""

    def __init__(self, path: str) -> None:
        self._path = path
        with told(path):
            self._final = Path(os.path.realpath(path))
            if self._final.exists() and not self._final.is_file():
                raise OutputError(f"{path}: expected a file or nothing, found something else: name another OUTPUT")
            make_folder(self._final.parent)
            self._partial = self._final.with_name(f".{self._final.name}.partial")
            self._descriptor = self._claim()
        # Of its own descriptor: some writers close what they write to.
        self.file = buffered(os.dup(self._descriptor), path)

    def __enter__(self) -> LocalDraft:
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor >= 0:
            # While it is still ours by its lock: afterwards it may be another run's.
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)
            self._close()

    def publish(self) -> None:
        if not self.file.closed:
            self.file.flush()
        with told(self._path):
            os.fsync(self._descriptor)
            self._partial.replace(self._final)
            sync(str(self._final.parent))
        self._close()

    def _close(self) -> None:
        discard(self.file)
        # A process that was forked meanwhile has the same open file: closing ours would not be enough.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = -1

    def _claim(self) -> int:
        """Open the file that is written, the leftover of a killed run too, and lock it."""
        while True:
            descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have published or removed it: ours would be nobody's file.
                if is_at(descriptor, self._partial):
                    os.ftruncate(descriptor, 0)
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise OutputError(
                    f"{self._path}: another run is writing {self._path}: wait for it, or name another OUTPUT"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


class _InputFile(io.FileIO):
    """A file that must not change while it is read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path
        self._stamp = _stamp_of(os.fstat(self.fileno()))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with told_reading(self._path):
            count = super().readinto(buffer)
        self._check()
        return count or 0

    def readall(self) -> bytes:
        with told_reading(self._path):
            data = super().readall()
        self._check()
        return data or b""

    def _check(self) -> None:
        if _stamp_of(os.fstat(self.fileno())) != self._stamp:
            raise InputError(f"{self._path}: changed while it was read: score it again when it is whole")


def _parted(pattern: str) -> tuple[str, tuple[str, ...]]:
    if Path(pattern).is_dir():
        return pattern.rstrip("/") or "/", names.ALL
    return names.split(pattern) if names.is_glob(pattern) else (pattern, ())


def _status(path: str) -> os.stat_result | None:
    """Look at a file; None where there is none, or something else."""
    try:
        status = os.stat(path)  # noqa: PTH116  # as for `unlink`
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, str(status.st_mtime_ns))
