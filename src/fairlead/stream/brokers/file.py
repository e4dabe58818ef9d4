"""Files of JSON lines, for trying out: ``file://rides.jsonl``, ``file:///var/rides.jsonl?follow=true``.

How far a file was read is kept by group, as its offset in bytes. With ``follow`` a file is read on as it grows.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Mapping, Sequence
from functools import partial
from io import BufferedReader
from itertools import islice
from pathlib import Path

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.repository.threads import in_thread
from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions, Unpublished
from fairlead.stream.checkpoints import SqliteCheckpoints
from fairlead.stream.records import Lag, Message, Record

_LOOK_S = 0.1


def open_source(address: Address, options: SourceOptions) -> FileSource:
    """Read the lines of a file."""
    address.check_options("follow")
    follow = address.options.get("follow", "false")
    if follow not in ("true", "false"):
        raise ConfigError(f"{address}: follow: expected true or false, got {follow!r}")
    if not isinstance(options.checkpoints, Path):
        raise ConfigError(f"{address}: checkpoints: expected a SQLite file for a stream that is a file")
    return FileSource(_path(address), options, options.checkpoints, follow == "true")


def open_sink(address: Address, environ: Mapping[str, str]) -> FileSink:
    """Append lines to a file."""
    address.check_options()
    return FileSink(_path(address))


def _path(address: Address) -> Path:
    # A relative path has its first folder where others have a host.
    head, _, rest = address.text.partition("://")[2].partition("?")[0].partition("/")
    path = Path(head, rest) if head else Path("/", rest)
    if path.name in ("", ".", ".."):
        raise ConfigError(f"{address}: expected the path of a file, such as file://rides.jsonl")
    return path.absolute()


class FileSource:
    """Reads a file. See `Source`."""

    def __init__(self, path: Path, options: SourceOptions, checkpoints: Path, follows: bool) -> None:
        self.is_over = False
        self._path = path
        self._group = options.group
        self._starts_at_end = options.start == "newest"
        self._follows = follows
        self._kept_in = checkpoints
        self._checkpoints: SqliteCheckpoints | None = None
        self._file: BufferedReader | None = None
        self._read = self._committed = 0

    async def start(self) -> None:
        await self.close()  # what a start before this one had opened
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise BrokerError(f"{self._path}: cannot be read: {error.strerror}") from error
        self._checkpoints = SqliteCheckpoints(self._kept_in)
        kept = self._checkpoints.get(self._group, str(self._path))
        size = os.fstat(self._file.fileno()).st_size
        if kept is None and self._starts_at_end:
            # What comes from now on is the group's, also if it is killed before its first commit.
            self._checkpoints.put(self._group, str(self._path), kept := str(size))
        self._committed = int(kept or 0)
        if self._committed > size:
            raise BrokerError(
                f"{self._path}: expected the {self._committed} bytes that the group {self._group} has read, and more, "
                f"got {size}: it is another file by now: name another group"
            )
        self._read = self._committed
        self._file.seek(self._read)

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        lines = await in_thread(partial(self._lines, max_records))
        if not lines:
            self.is_over = not self._follows
            await asyncio.sleep(_LOOK_S if self._follows else 0)
            return []
        records = []
        for line in lines:
            start, self._read = self._read, self._read + len(line)
            if data := line.strip():
                key = f"{self._path.name}/{start}"
                records.append(Record(data, key, str(self._path), self._read))
        return records

    def _lines(self, max_records: int) -> list[bytes]:
        assert self._file is not None
        try:
            self._file.seek(self._read)
            lines = list(islice(self._file, max_records))
        except OSError as error:
            raise BrokerUnavailable(f"{self._path}: cannot be read: {error.strerror}") from error
        if not lines:
            self._check_same()
        elif not lines[-1].endswith(b"\n") and self._follows:
            lines.pop()  # it is still being written
        return lines

    def _check_same(self) -> None:
        """Refuse to wait for more in a file that another has taken the place of."""
        assert self._file is not None
        opened = os.fstat(self._file.fileno())
        expected = f"{self._path}: expected a file that only grows"
        if opened.st_size < self._read:
            raise BrokerError(
                f"{expected}, got one that was cut to {opened.st_size} bytes when {self._read} were read: "
                "name another group"
            )
        if self._follows and not (self._path.exists() and os.path.samestat(opened, self._path.stat())):
            raise BrokerError(f"{expected}, it was taken away: name another group for one that takes its place")

    async def commit(self, records: Sequence[Record]) -> None:
        assert self._checkpoints is not None
        end = records[-1].position
        await in_thread(partial(self._checkpoints.put, self._group, str(self._path), str(end)))
        self._committed = end

    def lag(self) -> list[Lag]:
        return [Lag(str(self._path))]

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._checkpoints is not None:
            self._checkpoints.close()
            self._checkpoints = None


class FileSink:
    """Appends to a file, each batch whole or not at all. See `Sink`.

    A kill in the midst may leave a line that is cut off, with what was lost of its batch after it.
    """

    max_message_bytes: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    async def start(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise BrokerError(f"{self._path}: cannot be written to: {error.strerror}") from error

    async def publish(self, messages: Sequence[Message]) -> None:
        data = b"".join(message.data + b"\n" for message in messages)
        try:
            await in_thread(partial(self._append, data))
        except OSError as error:
            raise Unpublished(f"{self._path}: cannot be written to: {error.strerror}", messages) from error

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # others may append to it
        try:
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, size)
                raise
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    async def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
