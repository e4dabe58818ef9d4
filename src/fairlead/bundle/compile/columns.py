"""What flows between the compiled steps of a model: columns, held symbolically until one is needed.

A step maps columns to columns. A `Value` is a column of a tensor that the graph computes; an
`Indicator` is a one-hot column that is not computed at all: it remembers the column it tells about. So
a one-hot encoding of 13,000 categories costs nothing by itself: a linear model turns its indicators
into one table look-up (`linear`), a tree into one comparison with the category's code (`trees`), and
only what cannot do either asks `matrix` for the real thing.

All numbers are float64, as in the original. Nulls are NaN; an unseen category has the code -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.schema import Scalar, Schema

if TYPE_CHECKING:
    from fairlead.bundle.compile.ensembles import Added
    from fairlead.predict.forest import Finish

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """A computed column.

    Parameters
    ----------
    tensor : float64, shape (n_rows, width).
    index : the column's place in `tensor`.
    categories : what the codes in this column stand for; None when it holds plain numbers.
    feature : the feature of the schema that the column is made of, when it is made of one alone.
    scale, shift : the column is about ``scale * feature + shift``; where thresholds of a tree lie on
        the feature's own axis, for building the rows that test them. A scale of 0 says that it is not.
    breaks : where the column may turn or jump as its feature rises: where some column reaches or
        passes some number, or becomes NaN. Between them it rises, falls or stays. For `axes`.
    """

    tensor: Var
    index: int
    categories: tuple[Scalar, ...] | None = None
    feature: int | None = None
    scale: float = 1.0
    shift: float = 0.0
    breaks: tuple[tuple[Value, float], ...] = ()

    def derived(self, tensor: Var, index: int, *breaks: float) -> Value:
        """Make a column that is a function of this one alone, monotone but for where this one is at `breaks`."""
        return Value(
            tensor,
            index,
            feature=self.feature,
            scale=0.0,
            breaks=self.breaks + tuple((self, point) for point in breaks),
        )

    def broken(self, *breaks: float) -> Value:
        """Make the same column jump where this one is at `breaks`."""
        return replace(self, breaks=self.breaks + tuple((self, point) for point in breaks))


@dataclass(frozen=True)
class Indicator:
    """A one-hot column that nobody has computed: `on` where `source` equals `value`, else `off`."""

    source: Value
    value: float
    on: float = 1.0
    off: float = 0.0


Column = Value | Indicator
Columns = tuple[Column, ...]


@dataclass
class Compilation:
    """One model being compiled.

    Parameters
    ----------
    schema : the features that reach the model; a string feature's code is the place in its categories.
    inputs : one Value a feature, in the schema's order.
    names : feature names by which a ColumnTransformer picks its columns.
    thresholds : points on the features' own axes where the model changes its mind, by feature.
    sparse : whether the step just compiled gives a scipy sparse matrix, in which xgboost takes an
        absent entry for missing.
    explicit_zeros : whether that matrix stores zeros of plain numbers, as a DictVectorizer's does.
    trees : the ensemble that was compiled, how its sums are finished, and the answer that came of it.
    """

    schema: Schema
    inputs: Columns
    names: tuple[str, ...]
    thresholds: dict[int, list[float]] = field(default_factory=dict)
    sparse: bool = False
    explicit_zeros: bool = False
    trees: tuple[Added, Finish, Prediction] | None = None

    def note_thresholds(self, value: Value, points: Float64) -> None:
        """Remember where `value` is compared, so that parity is proved right there."""
        if value.feature is not None and value.categories is None and value.scale:
            raw = (points - value.shift) / value.scale
            self.thresholds.setdefault(value.feature, []).extend(raw[np.isfinite(raw)].tolist())


@dataclass(frozen=True)
class Prediction:
    """What a model's last step gives.

    Parameters
    ----------
    value : a regressor's float64, shape (n_rows,).
    label : a classifier's int64 place in `classes`, shape (n_rows,).
    probabilities : float64, shape (n_rows, n_classes); None when the classifier has none.
    classes : labels as the estimator holds them.
    """

    value: Var | None = None
    label: Var | None = None
    probabilities: Var | None = None
    classes: tuple[Scalar, ...] | None = None


Transform = Callable[[Any, Columns, Compilation], Columns]
Predict = Callable[[Any, Columns, Compilation], Prediction]


def constant(array: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Var:
    """Put an array into the graph."""
    return op.constant(value=np.asarray(array, dtype=dtype))


def values_of(tensor: Var, width: int, like: Sequence[Column] | None = None) -> tuple[Value, ...]:
    """Name the columns of a freshly computed tensor, shape (n_rows, width).

    Parameters
    ----------
    like : the columns they are made of one by one; their feature is kept when it is known.
    """
    if like is None:
        return tuple(Value(tensor, i) for i in range(width))
    return tuple(
        replace(old, tensor=tensor, index=i) if isinstance(old, Value) else Value(tensor, i)
        for i, old in enumerate(like)
    )


def gather(values: Sequence[Value]) -> Var:
    """Bring columns of any tensors into one, float64, shape (n_rows, len(values))."""
    tensors: list[Var] = []
    for value in values:
        if not any(value.tensor is tensor for tensor in tensors):
            tensors.append(value.tensor)
    parts: list[Var] = []
    order: list[int] = []
    for tensor in tensors:
        mine = [place for place, value in enumerate(values) if value.tensor is tensor]
        index = [values[place].index for place in mine]
        parts.append(_pick(tensor, index))
        order += mine
    joined = parts[0] if len(parts) == 1 else op.concat(parts, axis=1)
    if order == list(range(len(values))):
        return joined
    return op.gather(joined, constant(np.argsort(order), np.int64), axis=1)


def _pick(tensor: Var, index: list[int]) -> Var:
    shape = tensor.unwrap_tensor().shape
    if shape is not None and index == list(range(int(shape[1] or 0))):
        return tensor
    return op.gather(tensor, constant(index, np.int64), axis=1)


def matrix(columns: Sequence[Column]) -> Var:
    """Compute columns, indicators too: float64, shape (n_rows, len(columns))."""
    return gather(computed(columns))


def computed(columns: Sequence[Column]) -> tuple[Value, ...]:
    """Turn every indicator into a computed column; values stay as they are."""
    indicators = [column for column in columns if isinstance(column, Indicator)]
    if not indicators:
        return tuple(column for column in columns if isinstance(column, Value))
    hit = op.equal(gather([i.source for i in indicators]), constant([[i.value for i in indicators]]))
    on, off = (np.array([[getattr(i, side) for i in indicators]]) for side in ("on", "off"))
    if np.all(on == 1) and np.all(off == 0):
        tensor = op.cast(hit, to=np.float64)
    else:
        tensor = op.where(hit, constant(on), constant(off))
    places = iter(range(len(indicators)))
    return tuple(c if isinstance(c, Value) else c.source.derived(tensor, next(places), c.value) for c in columns)


def elementwise(columns: Columns, steps: Sequence[tuple[str, npt.ArrayLike]]) -> Columns:
    """Apply arithmetic column by column, in the original's own order of operations.

    Parameters
    ----------
    steps : pairs of an operation, one of ``sub add mul div``, and its operand: float64, shape
        (n_columns,). Values are computed in the graph; an indicator just gets another `on` and `off`.
    """
    operands = [(name, np.broadcast_to(np.asarray(o, dtype=np.float64), (len(columns),))) for name, o in steps]
    places = [i for i, column in enumerate(columns) if isinstance(column, Value)]
    values = [column for column in columns if isinstance(column, Value)]
    tensor = gather(values) if values else None
    rank = {place: i for i, place in enumerate(places)}
    changed: dict[int, Column] = {}
    for name, operand in operands:
        if tensor is not None:
            tensor = _GRAPH[name](tensor, constant(operand[places][np.newaxis, :]))
    for i, column in enumerate(columns):
        row = [(name, float(operand[i])) for name, operand in operands]
        if isinstance(column, Value):
            assert tensor is not None
            changed[i] = _moved(column, tensor, rank[i], row)
        else:
            changed[i] = replace(column, on=_scalar(column.on, row), off=_scalar(column.off, row))
    return tuple(changed[i] for i in range(len(columns)))


def _moved(column: Value, tensor: Var, index: int, row: list[tuple[str, float]]) -> Value:
    at_zero, at_one = (_scalar(column.scale * x + column.shift, row) for x in (0.0, 1.0))
    return replace(column, tensor=tensor, index=index, scale=at_one - at_zero, shift=at_zero, categories=None)


def _scalar(x: float, row: list[tuple[str, float]]) -> float:
    for name, operand in row:
        x = float(_NUMPY[name](x, operand))
    return x


_GRAPH: dict[str, Callable[[Var, Var], Var]] = {"sub": op.sub, "add": op.add, "mul": op.mul, "div": op.div}
_NUMPY: dict[str, Callable[[float, float], Any]] = {
    "sub": np.subtract,
    "add": np.add,
    "mul": np.multiply,
    "div": np.divide,
}
