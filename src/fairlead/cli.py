"""The command `fairlead`: one function a verb, and the only place where the layers are wired together.

Layer L5. Each verb imports what it needs when it runs, so that `fairlead serve` starts without what only
`fairlead build` uses. Exit codes: 0, 2 for what the user can mend, 1 for a fault of ours.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fairlead import __version__
from fairlead.errors import FairleadError, InvalidRecords, SourceError

app = typer.Typer(
    help="Turn a trained tabular model into a verified bundle, and the bundle into a service.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
BundleArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle made by `fairlead build`.")]


class EngineChoice(StrEnum):
    """What `--engine` takes."""

    auto = "auto"
    onnx = "onnx"
    native = "native"


def main() -> None:
    """Run the command, and turn every error into one message and an exit code."""
    try:
        app()
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


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Hold the options of the command itself."""
    if show:
        typer.echo(f"fairlead {__version__}")
        raise typer.Exit


@app.command()
def build(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A model file, an MLflow directory, or module:Class.")
    ],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="The bundle to make.")],
    vectorizer: Annotated[Path | None, typer.Option(help="The DictVectorizer, when in a file of its own.")] = None,
    data: Annotated[Path | None, typer.Option(help="A sample of the training data: CSV, Parquet, JSON lines.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of the sample that the model predicts.")] = None,
    schema: Annotated[Path | None, typer.Option(help="The features, as YAML.")] = None,
    output: Annotated[
        list[str] | None, typer.Option(help='What to answer: name=probability:1, "name=probability:1 >= 0.5".')
    ] = None,
    code: Annotated[Path | None, typer.Option(help="Your module with prepare(record) or the model's classes.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the directory's by default.")] = None,
    model_version: Annotated[
        str | None, typer.Option(help="The model's version; the start of its digest by default.")
    ] = None,
    trust: Annotated[
        list[str] | None, typer.Option(metavar="MODULE.NAME", help="Let the pickle use this global too.")
    ] = None,
    engine: Annotated[EngineChoice, typer.Option(help="auto compiles where it can, onnx insists.")] = EngineChoice.auto,
) -> None:
    """Make a verified bundle of a trained model."""
    from fairlead.bundle.build import BuildOptions
    from fairlead.bundle.build import build as build_bundle

    options = BuildOptions(
        data=data,
        target=target,
        schema=schema,
        outputs=output or (),
        code=code,
        name=name,
        version=model_version,
        trust=trust or (),
        engine=engine.value,
        vectorizer=vectorizer,
    )
    with _progress() as progress:
        report = build_bundle(source, output_dir, options, progress)
    for warning in report.warnings:
        sys.stderr.write(f"fairlead: warning: {warning}\n")
    from fairlead.report import built

    typer.echo(built(report.path, report.manifest))


@app.command()
def inspect(
    bundle: BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show a bundle's schema, outputs, engine, parity, origin and digest, after verifying every byte."""
    from fairlead import report
    from fairlead.bundle.read import open_bundle

    opened = open_bundle(bundle)
    typer.echo(report.as_json(opened) if as_json else report.as_text(opened))


@app.command()
def predict(
    bundle: BundleArgument,
    row: Annotated[str, typer.Argument(metavar="ROW.json|-", help="A record or an array of records; - reads stdin.")],
) -> None:
    """Predict one record, or an array of them, from a file."""
    import msgspec

    from fairlead.predict.predictor import load

    predictor = load(bundle)
    try:
        data = sys.stdin.buffer.read() if row == "-" else Path(row).read_bytes()
        records = msgspec.json.decode(data)
    except OSError as error:
        raise SourceError(f"{row}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{row}: expected JSON: {error}") from error
    many = isinstance(records, list)
    outcome = predictor.run(records if many else [records])
    if outcome.rejections:
        raise InvalidRecords([problem for found in outcome.rejections.values() for problem in found])
    answers = outcome.predictions if many else outcome.predictions[0]
    typer.echo(msgspec.json.format(msgspec.json.encode(answers), indent=2).decode())


@app.command()
def serve(
    bundles: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Bundles made by `fairlead build`.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 9696,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request.")] = False,
) -> None:
    """Serve bundles over HTTP."""
    from fairlead.web import server

    server.serve(bundles, host, port, workers, server.Settings(access_log=access_log))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show the step under way, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status("…") as status:
        yield lambda step: status.update(f"{step} …")
