"""How a folded ensemble lies in memory: a `Forest`.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.bundle.compile.ensembles import Added, Splits
from fairlead.bundle.compile.slots import Axis, Slot
from fairlead.predict.forest import ENTRY, LEAF, NODE, Finish, Forest

Int64 = npt.NDArray[np.int64]


def forest_of(
    added: Added, finish: Finish, axes: Sequence[Axis], slots: Sequence[Slot], slot_of: Int64, bin_of: Int64
) -> Forest:
    """Lay a folded ensemble out.

    Parameters
    ----------
    slots : of all features.
    slot_of, bin_of : by node of `added.splits`, what it looks at and compares with.
    """
    ensemble, splits = added.ensemble, added.splits
    dtype = np.float32 if ensemble.single else np.float64
    base = np.zeros(ensemble.n_targets) if ensemble.base is None else np.asarray(ensemble.base, dtype=dtype)
    n_base = len(added.trees) - len(ensemble.trees)
    order, roots = _breadth_first(splits, n_base)
    leaves, nodes = _nodes(added, order, slot_of, bin_of)
    sizes, cuts, starts, entries = _intervals(axes, slots)
    return Forest(
        sizes=sizes,
        cuts=cuts,
        entry_starts=starts,
        entries=entries,
        # A leaf looks at a slot too, if in vain.
        usual=np.array([slot.usual for slot in slots] or [0], dtype=np.uint16),
        nodes=nodes,
        roots=roots.astype(np.uint32),
        targets=np.array([tree.target for tree in ensemble.trees], dtype=np.uint16),
        leaves=leaves.astype(dtype).astype(np.float64),
        base=base.astype(np.float64),
        finish=finish,
    )


def _breadth_first(splits: Splits, n_base: int) -> tuple[Int64, Int64]:
    """Order nodes by tree, then by depth, siblings side by side; what no walk reaches is left out.

    Returns
    -------
    Nodes in their new order, and the new places of the roots.
    """
    left, right = (side + splits.offset for side in (splits.left, splits.right))
    starts = np.flatnonzero(np.diff(splits.tree, prepend=-1))[n_base:]
    levels, here = [], starts
    while len(here):
        levels.append(here)
        inner = here[~splits.is_leaf[here]]
        here = np.column_stack([left[inner], right[inner]]).ravel()
    met = np.concatenate(levels) if levels else np.zeros(0, np.int64)
    # Level after level, so a stable sort by tree keeps the depths in order.
    order = met[np.argsort(splits.tree[met], kind="stable")]
    return order, np.flatnonzero(np.diff(splits.tree[order], prepend=-1))


def _nodes(added: Added, order: Int64, slot_of: Int64, bin_of: Int64) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    splits = added.splits
    is_leaf = splits.is_leaf[order]
    place = np.zeros(len(splits.left), np.int64)
    place[order] = np.arange(len(order))
    nodes = np.zeros(len(order), NODE)
    here = order[~is_leaf]
    nodes["bin"][~is_leaf] = bin_of[here]
    nodes["slot"] = np.where(is_leaf, LEAF, slot_of[order])
    nodes["child"][~is_leaf] = place[splits.left[here] + splits.offset[here]]
    width = added.ensemble.trees[0].value.shape[1] if added.ensemble.trees else 1
    n_base = len(added.trees) - len(added.ensemble.trees)
    values = np.concatenate([np.zeros((n_base, width)), *(tree.value for tree in added.ensemble.trees)])
    # Full-grown trees of a classifier have few different leaves.
    leaves, numbers = np.unique(values[order[is_leaf]], axis=0, return_inverse=True)
    nodes["child"][is_leaf] = numbers.ravel()
    return leaves, nodes


def _intervals(
    axes: Sequence[Axis], slots: Sequence[Slot]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.uint32], npt.NDArray[Any]]:
    """List what each interval changes, neighbours in which nothing changes made one."""
    sizes, cuts, counts, entries = [], [np.zeros(0)], [], [np.zeros(0, ENTRY)]
    for place, axis in enumerate(axes):
        mine = [number for number, slot in enumerate(slots) if slot.feature == place]
        kept = np.ones(axis.n_intervals, bool)
        if axis.n_codes is None:
            kept = _changing([slots[number] for number in mine], axis.n_intervals)
            cuts.append(axis.cuts[kept[1:-1]])
        sizes.append(int(kept.sum()) - 2 if axis.n_codes is None else ~axis.n_codes)
        new = np.cumsum(kept) - 1
        slot = np.concatenate([np.zeros(0, np.int64), *(np.full(len(slots[n].bins), n) for n in mine)])
        interval = np.concatenate([np.zeros(0, np.int64), *(slots[n].intervals for n in mine)])
        bins = np.concatenate([np.zeros(0, np.int64), *(slots[n].bins for n in mine)])
        order = np.flatnonzero(kept[interval])
        order = order[np.argsort(interval[order], kind="stable")]
        found = np.zeros(len(order), ENTRY)
        found["slot"], found["bin"] = slot[order], bins[order]
        entries.append(found)
        counts.append(np.bincount(new[interval[order]], minlength=int(kept.sum())))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return np.array(sizes, np.int32), np.concatenate(cuts), starts.astype(np.uint32), np.concatenate(entries)


def _changing(slots: Sequence[Slot], n: int) -> npt.NDArray[np.bool_]:
    """Say in which intervals some bin is another than in the one before; the first and null's count always."""
    kept = np.zeros(n, bool)
    kept[[0, -1]] = True
    for slot in slots:
        bins = slot.dense()
        kept[1:] |= bins[1:] != bins[:-1]
    return kept
