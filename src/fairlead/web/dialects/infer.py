"""The Open Inference Protocol, version 2: ``POST /v2/models/NAME/infer`` with tensors.

A tensor a feature, of shape [n] or [n, 1]; or, where all features are numbers, one of shape [n, n_features] in the
schema's order, as servers of scikit-learn models take it. In JSON or, with the extension ``binary_tensor_data``, in
bytes behind it.

Source: see `tensors`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, field

from fairlead.bundle.manifest import Manifest
from fairlead.predict.intake import Intake
from fairlead.predict.validate import child_path
from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import Content, Question
from fairlead.web.dialects.envelopes import decode
from fairlead.web.dialects.outputs import Column, columns_of
from fairlead.web.dialects.rows import Rows, ask
from fairlead.web.dialects.tensors import (
    DATATYPES,
    NUMBERS,
    OF_FEATURE,
    BadTensor,
    OutputTensor,
    Values,
    accepted,
    column,
    matrix_column,
    read_binary,
    read_json,
    write_column,
)
from fairlead.web.problems import Refusal, invalid

LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
# What would give another answer than the one that is asked for.
_NOT_HERE = ("classification", "shared_memory_region")

Size = Annotated[int, Meta(ge=0)]


class Input(Struct):
    """A tensor of the request."""

    name: str
    shape: list[Size]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = field(default_factory=msgspec.Raw)


class Output(Struct):
    """A tensor that the answer is to have."""

    name: str
    parameters: dict[str, Any] = {}


class Request(Struct):
    """The JSON of a request."""

    inputs: list[Input]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Output] | None = None


class Response(Struct, omit_defaults=True):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


_read = msgspec.json.Decoder(Request).decode


class Infer:
    """Tensors in, tensors out.

    Parameters
    ----------
    manifest : of the bundle.
    """

    name = "infer"
    methods = ("POST",)

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._features = manifest.schema.features
        self._rows = Rows(manifest.schema)
        self._columns = {column.name: column for column in columns_of(manifest)}
        self._by_name = {feature.source: feature for feature in self._features}
        self._by_name |= {feature.name: feature for feature in self._features}
        self._is_numeric = all(feature.type in ("bool", "int", "float") for feature in self._features)

    def read(self, call: Call, intake: Intake) -> Question:
        head, tail = _split(call)
        request = decode(head, _read)
        problems: list[Problem] = []
        outputs = self._outputs(request, problems)
        tensors = _tensors(request.inputs, tail, problems)
        is_matrix = self._is_matrix(request.inputs)
        if is_matrix:
            self._check_matrix(request.inputs[0], problems)
        else:
            self._check_columns(request.inputs, problems)
        if problems:
            raise invalid(problems, "the tensors")
        columns, places = (self._matrix if is_matrix else self._separate)(request.inputs, tensors)
        n_rows = request.inputs[0].shape[0] if request.inputs else 0

        def locate(place: int, rest: str) -> str:
            tensor, offset, width = places.get(rest, (0, 0, 1))
            return f"$.inputs[{tensor}].data[{place * width + offset}]"

        source = self._rows.of_lists(columns, n_rows, intake, locate)
        return ask(source, self._writer(request.id, outputs), "$.inputs[*].data")

    def refused(self, refusal: Refusal) -> bytes:
        return refusal.body_with_error()

    def _is_matrix(self, inputs: Sequence[Input]) -> bool:
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or not self._is_numeric:
            return False
        return inputs[0].name not in self._by_name or inputs[0].shape[1] != 1

    def _check_matrix(self, tensor: Input, problems: list[Problem]) -> None:
        width = len(self._features)
        if tensor.shape[1] != width:
            problems.append(Problem("$.inputs[0].shape", f"[n, {width}], a column a feature", "another width"))
        if tensor.datatype in DATATYPES and tensor.datatype not in (*NUMBERS, "BOOL"):
            problems.append(Problem("$.inputs[0].datatype", "one of numbers", tensor.datatype))

    def _check_columns(self, inputs: Sequence[Input], problems: list[Problem]) -> None:
        seen: set[str] = set()
        first: int | None = None
        for place, tensor in enumerate(inputs):
            here = f"$.inputs[{place}]"
            shape = tensor.shape
            if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
                problems.append(Problem(f"{here}.shape", "[n] or [n, 1]", f"{len(shape)} dimensions, or wider ones"))
            elif first is None:
                first = shape[0]
            elif shape[0] != first:
                problems.append(Problem(f"{here}.shape", f"{first} rows, as the first", str(shape[0])))
            feature = self._by_name.get(tensor.name)
            if feature is None:
                if self._manifest.schema.extra == "forbid":
                    problems.append(Problem(f"{here}.name", "the name of a feature", "another"))
                continue
            if feature.name in seen:
                problems.append(Problem(f"{here}.name", "a tensor a feature", "a second one"))
            seen.add(feature.name)
            if tensor.datatype in DATATYPES and tensor.datatype not in accepted(feature):
                problems.append(Problem(f"{here}.datatype", " or ".join(accepted(feature)), tensor.datatype))
        missing = [feature for feature in self._features if feature.name not in seen and feature.default is UNSET]
        problems += [
            Problem(child_path("$.inputs", f.name), f"a tensor of {OF_FEATURE[f.type]}", "none") for f in missing
        ]

    def _separate(self, inputs: Sequence[Input], tensors: Sequence[Values]) -> _Columns:
        columns, places = {}, {}
        for place, (tensor, values) in enumerate(zip(inputs, tensors, strict=True)):
            feature = self._by_name.get(tensor.name)
            key = tensor.name if feature is None else feature.name
            columns[key] = column(values)
            places[child_path("", key)] = (place, 0, 1)
        return columns, places

    def _matrix(self, inputs: Sequence[Input], tensors: Sequence[Values]) -> _Columns:
        width = len(self._features)
        columns, places = {}, {}
        for place, feature in enumerate(self._features):
            columns[feature.name] = matrix_column(tensors[0], place, width, feature)
            places[child_path("", feature.name)] = (0, place, width)
        return columns, places

    def _outputs(self, request: Request, problems: list[Problem]) -> list[tuple[Column, bool]]:
        """Give the outputs that are asked for, and whether each in bytes."""
        is_binary = request.parameters.get("binary_data_output") is True
        if not request.outputs:
            return [(column, is_binary) for column in self._columns.values()]
        found = []
        for place, wanted in enumerate(request.outputs):
            here = f"$.outputs[{place}]"
            if wanted.name not in self._columns:
                problems.append(Problem(f"{here}.name", f"one of {', '.join(self._columns)}", "another"))
                continue
            problems += [
                Problem(f"{here}.parameters.{name}", "nothing: there is no such extension here", "a value")
                for name in _NOT_HERE
                if wanted.parameters.get(name)
            ]
            found.append((self._columns[wanted.name], wanted.parameters.get("binary_data", is_binary) is True))
        return found

    def _writer(self, request_id: str | None, outputs: Sequence[tuple[Column, bool]]) -> Callable[[list[Any]], Content]:
        name, version = self._manifest.name, self._manifest.version

        def write(predictions: list[Any]) -> Content:
            written = [write_column(column, predictions, is_binary) for column, is_binary in outputs]
            head = wire.encode(Response(name, version, [tensor for tensor, _ in written], request_id))
            if not any(is_binary for _, is_binary in outputs):
                return Content(head)
            return Content(head + b"".join(data for _, data in written), OCTETS, ((LENGTH, b"%d" % len(head)),))

        return write


_Columns = tuple[Mapping[str, Sequence[Any]], Mapping[str, tuple[int, int, int]]]


def _split(call: Call) -> tuple[bytes, memoryview]:
    """Give a body's JSON, and the bytes behind it."""
    length = call.fields.get(LENGTH)
    if length is None:
        if call.fields.get(b"content-type") not in (b"application/json", OCTETS):
            wire.check_is_json(call.fields)
        return call.body, memoryview(b"")
    if not length.isdigit() or len(length) > 18 or int(length) > len(call.body):
        raise Refusal("bad_header", "inference-header-content-length: expected how many bytes of the body are JSON")
    return call.body[: int(length)], memoryview(call.body)[int(length) :]


