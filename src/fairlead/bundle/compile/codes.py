"""Categories as numbers: the code a category has in a column, and codes exchanged for other numbers.

A column with `categories` holds codes, so any function of it is a table with one entry a slot: one
for null, one for an unseen category, one a category. A column of plain numbers has no such table; it
is compared with each number it may equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Column, Indicator, Value, computed, constant, gather
from fairlead.predict.encode import UNSEEN

SPECIAL_SLOTS = 2  # null, then unseen; the categories follow in their order


@dataclass(frozen=True)
class Recoding:
    """What each value of a column becomes.

    Parameters
    ----------
    source : the column.
    known : from a code of `source` (or a number, when it holds plain numbers) to what it becomes.
    null, unknown : what null, and any value not in `known`, become.
    """

    source: Value
    known: Mapping[float, float]
    null: float
    unknown: float


def is_null(category: Any) -> bool:
    """Whether a category stands for a missing value: None, NaN or ``pandas.NA``."""
    return category is None or category is np.ma.masked or type(category).__name__ == "NAType" or category != category  # noqa: PLR0124  # NaN


def coder(source: Value) -> Callable[[Any], float | None]:
    """Make what says how a category looks in a column: its code, or the number itself; None if it cannot occur."""
    codes = None if source.categories is None else {c: float(code) for code, c in enumerate(source.categories)}

    def code_of(category: Any) -> float | None:
        category = category.item() if isinstance(category, np.generic) else category
        if codes is not None:
            return codes.get(category)
        return None if isinstance(category, str | bytes) else float(category)

    return code_of


def coded(column: Column) -> Value:
    """Make a column one that holds codes or numbers: a computed one."""
    return computed([column])[0] if isinstance(column, Indicator) else column


def slots(values: Sequence[Value]) -> Var:
    """Number the values of columns that have categories: int64, shape (n_rows, len(values)).

    Null is 0, unseen 1, the category with code c is 2 + c.
    """
    codes = gather(values)
    shifted = op.where(op.isnan(codes), constant(UNSEEN - 1), codes)
    return op.cast(op.add(shifted, constant(SPECIAL_SLOTS)), to=np.int64)


def n_slots(value: Value) -> int:
    """Count the slots of a column that has categories."""
    return SPECIAL_SLOTS + len(value.categories or ())


def offsets(values: Sequence[Value]) -> list[int]:
    """Say where each column's slots begin in one table that holds them all."""
    return [0, *np.cumsum([n_slots(value) for value in values])[:-1].tolist()]


def recode(recodings: Sequence[Recoding]) -> list[Value]:
    """Exchange the values of columns for others, all columns with categories in one look-up."""
    done: dict[int, Value] = {}
    tabled = [i for i, r in enumerate(recodings) if r.source.categories is not None]
    if tabled:
        tensor = _look_up([recodings[i] for i in tabled])
        done |= {i: _recoded(recodings[i], tensor, place) for place, i in enumerate(tabled)}
    for i, recoding in enumerate(recodings):
        if i not in done:
            done[i] = _recoded(recoding, _compare(recoding), 0)
    return [done[i] for i in range(len(recodings))]


def _recoded(recoding: Recoding, tensor: Var, place: int) -> Value:
    return recoding.source.derived(tensor, place, np.nan, *recoding.known)


def _look_up(recodings: Sequence[Recoding]) -> Var:
    sources = [r.source for r in recodings]
    tables = []
    for r in recodings:
        table = np.full(n_slots(r.source), r.unknown)
        table[0] = r.null
        for code, target in r.known.items():
            table[SPECIAL_SLOTS + int(code)] = target
        tables.append(table)
    index = slots(sources)
    if len(sources) > 1:
        index = op.add(index, constant([offsets(sources)], np.int64))
    return op.gather(constant(np.concatenate(tables)), index)


def _compare(recoding: Recoding) -> Var:
    """Recode plain numbers, float64, shape (n_rows, 1)."""
    x = gather([recoding.source])
    result = constant([[recoding.unknown]])
    if recoding.known:
        numbers, targets = (np.array([list(side)]) for side in (recoding.known, recoding.known.values()))
        hit = op.equal(x, constant(numbers))
        place = op.arg_max(op.cast(hit, to=np.float64), axis=1)
        any_hit = op.reduce_max(op.cast(hit, to=np.float64), constant([1], np.int64))
        result = op.where(op.greater(any_hit, constant(0.0)), op.gather(constant(targets[0]), place), result)
    return op.where(op.isnan(x), constant([[recoding.null]]), result)
