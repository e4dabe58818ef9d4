"""`fairlead build`: from a trained model to a bundle that is proved, written and tried.

    load (looked at before it runs) → fitted? → schema → compile → parity → write → read back

Layer L1, build time only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fairlead
from fairlead.bundle import descriptor, formats, samples, signature
from fairlead.bundle.compile.model import CompiledModel
from fairlead.bundle.fitted import check_fitted
from fairlead.bundle.manifest import DESCRIPTOR, Manifest, Origin
from fairlead.bundle.originals import Original, original_of
from fairlead.bundle.proof import EngineChoice, compiled_of, proved, proved_shortcut
from fairlead.bundle.read import MODEL, open_bundle
from fairlead.bundle.reference import REFERENCE, Reference, parquet_of, reference_of
from fairlead.bundle.user_code import load_module
from fairlead.bundle.write import check_target, staged
from fairlead.errors import BundleError, SchemaError
from fairlead.predict.forest import TREES, encode_forest
from fairlead.predict.outputs import OutputFormatter, default_outputs
from fairlead.predict.predictor import predictor_of
from fairlead.predict.prepare import Preparation
from fairlead.predict.validate import Validator
from fairlead.schema import Output, Schema, parse_output

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class BuildOptions:
    """What a build may be told beyond its source.

    Parameters
    ----------
    data : a sample of the training data, a file or a frame.
    target : the column of `data` that the model predicts.
    schema : the features, a YAML file or a `Schema`.
    outputs : what to answer, as ``name=probability:1`` or ``name=probability:1 >= 0.5``.
    code : the user's module with `prepare` or `prepare_frame`, or with the classes that a pickle needs.
    name : of the model; the target directory's by default.
    version : of the model; the beginning of the source's digest by default.
    trust : globals beyond the allow-list that a pickle may use, as ``module.name``.
    engine : ``auto`` compiles where it can, ``onnx`` insists, ``native`` does not try.
    vectorizer : a file that holds the DictVectorizer, when the source holds only the estimator.
    """

    data: Path | pd.DataFrame | None = None
    target: str | None = None
    schema: Path | Schema | None = None
    outputs: Sequence[str | Output] = ()
    code: Path | None = None
    name: str | None = None
    version: str | None = None
    trust: Iterable[str] = ()
    engine: EngineChoice = "auto"
    vectorizer: Path | None = None


@dataclass(frozen=True)
class BuildReport:
    """What came of a build.

    Parameters
    ----------
    path : the bundle.
    manifest : what it says about itself.
    warnings : what the user should know.
    """

    path: Path
    manifest: Manifest
    warnings: tuple[str, ...]


def build(
    source: str | Path,
    target: str | Path,
    options: BuildOptions | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> BuildReport:
    """Build a bundle of a trained model.

    Parameters
    ----------
    source : a model file, a directory in MLflow's format, or ``module:Class``.
    target : the directory to make; a bundle that is there is replaced in one step.
    options : see `BuildOptions`.
    progress : is told each step as it begins.

    Raises
    ------
    SourceError
        And its kinds, when the model cannot or must not be loaded.
    SchemaError
        When schema or outputs are wrong or cannot be derived.
    NotCompilable
        With ``engine="onnx"``, when a step has no compiled form or the proof of parity failed.
    """
    options = options or BuildOptions()
    directory = Path(target)
    name = _checked_name(options.name or directory.absolute().name)
    check_target(directory)
    progress("load")
    request = formats.LoadRequest(str(source), options.vectorizer, frozenset(options.trust), options.code)
    loaded = formats.load(request)
    check_fitted(loaded.model)
    check_fitted(loaded.vectorizer)
    original = original_of(loaded)
    progress("schema")
    module = _user_module(options.code)
    schema, prepared, frame = _schemas(loaded, original, options, module)
    outputs = _outputs(options.outputs, original)
    arriving = prepared or schema  # what reaches the model
    preparation = None if module is None else Preparation(module, schema, arriving)
    progress("compile")
    compiled, reason = compiled_of(original, arriving, options.engine)
    thresholds = compiled.thresholds if compiled is not None and preparation is None else {}
    sample = reference_of(schema, frame, preparation, thresholds)
    progress("parity")
    compiled, parity, reason = proved(original, arriving, sample.rows, compiled, reason, options.engine)
    manifest = Manifest(
        name=name,
        version=options.version or _digest(loaded.files)[:12],
        kind=original.kind,
        schema=schema,
        outputs=outputs,
        engine="native" if compiled is None else "onnx",
        engine_reason=reason,
        trees_reason=None if compiled is None else compiled.forest_reason,
        input_form=original.form,
        origin=Origin(
            source=Path(str(source)).name,
            format=loaded.format,
            model=original.class_name,
            sha256=_digest(loaded.files),
            versions=loaded.versions,
        ),
        files={},
        fairlead_version=fairlead.__version__,
        classes=original.classes,
        has_probabilities=original.has_probabilities,
        parity=parity,
        shortcut=proved_shortcut(original, arriving, sample.rows) if compiled is None else None,
        code=None if options.code is None or module is None else options.code.name,
        prepared=prepared,
        model_class=str(source) if original.kind == "function" else None,
        trust=tuple(sorted(options.trust)),
    )
    progress("write")
    manifest = _write(directory, manifest, loaded, compiled, sample, options.code)
    guessed = signature.guesses(original) if options.schema is None and options.data is None else ()
    return BuildReport(directory, manifest, (*loaded.warnings, *guessed))


def _user_module(code: Path | None) -> Any:
    """Load the module of `--code` when it has a step of its own; a module of classes alone is none."""
    if code is None:
        return None
    module = load_module(code, code.stem)
    return module if hasattr(module, "prepare") or hasattr(module, "prepare_frame") else None


def _schemas(
    loaded: formats.LoadedModel, original: Original, options: BuildOptions, module: Any
) -> tuple[Schema, Schema | None, pd.DataFrame | None]:
    """Derive the schema of a request, that of the model where `--code` makes another, and read the sample."""
    declared = signature.read_schema(options.schema) if isinstance(options.schema, Path) else options.schema
    frame = None
    if isinstance(options.data, Path):
        frame = samples.read_sample(options.data, options.target)
    elif options.data is not None:
        frame = samples.without_target(options.data, options.target, "data")
    if module is None:
        return signature.schema_of(loaded, original, frame, declared), None, frame
    incoming = declared if declared is not None or frame is None else signature.sample_schema(frame)
    if incoming is None:
        raise SchemaError(
            f"{options.code}: it prepares the features, so the model cannot tell what comes in: "
            "give a sample with --data or a schema with --schema"
        )
    return incoming, signature.schema_of(loaded, original, None, None), frame


def _outputs(declared: Sequence[str | Output], original: Original) -> tuple[Output, ...]:
    outputs = tuple(parse_output(one) if isinstance(one, str) else one for one in declared)
    outputs = outputs or default_outputs(original.kind, original.has_probabilities)
    OutputFormatter(outputs, original.classes, original.has_probabilities)  # raises for what the model cannot give
    return outputs


def _write(
    directory: Path,
    manifest: Manifest,
    loaded: formats.LoadedModel,
    compiled: CompiledModel | None,
    sample: Reference,
    code: Path | None,
) -> Manifest:
    example = samples.example_of(next(iter(_fitting(loaded.input_example, manifest.schema)), sample.records[0]))
    files = {f"original/{name}": data for name, data in loaded.files.items()}
    if compiled is not None:
        files[MODEL] = compiled.graph
    if compiled is not None and compiled.forest is not None:
        files[TREES] = encode_forest(compiled.forest)
    if code is not None:
        files[f"code/{code.name}"] = code.read_bytes()
    files[REFERENCE] = parquet_of(sample.records)
    files |= descriptor.companions(manifest, example, loaded.files)
    manifest, files[DESCRIPTOR] = descriptor.finish(manifest, files)
    with staged(directory, files) as partial:
        _try(partial, example)
    return manifest


def _fitting(records: list[dict[str, Any]] | None, schema: Schema) -> list[dict[str, Any]]:
    """Pick the records that a schema accepts."""
    return [(records or [])[place] for place in Validator(schema).check(records or []).places]


def _try(partial: Path, example: dict[str, Any]) -> None:
    """Open what was written as a server would, and predict its own example."""
    outcome = predictor_of(open_bundle(partial)).run([example])
    if outcome.rejections:
        raise BundleError(f"the bundle refuses its own example: {outcome.rejections[0][0]}")


def _digest(files: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for _, data in sorted(files.items()):
        whole.update(data)
    return whole.hexdigest()


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SchemaError(f"{name!r}: expected a model name of letters, digits, '.', '_', '-': give one with --name")
    return name
