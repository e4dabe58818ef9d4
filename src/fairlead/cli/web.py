"""Verbs of the web service."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairlead import display
from fairlead.cli.flags import Names, Setting, config_option

if TYPE_CHECKING:
    from fairlead.config import Isolation

_setting = partial(click.option, cls=Setting)


@click.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@config_option
@click.option(
    "--isolation",
    type=click.Choice(["auto", "process"]),
    default="auto",
    help="process: each model runs in processes of its own, and nobody notices when one dies.",
)
@click.option("--processes", type=click.IntRange(1), default=1, help="Of each isolated model.  [default: 1]")
@click.option("--refresh-s", type=click.FloatRange(0, min_open=True), help="How often to look for a newer version.")
@_setting("--host", help="The address to listen on.  [default: 127.0.0.1]")
@_setting("--port", type=click.IntRange(0, 65535), help="0 takes any that is free.  [default: 9696]")
@_setting("--workers", type=click.IntRange(1), help="Processes that answer.  [default: 1]")
@_setting("--timeout-s", type=click.FLOAT, help="A request's deadline.  [default: 10]")
@_setting("--max-queue-rows", type=click.IntRange(1), help="Rows that may wait for a model.  [default: 65536]")
@_setting("--max-body-bytes", type=click.IntRange(1), help="A larger body is refused.  [default: 10485760]")
@_setting("--memory-budget-bytes", type=click.IntRange(1), help="For lazy models, over all workers.  [default: none]")
@_setting("--drain-s", type=click.FLOAT, help="How long to be not ready before the port closes.  [default: 0]")
@_setting("--root-path", help="The path prefix behind a proxy, such as /scoring.")
@_setting("--api-keys-file", help="A file of hashed API keys, see `fairlead key`.")
@_setting("--cors-origins", type=Names(), help="Origins whose pages may call, separated by commas; * for all.")
@_setting("--tls-certificate", help="The server's certificate, PEM.")
@_setting("--tls-key", help="Its key, PEM.")
@_setting("--tls-client-ca", help="Whose client certificates are required, PEM.")
@_setting("--access-log", is_flag=True, default=None, help="Log each request to standard output, as JSON.")
@_setting("--log-format", type=click.Choice(["text", "json"]), help="Of standard error.  [default: text]")
@_setting("--tracing", is_flag=True, default=None, help="Make OpenTelemetry spans.")
@click.pass_context
def serve(
    context: click.Context,
    sources: tuple[str, ...],
    config_file: Path | None,
    isolation: Isolation,
    processes: int,
    refresh_s: float | None,
) -> None:
    """Serve models over HTTP.

    SOURCE is a bundle, a directory of bundles, a model to be built first, or where one lives, such as
    models:/churn@champion or s3://bucket/churn; --config may name more, and every other setting. Without any, the
    environment tells: MODEL_LOCATION, MLFLOW_REGISTERED_MODEL, RUN_ID or MLFLOW_EXP_NAME.
    """
    from fairlead import config
    from fairlead.web import server

    if config_file is None and os.environ.get(config.CONFIG_VARIABLE):
        config_file = Path(os.environ[config.CONFIG_VARIABLE])
    settings = config.read(config_file, os.environ, context.obj)
    if not sources and not settings.models:
        from fairlead.bundle.sources import default_source

        source = default_source(os.environ)
        sources = () if source is None else (source,)
    show = display.progress if sys.stderr.isatty() else None
    given = [config.ModelSettings(source, isolation, processes, refresh_s=refresh_s) for source in sources]
    server.serve([*given, *settings.models.values()], settings.web, settings.cache, config_file, show, settings.jobs)


@click.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="It may load and unload models, and have files scored.")
@click.option("--requests-per-s", type=click.FloatRange(0, min_open=True), help="How often it may ask; unlimited else.")
@click.option("--burst", type=click.IntRange(1), help="How many requests may come at once.")
def key(name: str, admin: bool, requests_per_s: float | None, burst: int | None) -> None:
    """Make an API key: the key for its user on standard error, its line for the keys file on standard output."""
    from fairlead.web import keys

    secret, line = keys.make(name, admin, requests_per_s, burst)
    click.echo(f"the key of {name}, shown this once: {secret}", err=True)
    click.echo(line)
