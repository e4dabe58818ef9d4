"""Where records of CSV end, and what encoding they are in: bytes of a file become blocks of whole records in UTF-8.

Layer L3; imports numpy.

Source: RFC 4180
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fairlead.batch.formats.compression import TextStream
from fairlead.batch.formats.text_blocks import Block, blocks
from fairlead.errors import InputError

_QUOTE = ord('"')
_ENDS = b",\r\n"
_BESIDE_A_QUOTE = np.isin(np.arange(256), list(_ENDS + b'"'))


def record_blocks(stream: TextStream, encoding: str, where: str) -> Iterator[Block]:
    """Read blocks of whole records in UTF-8; text that is said to be in UTF-8 is taken as it is.

    Raises
    ------
    InputError
        For an unknown encoding, text in another one, or quotes that do not fit.
    """
    codec = _codec(encoding, where)
    read = stream.read if codec.name == "utf-8" else _Recoded(stream, codec, where).read

    def cut(block: Block, is_last: bool) -> int:
        quotes = _quotes(block, where)
        if is_last and len(quotes) % 2:
            at = block.start + int(quotes[-1])
            raise InputError(f"{where}: expected an end of the quote that begins at byte {at}, got none: close it")
        return len(block.text) if is_last else _last_end(block.text, quotes)

    return blocks(read, cut, where)


def first_end(block: Block, where: str) -> int:
    """Tell where the first record ends, with its line end."""
    quotes = _quotes(block, where)
    end = block.text.find(b"\n")
    while end >= 0 and (before := int(np.searchsorted(quotes, end))) % 2:
        end = block.text.find(b"\n", int(quotes[before]))
    return end + 1 if end >= 0 else len(block.text)


def _last_end(text: bytes, quotes: npt.NDArray[np.intp]) -> int:
    """Tell where the last line that ends outside quotes ends; 0 where none does."""
    end = text.rfind(b"\n")
    while end >= 0 and (before := int(np.searchsorted(quotes, end))) % 2:
        end = text.rfind(b"\n", 0, int(quotes[before - 1]))
    return end + 1


def _quotes(block: Block, where: str) -> npt.NDArray[np.intp]:
    """Find the quotes that open and close fields, in turn; those inside a field may be missing or there in pairs."""
    letters = np.frombuffer(block.text, np.uint8)
    places = np.flatnonzero(letters == _QUOTE)
    around = np.full(len(letters) + 2, ord("\n"), np.uint8)
    around[1:-1] = letters
    # Every quote opens or closes, and a pair inside a field closes and opens it again, unless one stands elsewhere.
    neighbours = np.concatenate([around[places[0::2]], around[places[1::2] + 2]])
    if _BESIDE_A_QUOTE[neighbours].all():
        return places
    return np.array(_quotes_one_by_one(block, places.tolist(), where), np.intp)


def _quotes_one_by_one(block: Block, places: list[int], where: str) -> list[int]:
    text, found, done = block.text, list[int](), 0
    for place in places:
        before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
        if place < done:
            continue
        if len(found) % 2 == 0:
            if before in _ENDS:  # else a letter like others: 5" of rain
                found.append(place)
        elif after == b'"':
            done = place + 2
        elif after in _ENDS:
            found.append(place)
        else:
            at = block.start + place
            raise InputError(
                f"{where}: expected a comma or a line end after the quote at byte {at}: double a quote inside"
            )
    return found


def _codec(encoding: str, where: str) -> codecs.CodecInfo:
    try:
        "a".encode(encoding)  # which refuses codecs that are of no text
        return codecs.lookup(encoding)
    except (LookupError, ValueError) as error:
        raise InputError(f"{where}: {encoding}: no such encoding: say utf-8, latin-1, cp1252, utf-16 …") from error


class _Recoded:
    """Text of another encoding, read as UTF-8."""

    def __init__(self, stream: TextStream, codec: codecs.CodecInfo, where: str) -> None:
        self._stream = stream
        self._name = codec.name
        self._where = where
        self._decoder = codec.incrementaldecoder()
        self._text = b""
        self._n_read = 0

    def read(self, n_bytes: int) -> bytes:
        while len(self._text) < n_bytes:
            part = self._stream.read(n_bytes)
            self._text += self._decoded(part)
            self._n_read += len(part)
            if not part:
                break
        text, self._text = self._text[:n_bytes], self._text[n_bytes:]
        return text

    def _decoded(self, part: bytes) -> bytes:
        try:
            return self._decoder.decode(part, final=not part).encode()
        except UnicodeError as error:
            at = f"near byte {self._n_read + getattr(error, 'start', 0)}"
            raise InputError(f"{self._where}: expected {self._name}, got another byte {at}: see --encoding") from error
