"""The tensors of the Open Inference Protocol: read from JSON or bytes into columns, and written as either.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md;
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fairlead.predict.validate import type_name
from fairlead.schema import Feature, Problem
from fairlead.web import wire
from fairlead.web.dialects.outputs import Column

Values = list[Any] | npt.NDArray[Any]


class Datatype(NamedTuple):
    """A type of elements.

    Parameters
    ----------
    dtype : of numpy, little-endian; None for BYTES.
    type : of an element in JSON.
    expected : for messages.
    flat, nested : decoders of a flat array, and of an array of rows.
    """

    dtype: str | None
    type: Any
    expected: str
    flat: Callable[[msgspec.Raw], list[Any]]
    nested: Callable[[msgspec.Raw], list[list[Any]]]


def _datatype(dtype: str | None, kind: Any, expected: str) -> Datatype:
    flat = msgspec.json.Decoder(list[kind | None])
    return Datatype(dtype, kind, expected, flat.decode, msgspec.json.Decoder(list[list[kind | None]]).decode)


def _integer(bits: int, is_signed: bool) -> Datatype:
    if is_signed:
        bounds = Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)
        return _datatype(f"<i{bits // 8}", Annotated[int, bounds], f"an integer of {bits} bits")
    # msgspec takes no bound beyond 63 bits; JSON's larger integers are the features' to refuse.
    bounds = Meta(ge=0, le=2**bits - 1) if bits < 64 else Meta(ge=0)
    return _datatype(f"<u{bits // 8}", Annotated[int, bounds], f"an integer of {bits} bits without a sign")


DATATYPES: dict[str, Datatype] = {
    "BOOL": _datatype("|b1", bool, "a boolean"),
    **{f"INT{bits}": _integer(bits, True) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integer(bits, False) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": _datatype(f"<f{bits // 8}", float, "a number") for bits in (16, 32, 64)},
    "BYTES": _datatype(None, str, "a string"),
}
_INTEGERS = tuple(name for name in DATATYPES if "INT" in name)
_FLOATS = tuple(name for name in DATATYPES if name.startswith("FP"))
NUMBERS = (*_INTEGERS, *_FLOATS)
# What a feature of each type is told to be in the metadata.
OF_FEATURE = {"bool": "BOOL", "int": "INT64", "float": "FP64", "string": "BYTES", "datetime": "BYTES"}
OF_OUTPUT = {
    "bool": "BOOL",
    "int": "INT64",
    "float": "FP64",
    "probabilities": "FP64",
    "string": "BYTES",
    "json": "BYTES",
}


def accepted(feature: Feature) -> tuple[str, ...]:
    """Give the datatypes in which a feature may come. Integers serve as floats; null among integers needs NaN."""
    if feature.type == "float":
        return NUMBERS
    if feature.type == "int":
        return NUMBERS if feature.nullable else _INTEGERS
    return (OF_FEATURE[feature.type],)


class BadTensor(Exception):
    """A tensor's data are not what it says; carries every problem."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__()
        self.problems = problems


