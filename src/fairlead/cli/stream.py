"""The verb of the stream consumer."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import click

from fairlead import display
from fairlead.cli.flags import Setting, config_option


class _StreamSetting(Setting):
    prefix = "stream_"


_stream = partial(click.option, cls=_StreamSetting)


@click.command()
@click.argument("source", required=False)
@config_option
@click.option("--refresh-s", type=click.FloatRange(0, min_open=True), help="How often to look for a newer version.")
@_stream("--from", metavar="URL", help="Where events come from, such as kinesis://rides.")
@_stream("--to", metavar="URL", help="Where predictions go.")
@_stream("--dead-letter", metavar="URL", help="Where events go that can never be scored.")
@_stream("--model", metavar="NAME", help="Which of the models in --config, where it has several.")
@_stream("--features", metavar="PLACE", help="Where in an event they are, such as ride.  [default: the event itself]")
@_stream("--id", metavar="PLACE", help="What tells events apart, and is passed on, such as ride_id.  [default: none]")
@_stream("--results", metavar="NAME", help="Under which name the outputs are published.  [default: prediction]")
@_stream("--partition-key", metavar="PLACE", help="What parts predictions.  [default: the id, else the event's key]")
@_stream("--group", metavar="NAME", help="Copies of it share the work.  [default: fairlead]")
@_stream("--start", type=click.Choice(["oldest", "newest"]), help="Where a new group begins.  [default: oldest]")
@_stream("--max-records", type=click.IntRange(1), help="Events in a batch.  [default: 500]")
@_stream("--max-wait-s", type=click.FLOAT, help="How long a batch waits for more.  [default: 0.05]")
@_stream("--max-record-bytes", type=click.IntRange(1), help="A larger event is a dead letter.  [default: 1048576]")
@_stream("--checkpoints", metavar="PLACE", help="How far shards are read: a SQLite file, or dynamodb://TABLE.")
@_stream("--lease-s", type=click.FLOAT, help="Another copy takes over a shard after so long a silence.  [default: 10]")
@_stream("--overflow", metavar="PLACE", help="What is too large to publish: a directory, or s3://BUCKET/PREFIX.")
@_stream("--state-directory", help="Where checkpoints and overflow are.  [default: fairlead in ~/.local/state]")
@_stream("--host", help="The address for probes and metrics.  [default: 127.0.0.1]")
@_stream("--port", type=click.IntRange(0, 65535), help="The port for them, 0 for any that is free.  [default: 9697]")
@_stream("--shutdown-timeout-s", type=click.FLOAT, help="To finish what was begun after SIGTERM.  [default: 25]")
@_stream("--log-format", type=click.Choice(["text", "json"]), help="Of standard error.  [default: text]")
@click.pass_context
def stream(context: click.Context, source: str | None, config_file: Path | None, refresh_s: float | None) -> None:
    """Score events as they come, and publish the predictions.

    SOURCE is a bundle, or what `fairlead serve` would make one of. An address is kinesis://STREAM,
    kafka://HOST:PORT/TOPIC, redis://HOST/STREAM, nats://HOST/SUBJECT, amqp://HOST/QUEUE or file://PATH. Each event is
    answered at least once, and under the same key if more than once.

    SIGTERM finishes what was begun; SIGHUP looks for a newer version of the model.
    """
    from fairlead import config
    from fairlead.report import streamed
    from fairlead.stream.models import chosen_model
    from fairlead.stream.run import run

    if config_file is None and os.environ.get(config.CONFIG_VARIABLE):
        config_file = Path(os.environ[config.CONFIG_VARIABLE])
    settings = config.read(config_file, os.environ, context.obj)
    model = chosen_model(settings, source, refresh_s, os.environ)
    show = display.progress if sys.stderr.isatty() else None
    with display.stream_status() as watch:
        end = run(model, settings.stream, settings.cache, config_file, show, watch)
    click.echo(streamed(end))
