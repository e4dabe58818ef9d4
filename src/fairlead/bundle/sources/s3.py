"""S3, straight from the store: `s3://BUCKET/PREFIX`, or one file by its key.

Credentials, region and endpoint come from where boto3 finds them, and from MLflow's names for the same. Layer L1;
imports boto3 when it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from fairlead.bundle.sources.store import CHUNK_BYTES, RemoteFile, Resolved, fingerprint, listing
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable
from fairlead.extras import require

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

FORM = "s3://BUCKET/PREFIX"
_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_MAX_FILES = 20_000
_LOOKED = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws, or the role of this machine"
_DENIED = {
    "AccessDenied", "AccountProblem", "AuthorizationHeaderMalformed", "ExpiredToken", "Forbidden", "InvalidAccessKeyId",
    "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "401", "403",
}  # fmt: skip
_BUSY = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}


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
        self.endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "AWS")
        self._where = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._settings = settings
        self._environ = environ
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

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _connect(self._settings, self._environ)
            return self._made

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Make fairlead's errors of botocore's."""
        aws = require("botocore.exceptions", "aws")
        try:
            yield
        except aws.ClientError as error:
            raise self._told(error.response) from error
        except (
            aws.NoCredentialsError,
            aws.PartialCredentialsError,
            aws.CredentialRetrievalError,
            aws.ProfileNotFound,
            aws.TokenRetrievalError,
            aws.SSOError,
        ) as error:
            raise SourceDenied(f"{self._where}: no credentials ({error}): set {_LOOKED}") from error
        except (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError) as error:
            raise SourceUnavailable(f"{self._where}: {self._reason(error)}") from error
        except aws.BotoCoreError as error:
            raise SourceError(f"{self._where}: {error}: see the settings of AWS in the environment") from error

    def _told(self, response: Mapping[str, Any]) -> SourceError:
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _DENIED or status in (401, 403):
            return SourceDenied(f"{self._where}: {self.endpoint} refuses the credentials ({code}): see {_LOOKED}")
        if code == "NoSuchBucket":
            return SourceError(f"{self._where}: no such bucket at {self.endpoint}: see its name and the endpoint")
        if code in ("NoSuchKey", "404") or status == 412:
            return SourceError(f"{self._where}: changed while it was fetched: try again")
        if status >= 500 or code in _BUSY:
            return SourceUnavailable(f"{self._where}: {self.endpoint} failed ({code or status}): try later")
        return SourceError(f"{self._where}: {self.endpoint} refused: {code} {response.get('Error', {}).get('Message')}")

    def _reason(self, error: Exception) -> str:
        aws = require("botocore.exceptions", "aws")
        if isinstance(error, aws.ConnectTimeoutError):
            return f"no connection within {self._settings.connect_timeout_s:g} s: see whether {self.endpoint} is up"
        if isinstance(error, aws.ReadTimeoutError):
            return f"silent for {self._settings.read_timeout_s:g} s: see whether {self.endpoint} is well"
        if isinstance(error, aws.EndpointConnectionError):
            return f"no connection to {self.endpoint}: see whether the address is right and the store is up"
        return f"the transfer broke off ({error}): try again"


def _connect(settings: CacheSettings, environ: Mapping[str, str]) -> Any:
    """Make a client of what the environment says; what it leaves open, boto3 looks up itself."""
    boto3 = require("boto3", "aws")
    config = require("botocore.config", "aws")
    style = environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE")
    session = require("botocore.session", "aws").Session()
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"), ("AWS_CONFIG_FILE", "config_file")):
        if environ.get(variable):
            session.set_config_variable(name, environ[variable])
    return boto3.Session(botocore_session=session, profile_name=environ.get("AWS_PROFILE") or None).client(
        "s3",
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID") or None,
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
        aws_session_token=environ.get("AWS_SESSION_TOKEN") or None,
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
        endpoint_url=next((environ[name] for name in _ENDPOINTS if environ.get(name)), None),
        verify=False if environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1") else None,
        config=config.Config(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            # Whoever calls tries again, with what is left of its own time.
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": style} if style else None,
        ),
    )
