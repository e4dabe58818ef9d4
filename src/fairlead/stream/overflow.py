"""Where bytes go that are too large to be published: a directory or a bucket, each under the digest of its bytes.

Layer L3; imports boto3 when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from fairlead.bundle.aws import Access, errors
from fairlead.bundle.disk import replace_file, sync
from fairlead.config import is_address
from fairlead.errors import BrokerUnavailable, ConfigError

_CONNECT_S, _READ_S = 5.0, 20.0


class Stored(Struct, frozen=True):
    """Bytes that lie elsewhere.

    Parameters
    ----------
    at : a path or ``s3://BUCKET/KEY``.
    size_bytes, sha256 : of them.
    """

    at: str
    size_bytes: int
    sha256: str


class Overflow(Protocol):
    """A place for what is too large."""

    def store(self, data: bytes) -> Stored:
        """Keep bytes for good; the same bytes are kept once.

        Raises
        ------
        BrokerUnavailable
            When that may work another time, as with a disk that is full.
        """
        ...


def open_overflow(text: str, environ: Mapping[str, str]) -> Overflow:
    """Open the place that a path or an address means.

    Raises
    ------
    ConfigError
        For another address than one of S3.
    """
    if not is_address(text):
        return _Directory(Path(text))
    scheme, _, rest = text.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigError(f"overflow: expected a directory or s3://BUCKET/PREFIX, got {scheme}://…")
    return _Bucket(bucket, prefix.strip("/"), Access(environ, _CONNECT_S, _READ_S))


class _Directory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def store(self, data: bytes) -> Stored:
        digest = sha256(data).hexdigest()
        path = self._directory / digest
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                replace_file(path, data)
                sync(self._directory)
        except OSError as error:
            raise BrokerUnavailable(f"{path}: what is too large cannot be kept: {error.strerror}") from error
        return Stored(str(path.absolute()), len(data), digest)


class _Bucket:
    def __init__(self, bucket: str, prefix: str, access: Access) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._access = access
        self._client = access.client()

    def store(self, data: bytes) -> Stored:
        digest = sha256(data).hexdigest()
        key = f"{self._prefix}/{digest}" if self._prefix else digest
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data)
        except errors() as error:
            trouble = self._access.trouble(error)
            # Who may mend it, does: nothing is given up for want of a right.
            raise BrokerUnavailable(f"s3://{self._bucket}/{key}: {trouble.text}") from error
        return Stored(f"s3://{self._bucket}/{key}", len(data), digest)
