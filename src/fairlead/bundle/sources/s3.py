"""S3, straight from the store: `s3://BUCKET/PREFIX`, or one file by its key.

Layer L1; imports boto3 when it is used, through `aws`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from fairlead.bundle import aws
from fairlead.bundle.sources.store import CHUNK_BYTES, RemoteFile, Resolved, fingerprint, listing
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

FORM = "s3://BUCKET/PREFIX"
_MAX_FILES = 20_000
_KINDS = {"denied": SourceDenied, "away": SourceUnavailable}


@dataclass(frozen=True)
class S3Source:
    """A prefix of a bucket.

    Parameters
    ----------
    prefix : without slashes at its ends; empty for the whole bucket.
    """

    bucket: str
    prefix: str

    @property
    def text(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        store = S3Store(self.bucket, self.prefix, settings, environ)
        files = store.files()
        key = f"{self.text} at {store.endpoint} {fingerprint(files)}"
        return Resolved(self.text, key, PurePosixPath(self.prefix or self.bucket).stem, None, store)


def parse(text: str) -> S3Source:
    """Read ``s3://BUCKET/PREFIX``.

    Raises
    ------
    SourceError
        For a wrong form.
    """
    bucket, _, prefix = text.partition("://")[2].partition("/")
    if not bucket or "@" in bucket or ":" in bucket:
        raise SourceError(f"{text}: expected {FORM}: give the bucket, with credentials in the environment alone")
    return S3Source(bucket, prefix.strip("/"))


class S3Store:
    """The files below a prefix, or the one file of that key. See `Store`."""

    def __init__(self, bucket: str, prefix: str, settings: CacheSettings, environ: Mapping[str, str]) -> None:
        self._where = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._settings = settings
        self._environ = environ
        self.endpoint = self._access.endpoint
        self._lock = threading.Lock()
        self._made: Any = None

    def files(self) -> list[RemoteFile]:
        folder = f"{self._prefix}/" if self._prefix else ""
        with self._asking():
            found = [
                RemoteFile(entry["Key"][len(folder) :], entry["Size"], entry["ETag"])
                for entry in self._entries(folder)
                if not entry["Key"].endswith("/")  # an empty object that stands for a folder
            ]
            if not found and self._prefix:
                found = [
                    RemoteFile(PurePosixPath(entry["Key"]).name, entry["Size"], entry["ETag"], alone=True)
                    for entry in self._client()
                    .list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
                    .get("Contents", [])
                    if entry["Key"] == self._prefix
                ]
            if not found:
                raise SourceError(f"{self._where}: nothing is there ({self._neighbours()}): see the prefix")
        return listing(found, self._where)

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        if start and start == file.size_bytes:
            return
        key = self._prefix if file.alone else "/".join(filter(None, (self._prefix, file.name)))
        how: dict[str, str] = {"Range": f"bytes={start}-"} if start else {}
        if file.etag:
            how["IfMatch"] = file.etag
        with self._asking():
            body = self._client().get_object(Bucket=self._bucket, Key=key, **how)["Body"]
            with body:
                yield from body.iter_chunks(CHUNK_BYTES)

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=folder)
        count = 0
        for page in pages:
            for entry in page.get("Contents", []):
                count += 1
                if count > _MAX_FILES:
                    raise SourceError(
                        f"{self._where}: expected a model, got more than {_MAX_FILES} files: see the prefix"
                    )
                yield entry

    def _neighbours(self) -> str:
        parent = self._prefix.rpartition("/")[0]
        folder = f"{parent}/" if parent else ""
        page = self._client().list_objects_v2(Bucket=self._bucket, Prefix=folder, Delimiter="/", MaxKeys=20)
        names = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        names += [entry["Key"] for entry in page.get("Contents", [])]
        return f"beside it: {', '.join(names)}" if names else "nor beside it"

    @property
    def _access(self) -> aws.Access:
        return aws.Access(self._environ, self._settings.connect_timeout_s, self._settings.read_timeout_s)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._access.client()
            return self._made

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Make fairlead's errors of botocore's."""
        try:
            yield
        except aws.errors() as error:
            trouble = self._access.trouble(error)
            raise _KINDS.get(trouble.kind, SourceError)(f"{self._where}: {trouble.text}") from error
