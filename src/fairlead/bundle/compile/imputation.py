"""SimpleImputer and MissingIndicator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.codes import coder, is_null
from fairlead.bundle.compile.columns import (
    Column,
    Columns,
    Compilation,
    Transform,
    Value,
    computed,
    constant,
    gather,
    values_of,
)
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable


def impute(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a SimpleImputer; a fill that is no category of its column becomes one."""
    values = computed(columns)
    kept = [i for i in range(len(values)) if step.keep_empty_features or not is_null(step.statistics_[i])]
    filled: list[Column] = []
    fills = []
    for i in kept:
        value, fill = _fill(step, values[i], step.statistics_[i])
        filled.append(value.broken(*_marks(step, value)))
        fills.append(fill)
    imputed: Columns = ()
    if kept:
        chosen = [values[i] for i in kept]
        tensor = op.where(_missing(step, chosen), constant([fills]), gather(chosen))
        imputed = values_of(tensor, len(kept), like=filled)
    if step.add_indicator:
        imputed += missing_indicator(step.indicator_, values, compilation)
    return imputed


def _fill(step: Any, value: Value, statistic: Any) -> tuple[Value, float]:
    """Say what null becomes in a column, and the column's categories then."""
    if is_null(statistic):
        return value, np.nan
    if value.categories is None:
        if isinstance(statistic, str):
            raise NotCompilable(label_of(step), f"fills a column of numbers with {statistic!r}")
        dtype = getattr(step, "_fill_dtype", np.dtype(float))
        return value, float(np.asarray(statistic).astype(dtype) if dtype.kind in "fiu" else statistic)
    code = coder(value)(statistic)
    if code is not None:
        return value, code
    extended = (*value.categories, statistic.item() if isinstance(statistic, np.generic) else statistic)
    return replace(value, categories=extended), float(len(value.categories))


def _missing(step: Any, values: list[Value]) -> Var:
    """Say where values are missing by the step's ``missing_values``: bool, shape (n_rows, len(values))."""
    if is_null(step.missing_values):
        return op.isnan(gather(values))
    codes = [coder(value)(step.missing_values) for value in values]
    return op.equal(gather(values), constant([[np.nan if code is None else code for code in codes]]))


def missing_indicator(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a MissingIndicator to columns of 0 and 1."""
    chosen = [int(i) for i in step.features_]
    if not chosen:
        return ()
    values = computed([columns[i] for i in chosen])
    mask = op.cast(_missing(step, list(values)), to=np.float64)
    if getattr(step, "sparse", False) is True:
        compilation.sparse = True
    return tuple(value.derived(mask, i, *_marks(step, value)) for i, value in enumerate(values))


def _marks(step: Any, value: Value) -> tuple[float, ...]:
    """Say at which numbers of a column its values are missing by the step's ``missing_values``."""
    if is_null(step.missing_values):
        return (np.nan,)
    code = coder(value)(step.missing_values)
    return () if code is None else (code,)


TRANSFORMS: dict[str, Transform] = {
    "sklearn.SimpleImputer": impute,
    "sklearn.MissingIndicator": missing_indicator,
}
