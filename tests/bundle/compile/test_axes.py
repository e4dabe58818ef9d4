"""Thresholds are found on the features' own axes to the last bit: the number itself and its neighbour say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import spox
import spox.opset.ai.onnx.v21 as op
from hypothesis import given, settings
from hypothesis import strategies as st
from spox import Var

from fairlead.bundle.compile import imputation, preprocessing, xgboost
from fairlead.bundle.compile.axes import Axes, keys_of, numbers_of
from fairlead.bundle.compile.columns import Columns, Compilation, Value, elementwise, gather
from fairlead.errors import NotCompilable
from fairlead.schema import Feature, Schema

Array = npt.NDArray[Any]
NUMBERS = st.floats(allow_nan=False)


@given(st.lists(NUMBERS, min_size=1))
def test_keys_are_in_the_order_of_numbers(numbers: list[float]) -> None:
    array = np.array(numbers)
    keys = keys_of(array)

    assert np.array_equal(numbers_of(keys), array)
    assert np.array_equal(array[np.argsort(keys, kind="stable")], np.sort(array))


def test_neighbours_have_neighbouring_keys() -> None:
    numbers = np.array([-1e308, -1.0, -5e-324, 0.0, 5e-324, 1.0, 1e308])
    up = np.nextafter(numbers, np.inf)
    up[2] = -0.0
    assert np.array_equal(keys_of(numbers) + np.uint64(1), keys_of(up))


def two_columns() -> Columns:
    tensor = spox.argument(spox.Tensor(np.float64, ("N", 2)))
    return tuple(Value(tensor, i, feature=i) for i in range(2))


def compilation(columns: Columns) -> Compilation:
    features = tuple(Feature(name=f"x{i}", type="float") for i in range(len(columns)))
    return Compilation(Schema(features=features), columns, tuple(f.name for f in features))


def values_of(columns: Columns) -> list[Value]:
    return [column for column in columns if isinstance(column, Value)]


def cuts_of(columns: Columns, thresholds: Sequence[float], *, rounded: bool = False) -> tuple[Axes, Array]:
    """Give where the second column passes the thresholds, and the graph to ask about neighbours."""
    made = values_of(columns)
    tensor: Var = gather(made)
    if rounded:
        tensor = op.cast(tensor, to=np.float32)
    axes = Axes(INPUTS[0].tensor, tensor, made)
    places, keys = axes.search([axes.cuts(1, made[1], np.array(thresholds), ["at most", "below"])])
    assert set(places.tolist()) <= {1}
    return axes, np.unique(numbers_of(keys))


INPUTS = values_of(two_columns())


def column_at(axes: Axes, x: Array) -> Array:
    return axes.compute(np.column_stack([np.full(len(x), np.nan), x]))[0][:, 1]


def check_exact(axes: Axes, cuts: Array, threshold: float) -> None:
    """A cut is where the answer changes, and nowhere else does it."""
    below, above = column_at(axes, cuts), column_at(axes, np.nextafter(cuts, np.inf))
    changed = ((below <= threshold) != (above <= threshold)) | ((below < threshold) != (above < threshold))
    assert np.all(changed | (np.isnan(below) != np.isnan(above)))
    points = np.sort(np.concatenate([np.random.default_rng(0).normal(0, 10, 2000), cuts, np.nextafter(cuts, np.inf)]))
    y = column_at(axes, points)
    real = ~np.isnan(y[1:]) & ~np.isnan(y[:-1])
    flips = np.flatnonzero(((y[1:] <= threshold) != (y[:-1] <= threshold)) & real)
    assert set(points[flips].tolist()) <= set(cuts.tolist())


STEPS = [
    [],
    [("sub", [0.3, 0.1])],
    [("div", [3.0, 0.7])],
    [("sub", [64.8, 64.76]), ("div", [2.0, 30.09])],
    [("mul", [1.0, -0.3]), ("add", [0.0, 5.1])],
    [("div", [1.0, -1e-5])],
]


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("threshold", [-1.7, 0.0, 0.1, 1.0, 2.5])
def test_arithmetic(steps: Any, threshold: float, rounded: bool) -> None:
    axes, cuts = cuts_of(elementwise(tuple(INPUTS), steps), [threshold], rounded=rounded)

    assert 1 <= len(cuts) <= 2  # where it reaches the threshold, and where it leaves it
    check_exact(axes, cuts, threshold)


@settings(max_examples=40)
@given(
    threshold=st.floats(-1e6, 1e6),
    shift=st.floats(-1e6, 1e6),
    scale=st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3),
    rounded=st.booleans(),
)
def test_any_scaler(threshold: float, shift: float, scale: float, rounded: bool) -> None:
    columns = elementwise(tuple(INPUTS), [("sub", [0.0, shift]), ("div", [1.0, scale])])
    axes, cuts = cuts_of(columns, [threshold], rounded=rounded)

    check_exact(axes, cuts, threshold)


def test_a_threshold_out_of_reach_cuts_nothing() -> None:
    low = np.full(2, -1.0)
    clipped = preprocessing._clipped(elementwise(tuple(INPUTS), [("sub", low)]), 0.0, 1.0)

    assert len(cuts_of(clipped, [-0.5, 1.5])[1]) == 0


def test_rounding_to_float32_moves_the_cut() -> None:
    threshold = float(np.float32(0.1))
    _, cuts = cuts_of(tuple(INPUTS), [threshold], rounded=True)

    beside = float(np.nextafter(np.float32(0.1), np.float32(1)))
    # Halfway is rounded to the even of both, and it is not this one.
    assert cuts.max() == np.nextafter((threshold + beside) / 2, -np.inf)


class Imputer:
    """What `impute` reads of a SimpleImputer."""

    keep_empty_features = False
    add_indicator = False
    statistics_ = (2.0, 2.0)
    _fill_dtype = np.dtype(float)

    def __init__(self, missing_values: float) -> None:
        self.missing_values = missing_values


def test_an_imputer_of_a_number_jumps_there() -> None:
    columns = imputation.impute(Imputer(-1.0), tuple(INPUTS), compilation(tuple(INPUTS)))
    axes, cuts = cuts_of(columns, [0.0])

    ends = values_of(columns)[1]
    pieces = np.unique(numbers_of(axes.pieces(ends)))
    assert {-1.0, np.nextafter(-1.0, -np.inf)} <= set(pieces.tolist())
    points = np.array([np.nextafter(-1.0, -np.inf), -1.0, np.nextafter(-1.0, np.inf), 0.0])
    assert (column_at(axes, points) <= 0).tolist() == [True, False, True, True]
    assert 0.0 in cuts


@pytest.mark.parametrize(
    ("function", "threshold", "wanted"),
    [(np.abs, 2.0, [-2.0, 2.0]), (np.square, 9.0, [-3.0, 3.0]), (np.sqrt, 3.0, [9.0])],
)
def test_functions_that_turn(function: Any, threshold: float, wanted: list[float]) -> None:
    breaks = preprocessing._BREAKS[function]
    columns = preprocessing.pointwise(tuple(INPUTS), preprocessing._FUNCTIONS[function], function, breaks=breaks)
    axes, cuts = cuts_of(columns, [threshold])

    for number in wanted:
        assert np.abs(cuts - number).min() <= 1e-15 * abs(number)
    check_exact(axes, cuts[np.abs(cuts) > 1e-3], threshold)


def test_zero_that_stands_for_missing() -> None:
    scaled = elementwise(tuple(INPUTS), [("div", [1.0, 1e10])])
    columns = xgboost._without(scaled, np.float32(0))
    value = values_of(columns)[1]
    axes = Axes(INPUTS[0].tensor, gather(values_of(columns)), values_of(columns))

    ends = np.unique(numbers_of(axes.pieces(value)))
    ends = ends[np.isfinite(ends) & (np.abs(ends) < 1)]
    assert len(ends)
    for side in (-1, 1):
        (edge,) = [end for end in np.unique(np.abs(ends)) if edge_of(axes, end * side)]
        assert edge == pytest.approx(2.0**-150 * 1e10)


def edge_of(axes: Axes, end: float) -> bool:
    here, beyond = column_at(axes, np.array([end, math.nextafter(end, math.copysign(math.inf, end))]))
    return bool(np.isnan(here) != np.isnan(beyond))


def test_too_much_is_refused() -> None:
    axes = Axes(INPUTS[0].tensor, gather(INPUTS), INPUTS)
    with pytest.raises(NotCompilable, match="too many thresholds"):
        axes.cuts(1, INPUTS[1], np.arange(3e6), ["at most", "below"])
