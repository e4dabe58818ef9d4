"""Redis streams: ``redis://host:6379/STREAM?db=0``, or ``rediss://`` over TLS; the login from the address.

Options: ``db``, ``ca`` (a file of certificates to trust), and for a sink ``maxlen``, about how many entries the stream
keeps. One server, or what answers in its place; not a cluster.

Copies of a consumer are consumers of one group. Redis keeps what is confirmed as well as it is told to: only with
``appendonly yes`` and ``appendfsync always`` does it outlive a failure of power.

Layer L3; imports redis and faststream when a source or a sink is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fairlead.errors import ConfigError
from fairlead.extras import require
from fairlead.stream.address import Address

if TYPE_CHECKING:
    from fairlead.stream.broker import Sink, Source, SourceOptions

_FORM = "expected redis://HOST:PORT/STREAM"


def open_source(address: Address, options: SourceOptions) -> Source:
    """Make a source, without connecting.

    Raises
    ------
    ConfigError
        When the address is not one of a stream.
    MissingExtra
        When the library is not installed.
    """
    _check(address, "db", "ca")
    from fairlead.stream.brokers.redis.source import RedisSource

    return RedisSource(address, options)


def open_sink(address: Address, environ: Mapping[str, str]) -> Sink:
    """Make a sink, without connecting; raises as `open_source`."""
    _check(address, "db", "ca", "maxlen")
    from fairlead.stream.brokers.redis.sink import RedisSink

    return RedisSink(address)


def _check(address: Address, *options: str) -> None:
    address.check_options(*options)
    if len(address.hosts) != 1 or not address.path or "/" in address.path:
        raise ConfigError(f"{address}: {_FORM}: give one host and the stream's name; the database is an option, db=1")
    for name in ("db", "maxlen"):
        if not address.options.get(name, "0").isdecimal():
            raise ConfigError(f"{address}: {name}: expected a whole number, got {address.options[name]}")
    require("redis", "stream")
    require("faststream.redis", "stream")
