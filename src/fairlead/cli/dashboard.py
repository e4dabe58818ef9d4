"""Verbs of explainer dashboards."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fairlead import display
from fairlead.cli.dashboard_users import users
from fairlead.cli.flags import FilePath, Names, Setting, config_option
from fairlead.cli.sources import warn

if TYPE_CHECKING:
    from fairlead.dashboard.rows import RowsOptions


class _DashboardSetting(Setting):
    prefix = "dashboard_"


_setting = partial(click.option, cls=_DashboardSetting)
_stores = click.argument("stores", metavar="DASH...", nargs=-1, required=True, type=FilePath)


@click.group()
def dashboard() -> None:
    """Build, guard and show explainer dashboards: why a model predicts what it predicts."""
    from fairlead.dashboard import environment

    environment.own_process()


dashboard.add_command(users)


@dashboard.command()
@click.argument("source")
@click.option("-o", "--output-dir", metavar="DASH", type=FilePath, help="The store to make, such as titanic.dash.")
@click.option("--data", type=FilePath, help="The rows to explain: CSV, Parquet, JSON lines.")
@click.option("--target", help="Their column with what was observed.")
@click.option("--index", help="Their column with what each row is called.")
@click.option("--sample", type=click.IntRange(2), default=10_000, show_default=True, help="Rows to explain, at most.")
@click.option("--dashboard", "dashboard_yaml", type=FilePath, help="Its options, as explainerdashboard writes them.")
@click.option("--title", help="Of the dashboard.")
@click.option("--description", help="Of the dashboard.")
@click.option("--tabs", type=Names(), metavar="TAB,…", help="Such as importances,contributions,whatif.  [default: all]")
@click.option("--interactions/--no-interactions", default=None, help="Compute SHAP interactions too.  [default: no]")
@click.option("--precision", type=click.Choice(["float64", "float32"]), help="Of what is kept.  [default: float64]")
@click.option("--positive-class-only", is_flag=True, help="Of several classes, explain the positive one only.")
@click.option("--model-output", type=click.Choice(["probability", "logodds"]), help="What SHAP values are parts of.")
@click.option("--rows", metavar="SOURCE", help="More rows, one by one: a file, postgresql://…, module:function.")
@click.option("--query", metavar="SQL", help="What to ask a database for one row, with {index} in it.")
@click.option("--index-query", metavar="SQL", help="What to ask a database for the indexes to choose from.")
@click.option("--static", type=FilePath, metavar="FILE.html", help="Write the dashboard as one page to send, too.")
def build(
    source: str,
    output_dir: Path | None,
    data: Path | None,
    target: str | None,
    index: str | None,
    sample: int,
    dashboard_yaml: Path | None,
    title: str | None,
    description: str | None,
    tabs: tuple[str, ...] | None,
    interactions: bool | None,
    precision: Literal["float64", "float32"] | None,
    positive_class_only: bool,
    model_output: Literal["probability", "logodds"] | None,
    rows: str | None,
    query: str | None,
    index_query: str | None,
    static: Path | None,
) -> None:
    """Compute all that a dashboard needs, prove that every part of it works, and put it in a store.

    SOURCE is a bundle, what `fairlead serve` would make one of, or an explainer.yaml of explainerdashboard.
    """
    from fairlead.dashboard.building.build import DashboardOptions
    from fairlead.dashboard.building.build import build as build_dashboard

    options = DashboardOptions(
        data=data,
        target=target,
        index=index,
        sample=sample,
        dashboard_yaml=dashboard_yaml,
        title=title,
        description=description,
        tabs=tabs or (),
        interactions=interactions,
        precision=precision,
        positive_class_only=positive_class_only,
        model_output=model_output,
        rows=_rows(rows, index, target, query, index_query),
        static=static,
    )
    with display.steps() as step:
        made = build_dashboard(source, output_dir, options, step)
    warn(*made.warnings)
    told, place = made.manifest, output_dir or made.path
    click.echo(f"{place}: {told.title}, {told.n_rows:,} rows of {told.bundle_name} {told.bundle_version}")
    click.echo(f"show it with: fairlead dashboard serve {place}")


def _rows(
    source: str | None, index: str | None, target: str | None, query: str | None, index_query: str | None
) -> RowsOptions | None:
    if source is None:
        if query or index_query:
            raise click.UsageError("--query and --index-query are of --rows postgresql://…")
        return None
    from fairlead.dashboard.rows import RowsOptions

    return RowsOptions(source, index, target, query, index_query)


@dashboard.command()
@_stores
@config_option
@_setting("--host", help="The address to listen on.  [default: 127.0.0.1]")
@_setting("--port", type=click.IntRange(0, 65535), help="0 takes any that is free.  [default: 8050]")
@_setting("--server", type=click.Choice(["gunicorn", "waitress"]), help="waitress: threads only.  [default: gunicorn]")
@_setting("--workers", type=click.IntRange(1), help="Processes that answer.  [default: 1]")
@_setting("--threads", type=click.IntRange(1), help="Of each process.  [default: 4]")
@_setting("--root-path", help="The path prefix behind a proxy, such as /dashboards.")
@_setting("--trusted-proxies", type=Names(), metavar="IP,…", help="Whose X-Forwarded-For and -Proto count.")
@_setting("--users", metavar="FILE", help="Who may log in, see `fairlead dashboard users`.  [default: no logins]")
@_setting("--secret-file", metavar="FILE", help="What signs the sessions.  [default: FILE.secret of --users]")
@_setting("--session-s", type=click.FLOAT, help="How long a login lasts.  [default: 43200]")
@_setting("--timeout-s", type=click.FLOAT, help="How long a worker may take for a page.  [default: 60]")
@_setting("--shutdown-timeout-s", type=click.FLOAT, help="To finish pages after SIGTERM.  [default: 25]")
@_setting("--log-format", type=click.Choice(["text", "json"]), help="Of standard error.  [default: text]")
@click.pass_context
def serve(context: click.Context, stores: tuple[Path, ...], config_file: Path | None) -> None:
    """Show dashboards, each at its own address, with a page that lists them.

    A store that is replaced, as `fairlead dashboard watch` does, is shown from then on.
    """
    from fairlead import config
    from fairlead.dashboard.serving.server import run

    run(stores, config.read(config_file, os.environ, context.obj).dashboard)


@dashboard.command()
@_stores
@click.option(
    "--refresh-s",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="How often to ask a registry or S3 for a newer version.",
)
def watch(stores: tuple[Path, ...], refresh_s: float) -> None:
    """Build dashboards anew whenever a model, data or options that they were made of change, until Ctrl-C.

    What cannot be built leaves the old dashboard up, which then says why it is not current.
    """
    import signal
    import threading

    from fairlead.dashboard.building.watch import watch as watch_stores
    from fairlead.monitor import logs

    logs.configure("text")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    watch_stores(stores, stop, refresh_s=refresh_s)


@dashboard.command()
@_stores
def rebuild(stores: tuple[Path, ...]) -> None:
    """Build dashboards anew, as they were built before."""
    from fairlead.dashboard.building.build import rebuild as rebuild_dashboard

    for store in stores:
        with display.steps() as step:
            made = rebuild_dashboard(store, step)
        warn(*made.warnings)
        click.echo(f"{made.path}: built anew")


@dashboard.command()
@_stores
@click.option("--precision", type=click.Choice(["float64", "float32"]), help="Weigh it with that, too.")
@click.option("--no-interactions", is_flag=True, help="Weigh it without them, too.")
@click.option("--positive-class-only", is_flag=True, help="Weigh it so, too.")
@click.option("--sample", type=click.IntRange(2), help="Weigh it with so many rows, too.")
@click.option("--json", "as_json", is_flag=True, help="Print bytes as JSON.")
def memory(
    stores: tuple[Path, ...],
    precision: str | None,
    no_interactions: bool,
    positive_class_only: bool,
    sample: int | None,
    as_json: bool,
) -> None:
    """Tell what each part of a dashboard takes, in its store and in a worker; of several, side by side.

    For each option that would save something, the dashboard is built with it once more, aside, and weighed like the one
    that is there.
    """
    from fairlead.dashboard.building.comparison import compare
    from fairlead.report import weighed

    given: dict[str, dict[str, object] | None] = {
        f"--precision {precision}": {"precision": precision} if precision else None,
        "--no-interactions": {"interactions": False} if no_interactions else None,
        "--positive-class-only": {"positive_class_only": True} if positive_class_only else None,
        f"--sample {sample}": {"sample": sample} if sample else None,
    }
    changes = {name: changed for name, changed in given.items() if changed is not None}
    with display.steps() as step:
        measured = [one for store in stores for one in compare(store, changes, step)]
    click.echo(weighed(measured, as_json))
