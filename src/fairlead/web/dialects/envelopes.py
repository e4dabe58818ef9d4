"""Objects that wrap records: ``{"instances": […]}`` and the like, as other servers' clients send them.

Python's own ``json.dumps`` writes the word ``NaN``, which is not JSON, where a frame or an array has no value; these
clients use it, and their servers read it. It is taken for null here, and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, TypeVar

import msgspec
from msgspec import field

from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.problems import Refusal, invalid
from fairlead.web.sources import RawValues

T = TypeVar("T")

_LARGE_BYTES = 64 * 1024
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode

# msgspec's own words for what is not of the type that was asked for.
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`.*?, got `([^`]+)`(?: - at `(?:key in )?([^`]*)`)?")
_MISSING = re.compile(r"Object missing required field `([^`]+)`(?: - at `([^`]*)`)?")
_NAMES = {
    "array": "an array",
    "object": "an object",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "null": "null",
}


def decode(body: bytes, read: Callable[[bytes], T]) -> T:
    """Read an envelope with a decoder of msgspec's, NaN as null.

    Raises
    ------
    Refusal
        ``not_json``; ``invalid_records`` with the place where the envelope is of another form.
    """
    try:
        return _read(body, read)
    except Refusal as refusal:
        if refusal.status != 400 or b"NaN" not in body:
            raise
        plain = _without_nan(body, refusal)
    return _read(plain, read)


def _read(body: bytes, read: Callable[[bytes], T]) -> T:
    try:
        return read(body)
    except msgspec.ValidationError as error:
        raise invalid([_problem(error)], "the request") from error
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise wire.not_json(body, error) from error


def _without_nan(body: bytes, refusal: Refusal) -> bytes:
    try:
        return msgspec.json.encode(json.loads(body, parse_constant=_constant))
    except (ValueError, OverflowError, RecursionError) as error:
        raise refusal from error


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is not JSON")


def _problem(error: msgspec.ValidationError) -> Problem:
    """Tell msgspec's finding in our words, without any value."""
    text = str(error)
    if missing := _MISSING.search(text):
        return Problem(f"{missing[2] or '$'}.{missing[1]}", "a value", "nothing")
    if wrong := _WRONG_TYPE.search(text):
        expected = [_NAMES.get(name.strip(), name.strip()) for name in wrong[1].split("|")]
        return Problem(wrong[3] or "$", " or ".join(expected), _NAMES.get(wrong[2], wrong[2]))
    place = re.search(r"at `([^`]*)`", text)
    return Problem(place[1] if place else "$", "a value in range", "another")


def refuse(path: str, expected: str, got: str) -> Refusal:
    """Make the answer 422 with one problem of the request's own form."""
    return invalid([Problem(path, expected, got)], "the request")


def members_decoder(*names: str) -> Callable[[bytes], Any]:
    """Make a decoder of an object with these members, each raw, and empty where it is missing; others are ignored."""
    missing = field(default_factory=msgspec.Raw)
    fields = [(f"f{place}", msgspec.Raw, missing) for place in range(len(names))]
    rename = {f"f{place}": name for place, name in enumerate(names)}
    return msgspec.json.Decoder(msgspec.defstruct("Envelope", fields, rename=rename)).decode


def value_of(raw: msgspec.Raw) -> Any:
    """Read a member; of a large array the elements are only told apart."""
    text = bytes(raw)
    return RawValues(_split(text)) if len(text) > _LARGE_BYTES and text[:1] == b"[" else wire.decode(text)


def is_array(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether `value_of` gave an array."""
    return type(value) in (list, RawValues)
