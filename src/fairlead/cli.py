"""The command `fairlead`: one function a verb, and the only place where the layers are wired together.

Layer L5. Each verb imports what it needs when it runs, so that `fairlead serve` starts without what only
`fairlead build` uses. Exit codes: 0, 2 for what the user can mend, 1 for a fault of ours, 130 for Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairlead import __version__, display
from fairlead.errors import FairleadError, InvalidRecords, SourceError

if TYPE_CHECKING:
    from fairlead.batch.formats.form import FormatName
    from fairlead.batch.job import Cluster
    from fairlead.bundle.obtain import Obtained
    from fairlead.bundle.proof import EngineChoice
    from fairlead.config import Isolation

# 128 and the number of SIGINT, as a shell tells it.
INTERRUPTED = 130
FilePath = click.Path(path_type=Path)
Command = Callable[..., None]
source_argument = click.argument("source")


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: str, parameter: object, context: object) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(",") if name.strip())


def main() -> None:
    """Run the command, and turn every error into one message and an exit code."""
    try:
        # click would end a Ctrl-C with exit code 1 and a word of its own.
        sys.exit(app(standalone_mode=False))
    except click.Abort:
        sys.stderr.write("fairlead: interrupted\n")
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FairleadError as error:
        sys.stderr.write(f"fairlead: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output went away, as `head` does; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("FAIRLEAD_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(
            f"fairlead: a fault of ours, {type(error).__name__}: {error}\n"
            "Run it again with FAIRLEAD_DEBUG=1 for the traceback, and please report it.\n"
        )
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="fairlead", message="%(prog)s %(version)s")
def app() -> None:
    """Turn a trained tabular model into a verified bundle, and the bundle into a service."""


@app.command()
@click.argument("source")
@click.option("-o", "--output-dir", metavar="DIR", type=FilePath, required=True, help="The bundle to make.")
@click.option("--vectorizer", type=FilePath, help="The DictVectorizer, when it is in a file of its own.")
@click.option("--data", type=FilePath, help="A sample of the training data: CSV, Parquet, JSON lines.")
@click.option("--target", help="The column of the sample that the model predicts.")
@click.option("--schema", type=FilePath, help="The features, as YAML.")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    help='What to answer: name=probability:1, "name=probability:1 >= 0.5"; may be given several times.',
)
@click.option("--code", type=FilePath, help="Your module with prepare(record), or with the model's classes.")
@click.option("--name", help="The model's name; the directory's by default.")
@click.option("--model-version", "version", help="The model's version; the start of its digest by default.")
@click.option("--trust", multiple=True, metavar="MODULE.NAME", help="Let the pickle use this global too.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "onnx", "native"]),
    default="auto",
    show_default=True,
    help="auto compiles where it can, onnx insists, native does not try.",
)
def build(
    source: str,
    output_dir: Path,
    vectorizer: Path | None,
    data: Path | None,
    target: str | None,
    schema: Path | None,
    outputs: tuple[str, ...],
    code: Path | None,
    name: str | None,
    version: str | None,
    trust: tuple[str, ...],
    engine: EngineChoice,
) -> None:
    """Make a verified bundle of a trained model.

    SOURCE is a model file, a directory in MLflow's format, module:Class, or where one of these lives, such as
    models:/churn@champion, runs:/ID/model or s3://bucket/churn.
    """
    from fairlead import config
    from fairlead.bundle.build import BuildOptions
    from fairlead.bundle.build import build as build_bundle
    from fairlead.bundle.obtain import obtain_model
    from fairlead.report import built

    with display.progress() as progress:
        model = obtain_model(source, config.read(None, os.environ, {}).cache, os.environ, progress)
    options = BuildOptions(
        data=data,
        target=target,
        schema=schema,
        outputs=outputs,
        code=code,
        name=name,
        version=version or model.version,
        trust=trust,
        engine=engine,
        vectorizer=vectorizer,
    )
    with display.progress() as progress:
        made = build_bundle(model.source, output_dir, options, progress.step)
    _warn(*model.warnings, *made.warnings)
    click.echo(built(made.path, made.manifest))


@app.command()
@source_argument
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(source: str, as_json: bool) -> None:
    """Show a bundle's schema, outputs, engine, parity, origin and digest, after verifying every byte.

    SOURCE is a bundle, or what `fairlead serve` would make one of. It is loaded too, and measured on its example: how
    long a row takes, and where a server would run it.
    """
    from fairlead import report
    from fairlead.bundle.read import open_bundle
    from fairlead.predict.predictor import predictor_of
    from fairlead.web.runners import place

    opened = open_bundle(_obtained(source).path)
    try:
        placed = place(predictor_of(opened), opened.example())
    except FairleadError as error:
        placed = None
        _warn(f"not measured: {error}")
    click.echo(report.as_json(opened, placed) if as_json else report.as_text(opened, placed))


@app.command()
@source_argument
@click.argument("row", metavar="ROW.json|-")
def predict(source: str, row: str) -> None:
    """Predict one record, or an array of them, from a JSON file or, with -, from standard input.

    SOURCE is a bundle, or what `fairlead serve` would make one of.
    """
    import msgspec

    from fairlead.predict.predictor import load

    predictor = load(_obtained(source).path)
    try:
        data = sys.stdin.buffer.read() if row == "-" else Path(row).read_bytes()
        records = msgspec.json.decode(data)
    except OSError as error:
        raise SourceError(f"{row}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{row}: expected JSON: {error}") from error
    except RecursionError as error:
        raise SourceError(f"{row}: expected one JSON object or array: it is nested too deep") from error
    many = isinstance(records, list)
    outcome = predictor.run(records if many else [records])
    if outcome.rejections:
        problems = [problem for found in outcome.rejections.values() for problem in found]
        raise InvalidRecords(problems if many else [problem.alone() for problem in problems])
    answers = outcome.predictions if many else outcome.predictions[0]
    click.echo(msgspec.json.format(msgspec.json.encode(answers), indent=2).decode())


@app.command()
@source_argument
@click.option("--json", "as_json", is_flag=True, help="Print name, version, digest and more as JSON.")
def fetch(source: str, as_json: bool) -> None:
    """Bring a model into the cache, built if it is no bundle, and print its directory there.

    What `fairlead serve SOURCE` would do before it listens: for the build of an image, or an init container.
    """
    import msgspec

    found = _obtained(source)
    if not as_json:
        click.echo(found.path)
        return
    told = {
        "path": str(found.path.absolute()),
        "name": found.name,
        "version": found.version,
        "digest": found.digest,
        "registry_version": found.registry_version,
        "built": not found.is_bundle,
        "stale": found.stale,
        "warnings": found.warnings,
    }
    click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())


@app.command()
@click.argument("bundle", metavar="DIR", type=FilePath)
@click.argument("model", metavar="models:/NAME")
@click.option("--alias", help="Let this alias lead to the new version, such as champion.")
def register(bundle: Path, model: str, alias: str | None) -> None:
    """Put a bundle into an MLflow registry, as a new version of a model.

    MLFLOW_TRACKING_URI says which registry. Any part of it that fails leaves the alias where it was.
    """
    from fairlead import config
    from fairlead.bundle.register import register as register_bundle

    made = register_bundle(bundle, model, alias, config.read(None, os.environ, {}).cache, os.environ)
    known = "" if made.is_new else ", which was there already"
    click.echo(f"{made.name} version {made.version}{known}: serve it with: fairlead serve {made.source}")


def _setting(flag: str, prefix: str = "", **how: Any) -> Callable[[Command], Command]:
    """Make a flag that is a setting: kept aside, for `config.read` to put over the other sources.

    Parameters
    ----------
    prefix : of its name there: none for the web's, ``stream_`` for a stream's.
    """

    def keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
        context.ensure_object(dict)[f"{prefix}{parameter.name}"] = value

    return click.option(flag, expose_value=False, callback=keep, **how)


_stream = partial(_setting, prefix="stream_")


@app.command()
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
    bundle = _obtained(source)
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


@app.command()
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


@app.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--config", "config_file", type=FilePath, help="Settings as YAML; the environment and flags go over it.")
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


@app.command()
@click.argument("source", required=False)
@click.option("--config", "config_file", type=FilePath, help="Settings as YAML; the environment and flags go over it.")
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


@app.command()
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


def _obtained(source: str) -> Obtained:
    """Have a bundle of a source on this machine, and tell what there is to be told of it."""
    from fairlead import config
    from fairlead.bundle.obtain import obtain

    settings = config.read(None, os.environ, {}).cache
    with display.progress() as progress:
        found = obtain(source, settings, os.environ, progress)
    _warn(*found.warnings)
    return found


def _warn(*warnings: str) -> None:
    for warning in warnings:
        click.echo(f"fairlead: warning: {warning}", err=True)
