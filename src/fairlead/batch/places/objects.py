"""S3 asked with patience, and its objects read like files.

A store that is away is asked again for a while, and a transfer that breaks off goes on from where it was. Layer L3;
imports bundle and errors, and boto3 when it is used.
"""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fairlead.batch.places.names import NotThere
from fairlead.batch.places.place import Stamp
from fairlead.bundle import aws
from fairlead.errors import FairleadError, InputError, OutputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Answer = TypeVar("Answer")
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 20
_PATIENCE_S = 120.0  # also for a store that is restarted
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_CHUNK_BYTES = 256 * 1024
_BLOCK_BYTES = 4 * 1024 * 1024
_BLOCKS = 8


class Store:
    """S3 as the environment describes it.

    boto3's own tries have a budget for the life of a client, which a long run with some outages uses up.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._access = aws.Access(environ, _CONNECT_TIMEOUT_S, _READ_TIMEOUT_S)
        self._lock = threading.Lock()
        self._made: Any = None

    def ask(self, where: str, kind: type[InputError] | type[OutputError], call: Callable[[Any], Answer]) -> Answer:
        """Do something with a client, again and again while the store is away.

        Parameters
        ----------
        where : what it is about, for messages.
        kind : of the error when it fails.
        call : takes the client; does the same when it is called again.

        Raises
        ------
        NotThere
            When the object is not there, or is not the one that was asked for.
        InputError, OutputError
            As `kind` says.
        """
        end, pause_s = 0.0, _FIRST_PAUSE_S
        while True:
            try:
                return call(self._client())
            except aws.errors() as error:
                end = end or time.monotonic() + _PATIENCE_S
                if (failure := self._failure(where, kind, error, end - pause_s)) is not None:
                    raise failure from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def try_once(self, call: Callable[[Any], object]) -> None:
        """Do something that is no matter when it fails."""
        with suppress(*aws.errors()):
            call(self._client())

    def _failure(self, where: str, kind: type[FairleadError], error: Exception, last_s: float) -> FairleadError | None:
        trouble = self._access.trouble(error)
        if trouble.kind == "gone":
            return NotThere(f"{where}: it is not there, or changed since it was opened: try again when it is whole")
        if trouble.kind != "away":
            return kind(f"{where}: {trouble.text}")
        return kind(f"{where}: {trouble.text} (tried for {_PATIENCE_S:g} s)") if time.monotonic() > last_s else None

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._access.client()
            return self._made


class ObjectFile(io.RawIOBase):
    """An object, read in ranges.

    Small reads are answered from blocks, of which the last few are kept: readers of Parquet go to and fro between
    columns. A large one is a request of its own.

    Parameters
    ----------
    where : its path, for messages.
    stamp : its size and ETag; every range must be of the same.
    """

    def __init__(self, store: Store, where: str, bucket: str, key: str, stamp: Stamp) -> None:
        super().__init__()
        self._store = store
        self._where = where
        self._which = {"Bucket": bucket, "Key": key, "IfMatch": stamp.version}
        self._size_bytes = stamp.size_bytes
        self._at = 0
        self._blocks: OrderedDict[int, memoryview] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        count = max(0, min(len(into), self._size_bytes - self._at))
        if count >= _BLOCK_BYTES:
            self._fetch(self._at, into[:count])
        elif count:
            block, start = divmod(self._at, _BLOCK_BYTES)
            count = min(count, _BLOCK_BYTES - start)
            into[:count] = self._block(block)[start : start + count]
        self._at += count
        return count

    def close(self) -> None:
        self._blocks.clear()
        super().close()

    def _block(self, block: int) -> memoryview:
        if block not in self._blocks:
            start = block * _BLOCK_BYTES
            data = memoryview(bytearray(min(_BLOCK_BYTES, self._size_bytes - start)))
            self._fetch(start, data)
            self._blocks[block] = data
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block)
        return self._blocks[block]

    def _fetch(self, start: int, into: memoryview) -> None:
        done = 0
        while done < len(into):
            done += self._store.ask(self._where, InputError, partial(self._some, start + done, into[done:]))

    def _some(self, start: int, into: memoryview, client: Any) -> int:
        """Read what comes before the transfer breaks off, at least something."""
        done = 0
        try:
            answer = client.get_object(Range=f"bytes={start}-{start + len(into) - 1}", **self._which)
            with closing(answer["Body"]) as body:
                if not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-{start + len(into) - 1}/"):
                    raise InputError(f"{self._where}: expected a part of it, got another: the store must serve ranges")
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    into[done : done + len(chunk)] = chunk
                    done += len(chunk)
        except aws.errors():
            if not done:
                raise
        return done
