"""Kinesis and DynamoDB asked in the calling thread; their errors told as fairlead's.

Imports boto3 when it is used, through `fairlead.bundle.aws`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from typing import Any

from fairlead.bundle import aws
from fairlead.errors import BrokerError, BrokerUnavailable

_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 10
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class Throttled(BrokerUnavailable):
    """More was asked than is granted in that time."""


class IteratorExpired(BrokerError):
    """An iterator was not used for five minutes."""


class Missing(BrokerError):
    """There is no such stream, shard or table."""


class InvalidArgument(BrokerError):
    """A parameter cannot be, such as a sequence number of another stream."""


class ConditionFailed(BrokerError):
    """An item of DynamoDB is not as it was expected; another one wrote it."""


# `LimitExceededException` is how some calls of Kinesis are throttled, as ListShards.
_KINDS: Mapping[str, type[BrokerError]] = {
    "ConditionalCheckFailedException": ConditionFailed,
    "ExpiredIteratorException": IteratorExpired,
    "InvalidArgumentException": InvalidArgument,
    "LimitExceededException": Throttled,
    "ProvisionedThroughputExceededException": Throttled,
    "RequestLimitExceeded": Throttled,
    "ResourceInUseException": BrokerUnavailable,  # it is being made, or changed
    "ResourceNotFoundException": Missing,
    "ThrottlingException": Throttled,
}


class Client:
    """One service of AWS; may be used by several threads.

    Parameters
    ----------
    service : as boto3 calls it.
    where : what it is about, for messages.
    environ : where credentials, region and endpoint stand.
    region : instead of the environment's.
    """

    def __init__(self, service: str, where: str, environ: Mapping[str, str], region: str | None) -> None:
        self._access = aws.Access(environ, _CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, service, region)
        self._where = where
        self._lock = threading.Lock()
        self._made: Any = None

    def ask(self, operation: str, parameters: Mapping[str, Any], expected: str = "") -> dict[str, Any]:
        """Ask for something once.

        Parameters
        ----------
        expected : what is in every whole answer. Of one that broke off botocore gives what is left of it, without a
            word: records without the next iterator, say, which is how a shard's end looks.

        Raises
        ------
        BrokerError
            One of this module's kinds where its callers know what to do; `BrokerUnavailable` when another try may do.
        """
        try:
            answer: dict[str, Any] = getattr(self._client(), operation)(**parameters)
        except aws.errors() as error:
            raise self._meant(error) from error
        except ValueError as error:  # botocore's, about the endpoint
            raise BrokerError(f"{self._where}: {error}") from error
        if expected and expected not in answer:
            raise BrokerUnavailable(f"{self._where}: the answer to {operation} broke off: try again")
        return answer

    def close(self) -> None:
        """Close its connections; what is under way ends by itself."""
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._access.client()
            return self._made

    def _meant(self, error: Exception) -> BrokerError:
        trouble = self._access.trouble(error)
        # botocore's own errors may have a response that is None.
        told = (getattr(error, "response", None) or {}).get("Error", {})
        code, message = str(told.get("Code", "")), told.get("Message")
        if type(error).__name__ == "NoRegionError":
            return BrokerError(f"{self._where}: no region: set AWS_REGION, or append ?region=… to the address")
        # An error without a name is not the service's, or broke off: the name is the HTTP status then.
        is_away = trouble.kind == "away" or (trouble.kind == "other" and code.isdigit())
        kind = _KINDS.get(code) or (BrokerUnavailable if is_away else BrokerError)
        if kind is Missing:
            return Missing(f"{self._where}: not found at {self._access.endpoint}: see its name and region: {message}")
        return kind(f"{self._where}: {trouble.text}" + (f": {message}" if trouble.kind == "denied" and message else ""))


def pause_s(tries: int) -> float:
    """Give how long to wait after so many tries that failed: longer each time, and never the same for two copies.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(tries - 1, 16))
    return random.uniform(0.5, 1.0) * longest_s
