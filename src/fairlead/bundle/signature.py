"""The schema of a bundle, from the best that is known of it.

In order: what the user declared (``--schema``), a sample (``--data``), MLflow's signature and example,
what the model itself tells (`facts`). Categories always include those that the model knows, because
their order gives the codes of a compiled model. Layer L1, build time only.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from msgspec import UNSET
from msgspec.structs import replace

from fairlead.bundle.facts import features_of
from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.originals import Original
from fairlead.bundle.samples import feature_of
from fairlead.errors import SchemaError
from fairlead.schema import Feature, FeatureType, Scalar, Schema

if TYPE_CHECKING:
    import pandas as pd

_MLFLOW_TYPES: dict[str, FeatureType] = {
    "boolean": "bool",
    "integer": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "string": "string",
    "datetime": "datetime",
}
_PYTHON_TYPES: dict[str, FeatureType] = {"bool": "bool", "int": "int", "float": "float", "str": "string"}


def read_schema(path: Path) -> Schema:
    """Read a schema from YAML.

    Raises
    ------
    SchemaError
        When the file is missing or is no schema, with the field that is wrong.
    """
    try:
        return Schema.parse(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise SchemaError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: not YAML: {error}") from error
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def sample_schema(frame: pd.DataFrame) -> Schema:
    """Describe every column of a sample."""
    return Schema(features=tuple(feature_of(str(name), frame[name]) for name in frame.columns))


def schema_of(loaded: LoadedModel, original: Original, frame: pd.DataFrame | None, declared: Schema | None) -> Schema:
    """Derive the features that reach the model.

    Parameters
    ----------
    frame : a sample of them, with other columns perhaps; None when there is none.
    declared : what the user says they are; wins over all else.

    Raises
    ------
    SchemaError
        When what is given does not fit the model, or nothing tells its features.
    """
    if original.kind == "function":
        return declared or _arguments_schema(loaded, frame)
    known = features_of(original)
    if declared is not None:
        return _with_model_categories(declared, known, original)
    if frame is not None:
        known = [_seen(feature, frame, original) for feature in _named(known, frame, original)]
    elif loaded.signature:
        known = [_signed(feature, column) for feature, column in _paired(known, loaded.signature, original)]
    return Schema(features=tuple(known))


def guesses(original: Original) -> tuple[str, ...]:
    """Tell which features of the user's own class were taken for strings because nothing says what they are."""
    if original.kind != "function":
        return ()
    parameters = inspect.signature(original.model.predict).parameters.values()
    return tuple(
        f"predict({one.name}) has no annotation, so it is taken for a string: annotate it, or declare it with --schema"
        for one in parameters
        if one.annotation is one.empty
    )


def _arguments_schema(loaded: LoadedModel, frame: pd.DataFrame | None) -> Schema:
    if frame is not None:
        return sample_schema(frame)
    features = []
    for name, parameter in inspect.signature(loaded.model.predict).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise SchemaError(f"predict(*{name}): name the features as parameters, or declare them with --schema")
        annotation = parameter.annotation
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        # An argument that says nothing is text, as in the seed of all such classes; a schema says better.
        kind = "string" if annotation is parameter.empty else _PYTHON_TYPES.get(text)
        if kind is None:
            raise SchemaError(f"predict({name}: {text}): expected bool, int, float or str; declare it with --schema")
        default = UNSET if parameter.default is parameter.empty else parameter.default
        features.append(Feature(name=name, type=kind, default=default, nullable=default is None))
    return Schema(features=tuple(features))


def _with_model_categories(declared: Schema, known: Sequence[Feature], original: Original) -> Schema:
    by_source = {feature.source: feature for feature in declared.features}
    missing = [feature.source for feature in known if feature.source not in by_source]
    unknown = by_source.keys() - {feature.source for feature in known}
    if original.form == "matrix" and (missing or unknown):
        # A model trained on a bare matrix knows places only, so the declared order is its order.
        if len(known) != len(declared.features):
            raise SchemaError(f"schema: the model takes {len(known)} features, {len(declared.features)} are declared")
        return declared
    if missing:
        raise SchemaError(f"schema: the model also wants {', '.join(missing)}: declare it")
    if unknown:
        raise SchemaError(f"schema: the model knows no feature {', '.join(sorted(unknown))}: remove it")
    ordered = (_completed(by_source[feature.source], feature) for feature in known)
    return replace(declared, features=tuple(ordered))


def _completed(declared: Feature, known: Feature) -> Feature:
    # What an encoder refuses stays refused, whatever was declared: it would raise.
    return replace(declared, categories=_merged(declared, known), closed=declared.closed or known.closed)


def _merged(feature: Feature, known: Feature) -> tuple[Scalar, ...] | None:
    if feature.closed or known.categories is None:
        return feature.categories or known.categories
    own = feature.categories or ()
    return (*own, *(value for value in known.categories if value not in own))


def _named(known: Sequence[Feature], frame: pd.DataFrame, original: Original) -> list[Feature]:
    """Give the features of a model that knows places only the names of the sample's columns."""
    columns = [str(name) for name in frame.columns]
    if original.form == "matrix" and not {feature.name for feature in known} <= set(columns):
        if len(columns) != len(known):
            raise SchemaError(
                f"the model takes {len(known)} features, the sample has {len(columns)} columns "
                f"({', '.join(columns[:8])}…): name the target with --target, and leave out what is no feature"
            )
        return [replace(feature, name=name) for feature, name in zip(known, columns, strict=True)]
    missing = [feature.name for feature in known if feature.name not in columns]
    if missing:
        raise SchemaError(
            f"the sample has no column {', '.join(missing)}, which the model wants; it has {', '.join(columns)}"
        )
    return list(known)


def _seen(known: Feature, frame: pd.DataFrame, original: Original) -> Feature:
    seen = feature_of(known.name, frame[known.name])
    told = known.categories is not None or original.form == "records"
    if told and (seen.type == "string") != (known.type == "string"):
        raise SchemaError(f"{known.name}: the model learned {known.type}s, the sample holds {seen.type}s")
    # Categories that no encoder knows are the sample's; where an encoder knows some, only its codes count.
    categories = known.categories if known.categories is not None else seen.categories
    return replace(seen, categories=categories, closed=known.closed)


def _paired(
    known: Sequence[Feature], signature: Sequence[dict[str, Any]], original: Original
) -> list[tuple[Feature, dict[str, Any]]]:
    columns = {column.get("name"): column for column in signature}
    if all(feature.name in columns for feature in known):
        return [(feature, columns[feature.name]) for feature in known]
    if original.form == "matrix" and len(known) == len(signature) and None not in columns:
        return list(zip(known, signature, strict=True))
    return [(feature, {}) for feature in known]


def _signed(known: Feature, column: dict[str, Any]) -> Feature:
    optional = column.get("required", True) is False
    return replace(
        known,
        name=column.get("name") or known.name,
        type=known.type if known.categories else _MLFLOW_TYPES.get(column.get("type", ""), known.type),
        nullable=known.nullable or optional,
        default=None if optional else known.default,
    )
