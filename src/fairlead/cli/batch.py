"""Verbs that score files."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairlead import display
from fairlead.cli.flags import FilePath, Names, source_argument
from fairlead.cli.sources import obtained

if TYPE_CHECKING:
    from fairlead.batch.formats.form import FormatName
    from fairlead.batch.job import Cluster


@click.command()
@source_argument
@click.argument("input")
@click.argument("output")
@click.option("--keep", type=Names(), metavar="COLUMN,…", help="The input's columns to keep.  [default: all]")
@click.option("--date", help="What fills the template of INPUT and OUTPUT, such as 2026-10.")
@click.option("--backfill", metavar="FROM..TO", help="A file for each month (day, hour), such as 2026-01..2026-06.")
@click.option("--query", metavar="SQL", help="What to ask the database that INPUT is.")
@click.option("--format", type=click.Choice(["parquet", "csv", "jsonl"]), help="Of the output.  [default: its suffix]")
@click.option("--encoding", default="utf-8", show_default=True, help="Of CSV that is read.")
@click.option("--resume", is_flag=True, help="Skip files that an earlier run has done.")
@click.option("--max-rejects", type=click.IntRange(0), help="End when more rows are refused.  [default: any number]")
@click.option("--workers", type=click.IntRange(1), help="Threads or processes that score.  [default: one a core]")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who scores.")
@click.option("--address", help="Of a Ray cluster.  [default: one of its own on this machine]")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each file as JSON.")
@click.option("--status-file", type=FilePath, help="Keep a file that tells other programs how far it is.")
def score(
    source: str,
    input: str,
    output: str,
    date: str | None,
    backfill: str | None,
    query: str | None,
    format: FormatName | None,
    keep: tuple[str, ...] | None,
    encoding: str,
    resume: bool,
    max_rejects: int | None,
    workers: int | None,
    engine: str,
    address: str | None,
    as_json: bool,
    status_file: Path | None,
) -> None:
    """Score files, of any size, each exactly once.

    INPUT is a file, a directory, a glob or a template such as data/{year:04d}/{month:02d}.parquet; Parquet, CSV or JSON
    lines, here or at s3://; or postgresql://… with --query. OUTPUT is a file, a directory/ or a template. SOURCE is a
    bundle, or what `fairlead serve` would make one of.

    Rejected rows are told in a side file; rows in are rows out and rejects.
    """
    from fairlead.batch.dates import check_fineness, parse_backfill, parse_date
    from fairlead.batch.job import ScoreOptions
    from fairlead.batch.job import score as score_files
    from fairlead.batch.resources import keep_pandas_out, use_lean_memory
    from fairlead.report import scored

    if date is not None and backfill is not None:
        raise click.UsageError("--date and --backfill: expected one of them")
    if address is not None and engine != "ray":
        raise click.UsageError("--address is of --engine ray")
    if workers is not None and engine == "ray":
        raise click.UsageError("--workers is of --engine local: an actor of Ray takes the cores of a machine")
    dates = () if date is None else (parse_date(date)[0],)
    options = ScoreOptions(
        keep=keep,
        dates=dates if backfill is None else parse_backfill(backfill),
        query=query,
        format=format,
        encoding=encoding,
        resume=resume,
        max_rejects=max_rejects,
        workers=workers,
    )
    if given := date or backfill:
        check_fineness(input, output, given)
    bundle = obtained(source)
    use_lean_memory()
    if engine == "local":  # Ray's own work is done with frames
        keep_pandas_out()
    with _terminable(), display.score_progress(status_file) as (progress, status), _cluster(engine, address) as cluster:
        try:
            report = score_files(bundle.path, input, output, options, progress, cluster)
        except BaseException as error:
            if status is not None:
                status.end(None, str(error) or type(error).__name__)
            raise
        if status is not None:
            status.end(report, None)
    click.echo(scored(report, as_json))


@click.command()
@source_argument
@click.argument("input")
@click.argument("output")
@click.option("--cron", required=True, help='Minute, hour, day, month, weekday, such as "0 3 2 * *".')
@click.option("--timezone", help="Of --cron and of the dates in templates.  [default: UTC]")
@click.option("--shift", type=int, default=0, help="-1 scores the month (day, hour) before that of the run.")
@click.option("--name", help="The deployment's.  [default: the model's]")
@click.option("--work-pool", default="fairlead", show_default=True, help="Where workers take the runs from.")
@click.option("--keep", type=Names(), metavar="COLUMN,…", help="As for `fairlead score`; so are the following.")
@click.option("--query", metavar="SQL")
@click.option("--format", type=click.Choice(["parquet", "csv", "jsonl"]))
@click.option("--max-rejects", type=click.IntRange(0))
def schedule(
    source: str,
    input: str,
    output: str,
    cron: str,
    timezone: str | None,
    shift: int,
    name: str | None,
    work_pool: str,
    keep: tuple[str, ...] | None,
    query: str | None,
    format: FormatName | None,
    max_rejects: int | None,
) -> None:
    """Have Prefect score files on a schedule: make a deployment, or bring it up to date.

    SOURCE, INPUT and OUTPUT are those of `fairlead score`; the time that a run is scheduled for fills the templates.
    PREFECT_API_URL says which server.
    """
    from fairlead.batch.schedule import Parameters
    from fairlead.batch.schedule import schedule as make_schedule

    parameters = Parameters(keep=keep, format=format, max_rejects=max_rejects, shift=shift, query=query)
    made = make_schedule(
        source, input, output, cron, timezone=timezone, name=name, work_pool=work_pool, parameters=parameters
    )
    runs = ", ".join(f"{run:%Y-%m-%d %H:%M}" for run in made.next_runs)
    done = "made" if made.is_new else "brought up to date"
    click.echo(f"{made.name} is {done}: it runs at {runs} and so on ({timezone or 'UTC'})")
    click.echo(f"who runs it: prefect worker start --pool {made.work_pool}")
    click.echo(f"once, now: prefect deployment run {made.name}")


@contextmanager
def _cluster(engine: str, address: str | None) -> Iterator[Cluster | None]:
    if engine == "local":
        yield None
        return
    from fairlead.cluster.ray_data import RayScorers

    with RayScorers(address) as cluster:
        yield cluster


@contextmanager
def _terminable() -> Iterator[None]:
    """End in order on SIGTERM: what is half done is taken away."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
