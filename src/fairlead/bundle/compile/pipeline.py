"""Steps made of steps: Pipeline, ColumnTransformer, FeatureUnion, and a search's best estimator."""

from __future__ import annotations

from typing import Any

from fairlead.bundle.column_choice import places_of
from fairlead.bundle.compile import steps
from fairlead.bundle.compile.columns import Columns, Compilation, Prediction, elementwise
from fairlead.errors import NotCompilable


def _pipeline_transform(pipeline: Any, columns: Columns, compilation: Compilation) -> Columns:
    for name, step in pipeline.steps:
        columns = _member(step, columns, compilation, name)
    return columns


def _pipeline_predict(pipeline: Any, columns: Columns, compilation: Compilation) -> Prediction:
    for name, step in pipeline.steps[:-1]:
        columns = _member(step, columns, compilation, name)
    name, last = pipeline.steps[-1]
    return steps.predict(last, columns, compilation, name)


def _column_transformer(transformer: Any, columns: Columns, compilation: Compilation) -> Columns:
    made: list[Any] = []
    for name, step, wanted in transformer.transformers_:
        # A set `remainder` comes last in `transformers_`, its columns by name or place like the others'.
        chosen = tuple(columns[place] for place in _places(wanted, columns, compilation, name))
        # It hands its members slices of the frame, whatever the one before gave.
        compilation.sparse = False
        if chosen:
            made += _member(step, chosen, compilation, name)
    compilation.sparse = bool(transformer.sparse_output_)
    compilation.explicit_zeros = False
    return tuple(made)


def _feature_union(union: Any, columns: Columns, compilation: Compilation) -> Columns:
    made: list[Any] = []
    sparse = False
    for name, step in union.transformer_list:
        compilation.sparse = False
        part = _member(step, columns, compilation, name)
        weight = (union.transformer_weights or {}).get(name)
        made += part if weight is None else elementwise(part, [("mul", weight)])
        sparse |= compilation.sparse
    compilation.sparse, compilation.explicit_zeros = sparse, False
    return tuple(made)


def _member(step: Any, columns: Columns, compilation: Compilation, name: str) -> Columns:
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return columns
    if isinstance(step, str):  # "drop"
        return ()
    if type(step).__name__ == "FunctionTransformer" and step.func is None:
        return columns
    return steps.transform(step, columns, compilation, name)


def _places(wanted: Any, columns: Columns, compilation: Compilation, name: str) -> list[int]:
    try:
        return places_of(wanted, _names(columns, compilation))
    except KeyError as error:
        raise NotCompilable(name, f"picks the column {error}, which is no feature of the schema") from error


def _names(columns: Columns, compilation: Compilation) -> tuple[str | None, ...]:
    """Name the columns that are features as they came in, as a frame of some of them would."""
    known = {id(column): name for column, name in zip(compilation.inputs, compilation.names, strict=True)}
    return tuple(known.get(id(column)) for column in columns)


def _searched(search: Any, columns: Columns, compilation: Compilation) -> Prediction:
    return steps.predict(search.best_estimator_, columns, compilation)


TRANSFORMS = {
    "sklearn.Pipeline": _pipeline_transform,
    "sklearn.ColumnTransformer": _column_transformer,
    "sklearn.FeatureUnion": _feature_union,
}
PREDICTORS = {
    "sklearn.Pipeline": _pipeline_predict,
    "sklearn.GridSearchCV": _searched,
    "sklearn.RandomizedSearchCV": _searched,
}
