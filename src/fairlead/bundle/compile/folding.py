"""A compiled ensemble and the preprocessing before it become one forest over the encoded features.

Every split looks at a column that one feature decides. So a feature's axis falls into intervals in which
all splits answer the same (`axes` finds where, to the last bit), and a split needs to know no more than
the interval. `predict.forest` tells what is made of that.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairlead.bundle.compile.axes import Axes, Test, numbers_of
from fairlead.bundle.compile.columns import Columns, Float64, Value
from fairlead.bundle.compile.ensembles import EQ, LT, Added, Splits
from fairlead.bundle.compile.layout import forest_of
from fairlead.bundle.compile.slots import Axis, Slot, check_monotone, slots_of
from fairlead.errors import NotCompilable
from fairlead.predict.forest import MOST_SLOTS, Finish, Forest


def folded(added: Added, finish: Finish, inputs: Columns) -> Forest:
    """Fold a compiled ensemble.

    Parameters
    ----------
    inputs : the features of the schema, as the compiler began with them.

    Raises
    ------
    NotCompilable
        When a split looks at what several features make together, or a column is not what `axes` takes it for.
    """
    splits = added.splits
    inner = ~splits.is_leaf
    columns = {int(column): added.values[column] for column in np.unique(splits.feature[inner])}
    for value in columns.values():
        if value.feature is None:
            raise NotCompilable("trees", "a split looks at a column that is made of several features")
    features = [value for value in inputs if isinstance(value, Value)]
    graph = Axes(features[0].tensor, added.features, columns.values())
    axes = _axes(graph, splits, columns, features)
    computed = _computed(graph, axes)
    slots: list[Slot] = []
    slot_of, bin_of = np.zeros(len(inner), np.int64), np.zeros(len(inner), np.int64)
    for column, value in columns.items():
        place = _place(value)
        nodes = np.flatnonzero(inner & (splits.feature == column))
        first, middle, last = (side[: axes[place].n_intervals, column] for side in computed)
        made = list(slots_of(place, last, splits, nodes))
        if axes[place].n_codes is None:
            check_monotone(made, [slots_of(place, other, splits, nodes) for other in (first, middle)])
        for slot, chosen, bins in made:
            bin_of[chosen], slot_of[chosen] = bins, len(slots)
            slots.append(slot)
        if len(slots) > MOST_SLOTS:
            raise NotCompilable("trees", f"there are more than {MOST_SLOTS} different columns to split on")
    return forest_of(added, finish, axes, slots, slot_of, bin_of)


def _place(value: Value) -> int:
    assert value.feature is not None
    return value.feature


def _axes(graph: Axes, splits: Splits, columns: Mapping[int, Value], features: list[Value]) -> list[Axis]:
    """Cut every feature's axis where a split may change its mind."""
    n_codes = [None if feature.categories is None else len(feature.categories) for feature in features]
    numbers = {column: value for column, value in columns.items() if n_codes[_place(value)] is None}
    found: list[list[Float64]] = [[] for _ in features]
    inner = ~splits.is_leaf
    wanted = []
    for column, value in numbers.items():
        here = inner & (splits.feature == column)
        modes = set(splits.mode[here].tolist())
        tests: list[Test] = []
        if modes != {LT}:
            tests.append("at most")
        if modes & {LT, EQ}:
            tests.append("below")
        wanted.append(graph.cuts(column, value, np.unique(splits.threshold[here]), tests))
        found[_place(value)].append(numbers_of(graph.pieces(value)))
    if wanted:
        places, keys = graph.search(wanted)
        for place in np.unique(places):
            found[place].append(numbers_of(keys[places == place]))
    # The last interval ends at infinity, which is no cut.
    return [Axis(n, np.unique(np.concatenate([*cuts, [np.inf]]))[:-1]) for n, cuts in zip(n_codes, found, strict=True)]


def _computed(graph: Axes, axes: list[Axis]) -> tuple[Float64, ...]:
    """Compute all columns at the first, a middle and the last point of every interval, and at null after them."""
    points = [axis.points() for axis in axes]
    n_rows = max(axis.n_intervals for axis in axes)
    found = []
    for side in range(3):
        X = np.full((n_rows, len(axes)), np.nan)
        for place, of_feature in enumerate(points):
            X[: len(of_feature[side]), place] = of_feature[side]
        found.append(graph.compute(X)[0])
    return tuple(found)
