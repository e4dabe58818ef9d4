from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from fairlead.bundle.sources import NoResume, Resolved, parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

DATA = bytes(range(256)) * 3000
DIGEST = hashlib.sha256(DATA).hexdigest()


def ranges(request: BaseHTTPRequestHandler) -> None:
    """Answer as a good file server does."""
    asked = request.headers.get("Range")
    if asked and request.headers.get("If-Range", '"one"') == '"one"':
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = DATA[int(first) : int(last) + 1 if last else None]
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(DATA)}")
    else:
        part = DATA
        request.send_response(200)
    send(request, part)


def whole(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    send(request, DATA)


def send(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_header("Content-Length", str(len(data)))
    request.send_header("ETag", '"one"')
    request.end_headers()
    request.wfile.write(data)


def at(url: str, settings: CacheSettings) -> Resolved:
    return resolve(parse(f"{url}/models/churn.onnx?token=hidden#sha256={DIGEST}"), settings, {})


@pytest.mark.parametrize("answer", [ranges, whole])
def test_a_file(answer: Callable[..., None], settings: CacheSettings, peer: Any) -> None:
    server = peer(answer)
    resolved = at(server.url, settings)

    assert server.requests == []  # the digest says what it is; nobody need be asked
    (file,) = resolved.store.files()
    assert (file.name, file.size_bytes, file.sha256, file.alone) == ("churn.onnx", len(DATA), DIGEST, True)
    assert b"".join(resolved.store.read(file, 0)) == DATA
    assert set(server.requests) == {"GET /models/churn.onnx?token=hidden"}
    assert resolved.name == "churn"
    assert "hidden" not in resolved.key + resolved.source


def test_reading_from_the_middle(settings: CacheSettings, peer: Any) -> None:
    store = at(peer(ranges).url, settings).store
    (file,) = store.files()
    assert b"".join(store.read(file, 500_001)) == DATA[500_001:]


def test_a_server_that_gives_whole_files_only(settings: CacheSettings, peer: Any) -> None:
    store = at(peer(whole).url, settings).store
    (file,) = store.files()
    with pytest.raises(NoResume):
        list(store.read(file, 10))


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, SourceDenied, "wants credentials"),
        (403, SourceDenied, "status 403"),
        (404, SourceError, "see the address"),
        (429, SourceUnavailable, "status 429"),
        (500, SourceUnavailable, "status 500"),
    ],
)
def test_what_a_server_may_answer(
    status: int, kind: type[SourceError], message: str, settings: CacheSettings, peer: Any
) -> None:
    def refuse(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    with pytest.raises(kind, match=message) as caught:
        at(peer(refuse).url, settings).store.files()
    assert caught.value.retryable == (kind is SourceUnavailable)
    assert "hidden" not in str(caught.value)


def test_nobody_is_there(settings: CacheSettings, free_port: int) -> None:
    with pytest.raises(SourceUnavailable, match="no connection"):
        at(f"http://127.0.0.1:{free_port}", settings).store.files()


def test_silence_is_bounded(hasty: CacheSettings, hung: str) -> None:
    started_at = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"silent for 0\.3 s"):
        at(hung, hasty).store.files()
    assert time.monotonic() - started_at < 10


def test_a_broken_transfer(settings: CacheSettings, peer: Any) -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA[:1000])

    store = at(peer(half).url, settings).store
    (file,) = store.files()
    with pytest.raises(SourceUnavailable, match="the transfer broke off"):
        list(store.read(file, 0))


def test_a_server_without_a_trusted_certificate(settings: CacheSettings, peer: Any) -> None:
    with pytest.raises(SourceUnavailable, match="no connection"):
        at(peer(whole).url.replace("http:", "https:"), settings).store.files()
