"""NATS JetStream: `nats://one:4222,two:4222/SUBJECT?stream=STREAM`.

    stream      that the subject is kept in; found by the subject when it is not given
    declare     true makes the stream when it is not there, with the settings that the server has for one
    ack_wait    after how many seconds of silence the server hands a message out again; 30. Settled when a group begins
    max_ack_pending     messages that all copies of a group may hold together; 20 times the batch, at least 1000.
                Settled likewise
    tls         true asks for TLS
    ca          file of certificates to trust, instead of the system's

A login is a user and a password, or a token in place of the user. Layer L3; imports nothing third-party until a
source or a sink is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.errors import ConfigError
from fairlead.extras import require
from fairlead.stream.address import Address
from fairlead.stream.broker import Sink, Source, SourceOptions

_CONNECTING = ("stream", "declare", "tls", "ca")
_ACK_WAIT_S = 30.0
# Room for what several copies fetch ahead and work on; a server's own default is the least.
_BATCHES_HELD = 20
_LEAST_HELD = 1000


def open_source(address: Address, options: SourceOptions) -> Source:
    """Make a source that reads a subject as one of those that share the durable consumer `options.group`."""
    address.check_options(*_CONNECTING, "ack_wait", "max_ack_pending")
    if not options.group.isascii() or not options.group.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{address}: expected a group of letters, digits, - and _, got {options.group!r}")
    ack_wait_s = _number(address, "ack_wait", _ACK_WAIT_S)
    max_pending = int(_number(address, "max_ack_pending", max(_LEAST_HELD, _BATCHES_HELD * options.max_records)))
    require("nats", "stream")
    from fairlead.stream.brokers.nats.server import Server
    from fairlead.stream.brokers.nats.source import NatsSource

    return NatsSource(Server.at(address), options, ack_wait_s, max_pending)


def open_sink(address: Address, environ: Mapping[str, str]) -> Sink:
    """Make a sink that writes to a subject."""
    address.check_options(*_CONNECTING)
    if "*" in address.path or ">" in address.path:
        raise ConfigError(f"{address}: expected one subject to write to, without * and >")
    require("nats", "stream")
    from fairlead.stream.brokers.nats.server import Server
    from fairlead.stream.brokers.nats.sink import NatsSink

    return NatsSink(Server.at(address))


def _number(address: Address, name: str, otherwise: float) -> float:
    text = address.options.get(name, str(otherwise))
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{address}: {name}: expected a number above zero, got {text!r}")
    return number
