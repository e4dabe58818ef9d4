"""Files of text that may be compressed as a whole: read as a stream, and written.

Gzip is made by whoever encodes, a member a chunk, so that all cores share in what is slow; zstd, which is fast and of
which some readers take the first frame only, is one stream that the writer makes.

Layer L3; imports pyarrow when zstd is written or anything compressed is read.

Source: RFC 1952, section 2.2 (members); RFC 8878, section 3 (frames)
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

from fairlead.batch.formats.form import Compression
from fairlead.errors import InputError


class TextStream:
    """The text in a file, decompressed.

    Parameters
    ----------
    file : a binary file object at its beginning.
    size_bytes : its length.
    where : its path, for messages.

    Raises
    ------
    InputError
        From `read` too, when what is compressed is damaged or breaks off.
    """

    def __init__(self, file: Any, size_bytes: int, where: str, compression: Compression | None) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._where = where
        self._compression = compression
        self._text = file
        if compression is not None:
            if not size_bytes:
                raise InputError(f"{where}: expected {compression}, got an empty file: write it again")
            import pyarrow as pa

            self._text = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)

    @property
    def share(self) -> float:
        """How much of the file was read, from 0 to 1."""
        return min(1.0, self._file.tell() / self._size_bytes) if self._size_bytes else 1.0

    def read(self, n_bytes: int) -> bytes:
        """Read so many bytes, fewer at the end only."""
        parts: list[bytes] = []
        while n_bytes and (part := self._part(n_bytes)):
            parts.append(part)
            n_bytes -= len(part)
        return b"".join(parts)

    def _part(self, n_bytes: int) -> bytes:
        try:
            part: bytes = self._text.read(n_bytes)
        except OSError as error:
            what = f"expected {self._compression}, got" if self._compression else "it cannot be read:"
            raise InputError(f"{self._where}: {what} {error}: write or fetch it again") from error
        return part


def packed(text: bytes, compression: Compression | None) -> bytes:
    """Compress a part of a file as far as parts can be compressed apart, the same text to the same bytes."""
    return gzip.compress(text, 6, mtime=0) if compression == "gzip" else text


class TextWriter:
    """Writes what an encoder of text `packed`. See `Writer`.

    Parameters
    ----------
    head : what the file begins with.
    """

    def __init__(self, file: Any, compression: Compression | None, head: bytes = b"") -> None:
        self._file: Any = file
        self._raw: _LeftOpen | None = None
        self._stream: Any = None
        if compression == "zstd":
            import pyarrow as pa

            self._raw = _LeftOpen(file)
            self._stream = pa.CompressedOutputStream(pa.PythonFile(self._raw, "w"), compression)
            self._file = self._stream
        if head or compression == "gzip":  # an empty file of gzip has a member too
            self._file.write(packed(head, compression))

    def write(self, encoded: bytes) -> None:
        self._file.write(encoded)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __del__(self) -> None:
        # Of a file that was given up Arrow would still write the rest, and print what is in its way.
        if self._raw is not None:
            self._raw.write = _dropped


class _LeftOpen:
    """A file that what is above it does not close."""

    closed = False

    def __init__(self, file: Any) -> None:
        self.write: Callable[[bytes], object] = file.write
        self.flush = file.flush

    def close(self) -> None: ...


def _dropped(part: bytes) -> None: ...
