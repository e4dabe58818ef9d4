"""What a fitted model tells of the features it wants: names, categories, whether null is one of them.

The schema is made of this where the user, a sample or a signature says nothing better. Layer L1, build
time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairlead.bundle.column_choice import places_of
from fairlead.bundle.originals import BoosterModel, Original, first_step
from fairlead.errors import SchemaError
from fairlead.schema import Feature, FeatureType, Scalar

_KEEP_COLUMNS = (
    "StandardScaler",
    "MinMaxScaler",
    "MaxAbsScaler",
    "RobustScaler",
    "SimpleImputer",
    "FunctionTransformer",
    "PowerTransformer",
)
_TAKES_NULL = ("HistGradientBoosting", "XGB", "LGBM")


@dataclass
class ColumnFacts:
    """What is known of one column.

    Parameters
    ----------
    categories : values that an encoder learned.
    closed : whether an encoder raises on any other.
    nullable : whether some step handles null.
    """

    name: str
    categories: list[Scalar] = field(default_factory=list)
    closed: bool = False
    nullable: bool = False


def features_of(original: Original) -> list[Feature]:
    """Derive the features that a model wants.

    Raises
    ------
    SchemaError
        When it tells nothing of them.
    """
    model = original.own
    if original.form == "records":
        return _dict_features(first_step(model))
    columns = [ColumnFacts(name) for name in _column_names(model, original)]
    _visit(model, columns, columns)
    return [_feature(column) for column in columns]


def _column_names(model: Any, original: Original) -> list[str]:
    first = first_step(model)
    for owner in (model, first):
        names = getattr(owner, "feature_names_in_", None)
        if names is not None:
            return [str(name) for name in names]
    if isinstance(original.model, BoosterModel):
        name = model.feature_name if hasattr(model, "feature_name") else lambda: model.feature_names
        count = model.num_features if hasattr(model, "num_features") else model.num_feature
        return list(name() or [f"x{i}" for i in range(count())])
    count = getattr(model, "n_features_in_", getattr(first, "n_features_in_", None))
    if count is None:
        raise SchemaError(
            f"{type(model).__name__}: does not tell its features: give a sample with --data or a schema with --schema"
        )
    return [f"x{i}" for i in range(count)]


def _dict_features(vectorizer: Any) -> list[Feature]:
    categories: dict[str, list[Scalar]] = {}
    numbers: list[str] = []
    for feature in vectorizer.feature_names_:
        name, mark, value = feature.partition(vectorizer.separator)
        if mark:
            categories.setdefault(name, []).append(value)
        else:
            numbers.append(name)
    for name in numbers:
        if name in categories:
            raise SchemaError(
                f"{name}: the DictVectorizer learned it both as a number and as a category: "
                "mend the training data or declare it with --schema"
            )
    names = dict.fromkeys(name.partition(vectorizer.separator)[0] for name in vectorizer.feature_names_)
    return [
        Feature(name=name, type="string", categories=tuple(categories[name]))
        if name in categories
        else Feature(name=name, type="float")
        for name in names
    ]


def _visit(step: Any, columns: Sequence[ColumnFacts], every: Sequence[ColumnFacts]) -> bool:
    """Walk a step over the columns it takes; True when the next step sees the same columns."""
    kind = type(step).__name__
    if hasattr(step, "best_estimator_"):
        return _visit(step.best_estimator_, columns, every)
    if getattr(step, "steps", None):
        return all(_visit(inner, columns, every) for _, inner in step.steps)
    if hasattr(step, "transformers_"):
        for _, inner, wanted in step.transformers_:
            _visit(inner, [columns[i] for i in places_of(wanted, [one.name for one in columns])], every)
        return False
    if hasattr(step, "transformer_list"):
        for _, inner in step.transformer_list:
            _visit(inner, columns, every)
        return False
    if kind in ("OneHotEncoder", "OrdinalEncoder"):
        for column, categories in zip(columns, step.categories_, strict=True):
            _learn(column, categories, closed=step.handle_unknown == "error")
        return False
    if kind == "SimpleImputer" and isinstance(step.missing_values, float) and np.isnan(step.missing_values):
        for column in columns:
            column.nullable = True
    # scikit-learn's other trees keep no trace of whether they learned null: that is for a sample or the user to say.
    if kind.startswith(_TAKES_NULL):
        for column in columns:
            column.nullable = True
    return kind in _KEEP_COLUMNS or isinstance(step, str)


def _learn(column: ColumnFacts, categories: Any, closed: bool) -> None:
    for value in categories:
        plain = value.item() if isinstance(value, np.generic) else value
        if plain is None or (isinstance(plain, float) and np.isnan(plain)):
            column.nullable = True
        elif plain not in column.categories:
            column.categories.append(plain)
    column.closed |= closed


def _feature(column: ColumnFacts) -> Feature:
    kinds = {type(value) for value in column.categories}
    names: dict[type, FeatureType] = {str: "string", bool: "bool", int: "int", float: "float"}
    kind: FeatureType = names.get(kinds.pop(), "float") if len(kinds) == 1 else "float"
    if len({type(value) for value in column.categories}) > 1 and any(isinstance(v, str) for v in column.categories):
        raise SchemaError(f"{column.name}: its encoder learned strings and other types together; declare one type")
    return Feature(
        name=column.name,
        type=kind,
        nullable=column.nullable,
        categories=tuple(column.categories) or None,
        closed=column.closed,
    )
