"""Text in blocks of whole records, whatever ends a record.

Layer L3; imports nothing beyond the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fairlead.batch.formats.form import CHUNK_ROWS
from fairlead.errors import InputError

FIRST_BYTES = 1 << 20
MAX_BYTES = 16 << 20
MAX_RECORD_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Some records.

    Parameters
    ----------
    start : the place in the text, in bytes, where they begin.
    text : UTF-8, if the file is.
    """

    start: int
    text: bytes


def blocks(read: Callable[[int], bytes], cut: Callable[[Block, bool], int], where: str) -> Iterator[Block]:
    """Read blocks of about `CHUNK_ROWS` lines, the first one smaller; a byte order mark is left out.

    The same text gives the same blocks.

    Parameters
    ----------
    read : gives so many bytes, fewer at the end only.
    cut : tells where in a text that begins with a record the last whole one ends; and is told whether the text ends
        there too.
    where : the path, for messages.

    Raises
    ------
    InputError
        When a record is longer than `MAX_RECORD_BYTES`.
    """
    text = read(FIRST_BYTES)
    size_bytes = len(text)
    is_last = size_bytes < FIRST_BYTES
    start = len(_BOM) if text.startswith(_BOM) else 0
    text = text[start:]
    wanted_bytes = _wanted_bytes(text)
    while text:
        end = cut(Block(start, text), is_last)
        if end:
            yield Block(start, text[:end])
            start, text = start + end, text[end:]
        elif len(text) > MAX_RECORD_BYTES:
            limit = f"{MAX_RECORD_BYTES >> 20} MiB"
            raise InputError(
                f"{where}: expected a record of at most {limit} at byte {start}, got more: see its line ends and quotes"
            )
        if is_last:
            return
        size_bytes = max(wanted_bytes - len(text), FIRST_BYTES)
        more = read(size_bytes)
        is_last = len(more) < size_bytes
        text += more


def _wanted_bytes(text: bytes) -> int:
    """Tell how long so many lines as a chunk has rows will be, by those of the first block."""
    n_lines = max(text.count(b"\n"), 1)
    return min(max(len(text) * CHUNK_ROWS // n_lines, FIRST_BYTES), MAX_BYTES)
