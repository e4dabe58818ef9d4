"""JSON in and out, and what a body may be: its size, its encoding.

First and last step of a prediction over HTTP. Imports msgspec and what lies below the modes, never
Starlette or uvicorn.

Source: RFC 9110 (HTTP Semantics), RFC 8259 (JSON), RFC 1952 (gzip), RFC 1950 (zlib, "deflate").
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from fairlead.web.problems import Refusal

MAX_BODY_BYTES = 10 * 1024 * 1024
# What `zlib.decompressobj` is told to expect: gzip's header; zlib's own.
_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def decode(body: bytes) -> Any:
    """Read JSON.

    Raises
    ------
    Refusal
        ``not_json`` for all that RFC 8259 does not allow, NaN and infinities among it.
    """
    try:
        return _decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise not_json(body, error) from error


def not_json(body: bytes, error: Exception) -> Refusal:
    """Make the answer for a body that a JSON decoder gave up on."""
    if isinstance(error, UnicodeDecodeError):
        return Refusal("not_json", f"expected JSON in UTF-8, got another byte at {error.start} of a string")
    if isinstance(error, RecursionError):
        return Refusal("not_json", "expected one JSON object or array: it is nested too deep")
    what = str(error) if body.strip() else "the body is empty"
    return Refusal("not_json", f"expected one JSON object or array: {what}")


def media_type(fields: Mapping[bytes, bytes]) -> bytes:
    """Give a request's content type without parameters; clients that send none, or an empty one, mean JSON."""
    value = fields.get(b"content-type", b"application/json")
    if value == b"application/json":
        return value
    media = value.partition(b";")[0].strip().lower()
    return b"application/json" if not media or media.endswith(b"+json") else media


def check_is_json(fields: Mapping[bytes, bytes]) -> None:
    """Refuse a body that says it is something else than JSON.

    Raises
    ------
    Refusal
        ``unsupported_media_type``.
    """
    if media_type(fields) != b"application/json":
        raise unsupported(b"application/json")


def unsupported(*accepted: bytes) -> Refusal:
    """Make the answer for a body of a content type that is not among the `accepted`."""
    names = " or ".join(accept.decode() for accept in accepted)
    detail = f"expected {names}: say it in the header `content-type`"
    return Refusal("unsupported_media_type", detail, headers=[(b"accept", b", ".join(accepted))])


def too_large(max_body_bytes: int) -> Refusal:
    """Make the answer for a body of more than `max_body_bytes`."""
    return Refusal("too_large", f"expected at most {max_body_bytes} bytes: send the records in several requests")


def check_size(size: int, max_body_bytes: int) -> None:
    """Refuse a body that is too large.

    Raises
    ------
    Refusal
        ``too_large``.
    """
    if size > max_body_bytes:
        raise too_large(max_body_bytes)


def decompressed(body: bytes, encoding: bytes, max_body_bytes: int) -> bytes:
    """Undo a content encoding.

    Raises
    ------
    Refusal
        ``unsupported_media_type`` for another than gzip and deflate; ``too_large`` as soon as more comes
        out than a body may have; ``bad_request`` when it is broken.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in _WINDOW_BITS:
        headers = [(b"accept-encoding", b"gzip, deflate, identity")]
        raise Refusal(
            "unsupported_media_type", "expected gzip, deflate or no content-encoding: send it so", headers=headers
        )
    unpacker = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        plain = unpacker.decompress(body, max_body_bytes + 1)
    except zlib.error as error:
        raise Refusal("bad_request", f"expected a body compressed with {name.decode()}, got a broken one") from error
    check_size(len(plain), max_body_bytes)
    if not unpacker.eof:
        raise Refusal("bad_request", f"expected a body compressed with {name.decode()}, got one cut off")
    return plain
