"""Objects in S3, and in stores that speak like it.

What is written lies in a temporary file until it is whole, and becomes one object in one step. Of two runs that write
the same object, the last one's stays. A run killed in the midst of an upload leaves parts of it that nobody sees: have
the bucket end incomplete uploads after some days. Layer L3; imports bundle and errors, and boto3 when it is used.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any

from fairlead.batch.places import names
from fairlead.batch.places.disk import BUFFER_BYTES, buffered, discard, told
from fairlead.batch.places.objects import ObjectFile, Store
from fairlead.batch.places.place import Stamp
from fairlead.errors import InputError, OutputError

FORM = "s3://BUCKET/KEY"
_PART_BYTES = 16 * 1024 * 1024
# Source: Amazon S3 User Guide, "Amazon S3 multipart upload limits".
_MAX_PARTS = 10_000


class S3Place:
    """S3 as the environment describes it. See `Place`.

    Parameters
    ----------
    environ : as for models from S3; TMPDIR is where outputs lie until they are whole.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._store = Store(environ)
        self._temporary = environ.get("TMPDIR") or tempfile.gettempdir()

    def find(self, pattern: str) -> list[str]:
        bucket, key = _parted(pattern, InputError)
        if key and not key.endswith("/") and self.stamp(pattern) is not None:
            return [pattern]
        folder, segments = names.split(key) if names.is_glob(key) else (key.rstrip("/"), names.ALL)
        prefix = f"{folder}/" if folder else ""
        found = []
        for name in self._store.ask(pattern, InputError, partial(_listed, bucket, prefix, segments)):
            parts = name.split("/")
            if not parts[-1] or not names.matches(segments, parts):  # an empty last part stands for a folder
                continue
            if "" in parts:
                raise InputError(f"s3://{bucket}/{prefix}{name}: expected a key without //: rename it")
            found.append(f"s3://{bucket}/{prefix}{name}")
        if not found:
            raise names.nothing(pattern)
        return sorted(found)

    def stamp(self, path: str) -> Stamp | None:
        bucket, key = _parted(path, InputError)
        try:
            head = self._store.ask(path, InputError, lambda client: client.head_object(Bucket=bucket, Key=key))
        except names.NotThere:
            return None
        return Stamp(int(head["ContentLength"]), str(head["ETag"]))

    def open(self, path: str) -> io.BufferedReader:
        stamp = self.stamp(path)
        if stamp is None:
            raise names.NotThere(f"{path}: expected an object, found nothing: see its name")
        return io.BufferedReader(ObjectFile(self._store, path, *_parted(path, InputError), stamp), BUFFER_BYTES)

    def write(self, path: str) -> S3Draft:
        return S3Draft(self._store, path, self._temporary)

    def get(self, path: str) -> bytes | None:
        bucket, key = _parted(path, InputError)
        try:
            return self._store.ask(path, InputError, lambda client: _whole(client, bucket, key))
        except names.NotThere:
            return None

    def put(self, path: str, data: bytes) -> None:
        bucket, key = _parted(path, OutputError)
        self._store.ask(path, OutputError, lambda client: client.put_object(Bucket=bucket, Key=key, Body=data))

    def delete(self, path: str) -> None:
        bucket, key = _parted(path, OutputError)
        self._store.ask(path, OutputError, lambda client: client.delete_object(Bucket=bucket, Key=key))


class S3Draft:
    """An object that lies in a temporary file of no name until it is whole. See `Draft`."""

    def __init__(self, store: Store, path: str, temporary: str) -> None:
        self._store = store
        self._path = path
        self._where = f"{path}, whose temporary file is in {temporary} (TMPDIR)"
        bucket, key = _parted(path, OutputError)
        self._which = {"Bucket": bucket, "Key": key}
        with told(self._where):
            self._held = tempfile.TemporaryFile(dir=temporary, buffering=0)  # noqa: SIM115  # closed by __exit__
            # Of its own descriptor: some writers close what they write to.
            self.file = buffered(os.dup(self._held.fileno()), self._where)

    def __enter__(self) -> S3Draft:
        return self

    def __exit__(self, *error: object) -> None:
        discard(self.file)
        self._held.close()

    def publish(self) -> None:
        if not self.file.closed:
            self.file.flush()
        size_bytes = os.fstat(self._held.fileno()).st_size
        if size_bytes <= _PART_BYTES:
            data = self._part(0, size_bytes)
            self._ask(lambda client: client.put_object(Body=data, **self._which))
        else:
            self._upload(size_bytes)

    def _upload(self, size_bytes: int) -> None:
        upload = self._ask(lambda client: client.create_multipart_upload(**self._which))["UploadId"]
        of_upload = {"UploadId": upload, **self._which}
        try:
            parts = self._upload_parts(size_bytes, of_upload)
            self._ask(lambda client: client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **of_upload))
        except BaseException:
            self._abort(of_upload)
            raise

    def _upload_parts(self, size_bytes: int, of_upload: dict[str, str]) -> list[dict[str, Any]]:
        part_bytes = max(_PART_BYTES, -(-size_bytes // _MAX_PARTS))
        parts: list[dict[str, Any]] = []
        for number, start in enumerate(range(0, size_bytes, part_bytes), start=1):
            part = {"Body": self._part(start, part_bytes), "PartNumber": number, **of_upload}
            answer = self._ask(partial(_upload_part, part))
            # A store that was asked for a checksum of the parts wants to hear it again.
            sums = {name: answer[name] for name in answer if name.startswith("Checksum") and name != "ChecksumType"}
            parts.append({"PartNumber": number, "ETag": answer["ETag"], **sums})
        return parts

    def _part(self, start: int, size_bytes: int) -> bytes:
        with told(self._where):
            return os.pread(self._held.fileno(), size_bytes, start)

    def _abort(self, of_upload: dict[str, str]) -> None:
        """Have the store forget an upload; one that is away is not waited for again."""
        self._store.try_once(lambda client: client.abort_multipart_upload(**of_upload))

    def _ask(self, call: Any) -> Any:
        return self._store.ask(self._path, OutputError, call)


def _upload_part(part: dict[str, Any], client: Any) -> Any:
    return client.upload_part(**part)


def _whole(client: Any, bucket: str, key: str) -> bytes:
    with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
        return bytes(body.read())


def _listed(bucket: str, prefix: str, segments: tuple[str, ...], client: Any) -> list[str]:
    """List the names below a prefix, without it, as far down and as alike as the pattern asks for."""
    level = {"Delimiter": "/"} if len(segments) == 1 else {}
    start = prefix + names.literal(segments[0])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, **level)
    return [entry["Key"][len(prefix) :] for page in pages for entry in page.get("Contents", ())]


def _parted(path: str, kind: type[InputError] | type[OutputError]) -> tuple[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    if not bucket or "@" in bucket or ":" in bucket or names.is_glob(bucket):
        raise kind(f"{path}: expected {FORM}: give the bucket, with credentials in the environment alone")
    if kind is OutputError and (not key or key.endswith("/")):
        raise kind(f"{path}: expected {FORM}, found no name of an object: name it")
    return bucket, key
