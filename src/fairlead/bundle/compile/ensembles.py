"""Tree ensembles of every library as one ONNX node, to the last bit but for forests of several classes.

ONNX's `TreeEnsemble` (ai.onnx.ml 5) takes float64 splits and leaves, so a tree compares and adds as the
original does: scikit-learn rounds its input to float32 and compares it with float64 thresholds, LightGBM
keeps float64 throughout, xgboost float32. What stands before the first tree (a prior, a base score) is
added first, as a tree of one leaf, because floating-point sums depend on their order.

A split on a one-hot column becomes a comparison with the category's code, so that the one-hot matrix
is never made.

Source: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.ml.v4 as ml4
import spox.opset.ai.onnx.ml.v5 as ml
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Columns, Compilation, Float64, Indicator, Value, computed, constant, gather

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
LEQ, LT, EQ = 0, 1, 4
# onnxruntime (1.31) merges a chain of BRANCH_EQ over the whole numbers 1 to 64 into one test of membership,
# and loses the branches that lead elsewhere. Codes moved off the whole numbers are compared one by one.
_OFF_WHOLE = 0.5
_NO_CODE = -2.0
_MODE_NAMES = {LEQ: "BRANCH_LEQ", LT: "BRANCH_LT", EQ: "BRANCH_EQ"}


@dataclass(frozen=True)
class Tree:
    """One tree; arrays of shape (n_nodes,), the root first.

    Parameters
    ----------
    feature : the column that an inner node looks at.
    threshold : float64; a value at most this (less than this, in xgboost) goes left.
    left, right : children; -1 in a leaf.
    missing_left : where NaN goes.
    value : float64, shape (n_nodes, n_values): what a leaf adds.
    target : the output that a tree of one value adds to.
    """

    feature: Int64
    threshold: Float64
    left: Int64
    right: Int64
    missing_left: Bool
    value: Float64
    target: int = 0


@dataclass(frozen=True)
class Ensemble:
    """Trees and how they compare and add.

    Parameters
    ----------
    trees : in the order in which they are added.
    n_targets : outputs.
    base : float64, shape (n_targets,): where the sum starts.
    round_input : round the input to float32 first, as scikit-learn and xgboost do.
    strict : left is ``<`` and not ``<=``.
    single : add in float32, as xgboost does.
    """

    trees: Sequence[Tree]
    n_targets: int = 1
    base: Float64 | None = None
    round_input: bool = True
    strict: bool = False
    single: bool = False


def leaf_of(value: float, target: int) -> Tree:
    """Make the tree of one leaf."""
    none = np.array([-1])
    return Tree(np.array([0]), np.zeros(1), none, none, np.zeros(1, bool), np.array([[value]]), target)


@dataclass(frozen=True)
class Added:
    """A compiled ensemble, and what it was compiled of, for folding it into a forest.

    Parameters
    ----------
    sums : float64 (float32 when `single`), shape (n_rows, n_targets).
    trees : the base first, as trees of one leaf.
    splits : of all trees; a split's `feature` is a column of `features`.
    features : what splits compare, shape (n_rows, n_columns), rounded as the original rounds.
    values : by column of `features`, what it was made of.
    """

    sums: Var
    ensemble: Ensemble
    trees: Sequence[Tree]
    splits: Splits
    features: Var
    values: Sequence[Value]


def add_up(ensemble: Ensemble, columns: Columns, compilation: Compilation) -> Added:
    """Compile an ensemble."""
    base = () if ensemble.base is None else ensemble.base
    trees = [*(leaf_of(float(value), target) for target, value in enumerate(base)), *ensemble.trees]
    columns = _foldable(columns)
    splits = _fold(Splits.of(trees, ensemble.strict), columns, ensemble)
    _note_thresholds(splits, columns, compilation)
    values, slots, shift = _slots(columns)
    features = gather(values)
    if shift.any():
        features = op.add(features, constant(shift[np.newaxis, :]))
    if ensemble.round_input:
        features = op.cast(features, to=np.float32)
    if not ensemble.single:
        features = op.cast(features, to=np.float64)
    splits = replace(splits, feature=slots[splits.feature])
    add = _many_values if trees[0].value.shape[1] > 1 else _one_value
    return Added(add(trees, splits, features, ensemble), ensemble, trees, splits, features, values)


@dataclass(frozen=True)
class Splits:
    """All nodes of all trees, one after the other; `left` and `right` count from the tree's own root."""

    feature: Int64
    threshold: Float64
    mode: npt.NDArray[np.uint8]
    left: Int64
    right: Int64
    missing_left: Bool
    offset: Int64
    tree: Int64

    @classmethod
    def of(cls, trees: Sequence[Tree], strict: bool) -> Splits:
        sizes = np.array([len(tree.left) for tree in trees])
        n_nodes = int(sizes.sum())
        return cls(
            feature=np.concatenate([np.where(tree.left < 0, 0, tree.feature) for tree in trees]).astype(np.int64),
            threshold=np.concatenate([tree.threshold for tree in trees]).astype(np.float64),
            mode=np.full(n_nodes, LT if strict else LEQ, dtype=np.uint8),
            left=np.concatenate([tree.left for tree in trees]).astype(np.int64),
            right=np.concatenate([tree.right for tree in trees]).astype(np.int64),
            missing_left=np.concatenate([tree.missing_left for tree in trees]).astype(bool),
            offset=np.repeat(np.cumsum(sizes) - sizes, sizes).astype(np.int64),
            tree=np.repeat(np.arange(len(trees)), sizes).astype(np.int64),
        )

    @property
    def is_leaf(self) -> Bool:
        return self.left < 0


