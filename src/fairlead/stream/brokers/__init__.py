"""The brokers, one module or folder each, found by their scheme: here, else by an entry point of `fairlead.brokers`.

A module has `open_source(address, options)` and `open_sink(address, environ)`, which check an address and connect to
nothing; it imports its library when one of them is called.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, cast

from fairlead.errors import ConfigError
from fairlead.stream.address import Address
from fairlead.stream.broker import Sink, Source, SourceOptions

# The same broker over TLS, as its own clients call it.
_OVER_TLS = {"rediss": "redis", "amqps": "amqp"}


class Broker(Protocol):
    """What a module of a broker has."""

    def open_source(self, address: Address, options: SourceOptions) -> Source:
        """Make a source, without connecting; raises `ConfigError` for an address that cannot be read from."""
        ...

    def open_sink(self, address: Address, environ: Mapping[str, str]) -> Sink:
        """Make a sink, without connecting; raises `ConfigError` for an address that cannot be written to."""
        ...


def open_source(text: str, options: SourceOptions) -> Source:
    """Make the source that an address means.

    Raises
    ------
    ConfigError
        When it means none.
    MissingExtra
        When the broker's library is not installed.
    """
    address = Address.parse(text)
    return broker_of(address).open_source(address, options)


def open_sink(text: str, environ: Mapping[str, str]) -> Sink:
    """Make the sink that an address means; raises as `open_source`."""
    address = Address.parse(text)
    return broker_of(address).open_sink(address, environ)


def names() -> list[str]:
    """List the schemes that there are."""
    own = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted({*own, *_OVER_TLS, *entry_points(group="fairlead.brokers").names})


def broker_of(address: Address) -> Broker:
    """Find a broker by an address's scheme.

    Raises
    ------
    ConfigError
        With the known schemes, when there is none.
    """
    name = _OVER_TLS.get(address.scheme, address.scheme)
    if name.isidentifier() and any(module.name == name for module in pkgutil.iter_modules(__path__)):
        return cast(Broker, import_module(f"{__name__}.{name}"))
    for point in entry_points(group="fairlead.brokers", name=name):
        return cast(Broker, point.load())
    raise ConfigError(f"{address}: no such broker: known are {', '.join(f'{one}://' for one in names())}")