def _tensors(inputs: Sequence[Input], tail: memoryview, problems: list[Problem]) -> list[Values]:
    """Read the elements of every tensor; what is behind the JSON is in the tensors' order."""
    tensors: list[Values] = []
    for place, tensor in enumerate(inputs):
        here = f"$.inputs[{place}]"
        datatype = DATATYPES.get(tensor.datatype)
        size = tensor.parameters.get("binary_data_size")
        if "shared_memory_region" in tensor.parameters:
            problems.append(Problem(f"{here}.parameters.shared_memory_region", "data in the request", "shared memory"))
        elif size is not None and (type(size) is not int or not 0 <= size <= len(tail)):
            expected = "how many of the bytes behind the JSON are this tensor's"
            problems.append(Problem(f"{here}.parameters.binary_data_size", expected, "another value"))
            break
        elif datatype is None:
            problems.append(Problem(f"{here}.datatype", f"one of {', '.join(DATATYPES)}", "another"))
        else:
            try:
                if size is None:
                    tensors.append(read_json(tensor.data, datatype, tensor.shape, f"{here}.data"))
                else:
                    tensors.append(read_binary(tail[:size], datatype, tensor.shape, f"{here}.data"))
            except BadTensor as bad:
                problems += bad.problems
        if size is not None:
            tail = tail[size:]
    else:
        if tail:
            raise Refusal(
                "bad_request", f"expected binary_data_size of all tensors to add up: {len(tail)} bytes are left"
            )
    return tensors
