"""HTTP to a registry or a store: every wait is bounded, and every failure is one of fairlead's errors.

Layer L1; imports httpx when it is used.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from fairlead.bundle.sources.store import NoResume
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable
from fairlead.extras import require

if TYPE_CHECKING:
    import httpx

    from fairlead.config import CacheSettings

_MAX_JSON_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_BUSY = (408, 425, 429)


class Refused(SourceError):
    """A server answered that it will not: no such thing, or a wrong question.

    Parameters
    ----------
    message : what it said, with its address.
    status : of HTTP.
    code : its own name for the error, as in ``RESOURCE_DOES_NOT_EXIST``.
    """

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = code


@dataclass(frozen=True)
class Access:
    """How to come in.

    Parameters
    ----------
    headers : sent with each request.
    verify : the authorities to trust, or False for none at all.
    found : where credentials were found, as in ``MLFLOW_TRACKING_TOKEN``; empty if nowhere.
    looked : where they may be.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: ssl.SSLContext | bool = True
    found: str = ""
    looked: str = "the address (none are taken from anywhere)"


class Transport:
    """Asks servers. Each request has a connection of its own, so nothing needs closing.

    Parameters
    ----------
    settings : bounds every wait.
    extra : the extra that brings httpx for this use.
    """

    def __init__(self, settings: CacheSettings, extra: str, access: Access | None = None) -> None:
        self._httpx = require("httpx", extra)
        self._settings = settings
        self._access = access or Access()

    def json(self, method: str, url: str, *, params: Any = None, body: Any = None) -> dict[str, Any]:
        """Ask and decode the answer, an object, within `connect_timeout_s` and `read_timeout_s` altogether.

        Raises
        ------
        SourceUnavailable, SourceDenied
        Refused
            For any other answer than 200.
        SourceError
            When the answer is no JSON object.
        """
        deadline = time.monotonic() + self._settings.connect_timeout_s + self._settings.read_timeout_s
        data = bytearray()
        with self._answer(method, url, params=params, json=body) as answer:
            for chunk in answer.iter_bytes():
                data += chunk
                if time.monotonic() > deadline:
                    raise SourceUnavailable(f"{shown(url)}: the answer came too slowly: see whether the server is well")
                if len(data) > _MAX_JSON_BYTES:
                    raise SourceError(f"{shown(url)}: expected an answer of at most {_MAX_JSON_BYTES} bytes")
            if answer.status_code != 200:
                raise _refused(url, answer.status_code, bytes(data))
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError:
            raise SourceError(
                f"{shown(url)}: expected a JSON object, got {answer.headers.get('content-type', 'something else')}: "
                "see whether this is the address of that server"
            ) from None

    def size_and_etag(self, url: str) -> tuple[int | None, str | None]:
        """Ask for the first byte of a file, which tells how many there are; either is None if the server does not say.

        Raises
        ------
        SourceUnavailable, SourceDenied, Refused
        """
        # Not HEAD: an address that was signed for GET is refused with it.
        with self._answer("GET", url, headers={"Range": "bytes=0-0"}) as answer:
            self._check_file(url, answer, (200, 206, 416))
            etag = answer.headers.get("etag")
            if answer.status_code == 200:
                return _number(answer.headers.get("content-length")), etag
            return _number(answer.headers.get("content-range", "").rpartition("/")[2]), etag

    def read(self, url: str, start: int, etag: str | None = None) -> Iterator[bytes]:
        """Read a file from byte `start` on, if it still has this etag.

        Raises
        ------
        NoResume
            When the server gives the whole file instead, as it does when the file changed.
        SourceUnavailable, SourceDenied, Refused
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
        with self._answer("GET", url, headers=headers) as answer:
            if start and answer.status_code in (200, 416):
                raise NoResume(f"{shown(url)}: cannot be read from the middle: read it from its start")
            self._check_file(url, answer, (206,) if start else (200,))
            if start and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise NoResume(f"{shown(url)}: another part came than was asked for: read it from its start")
            yield from answer.iter_bytes()

    def _check_file(self, url: str, answer: httpx.Response, expected: tuple[int, ...]) -> None:
        if answer.status_code not in expected:
            raise _refused(url, answer.status_code, next(answer.iter_bytes(_MAX_ERROR_BYTES), b""))

    @contextmanager
    def _answer(self, method: str, url: str, **how: Any) -> Iterator[httpx.Response]:
        """Send a request; the body is read inside the context, where its failures are told apart as well."""
        httpx = self._httpx
        timeout = httpx.Timeout(self._settings.read_timeout_s, connect=self._settings.connect_timeout_s)
        # As they are on disk: a resumed file must not be half of a compressed one.
        how["headers"] = {**self._access.headers, "Accept-Encoding": "identity", **how.get("headers", {})}
        try:
            with (
                httpx.Client(timeout=timeout, verify=self._access.verify, follow_redirects=True) as client,
                client.stream(method, url, **how) as answer,
            ):
                self._check_status(url, answer)
                yield answer
        except (httpx.TransportError, httpx.TooManyRedirects) as error:
            raise SourceUnavailable(f"{shown(url)}: {self._reason(error)}") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SourceError(f"{shown(url)}: expected an address, got something else: {error}") from error

    def _check_status(self, url: str, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in (401, 403):
            access = self._access
            refused = f"refuses the credentials of {access.found}" if access.found else "wants credentials"
            cure = "see whether they are right" if access.found else f"set {access.looked}"
            raise SourceDenied(f"{shown(url)}: {refused} (status {status}): {cure}")
        if status >= 500 or status in _BUSY:
            raise SourceUnavailable(f"{shown(url)}: the server failed (status {status}): see its log or try later")

    def _reason(self, error: Exception) -> str:
        httpx = self._httpx
        if isinstance(error, httpx.ConnectTimeout):
            return f"no connection within {self._settings.connect_timeout_s:g} s: see whether the server is up"
        if isinstance(error, httpx.TimeoutException):
            return f"silent for {self._settings.read_timeout_s:g} s: see whether the server is well"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return f"its certificate is not trusted ({error}): name its authority in SSL_CERT_FILE"
        if isinstance(error, httpx.ConnectError):
            return f"no connection ({error}): see whether the address is right and the server is up"
        return f"the transfer broke off ({str(error) or type(error).__name__}): try again"


def shown(url: str) -> str:
    """Give an address as it may be told to people: without a user, a password, a query or a fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _refused(url: str, status: int, data: bytes) -> Refused:
    try:
        said = msgspec.json.decode(data)
        message, code = str(said["message"]), str(said.get("error_code", ""))
    except (msgspec.DecodeError, TypeError, KeyError, AttributeError):
        message, code = f"status {status}", ""
    return Refused(f"{shown(url)}: {message[:1000]}", status, code)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
