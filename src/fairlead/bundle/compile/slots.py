"""The intervals of a feature's axis, and what splits compare in them: slots.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.bundle.compile.axes import keys_of, numbers_of
from fairlead.bundle.compile.columns import Float64
from fairlead.bundle.compile.ensembles import EQ, LT, Splits
from fairlead.errors import NotCompilable
from fairlead.predict.encode import UNSEEN

Int64 = npt.NDArray[np.int64]
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


Made = tuple[Slot, Int64, Int64]


def slots_of(place: int, y: Float64, splits: Splits, nodes: Int64) -> Iterator[Made]:
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


def check_monotone(made: Sequence[Made], others: Sequence[Iterator[Made]]) -> None:
    """See that a column is the same throughout its intervals.

    Parameters
    ----------
    made, others : the slots by one point of each interval, and by others.

    Raises
    ------
    NotCompilable
        When it is not: the column turns where `Value.breaks` does not say so.
    """
    for other in others:
        for (slot, _, _), (again, _, _) in zip(made, other, strict=True):
            if not np.array_equal(slot.dense(), again.dense()):
                raise NotCompilable("trees", "a column is not monotone where it was taken to be")
