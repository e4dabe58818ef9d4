"""Amazon Kinesis: `kinesis://STREAM?region=eu-west-1`, with credentials and endpoint where boto3 finds them.

How far a group is, and which copy reads which shard, is kept in a SQLite file or in a table of DynamoDB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fairlead.errors import ConfigError
from fairlead.extras import require
from fairlead.stream.address import Address
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers.kinesis.dynamodb_leases import DynamoLeases
from fairlead.stream.brokers.kinesis.leases import Leases
from fairlead.stream.brokers.kinesis.sink import KinesisSink
from fairlead.stream.brokers.kinesis.source import KinesisSource
from fairlead.stream.brokers.kinesis.sqlite_leases import SqliteLeases
from fairlead.stream.brokers.kinesis.stream import Stream
from fairlead.stream.brokers.kinesis.writer import Writer

__all__ = ["KinesisSink", "KinesisSource", "Writer", "open_sink", "open_source"]


def open_source(address: Address, options: SourceOptions) -> KinesisSource:
    """Make a source; see `Broker`."""
    require("boto3", "aws")
    stream = Stream(address, options.environ)
    return KinesisSource(stream, _leases(address, stream, options), options)


def open_sink(address: Address, environ: Mapping[str, str]) -> KinesisSink:
    """Make a sink; see `Broker`."""
    require("boto3", "aws")
    return KinesisSink(Writer(address, environ))


def _leases(address: Address, stream: Stream, options: SourceOptions) -> Leases:
    text = str(options.checkpoints)
    if text.startswith("dynamodb:"):
        # A path has lost one of its slashes.
        table = Address.parse("dynamodb://" + text.removeprefix("dynamodb:").lstrip("/"))
        return DynamoLeases(table, options.group, stream.name, options.environ, stream.region)
    if not text or "://" in text:
        raise ConfigError(
            f"{address}: expected a place for checkpoints, a SQLite file or dynamodb://TABLE: got {text!r}"
        )
    return SqliteLeases(Path(text), options.group, stream.name)
