"""Compile, and keep the compiled model only when it is proved to agree with the original.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from msgspec.structs import replace as replace_struct

from fairlead.bundle.compile.model import CompiledModel, compile_model
from fairlead.bundle.manifest import Parity
from fairlead.bundle.originals import Original
from fairlead.bundle.parity import Answers, Disagreement, answers_of, judged
from fairlead.bundle.probes import probes
from fairlead.errors import BundleError, FairleadError, ModelFailed, NotCompilable, SchemaError, SourceError
from fairlead.predict.engines import OnnxEngine
from fairlead.predict.forest import Forest
from fairlead.predict.native import NativeEngine
from fairlead.predict.trees import NO_KERNEL, TreesEngine, kernel
from fairlead.predict.validate import Row
from fairlead.schema import Schema

EngineChoice = Literal["auto", "onnx", "native"]


def compiled_of(original: Original, schema: Schema, engine: EngineChoice) -> tuple[CompiledModel | None, str | None]:
    """Compile, or tell why not.

    Raises
    ------
    NotCompilable
        With ``engine="onnx"``.
    """
    if engine == "native":
        return None, "asked for with --engine native"
    try:
        return _compile(original, schema), None
    except NotCompilable as error:
        if engine == "onnx":
            raise
        return None, str(error)


def proved(
    original: Original,
    schema: Schema,
    rows: Sequence[Row],
    compiled: CompiledModel | None,
    reason: str | None,
    engine: EngineChoice,
) -> tuple[CompiledModel | None, Parity | None, str | None]:
    """Keep the compiled model only when it agrees with the original on every row.

    Parameters
    ----------
    schema : the features that reach the model; `rows` are of it.
    reason : why there is no compiled model, when there is none.

    Returns
    -------
    The compiled model and its figures, or why the bundle is native.

    Raises
    ------
    SourceError
        When the original cannot predict its own features.
    SchemaError
        When it refuses null where the schema allows it.
    NotCompilable
        With ``engine="onnx"``, when they disagree.
    """
    native = NativeEngine(original.model, original.kind, schema, original.form, original.has_probabilities)
    try:
        native.predict(rows[:100])
        _check_nulls(original, native, schema, rows[0])
        if compiled is None:
            return None, None, reason
        return *_parity(original, native, compiled, schema, rows), None
    except ModelFailed as error:
        raise SourceError(f"the model cannot predict its own features: {error}") from error
    except NotCompilable as error:
        if engine == "onnx":
            raise
        return None, None, str(error)


def proved_shortcut(original: Original, schema: Schema, rows: Sequence[Row]) -> dict[str, str] | None:
    """Give what the manifest of a native bundle says of its shortcut, see `NativeEngine.prove`."""
    if original.kind == "function":
        return None
    native = NativeEngine(original.model, original.kind, schema, original.form, original.has_probabilities)
    try:
        return native.prove(rows)
    except Exception:  # a bug there, or a row that the model refuses, must not stop one that can be served as it is
        return None


def _parity(
    original: Original, native: NativeEngine, compiled: CompiledModel, schema: Schema, rows: Sequence[Row]
) -> tuple[CompiledModel, Parity]:
    told, made = ((one.kind, one.classes, one.has_probabilities) for one in (original, compiled))
    if told != made:
        raise NotCompilable("parity", f"the original answers {told}, its compiled form {made}")
    try:
        engine = OnnxEngine(compiled.graph, schema, compiled.classes)
        answers = answers_of(native, rows, probes(schema, rows, compiled.thresholds))
        proof = judged(answers, engine)
    except FairleadError:
        raise
    except Exception as error:  # a graph that onnxruntime refuses must not stop a model that can be served as it is
        raise NotCompilable("parity", f"the compiled form failed: {type(error).__name__}: {error}") from error
    if isinstance(proof, Disagreement):
        raise NotCompilable("parity", str(proof))
    if compiled.forest is None:
        return compiled, proof
    found = _trees_parity(compiled.forest, compiled, schema, answers)
    if isinstance(found, str):
        return replace(compiled, forest=None, forest_reason=found), proof
    return compiled, replace_struct(proof, largest_difference=max(proof.largest_difference, found.largest_difference))


def _trees_parity(forest: Forest, compiled: CompiledModel, schema: Schema, answers: Answers) -> Parity | str:
    """Prove the trees engine too, or tell why the graph serves without it."""
    if kernel() is None:
        return NO_KERNEL
    try:
        found = judged(answers, TreesEngine(forest, schema, compiled.classes))
    except BundleError as error:  # a bug in folding must not stop a model that the graph can serve
        return str(error)
    return found if isinstance(found, Parity) else f"trees: {found}"


def _compile(original: Original, schema: Schema) -> CompiledModel:
    try:
        return compile_model(original.own, schema)
    except FairleadError:
        raise
    except Exception as error:  # a bug here must not stop a model that can be served as it is
        raise NotCompilable(original.class_name, f"the compiler failed: {type(error).__name__}: {error}") from error


def _check_nulls(original: Original, native: NativeEngine, schema: Schema, row: Row) -> None:
    """Refuse a schema that promises to take null where the original raises: a compiled tree would answer."""
    if original.kind == "function":
        return
    for place, feature in enumerate(schema.features):
        if feature.nullable:
            try:
                native.predict([(*row[:place], None, *row[place + 1 :])])
            except ModelFailed as error:
                raise SchemaError(
                    f"{feature.name}: nullable, but the model refuses null: say `nullable: false`, or impute it"
                ) from error