def _foldable(columns: Columns) -> Columns:
    """Compute the indicators that a split cannot stand for: those over plain numbers, which rounding would move."""
    odd = [i for i, c in enumerate(columns) if isinstance(c, Indicator) and c.source.categories is None]
    made = dict(zip(odd, computed([columns[i] for i in odd]), strict=True))
    return tuple(made.get(i, column) for i, column in enumerate(columns))


def _fold(splits: Splits, columns: Columns, ensemble: Ensemble) -> Splits:
    """Turn splits on one-hot columns into comparisons with the category's code."""
    sides = [(c.on, c.off, c.value) if isinstance(c, Indicator) else (0.0, 0.0, 0.0) for c in columns]
    on, off, code = np.array(sides, dtype=np.float64).T
    is_one_hot = np.array([isinstance(column, Indicator) for column in columns])
    here = is_one_hot[splits.feature] & ~splits.is_leaf
    on_left, off_left = (_goes_left(side[splits.feature], splits, ensemble) for side in (on, off))
    # A split may send both values of a column the same way; then no code is to be equal.
    code_of = np.where(on_left == off_left, _NO_CODE, code[splits.feature])
    swap = here & off_left
    return replace(
        splits,
        threshold=np.where(here, code_of + _OFF_WHOLE, splits.threshold),
        mode=np.where(here, EQ, splits.mode).astype(np.uint8),
        left=np.where(swap, splits.right, splits.left),
        right=np.where(swap, splits.left, splits.right),
        missing_left=splits.missing_left & ~here,
    )


def _goes_left(side: Float64, splits: Splits, ensemble: Ensemble) -> Bool:
    rounded = side.astype(np.float32).astype(np.float64) if ensemble.round_input else side
    left = rounded < splits.threshold if ensemble.strict else rounded <= splits.threshold
    return np.where(np.isnan(rounded), splits.missing_left, left)


def _note_thresholds(splits: Splits, columns: Columns, compilation: Compilation) -> None:
    inner = ~splits.is_leaf
    for i, column in enumerate(columns):
        if isinstance(column, Value):
            compilation.note_thresholds(column, np.unique(splits.threshold[inner & (splits.feature == i)]))


