"""Kafka: `kafka://one:9092,two:9092/TOPIC`.

    security    plaintext, ssl, sasl_plaintext or sasl_ssl; sasl_ssl when the address has a login, else plaintext
    mechanism   plain, scram-sha-256 or scram-sha-512, for a login
    ca          file of certificates to trust, instead of the system's
    max_message_bytes   of a message that is written; 1000000, the largest that a broker takes unless told otherwise

Layer L3; imports nothing third-party until a source or a sink is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.errors import ConfigError
from fairlead.extras import require
from fairlead.stream.address import Address
from fairlead.stream.broker import Sink, Source, SourceOptions

_CONNECTING = ("security", "mechanism", "ca")
# A broker's `message.max.bytes` is 1,048,588 unless told otherwise; the rest is for headers and framing.
_MAX_MESSAGE_BYTES = 1_000_000


def open_source(address: Address, options: SourceOptions) -> Source:
    """Make a source that reads a topic as a member of the group `options.group`."""
    address.check_options(*_CONNECTING)
    require("aiokafka", "stream")
    from fairlead.stream.brokers.kafka.cluster import Cluster
    from fairlead.stream.brokers.kafka.source import KafkaSource

    return KafkaSource(Cluster.at(address), options)


def open_sink(address: Address, environ: Mapping[str, str]) -> Sink:  # the interface has it
    """Make a sink that writes to a topic."""
    address.check_options(*_CONNECTING, "max_message_bytes")
    text = address.options.get("max_message_bytes", str(_MAX_MESSAGE_BYTES))
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"{address}: max_message_bytes: expected a number of bytes, got {text!r}")
    require("aiokafka", "stream")
    from fairlead.stream.brokers.kafka.cluster import Cluster
    from fairlead.stream.brokers.kafka.sink import KafkaSink

    return KafkaSink(Cluster.at(address), int(text))
