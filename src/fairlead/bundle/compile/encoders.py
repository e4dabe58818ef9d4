"""OneHotEncoder and OrdinalEncoder.

A one-hot column is an `Indicator` over the column it encodes. Where it stands for several values (the
infrequent ones, or null, which equals nothing) it is one over a column of yes and no that is looked up.

A category unknown to an encoder with ``handle_unknown="error"`` makes the original raise; here it is
all zeros (one-hot) or NaN (ordinal). Such features want ``closed: true`` in the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairlead.bundle.compile.codes import Recoding, coded, coder, is_null, recode
from fairlead.bundle.compile.columns import Column, Columns, Compilation, Indicator, Transform, Value
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable


@dataclass
class _Groups:
    """How one column's categories are numbered by its encoder.

    Parameters
    ----------
    members : codes (or numbers) by group, in the encoder's order; several in the infrequent group.
    null : the group that null belongs to, if it is a category.
    unknown : the group that unknown values belong to, if any.
    """

    members: list[list[float]]
    null: int | None = None
    unknown: int | None = None


def _groups(step: Any, i: int, source: Value, *, grouped_null: bool) -> _Groups:
    """Read the categories of column `i`; `grouped_null` says that null may be among the infrequent."""
    mapping, infrequent = None, None
    if getattr(step, "_infrequent_enabled", False):
        mapping, infrequent = step._default_to_infrequent_mappings[i], step._infrequent_indices[i]
    categories = list(step.categories_[i])
    numbers = list(range(len(categories))) if mapping is None else list(mapping)
    numbers += [-1] * (len(categories) - len(numbers))  # OrdinalEncoder leaves a last NaN out of the mapping
    code_of = coder(source)
    groups = _Groups([[] for _ in range(1 + max(numbers, default=-1))])
    for category, group in zip(categories, numbers, strict=True):
        if is_null(category):
            if groups.null is not None:
                raise NotCompilable(label_of(step), f"column {i} has both None and NaN as categories")
            groups.null = int(group) if grouped_null or category is None else -1
            continue
        code = code_of(category)
        if code is None:
            raise NotCompilable(label_of(step), f"column {i}: its category {category!r} cannot occur by the schema")
        groups.members[group].append(code)
    if infrequent is not None and step.handle_unknown in ("infrequent_if_exist", "warn"):
        groups.unknown = int(numbers[infrequent[0]])
    return groups


def one_hot(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a OneHotEncoder to indicators, in the order of its ``get_feature_names_out``."""
    encoded: list[Column] = []
    for i, column in enumerate(columns):
        source = coded(column)
        groups = _groups(step, i, source, grouped_null=True)
        compilation.note_thresholds(source, np.array([m for members in groups.members for m in members]))
        dropped = None if step._drop_idx_after_grouping is None else step._drop_idx_after_grouping[i]
        kept = [group for group in range(len(groups.members)) if group != dropped]
        encoded += _indicators(source, groups, kept)
    if getattr(step, "sparse_output", getattr(step, "sparse", False)):
        compilation.sparse = True
    return tuple(encoded)


def _indicators(source: Value, groups: _Groups, kept: Sequence[int]) -> list[Indicator]:
    single = {g: len(groups.members[g]) == 1 and g not in (groups.null, groups.unknown) for g in kept}
    looked_up = [g for g in kept if not single[g]]
    answers = dict(zip(looked_up, recode([_membership(source, groups, g) for g in looked_up]), strict=True))
    return [
        Indicator(source, groups.members[g][0])
        if single[g]
        else Indicator(replace(answers[g], categories=(False, True)), 1.0)
        for g in kept
    ]


def _membership(source: Value, groups: _Groups, group: int) -> Recoding:
    known = {m: float(g == group) for g, members in enumerate(groups.members) for m in members}
    null = groups.unknown if groups.null is None else groups.null
    return Recoding(source, known, float(null == group), float(groups.unknown == group))


def ordinal(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile an OrdinalEncoder to one look-up."""
    recodings = []
    for i, column in enumerate(columns):
        source = coded(column)
        groups = _groups(step, i, source, grouped_null=False)
        known = {m: float(g) for g, members in enumerate(groups.members) for m in members}
        compilation.note_thresholds(source, np.array(list(known)))
        unknown = np.nan
        if step.handle_unknown == "use_encoded_value":
            unknown = _as_dtype(step, step.unknown_value)
        null = unknown
        if groups.null is not None:
            null = float(groups.null) if groups.null >= 0 else _as_dtype(step, step.encoded_missing_value)
        recodings.append(Recoding(source, known, null, unknown))
    return tuple(recode(recodings))


def _as_dtype(step: Any, number: float) -> float:
    return float(np.asarray(number).astype(step.dtype))


TRANSFORMS: dict[str, Transform] = {"sklearn.OneHotEncoder": one_hot, "sklearn.OrdinalEncoder": ordinal}