def _slots(columns: Columns) -> tuple[list[Value], Int64, Float64]:
    """Find the distinct columns that splits read, where each input column is among them, and what is added to them."""
    places: dict[tuple[int, int, bool], int] = {}
    values: list[Value] = []
    slots = []
    for column in columns:
        value = column.source if isinstance(column, Indicator) else column
        place = places.setdefault((id(value.tensor), value.index, isinstance(column, Indicator)), len(values))
        if place == len(values):
            values.append(value)
        slots.append(place)
    shift = [_OFF_WHOLE if is_code else 0.0 for _, _, is_code in places]
    return values, np.array(slots, dtype=np.int64), np.array(shift)


def _one_value(trees: Sequence[Tree], splits: Splits, features: Var, ensemble: Ensemble) -> Var:
    dtype = np.float32 if ensemble.single else np.float64
    is_leaf = splits.is_leaf
    # Inner nodes and leaves are numbered apart. A tree that is a leaf needs an inner node all the same.
    starts = np.flatnonzero(np.diff(splits.tree, prepend=-1))
    is_inner = ~is_leaf
    is_inner[starts] = True
    inner_number, leaf_number = np.cumsum(is_inner) - 1, np.cumsum(is_leaf) - 1
    lonely = is_leaf & is_inner
    here = np.flatnonzero(is_inner)
    own = here - splits.offset[here]
    left = np.where(lonely[here], own, splits.left[here]) + splits.offset[here]
    right = np.where(lonely[here], own, splits.right[here]) + splits.offset[here]
    missing_left = splits.missing_left[here]
    weights = np.concatenate([tree.value[:, 0] for tree in trees])[is_leaf]
    targets = np.array([tree.target for tree in trees])[splits.tree[is_leaf]]
    return ml.tree_ensemble(
        features,
        n_targets=ensemble.n_targets,
        tree_roots=inner_number[starts].tolist(),
        nodes_featureids=splits.feature[here].tolist(),
        nodes_splits=splits.threshold[here].astype(dtype),
        nodes_modes=splits.mode[here],
        nodes_truenodeids=np.where(is_leaf[left], leaf_number[left], inner_number[left]).tolist(),
        nodes_trueleafs=is_leaf[left].astype(int).tolist(),
        nodes_falsenodeids=np.where(is_leaf[right], leaf_number[right], inner_number[right]).tolist(),
        nodes_falseleafs=is_leaf[right].astype(int).tolist(),
        # Left out where nothing is: a tenth of the file and of the time to open it.
        nodes_missing_value_tracks_true=missing_left.astype(int).tolist() if missing_left.any() else None,
        leaf_targetids=targets.tolist(),
        leaf_weights=weights.astype(dtype),
    )


def _many_values(trees: Sequence[Tree], splits: Splits, features: Var, ensemble: Ensemble) -> Var:
    """Leaves with several values, which only the older node has; it adds in float64 and answers in float32."""
    is_leaf = splits.is_leaf
    leaves = np.flatnonzero(is_leaf)
    value = np.concatenate([tree.value for tree in trees])[leaves]
    row, target = np.nonzero(value)
    number = np.arange(len(is_leaf)) - splits.offset
    modes = np.where(is_leaf, "LEAF", np.vectorize(_MODE_NAMES.__getitem__)(splits.mode))
    summed = ml4.tree_ensemble_regressor(
        features,
        n_targets=ensemble.n_targets,
        nodes_treeids=splits.tree.tolist(),
        nodes_nodeids=number.tolist(),
        nodes_featureids=splits.feature.tolist(),
        nodes_values_as_tensor=splits.threshold,
        nodes_modes=modes.tolist(),
        nodes_truenodeids=np.where(is_leaf, 0, splits.left).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, splits.right).tolist(),
        nodes_missing_value_tracks_true=splits.missing_left.astype(int).tolist(),
        target_treeids=splits.tree[leaves][row].tolist(),
        target_nodeids=number[leaves][row].tolist(),
        target_ids=target.tolist(),
        target_weights_as_tensor=value[row, target],
    )
    return op.cast(summed, to=np.float64)
