"""KBinsDiscretizer and PolynomialFeatures: columns made from columns."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op

from fairlead.bundle.compile.columns import (
    Column,
    Columns,
    Compilation,
    Indicator,
    Transform,
    Value,
    computed,
    constant,
    gather,
    matrix,
    values_of,
)
from fairlead.bundle.compile.encoders import one_hot


def bins(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a KBinsDiscretizer: a value's bin is the number of inner edges at or below it."""
    values = computed(columns)
    inner = [np.asarray(edges, dtype=float)[1:-1] for edges in step.bin_edges_]
    for value, edges in zip(values, inner, strict=True):
        compilation.note_thresholds(value, edges)
    table = np.full((1, len(inner), max([1, *map(len, inner)])), np.inf)
    for row, edges in zip(table[0], inner, strict=True):
        row[: len(edges)] = edges
    x = gather(values)
    if step.dtype is not None and np.dtype(step.dtype) == np.float32:
        x = op.cast(op.cast(x, to=np.float32), to=np.float64)
    reached = op.greater_or_equal(op.unsqueeze(x, constant([2], np.int64)), constant(table))
    index = op.reduce_sum(op.cast(reached, to=np.float64), constant([2], np.int64), keepdims=0)
    binned = tuple(
        replace(value.derived(index, i), categories=tuple(range(int(step.n_bins_[i]))))
        for i, value in enumerate(values)
    )
    return binned if step.encode == "ordinal" else one_hot(step._encoder, binned, compilation)


def powers(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile PolynomialFeatures.

    A term is the term without its first factor times that factor, as the original multiplies them.
    """
    lowest, highest, n = step._min_degree, step._max_degree, len(columns)
    choose = combinations if step.interaction_only else combinations_with_replacement
    expanded: list[Column] = [_always_one(columns[0])] if step.include_bias else []
    if lowest <= 1 <= highest:
        expanded += columns
    x = previous = matrix(columns)
    place: dict[tuple[int, ...], int] = {(i,): i for i in range(n)}
    for degree in range(2, highest + 1):
        terms = list(choose(range(n), degree))
        if not terms:
            break
        rest, first = (constant(i, np.int64) for i in ([place[t[1:]] for t in terms], [t[0] for t in terms]))
        previous = op.mul(op.gather(previous, rest, axis=1), op.gather(x, first, axis=1))
        place = {term: i for i, term in enumerate(terms)}
        if degree >= lowest:
            expanded += values_of(previous, len(terms))
    return tuple(expanded)


def _always_one(column: Column) -> Indicator:
    """Make the bias an indicator that is 1 either way, so that nothing computes it."""
    source = column if isinstance(column, Value) else column.source
    return Indicator(source, 0.0, on=1.0, off=1.0)


TRANSFORMS: dict[str, Transform] = {
    "sklearn.KBinsDiscretizer": bins,
    "sklearn.PolynomialFeatures": powers,
}
