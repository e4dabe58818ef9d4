"""A compiled ensemble and the preprocessing before it become one forest over the encoded features.

Every split looks at a column that one feature decides. So a feature's axis falls into intervals in which
all splits answer the same (`axes` finds where, to the last bit), and a split needs to know no more than
the interval. `predict.forest` tells what is made of that.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.bundle.compile.axes import Axes, Test, keys_of, numbers_of
from fairlead.bundle.compile.columns import Columns, Float64, Value
from fairlead.bundle.compile.ensembles import EQ, LT, Added, Splits
from fairlead.bundle.compile.layout import forest_of
from fairlead.errors import NotCompilable
from fairlead.predict.encode import UNSEEN
from fairlead.predict.forest import MOST_SLOTS, Finish, Forest

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
# Bins are 16 bits wide: so many thresholds fit one slot, and the next ones get another.
_SLOT_THRESHOLDS = 65_535


@dataclass(frozen=True)
class Axis:
    """A feature as the forest sees it.

    Parameters
    ----------
    n_codes : of a feature of codes; None of one of numbers.
    cuts : where the intervals of a feature of numbers end, but the last.
    """

    n_codes: int | None
    cuts: Float64

    @property
    def n_intervals(self) -> int:
        """How many intervals there are, null's too."""
        return (len(self.cuts) + 1 if self.n_codes is None else self.n_codes + 1) + 1

    def points(self) -> tuple[Float64, Float64, Float64]:
        """Give a point of every interval but null's: its first, one in the middle, and its last."""
        if self.n_codes is not None:
            codes = np.array([UNSEEN, *range(self.n_codes)], dtype=np.float64)
            return codes, codes, codes
        last = keys_of(np.append(self.cuts, np.inf))
        first = np.append(keys_of(np.array([-np.inf])), last[:-1] + np.uint64(1))
        return numbers_of(first), numbers_of(first + (last - first) // np.uint64(2)), numbers_of(last)


@dataclass(frozen=True)
class Slot:
    """The bins of one slot by interval of its feature.

    Parameters
    ----------
    feature : its place.
    n : how many intervals there are, null's is the last.
    usual : the bin in all of them but those listed.
    intervals, bins : the others.
    """

    feature: int
    n: int
    usual: int
    intervals: Int64
    bins: Int64

    def dense(self) -> Int64:
        """Give the bin of each interval."""
        bins = np.full(self.n, self.usual)
        bins[self.intervals] = self.bins
        return bins


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
        made = list(_slots(place, last, splits, nodes))
        if axes[place].n_codes is None:
            _check_monotone(made, [_slots(place, other, splits, nodes) for other in (first, middle)])
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


Made = tuple[Slot, Int64, Int64]


def _slots(place: int, y: Float64, splits: Splits, nodes: Int64) -> Iterator[Made]:
    """Make the slots of one column: each with the nodes that look at it, and the bins they compare with.

    Parameters
    ----------
    y : the column by interval of the feature at `place`.
    """
    by_code = splits.mode[nodes] == EQ
    if by_code.any():
        yield from _equal(place, y, splits.threshold, nodes[by_code])
    ordered = nodes[~by_code]
    strict = bool(np.any(splits.mode[ordered] == LT))
    # Where null can come it goes left at some splits and right at others: two slots.
    sides = splits.missing_left[ordered] & np.isnan(y).any()
    for left in np.unique(sides):
        mine = ordered[sides == left]
        thresholds, bins = np.unique(splits.threshold[mine], return_inverse=True)
        for start in range(0, len(thresholds), _SLOT_THRESHOLDS):
            some = thresholds[start : start + _SLOT_THRESHOLDS]
            ranks = np.searchsorted(some, y, side="right" if strict else "left")
            ranks[np.isnan(y)] = 0 if left else len(some)
            here = (bins >= start) & (bins < start + len(some))
            yield _slot(place, ranks), mine[here], bins[here] - start


def _slot(place: int, bins: Int64) -> Slot:
    usual = int(np.bincount(bins).argmax())
    others = np.flatnonzero(bins != usual)
    return Slot(place, len(bins), usual, others, bins[others])


def _equal(place: int, y: Float64, thresholds: Float64, nodes: Int64) -> Iterator[Made]:
    """Make a slot for every code that is asked for: 0 where the column is that code, else 1."""
    order = np.argsort(y, kind="stable")
    codes, which = np.unique(thresholds[nodes], return_inverse=True)
    begin, end = (np.searchsorted(y[order], codes, side=side) for side in ("left", "right"))
    by_code = np.argsort(which, kind="stable")
    counts = np.bincount(which, minlength=len(codes))
    stops = np.cumsum(counts)
    for i in range(len(codes)):
        chosen = nodes[by_code[stops[i] - counts[i] : stops[i]]]
        hits = np.sort(order[begin[i] : end[i]])
        yield Slot(place, len(y), 1, hits, np.zeros(len(hits), np.int64)), chosen, np.zeros(len(chosen), np.int64)


def _check_monotone(made: list[Made], others: list[Iterator[Made]]) -> None:
    for other in others:
        for (slot, _, _), (again, _, _) in zip(made, other, strict=True):
            if not np.array_equal(slot.dense(), again.dense()):
                raise NotCompilable("trees", "a column is not monotone where it was taken to be")
