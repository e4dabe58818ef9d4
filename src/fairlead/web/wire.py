"""What goes over HTTP: reading a JSON body and writing an answer.

First and last step of a prediction over HTTP. Raw ASGI, so that a request costs no framework; imports
msgspec and what lies below the modes, never Starlette or uvicorn.

Source: RFC 9110 (HTTP Semantics), RFC 8259 (JSON), ASGI 3.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from fairlead.web.problems import Header, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 10 * 1024 * 1024
JSON_TYPE: Header = (b"content-type", b"application/json")
PROBLEM_JSON_TYPE: Header = (b"content-type", b"application/problem+json")

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


async def answer(send: Send, status: int, headers: list[Header], body: bytes, head: bool = False) -> None:
    """Send a whole response; `head` leaves the body out but tells its length."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def refuse(send: Send, refusal: Refusal, head: bool = False) -> None:
    """Send a refusal as a problem document."""
    await answer(send, refusal.status, [PROBLEM_JSON_TYPE, *refusal.headers], refusal.body, head)


def decode(body: bytes) -> Any:
    """Read JSON.

    Raises
    ------
    Refusal
        ``not_json`` for all that RFC 8259 does not allow, NaN and infinities among it.
    """
    try:
        return _decode(body)
    except UnicodeDecodeError as error:
        raise Refusal("not_json", f"expected JSON in UTF-8, got another byte at {error.start} of a string") from error
    except msgspec.DecodeError as error:
        what = str(error) if body.strip() else "the body is empty"
        raise Refusal("not_json", f"expected one JSON object or array: {what}") from error
    except RecursionError as error:
        raise Refusal("not_json", "expected one JSON object or array: it is nested too deep") from error


async def read_body(scope: Scope, receive: Receive, max_body_bytes: int) -> bytes | None:
    """Read a request's body, None when the client went away before its end.

    Raises
    ------
    Refusal
        ``unsupported_media_type``, or ``too_large`` as soon as that is known. What the client still
        sends is read and dropped by the server, so that it gets to see the answer.
    """
    _check_headers(scope["headers"], max_body_bytes)
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        _check_size(len(body), max_body_bytes)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        _check_size(size, max_body_bytes)
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    _check_size(size, max_body_bytes)
    return b"".join(chunks)


def _check_size(size: int, max_body_bytes: int) -> None:
    if size > max_body_bytes:
        raise Refusal("too_large", f"expected at most {max_body_bytes} bytes: send the records in several requests")


def _check_headers(headers: Iterable[Header], max_body_bytes: int) -> None:
    for name, value in headers:
        if name == b"content-type":
            if value != b"application/json" and not _is_json(value):
                raise Refusal(
                    "unsupported_media_type",
                    "expected JSON: send the header `content-type: application/json`",
                    headers=[(b"accept", b"application/json")],
                )
        elif name == b"content-length":
            _check_size(int(value) if value.isdigit() else 0, max_body_bytes)
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            detail = "expected a body without content-encoding: send it uncompressed"
            raise Refusal("unsupported_media_type", detail, headers=[(b"accept-encoding", b"identity")])


def _is_json(value: bytes) -> bool:
    media = value.partition(b";")[0].strip().lower()
    # Clients that send no content type, or an empty one, mean JSON: nothing else is taken here.
    return media in (b"", b"application/json") or (media.startswith(b"application/") and media.endswith(b"+json"))