def read_json(raw: msgspec.Raw, datatype: Datatype, shape: Sequence[int], path: str) -> list[Any]:
    """Read elements, flat or a row each.

    Raises
    ------
    BadTensor
        With a problem for each element of another type; or when they are more or fewer than the shape says.
    """
    if not raw:
        raise BadTensor(Problem(path, "an array, or parameters.binary_data_size", "neither"))
    try:
        flat = datatype.flat(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        flat = _read_nested(raw, datatype, shape, path)
    _check_count(len(flat), shape, path)
    return flat


def _read_nested(raw: msgspec.Raw, datatype: Datatype, shape: Sequence[int], path: str) -> list[Any]:
    try:
        rows = datatype.nested(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = wire.decode(bytes(raw))
        problems = list(_problems(value, datatype, path)) or [Problem(path, "an array of at most 2 dimensions", "more")]
        raise BadTensor(*problems) from None
    if len(shape) != 2 or any(len(row) != shape[1] for row in rows):
        raise BadTensor(Problem(path, "an array, or rows as the shape says", "rows of other lengths"))
    return list(chain.from_iterable(rows))


def _problems(value: Any, datatype: Datatype, path: str) -> Iterator[Problem]:
    """Find what is no element of a type, in arrays of arrays."""
    if type(value) is not list:
        yield Problem(path, "an array", type_name(value))
        return
    for place, element in enumerate(value):
        here = f"{path}[{place}]"
        if type(element) is list:
            yield from _problems(element, datatype, here)
            continue
        try:
            msgspec.convert(element, datatype.type | None)
        except (msgspec.ValidationError, OverflowError):
            yield Problem(here, datatype.expected, type_name(element))


def read_binary(data: memoryview, datatype: Datatype, shape: Sequence[int], path: str) -> Values:
    """Read elements from bytes: little-endian, row by row, BYTES with their length before them.

    Raises
    ------
    BadTensor
        When the bytes are more or fewer than the shape says, or no such elements.
    """
    if datatype.dtype is None:
        return _read_strings(data, shape, path)
    count, left = divmod(len(data), np.dtype(datatype.dtype).itemsize)
    if left:
        raise BadTensor(Problem(path, f"whole elements of {np.dtype(datatype.dtype).itemsize} bytes", "a part of one"))
    _check_count(count, shape, path)
    if datatype.dtype == "|b1":
        bools = np.frombuffer(data, np.uint8)
        if bad := np.flatnonzero(bools > 1).tolist():
            raise BadTensor(*(Problem(f"{path}[{place}]", "a byte 0 or 1", "another") for place in bad))
        return bools.astype(bool)
    return np.frombuffer(data, datatype.dtype)


def _read_strings(data: memoryview, shape: Sequence[int], path: str) -> list[str]:
    texts: list[str] = []
    problems: list[Problem] = []
    place, end = 0, len(data)
    while place < end:
        if place + 4 > end or (stop := place + 4 + struct.unpack_from("<I", data, place)[0]) > end:
            raise BadTensor(Problem(f"{path}[{len(texts)}]", "a length and as many bytes", "fewer"))
        try:
            texts.append(str(data[place + 4 : stop], "utf-8"))
        except UnicodeDecodeError:
            problems.append(Problem(f"{path}[{len(texts)}]", "a string in UTF-8", "other bytes"))
            texts.append("")
        place = stop
    if problems:
        raise BadTensor(*problems)
    _check_count(len(texts), shape, path)
    return texts


def _check_count(count: int, shape: Sequence[int], path: str) -> None:
    expected = 1
    for size in shape:
        expected *= size
    if count != expected:
        raise BadTensor(Problem(path, f"{expected} elements, as the shape says", str(count)))


def column(values: Values) -> list[Any]:
    """Make Python's values of a column, NaN as null."""
    if isinstance(values, list):
        return values
    numbers: list[Any] = values.tolist()
    if values.dtype.kind == "f" and np.isnan(values).any():
        return [None if number != number else number for number in numbers]  # noqa: PLR0124  # NaN is not itself
    return numbers


def matrix_column(values: Values, place: int, width: int, feature: Feature) -> list[Any]:
    """Make the column at `place` of rows of `width` numbers: whole floats serve as ints there, 0 and 1 as bools."""
    numbers = column(values[place::width])
    if feature.type == "bool":
        return [bool(number) if number in (0, 1) else number for number in numbers]
    if feature.type == "int":
        return [int(v) if type(v) is float and v.is_integer() else v for v in numbers]
    return numbers


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """A tensor of the answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


def write_column(column: Column, predictions: Sequence[dict[str, Any]], is_binary: bool) -> tuple[OutputTensor, bytes]:
    """Make a tensor of an output; its bytes, or none where they are in the JSON."""
    values = column.values(predictions)
    shape = [len(values)]
    parameters: dict[str, Any] = {}
    if column.type == "probabilities":
        shape.append(len(column.labels))
        parameters["labels"] = column.labels
        values = [number for by_label in values for number in by_label.values()]
    elif column.type == "json":
        parameters["content_type"] = "application/json"
    tensor = OutputTensor(column.name, OF_OUTPUT[column.type], shape, parameters or None)
    if not is_binary:
        tensor.data = values
        return tensor, b""
    data = _bytes(values, tensor.datatype)
    tensor.parameters = {**parameters, "binary_data_size": len(data)}
    return tensor, data


def _bytes(values: Sequence[Any], datatype: str) -> bytes:
    if (dtype := DATATYPES[datatype].dtype) is not None:
        return np.array(values, dtype=dtype).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (struct.pack("<I", len(text)), text))
