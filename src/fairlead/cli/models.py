"""Verbs that make bundles, show them and keep them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairlead import display
from fairlead.cli.flags import FilePath, source_argument
from fairlead.cli.sources import obtained, warn
from fairlead.errors import FairleadError, InvalidRecords, SourceError

if TYPE_CHECKING:
    from fairlead.bundle.proof import EngineChoice


@click.command()
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
    warn(*model.warnings, *made.warnings)
    click.echo(built(made.path, made.manifest))


@click.command()
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

    opened = open_bundle(obtained(source).path)
    try:
        placed = place(predictor_of(opened), opened.example())
    except FairleadError as error:
        placed = None
        warn(f"not measured: {error}")
    click.echo(report.as_json(opened, placed) if as_json else report.as_text(opened, placed))


@click.command()
@source_argument
@click.argument("row", metavar="ROW.json|-")
def predict(source: str, row: str) -> None:
    """Predict one record, or an array of them, from a JSON file or, with -, from standard input.

    SOURCE is a bundle, or what `fairlead serve` would make one of.
    """
    import msgspec

    from fairlead.predict.predictor import load

    predictor = load(obtained(source).path)
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


@click.command()
@source_argument
@click.option("--json", "as_json", is_flag=True, help="Print name, version, digest and more as JSON.")
def fetch(source: str, as_json: bool) -> None:
    """Bring a model into the cache, built if it is no bundle, and print its directory there.

    What `fairlead serve SOURCE` would do before it listens: for the build of an image, or an init container.
    """
    import msgspec

    found = obtained(source)
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


@click.command()
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
