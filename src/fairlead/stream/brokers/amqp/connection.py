"""A connection to RabbitMQ, from its beginning until it breaks.

aio-pika would reconnect unseen. But it goes on for ever where a queue is gone, tells nobody meanwhile, and delivery
tags of before mean nothing after; so a connection that broke is let go of, and its user makes another.

Layer L3; imports aio-pika and faststream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiormq.abc import AbstractChannel, DeliveredMessage
from faststream.rabbit import RabbitBroker
from faststream.security import SASLPlaintext

from fairlead.errors import BrokerUnavailable
from fairlead.stream.brokers.amqp.place import Place, answering

_CONNECT_S = 4.0
_CLOSE_S = 2.0
_HEARTBEAT_S = "20"
# Longer than any connection is without an answer: it is never reached, see above.
_RECONNECT_S = 3600.0
_LOGGERS = ("aiormq", "aio_pika")

T = TypeVar("T")


class Connection:
    """A connection with one channel; `open` makes it.

    Attributes
    ----------
    channel : aiormq's, which has what FastStream and aio-pika do one message at a time.
    """

    def __init__(self, place: Place, broker: RabbitBroker, channel: AbstractChannel) -> None:
        self.channel = channel
        self._place = place
        self._broker = broker
        self._ended = asyncio.Event()
        channel.closing.add_done_callback(self._end)
        # RabbitMQ stops a consumer when its queue is deleted or moves.
        channel.on_consumer_cancel_callbacks.add(self._end)

    @classmethod
    async def open(cls, place: Place, prefetch: int = 0) -> Connection:
        """Connect; raises as `Source.start`."""
        _quiet()
        broker = RabbitBroker(**_options(place))
        try:
            with answering(place):
                robust = await _connected(broker)
                async with asyncio.timeout(_CONNECT_S):
                    channel = robust.channel(on_return_raises=True)
                    await channel.initialize()
                    if prefetch:
                        await channel.set_qos(prefetch_count=prefetch)
                    return cls(place, broker, await channel.get_underlay_channel())
        except BaseException:
            await _stop(broker)
            raise

    async def declare(self, *, is_passive: bool = False) -> int:
        """Look for the queue, or make it where the address says so; give how many messages wait there."""
        options = self._place.address.options
        arguments: dict[str, Any] = {"x-queue-type": "quorum"} if options.get("quorum") == "true" else {}
        answer = await self.asked(
            self.channel.queue_declare(
                self._place.queue,
                passive=is_passive or options.get("declare") != "true",
                durable=True,
                arguments=arguments,
            )
        )
        return answer.message_count or 0

    async def consume(self, take: Callable[[DeliveredMessage], Coroutine[Any, Any, None]]) -> None:
        """Have each message that comes given to a function."""
        await self.asked(self.channel.basic_consume(self._place.queue, take))

    async def asked(self, call: Awaitable[T]) -> T:
        """Wait for RabbitMQ's answer; raises as `Source.start`."""
        with answering(self._place):
            async with asyncio.timeout(_CONNECT_S):
                return await call

    @property
    def has_ended(self) -> bool:
        """Whether it broke, or will give no more messages."""
        return self._ended.is_set()

    async def ended(self, timeout_s: float) -> bool:
        """Wait until it ends; False when it has not by then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        return self.has_ended

    def why(self) -> BrokerUnavailable:
        """Say what ended it."""
        closing = self.channel.closing
        is_known = closing.done() and not closing.cancelled()
        error = closing.exception() if is_known else None
        return BrokerUnavailable(f"{self._place.address}: the connection to RabbitMQ ended: {error or 'cancelled'}")

    async def close(self) -> None:
        """Let go of it. Never raises."""
        await _stop(self._broker)

    def _end(self, *_: object) -> None:
        self._ended.set()


def _options(place: Place) -> dict[str, Any]:
    address = place.address
    options: dict[str, Any] = {
        "host": place.host,
        "port": place.port,
        "virtualhost": place.vhost,
        "url": f"{address.scheme}://?heartbeat={address.options.get('heartbeat', _HEARTBEAT_S)}",
        "timeout": _CONNECT_S,
        "reconnect_interval": _RECONNECT_S,
        "logger": None,
        "apply_types": False,
    }
    is_tls = address.scheme == "amqps"
    context = ssl.create_default_context(cafile=address.options.get("ca")) if is_tls else None
    # As RabbitMQ comes, this user may log in from the same machine only.
    login = (address.user or "guest", address.password or "guest")
    options["security"] = SASLPlaintext(*login, ssl_context=context, use_ssl=is_tls)
    return options


async def _connected(broker: RabbitBroker) -> Any:
    # Not to be cancelled: aio-pika would go on connecting, and nobody could end it any more. It has its own limit.
    connecting = asyncio.ensure_future(broker.connect())
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        await asyncio.wait([connecting])
        raise


async def _stop(broker: RabbitBroker) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_S):
            await broker.stop()


def _quiet() -> None:
    """Keep libraries from telling what our own errors tell, unless somebody asked for it."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
