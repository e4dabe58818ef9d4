"""RabbitMQ: ``amqp://user:password@host:5672/VHOST/QUEUE``, or ``amqps://`` over TLS.

Without a VHOST it is the virtual host ``/``, which may also be written ``%2F``. Options: ``declare=true`` makes a
missing queue, durable, and ``quorum=true`` makes it one of quorum; ``ca`` is a file of certificates to trust,
``heartbeat`` after how many seconds of silence a connection is dead. A sink has ``exchange`` and ``routing_key``
besides, to publish elsewhere than to the queue.

Copies of a consumer share a queue. Layer L3; imports aio-pika and faststream when a source or a sink is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fairlead.errors import ConfigError
from fairlead.extras import require
from fairlead.stream.address import Address

if TYPE_CHECKING:
    from fairlead.stream.broker import Sink, Source, SourceOptions
    from fairlead.stream.brokers.amqp.place import Place

_KNOWN = ("declare", "quorum", "ca", "heartbeat")


def open_source(address: Address, options: SourceOptions) -> Source:
    """Make a source, without connecting.

    Raises
    ------
    ConfigError
        When the address is not one of a queue.
    MissingExtra
        When the library is not installed.
    """
    address.check_options(*_KNOWN)
    place = _place(address)
    from fairlead.stream.brokers.amqp.source import AmqpSource

    return AmqpSource(place, options)


def open_sink(address: Address, environ: Mapping[str, str]) -> Sink:
    """Make a sink, without connecting; raises as `open_source`."""
    address.check_options(*_KNOWN, "exchange", "routing_key")
    place = _place(address)
    from fairlead.stream.brokers.amqp.sink import AmqpSink

    return AmqpSink(place, address.options.get("exchange", ""), address.options.get("routing_key", place.queue))


def _place(address: Address) -> Place:
    require("aio_pika", "stream")
    require("faststream.rabbit", "stream")
    from fairlead.stream.brokers.amqp.place import Place

    # Parted before percent signs are undone, since a slash may be part of a name.
    vhost, _, queue = urlsplit(address.text).path.removeprefix("/").rpartition("/")
    if len(address.hosts) != 1 or not queue or "/" in vhost:
        raise ConfigError(f"{address}: expected amqp://HOST:PORT/VHOST/QUEUE: give one host and the queue's name")
    for name in ("declare", "quorum"):
        if address.options.get(name, "false") not in ("true", "false"):
            raise ConfigError(f"{address}: {name}: expected true or false, got {address.options[name]}")
    if not address.options.get("heartbeat", "1").isdecimal():
        raise ConfigError(f"{address}: heartbeat: expected seconds, got {address.options['heartbeat']}")
    try:
        port = urlsplit(f"//{address.hosts[0]}").port
    except ValueError as error:
        raise ConfigError(f"{address}: expected a port, a number below 65536") from error
    return Place(
        address=address,
        host=urlsplit(f"//{address.hosts[0]}").hostname or "localhost",
        port=port,
        vhost=unquote(vhost) or "/",
        queue=unquote(queue),
    )
