"""S3 and other services of AWS as the environment describes them: how to reach one, and what its errors mean.

Credentials, region and endpoint come from where boto3 finds them, and from MLflow's names for the same. Layer L1,
below `sources` and `stream`; imports boto3 when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fairlead.extras import require

# Which variables give a service's address, the first that is set; after all of them AWS_ENDPOINT_URL.
_ENDPOINTS = {"s3": ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")}
_LOOKED = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws, or the role of this machine"
_DENIED = {
    "AccessDenied", "AccessDeniedException", "AccountProblem", "AuthorizationHeaderMalformed", "ExpiredToken",
    "ExpiredTokenException", "Forbidden", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidSignatureException", "InvalidToken", "KMSAccessDeniedException", "MissingAuthenticationToken",
    "OptInRequired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
    "UnrecognizedClientException", "401", "403",
}  # fmt: skip
_BUSY = {
    "InternalFailure", "InternalServerError", "KMSThrottlingException", "LimitExceededException",
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
}  # fmt: skip


@dataclass(frozen=True)
class Trouble:
    """What an error of boto3's means.

    Parameters
    ----------
    kind : ``denied`` for credentials that are missing or refused, ``away`` where another try may succeed, ``gone``
        for an object that is not there or not the one that was asked for.
    text : what is wrong and what to do, without the object's address.
    """

    kind: Literal["denied", "away", "gone", "other"]
    text: str


@dataclass(frozen=True)
class Access:
    """How to reach S3, or another service.

    Parameters
    ----------
    environ : where credentials, region and endpoint stand.
    connect_timeout_s, read_timeout_s : how long to wait for a connection, and how long one may be silent.
    service : as boto3 calls it, such as ``kinesis``; its endpoint may stand in ``AWS_ENDPOINT_URL_KINESIS``.
    region : instead of the environment's.
    """

    environ: Mapping[str, str]
    connect_timeout_s: float
    read_timeout_s: float
    service: str = "s3"
    region: str | None = None

    @property
    def endpoint(self) -> str:
        return self._endpoint or "AWS"

    @property
    def _endpoint(self) -> str | None:
        own = _ENDPOINTS.get(self.service, (f"AWS_ENDPOINT_URL_{self.service.upper()}",))
        return next((self.environ[name] for name in (*own, "AWS_ENDPOINT_URL") if self.environ.get(name)), None)

    def client(self) -> Any:
        """Make a client of what the environment says; what it leaves open, boto3 looks up itself."""
        boto3 = require("boto3", "aws")
        config = require("botocore.config", "aws")
        environ = self.environ
        style = environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE")
        trusting = self.service == "s3" and environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
        session = require("botocore.session", "aws").Session()
        for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"), ("AWS_CONFIG_FILE", "config_file")):
            if environ.get(variable):
                session.set_config_variable(name, environ[variable])
        return boto3.Session(botocore_session=session, profile_name=environ.get("AWS_PROFILE") or None).client(
            self.service,
            aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
            aws_session_token=environ.get("AWS_SESSION_TOKEN") or None,
            region_name=self.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
            endpoint_url=self._endpoint,
            verify=False if trusting else None,
            config=config.Config(
                connect_timeout=self.connect_timeout_s,
                read_timeout=self.read_timeout_s,
                # Whoever calls tries again, with what is left of its own time.
                retries={"total_max_attempts": 1, "mode": "standard"},
                s3={"addressing_style": style} if style else None,
            ),
        )

    def trouble(self, error: Exception) -> Trouble:
        """Tell what one of `errors()` means."""
        aws = require("botocore.exceptions", "aws")
        if isinstance(error, aws.ClientError):
            return self._answered(error.response)
        without = (
            aws.NoCredentialsError,
            aws.PartialCredentialsError,
            aws.CredentialRetrievalError,
            aws.ProfileNotFound,
            aws.TokenRetrievalError,
            aws.SSOError,
        )
        if isinstance(error, without):
            return Trouble("denied", f"no credentials ({error}): set {_LOOKED}")
        if isinstance(error, (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError)):
            return Trouble("away", self._reason(error))
        return Trouble("other", f"{error}: see the settings of AWS in the environment")

    def _answered(self, response: Mapping[str, Any]) -> Trouble:
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _DENIED or status in (401, 403):
            return Trouble("denied", f"{self.endpoint} refuses the credentials ({code}): see {_LOOKED}")
        if code == "NoSuchBucket":
            return Trouble("other", f"no such bucket at {self.endpoint}: see its name and the endpoint")
        if code in ("NoSuchKey", "404") or status == 412:
            return Trouble("gone", "changed while it was fetched: try again")
        if status >= 500 or code in _BUSY:
            return Trouble("away", f"{self.endpoint} failed ({code or status}): try later")
        return Trouble("other", f"{self.endpoint} refused: {code} {response.get('Error', {}).get('Message')}")

    def _reason(self, error: Exception) -> str:
        aws = require("botocore.exceptions", "aws")
        if isinstance(error, aws.ConnectTimeoutError):
            return f"no connection within {self.connect_timeout_s:g} s: see whether {self.endpoint} is up"
        if isinstance(error, aws.ReadTimeoutError):
            return f"silent for {self.read_timeout_s:g} s: see whether {self.endpoint} is well"
        if isinstance(error, aws.EndpointConnectionError):
            return f"no connection to {self.endpoint}: see whether the address is right and the store is up"
        return f"the transfer broke off ({error}): try again"


def errors() -> tuple[type[Exception], ...]:
    """Give what a client and its answers raise."""
    aws = require("botocore.exceptions", "aws")
    return aws.ClientError, aws.BotoCoreError
