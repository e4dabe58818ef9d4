"""A NATS server as an address means it: how to connect, which stream, and what its errors mean.

Layer L3; imports nats-py and FastStream.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass

from faststream.nats import NatsBroker
from faststream.nats.security import NatsToken, NatsUserPassword
from faststream.security import BaseSecurity
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import StreamInfo

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.address import Address

START_S = 5.0
REQUEST_S = 5.0
# Two of them without an answer, and the connection is given up.
_PING_S = 10
_PORT = 4222

# All that nats-py raises when a server or the way to it fails.
FAULTS = (nats_errors.Error, OSError, TimeoutError)
_FINAL = (
    js_errors.BadRequestError,
    js_errors.NotFoundError,
    nats_errors.AuthorizationError,
    nats_errors.BadSubjectError,
    nats_errors.MaxPayloadError,
)


@dataclass(frozen=True)
class Server:
    """Where a subject is, and how to get there.

    Parameters
    ----------
    address : for people, printed without its login.
    servers : a URL each, without the login.
    subject : which may have wildcards.
    stream : its name, or None to find it by the subject.
    is_declared : whether to make a stream that is not there.
    security : as FastStream takes it.
    """

    address: Address
    servers: tuple[str, ...]
    subject: str
    stream: str | None
    is_declared: bool
    security: BaseSecurity | None

    @classmethod
    def at(cls, address: Address) -> Server:
        """Read an address.

        Raises
        ------
        ConfigError
            When it names no server or no subject.
        """
        if not address.hosts or not address.path or re.search(r"[\s/]", address.path):
            raise ConfigError(f"{address}: expected nats://HOST:4222/SUBJECT, with several hosts between commas")
        servers = tuple(f"nats://{host if ':' in host else f'{host}:{_PORT}'}" for host in address.hosts)
        declared = _is_true(address, "declare")
        return cls(address, servers, address.path, address.options.get("stream"), declared, _security(address))

    def told(self, error: BaseException) -> BrokerError:
        """Say what an error of NATS's means for whoever reads or writes the subject."""
        if isinstance(error, BrokerError):
            return error
        if isinstance(error, js_errors.ServiceUnavailableError | js_errors.NoStreamResponseError):
            return BrokerUnavailable(
                f"{self.address}: nothing there answers for JetStream: see whether the server runs with it (-js), and "
                f"whether the stream is still there"
            )
        said = f"{self.address}: {str(error) or 'no answer in time'}"
        is_refused = "authorization" in str(error).lower() or "authentication" in str(error).lower()
        if isinstance(error, _FINAL) or is_refused:
            return BrokerError(f"{said}: see the address, its login and its rights")
        return BrokerUnavailable(f"{said}: see whether a server runs there")

    async def connect(self) -> Client:
        """Connect to one of the servers.

        The client does not reconnect by itself: whoever uses it connects anew when it is closed. FastStream lets some
        errors of a server end the reconnecting for good, and the client would never be closed.

        Raises
        ------
        BrokerError
            When the login is refused; `BrokerUnavailable` when nobody answers.
        """
        last: BaseException = TimeoutError()

        async def keep(error: Exception) -> None:
            nonlocal last
            last = error

        for server in random.sample(self.servers, len(self.servers)):
            broker = _Broker(
                server,
                security=self.security,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=keep,
                ping_interval=_PING_S,
                apply_types=False,
                logger=None,
            )
            try:
                async with asyncio.timeout(START_S / len(self.servers)):
                    return await broker.connect()
            except nats_errors.NoServersError:
                pass  # what came before it tells more
            except FAULTS as error:
                last = error
        raise self.told(last) from last

    async def find(self, jetstream: JetStreamContext) -> StreamInfo:
        """Find the stream that keeps the subject.

        Raises
        ------
        BrokerError
            When there is none; `BrokerUnavailable` when nobody answers.
        """
        try:
            with suppress(js_errors.NotFoundError):
                return await jetstream.stream_info(
                    self.stream or await jetstream.find_stream_name_by_subject(self.subject)
                )
            name = self.stream or re.sub(r"[.*>]", "_", self.subject)
            if self.is_declared:
                return await jetstream.add_stream(name=name, subjects=[self.subject])
        except FAULTS as error:
            raise self.told(error) from error
        raise BrokerError(
            f"{self.address}: expected a stream that keeps {self.subject}, found none: make it with "
            f"`nats stream add {name} --subjects {self.subject}`, or give the address declare=true"
        )

    async def check_writable(self, jetstream: JetStreamContext, stream: str) -> None:
        """Refuse a stream that does not keep the subject.

        Raises
        ------
        BrokerError
            Naming the one that does.
        """
        try:
            owner = await jetstream.find_stream_name_by_subject(self.subject)
        except FAULTS as error:
            raise self.told(error) from error
        if owner != stream:
            raise BrokerError(f"{self.address}: expected {stream} to keep {self.subject}, found that {owner} does")


class _Broker(NatsBroker):
    """FastStream's, which closes a connection whose login is refused; FastStream itself leaves it open."""

    async def _connect(self) -> Client:
        client = Client()
        try:
            await client.connect(**self._connection_kwargs)
        except BaseException:
            await let_go(client)
            raise
        self.config.connect(client)
        return client


async def let_go(client: Client | None) -> None:
    """Close a connection, whatever state it is in."""
    if client is None:
        return
    with suppress(Exception):
        async with asyncio.timeout(REQUEST_S):
            if client.is_connected:
                await client.flush(timeout=1)
    with suppress(Exception):
        async with asyncio.timeout(REQUEST_S):
            await client.close()


def _security(address: Address) -> BaseSecurity | None:
    context = _context(address) if _is_true(address, "tls") else None
    if address.user and address.password is not None:
        return NatsUserPassword(address.user, address.password, ssl_context=context)
    if address.user:
        return NatsToken(address.user, ssl_context=context)
    return BaseSecurity(ssl_context=context, use_ssl=True) if context else None


def _context(address: Address) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=address.options.get("ca"))
    except OSError as error:
        raise ConfigError(f"{address}: ca: expected a file of certificates: {error}") from error


def _is_true(address: Address, name: str) -> bool:
    text = address.options.get(name, "false")
    if text not in {"true", "false"}:
        raise ConfigError(f"{address}: {name}: expected true or false, got {text!r}")
    return text == "true"
