"""A connection to one Redis, and what its errors mean.

Layer L3; imports redis and faststream.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from faststream.redis import RedisBroker
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.address import Address

# What a call to Redis may raise; OSError holds Python's own TimeoutError.
FAULTS = (exceptions.RedisError, OSError)
START_S = 5.0
# Longer than a read waits for entries, so that only a dead connection meets it.
_SILENT_S = 10.0
_CONNECT_S = 3.0
_CLOSE_S = 2.0
_DENIED = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
_AWAY = (
    exceptions.ClusterDownError,
    exceptions.ConnectionError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TimeoutError,
    exceptions.TryAgainError,
    OSError,
)
# How Redis begins other answers that may be another one later.
_BUSY = ("BUSY ", "MISCONF", "NOGROUP", "NOREPLICAS", "UNBLOCKED")


class Connection:
    """Reaches the stream that an address names. FastStream's broker has the connections.

    Attributes
    ----------
    stream : its name.
    """

    def __init__(self, address: Address) -> None:
        self.stream = address.path
        self._address = address
        options: dict[str, Any] = {
            "username": address.user,
            "password": address.password,
            "db": int(address.options.get("db", "0")),
            "socket_connect_timeout": _CONNECT_S,
            "socket_timeout": _SILENT_S,
            # A read that was repeated unseen would leave behind what the first one was given.
            "retry": Retry(NoBackoff(), 0),
            "logger": None,
            "apply_types": False,
        }
        if "ca" in address.options:
            options["ssl_ca_certs"] = address.options["ca"]
        self._broker = RedisBroker(f"{address.scheme}://{address.hosts[0]}", **options)
        self._client: Redis | None = None

    @property
    def client(self) -> Redis:
        """redis-py's own client, for what FastStream has no words for, or would do one event at a time."""
        assert self._client is not None, "start it first"
        return self._client

    async def start(self) -> None:
        """Connect; raises as `Source.start`."""
        self._client = await self._broker.connect()
        try:
            async with asyncio.timeout(START_S):
                await self.client.ping()
        except FAULTS as error:
            raise await self.told(error) from error

    async def told(self, error: Exception) -> BrokerError:
        """Say what an error means; a server that may not be written to any more is left."""
        if isinstance(error, exceptions.ReadOnlyError):
            # It became a replica; its name may lead to the new master.
            await self.client.connection_pool.disconnect(inuse_connections=False)
        return meaning(self._address, error)

    async def close(self) -> None:
        """Let go of the connections. Never raises."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                await self._broker.stop()


def meaning(address: Address, error: Exception) -> BrokerError:
    """Translate an error of Redis."""
    # redis-py puts the command before, and with it the data.
    text = str(error).rpartition("caused error: ")[2] or type(error).__name__
    if isinstance(error, _DENIED):
        return BrokerError(f"{address}: Redis refused the login or a right of it: {text}: check user and password")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BrokerError(f"{address}: its certificate is not trusted: {text}: name its authority with ?ca=FILE")
    if isinstance(error, _AWAY) or text.startswith(_BUSY):
        return BrokerUnavailable(f"{address}: Redis does not answer as it should: {text}")
    if "WRONGTYPE" in text:
        return BrokerError(f"{address}: expected a stream, found another type of key: name a stream or a new key")
    return BrokerError(f"{address}: Redis refused: {text}")
