"""Scalers, Normalizer, Binarizer and FunctionTransformer: arithmetic on each column or each row.

scikit-learn multiplies a sparse matrix by ``1 / scale_`` and divides a dense one by ``scale_``; the
last bit differs, and so it does here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import (
    Column,
    Columns,
    Compilation,
    Indicator,
    Transform,
    Value,
    constant,
    elementwise,
    gather,
    matrix,
    values_of,
)
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable

Step = tuple[str, npt.ArrayLike]


def _scaled(scale: Any, compilation: Compilation) -> Step:
    return ("mul", 1.0 / np.asarray(scale)) if compilation.sparse else ("div", scale)


def standard(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a StandardScaler."""
    steps: list[Step] = [("sub", step.mean_)] if step.with_mean else []
    if step.with_std:
        steps.append(_scaled(step.scale_, compilation))
    return elementwise(columns, steps)


def robust(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a RobustScaler."""
    steps: list[Step] = [("sub", step.center_)] if step.with_centering else []
    if step.with_scaling:
        steps.append(_scaled(step.scale_, compilation))
    return elementwise(columns, steps)


def max_abs(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a MaxAbsScaler."""
    scaled = elementwise(columns, [_scaled(step.scale_, compilation)])
    return _clipped(scaled, -1.0, 1.0) if getattr(step, "clip", False) else scaled


def min_max(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a MinMaxScaler."""
    scaled = elementwise(columns, [("mul", step.scale_), ("add", step.min_)])
    low, high = step.feature_range
    return _clipped(scaled, float(low), float(high)) if getattr(step, "clip", False) else scaled


def _clipped(columns: Columns, low: float, high: float) -> Columns:
    def graph(x: Var) -> Var:
        return op.clip(x, constant(low), constant(high))

    return pointwise(columns, graph, lambda x: float(np.clip(x, low, high)), linear=True)


def pointwise(
    columns: Columns,
    graph: Callable[[Var], Var],
    scalar: Callable[[float], float],
    *,
    linear: bool = False,
    breaks: Sequence[float] = (),
) -> Columns:
    """Apply one function to every column; an indicator just gets another `on` and `off`.

    Parameters
    ----------
    graph, scalar : the function for computed columns and for one number.
    linear : whether the result is still about ``scale * feature + shift``.
    breaks : the numbers at which the function turns or begins.
    """
    values = [column for column in columns if isinstance(column, Value)]
    tensor = graph(gather(values)) if values else None
    results: Iterator[Value] = iter(())
    if tensor is not None and linear:
        results = iter(values_of(tensor, len(values), like=values))
    elif tensor is not None:
        results = iter([value.derived(tensor, i, *breaks) for i, value in enumerate(values)])
    changed: list[Column] = []
    for column in columns:
        if isinstance(column, Indicator):
            with np.errstate(all="ignore"):
                changed.append(replace(column, on=scalar(column.on), off=scalar(column.off)))
        else:
            changed.append(replace(next(results), categories=None))
    return tuple(changed)


def normalize(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a Normalizer; a row of (nearly) nothing stays as it is."""
    x = matrix(columns)
    axis = constant([1], np.int64)
    norm = {
        "l1": lambda: op.reduce_sum(op.abs(x), axis),
        "l2": lambda: op.sqrt(op.reduce_sum(op.mul(x, x), axis)),
        "max": lambda: op.reduce_max(op.abs(x), axis),
    }[step.norm]()
    smallest = np.finfo(float).smallest_subnormal if compilation.sparse else 10 * np.finfo(float).eps
    divisor = op.where(op.less(norm, constant(smallest)), constant(1.0), norm)
    return values_of(op.div(x, divisor), len(columns))


def binarize(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a Binarizer."""
    return binarized(columns, float(step.threshold), compilation)


def binarized(columns: Columns, threshold: float, compilation: Compilation) -> Columns:
    """Turn every column to 1 where it is above a threshold, else 0."""
    for column in columns:
        if isinstance(column, Value):
            compilation.note_thresholds(column, np.array([threshold]))

    def graph(x: Var) -> Var:
        return op.cast(op.greater(x, constant(threshold)), to=np.float64)

    return pointwise(columns, graph, lambda x: float(x > threshold))


def _log1p(x: Var) -> Var:
    """Source: Goldberg, What every computer scientist should know about floating-point, theorem 4."""
    one = constant(1.0)
    u = op.add(one, x)
    return op.where(op.equal(u, one), x, op.mul(op.log(u), op.div(x, op.sub(u, one))))


def _expm1(x: Var) -> Var:
    """Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1 (Kahan)."""
    one = constant(1.0)
    u = op.exp(x)
    less_one = op.sub(u, one)
    near = op.mul(less_one, op.div(x, op.log(u)))
    far = op.greater(op.abs(x), constant(36.0))
    return op.where(op.equal(u, one), x, op.where(far, less_one, near))


_FUNCTIONS: dict[np.ufunc, Callable[[Var], Var]] = {
    np.log1p: _log1p,
    np.expm1: _expm1,
    np.log: op.log,
    np.exp: op.exp,
    np.sqrt: op.sqrt,
    np.abs: op.abs,
    np.square: lambda x: op.mul(x, x),
}
_BREAKS: dict[np.ufunc, tuple[float, ...]] = {
    np.log1p: (-1.0,),
    np.log: (0.0,),
    np.sqrt: (0.0,),
    np.abs: (0.0,),
    np.square: (0.0,),
}


def apply_function(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a FunctionTransformer of no function or a numpy one."""
    if step.func is None:
        return columns
    if not isinstance(step.func, np.ufunc) or step.func not in _FUNCTIONS or step.kw_args:
        raise NotCompilable(label_of(step), "its function is not one of the numpy functions that are known")
    return pointwise(columns, _FUNCTIONS[step.func], step.func, breaks=_BREAKS.get(step.func, ()))


TRANSFORMS: dict[str, Transform] = {
    "sklearn.StandardScaler": standard,
    "sklearn.RobustScaler": robust,
    "sklearn.MaxAbsScaler": max_abs,
    "sklearn.MinMaxScaler": min_max,
    "sklearn.Normalizer": normalize,
    "sklearn.Binarizer": binarize,
    "sklearn.FunctionTransformer": apply_function,
}
