"""The file of an explainer: a pickle, and behind it the arrays that it is made of, which are mapped into memory.

    magic, length of the pickle, number of arrays, place and length of each, pickle, arrays at multiples of 64

Workers that map a file share what they read of it, and one mapping serves all of its arrays: one that is made array by
array, as joblib's are, holds a file descriptor for each, hundreds a dashboard.

Layer L3; stdlib only.

Source: PEP 574 (pickle protocol 5 with data out of band)
"""

from __future__ import annotations

import mmap
import pickle
import struct
from itertools import chain
from pathlib import Path
from typing import Any

_MAGIC = b"fairlead"
_HEAD = struct.Struct("<8sQQ")
_PLACE = struct.Struct("<QQ")
_ALIGNMENT = 64
# What is smaller stays in the pickle.
_LEAST_BYTES = 1024


def dump(explainer: Any, path: Path) -> None:
    """Write an explainer.

    Raises
    ------
    OSError
    """
    pickled, arrays = parts(explainer)
    end = _HEAD.size + _PLACE.size * len(arrays) + len(pickled)
    places = []
    for array in arrays:
        begin = _aligned(end)
        places.append((begin, array.nbytes))
        end = begin + array.nbytes
    with path.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC, len(pickled), len(arrays)))
        file.write(b"".join(_PLACE.pack(*place) for place in places))
        file.write(pickled)
        for (begin, _), array in zip(places, arrays, strict=True):
            file.write(bytes(begin - file.tell()))
            file.write(array)


def parts(value: Any) -> tuple[bytes, list[memoryview]]:
    """Give the pickle of a value, and the arrays that it leaves out."""
    arrays: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _LEAST_BYTES:
            arrays.append(raw)
        return raw.nbytes < _LEAST_BYTES

    return pickle.dumps(value, protocol=5, buffer_callback=is_small), arrays


def load(path: Path) -> Any:
    """Read an explainer whose file was verified; its arrays cannot be written to.

    Raises
    ------
    Exception
        Whatever a class that has changed since makes of it; ValueError when the file is none of `dump`'s.
    """
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    magic, n_bytes, n_arrays = _HEAD.unpack_from(mapped)
    if magic != _MAGIC:
        raise ValueError("expected an explainer, got another file")
    begin = _HEAD.size + _PLACE.size * n_arrays
    numbers = chain.from_iterable(_PLACE.iter_unpack(mapped[_HEAD.size : begin]))
    arrays = [mapped[place : place + size] for place, size in zip(numbers, numbers, strict=True)]
    return pickle.loads(mapped[begin : begin + n_bytes], buffers=arrays)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT
