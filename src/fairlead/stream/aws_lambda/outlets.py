"""The streams of Kinesis that a function writes to. Imports boto3 when one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairlead.errors import BrokerUnavailable, ConfigError
from fairlead.extras import require
from fairlead.stream.address import Address
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers.kinesis.writer import MAX_MESSAGE_BYTES, Writer
from fairlead.stream.records import Message

__all__ = ["MAX_MESSAGE_BYTES", "Outlet", "open_outlet"]


class Outlet:
    """A stream that is written to.

    Parameters
    ----------
    writer : of it; its client and its connections are kept from one invocation to the next.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def put(self, messages: Sequence[Message]) -> dict[str, BrokerUnavailable]:
        """Publish messages, and tell why not, by key, for those that may not have been.

        Raises
        ------
        BrokerError
            When no other try will do.
        """
        if not messages:
            return {}
        try:
            self._writer.put(messages)
        except Unpublished as error:
            return {message.key: error for message in error.rest}
        except BrokerUnavailable as error:
            return {message.key: error for message in messages}
        return {}

    def close(self) -> None:
        """Close its connections."""
        self._writer.close()


def open_outlet(setting: str, text: str, environ: Mapping[str, str]) -> Outlet:
    """Open a stream to be written to, without connecting.

    Parameters
    ----------
    setting : that names it, for messages.

    Raises
    ------
    ConfigError
        When it is another broker's.
    MissingExtra
        When boto3 is not installed.
    """
    address = Address.parse(text)
    if address.scheme != "kinesis":
        raise ConfigError(
            f"{setting}: expected kinesis://STREAM, for Lambda writes to Kinesis alone, got {address}: "
            "`fairlead stream` writes to all brokers"
        )
    require("boto3", "lambda")
    return Outlet(Writer(address, environ))
