"""The single trees of an original: what each of them says of a row, and by which way.

They are read from the arrays that shap's TreeExplainer keeps of them, which are in the explainer's file anyhow.

Layer L3; imports numpy only, and pandas comes with the frames.

Source: shap's `TreeEnsemble`: a row goes left up to the threshold, and a node holds what its leaves give on average.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlead.dashboard.explainer.attribution import Array, ExactAttribution, TreesStep
from fairlead.dashboard.explainer.tree_columns import Split

if TYPE_CHECKING:
    import pandas as pd

_CATEGORICAL = 1  # a threshold that is a set
# What the trees give together is the prediction, but for so much of the largest one: xgboost adds in float32.
_TOLERANCE = 1e-5
_TRIED_ROWS = 20
# What is less than so much of a tree's largest value is left from adding up.
_NOTHING = 1e-7


@dataclass(frozen=True)
class Turn:
    """A node on the way of a row.

    Parameters
    ----------
    node : its number.
    column : of the matrix, that it looks at.
    split : where it sends rows.
    number : of the row, in that column.
    value, next_value : what the tree gives on average here, and at the next node.
    """

    node: int
    column: int
    split: Split
    number: float
    value: float
    next_value: float


class DecisionTrees:
    """The trees that an attribution explains.

    Parameters
    ----------
    attribution : its step has trees.

    Attributes
    ----------
    is_mean : whether the prediction is the mean of what the trees say, as of a forest; else they are added up, each of
        them correcting the ones before.
    n_trees : how many there are; of those that are added up, for each class.
    """

    def __init__(self, attribution: ExactAttribution) -> None:
        self._attribution = attribution
        step: Any = attribution.step
        self._arrays = step.inner.model
        self._is_classifier = hasattr(attribution.served, "classes_")
        self._is_xgboost = self._arrays.model_type == "xgboost"
        self._n_stacked = int(self._arrays.num_stacked_models)
        # Of scikit-learn's, boosted trees begin from a number, or give the log-odds of a class.
        is_sum = self._arrays.tree_output == "log_odds" or np.any(self._arrays.base_offset)
        self.is_mean = self._arrays.model_type == "internal" and not is_sum
        limit = getattr(self._arrays, "tree_limit", None) or len(self._arrays.features)
        self._n_used = min(int(limit), len(self._arrays.features))
        self.n_trees = self._n_used // self._n_stacked

    def rows(self, frame: pd.DataFrame) -> Array:
        """Make what the trees look at of rows as shown: shape (n_rows, n_columns), rounded as the library does."""
        kind = np.float32 if self._is_xgboost else self._arrays.input_dtype
        found: Array = self._attribution.matrix(frame).astype(kind).astype(np.float64)
        return found

    def predictions(self, row: Array, label: int) -> Array:
        """Say what comes of the trees.

        Parameters
        ----------
        label : the class, 0 for a regression.

        Returns
        -------
        Probabilities, or numbers for a regression. Of trees that are a mean, what each predicts: shape (n_trees,).
        Else what is predicted before the first and after each: shape (n_trees + 1,).
        """
        values = self._arrays.values[np.arange(self._n_used), self._leaves(row)]
        if self.is_mean:
            mean: Array = values[:, label] * self.n_trees
            return mean
        rounds = values.reshape(self.n_trees, self._n_stacked, -1).sum(axis=1)
        margins = self._arrays.base_offset + np.concatenate([np.zeros((1, rounds.shape[1])), rounds.cumsum(axis=0)])
        if not self._is_classifier:
            numbers: Array = margins[:, 0]
            return numbers
        if margins.shape[1] == 1:
            margins = np.concatenate([np.zeros_like(margins), margins], axis=1)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        probabilities: Array = (powers / powers.sum(axis=1, keepdims=True))[:, label]
        return probabilities

    def prediction(self, row: Array, label: int) -> float:
        """Say what is predicted by all trees together."""
        found = self.predictions(row, label)
        return float(found.mean() if self.is_mean else found[-1])

    def path(self, row: Array, tree: int, label: int) -> list[Turn]:
        """Go the way of a row through a tree; nothing where the tree is a leaf."""
        number, values = self.tree(tree, label)
        found = []
        node = 0
        while (split := self.split(number, node)) is not None:
            column = self.column(number, node)
            then = self.children(number, node)[not split.sends_left(row[column])]
            found.append(Turn(node, column, split, float(row[column]), float(values[node]), float(values[then])))
            node = then
        return found

    def tree(self, tree: int, label: int) -> tuple[int, Array]:
        """Give a tree's number in the arrays, and what its nodes give: probabilities of a forest, else what is added.

        Parameters
        ----------
        tree : from 0 on, below `n_trees`.
        label : the class, 0 for a regression.
        """
        number = tree * self._n_stacked + (label if self._n_stacked > 1 else 0)
        several = self._arrays.values[number].astype(np.float64)
        is_other = several.shape[1] == 1 and self._is_classifier and label == 0
        values: Array = several[:, 0 if several.shape[1] == 1 else label] * (-1 if is_other else 1)
        if self.is_mean:
            values = values * self.n_trees
        if self._is_xgboost:
            self._average(number, values)
        return number, np.where(np.abs(values) < _NOTHING * np.abs(values).max(), 0.0, values)

    def _average(self, number: int, values: Array) -> None:
        """Put into inner nodes what their leaves give on average, which shap does for all but xgboost."""
        order = [0]
        for node in order:
            if self.split(number, node) is not None:
                order += self.children(number, node)
        for node in reversed(order):
            if self.split(number, node) is not None:
                below = list(self.children(number, node))
                values[node] = np.average(values[below], weights=self._arrays.node_sample_weight[number, below])

    def split(self, number: int, node: int) -> Split | None:
        """Say where a node sends rows; None of a leaf."""
        left = self._arrays.children_left[number, node]
        if left < 0:
            return None
        threshold = self._arrays.thresholds[number, node]
        if self._is_xgboost:  # shap moved it to the number before
            threshold = np.nextafter(np.float32(threshold), np.float32(np.inf))
        missing_left = bool(self._arrays.children_default[number, node] == left)
        return Split(float(threshold), missing_left, is_strict=self._is_xgboost)

    def children(self, number: int, node: int) -> tuple[int, int]:
        """Give the nodes to the left and to the right."""
        arrays = self._arrays
        return int(arrays.children_left[number, node]), int(arrays.children_right[number, node])

    def n_leaves(self, number: int) -> int:
        """Count the leaves of a tree."""
        return (int(self._arrays.num_nodes[number]) + 1) // 2

    def column(self, number: int, node: int) -> int:
        """Give the column that a node looks at."""
        return int(self._arrays.features[number, node])

    def adds_up(self, frame: pd.DataFrame) -> bool:
        """Whether the trees give the predictions of rows, and are all of a kind that can be told."""
        if (self._arrays.threshold_types == _CATEGORICAL).any():
            return False
        if self._n_stacked not in (1, self._arrays.values.shape[2]) or self._n_used % self._n_stacked:
            return False  # several trees a class in each round
        tried = frame.head(_TRIED_ROWS)
        wanted = self._attribution.served.outputs(tried)
        labels = range(wanted.shape[1])
        found = np.array([[self.prediction(row, label) for label in labels] for row in self.rows(tried)])
        return bool(np.abs(found - wanted).max() <= _TOLERANCE * max(1e-300, float(np.abs(wanted).max())))

    def _leaves(self, row: Array) -> Any:
        """Find where a row comes to in each tree."""
        arrays, trees = self._arrays, np.arange(self._n_used)
        nodes = np.zeros(self._n_used, dtype=np.int64)
        while True:
            left = arrays.children_left[trees, nodes]
            is_leaf = left < 0
            if is_leaf.all():
                return nodes
            numbers = row[np.maximum(arrays.features[trees, nodes], 0)]  # a leaf looks at none
            to_left = numbers <= arrays.thresholds[trees, nodes]
            there = np.where(to_left, left, arrays.children_right[trees, nodes])
            there = np.where(np.isnan(numbers), arrays.children_default[trees, nodes], there)
            nodes = np.where(is_leaf, nodes, there)


def trees_of(attribution: Any, frame: pd.DataFrame) -> DecisionTrees | None:
    """Find the single trees of a model.

    Parameters
    ----------
    frame : rows as shown, by which it is seen whether the trees are all that makes the prediction.

    Returns
    -------
    None where there are none, or more than they makes the prediction.
    """
    if not isinstance(attribution, ExactAttribution) or not isinstance(attribution.step, TreesStep):
        return None
    arrays = attribution.step.inner.model
    if getattr(arrays, "features", None) is None:
        return None  # shap did not read them
    if arrays.model_type == "xgboost":
        arrays.base_offset = _base_of_xgboost(arrays)
    try:
        trees = DecisionTrees(attribution)
        return trees if trees.adds_up(frame) else None
    except (AttributeError, IndexError):  # of some libraries' trees shap has arrays of other shapes
        return None


def _base_of_xgboost(arrays: Any) -> Array:
    """Give what the trees of each class begin from: shap 0.51 takes that of the first class for all."""
    told = json.loads(arrays.original_model.save_config())["learner"]["learner_model_param"]["base_score"]
    base = np.atleast_1d(np.asarray(json.loads(told), dtype=np.float64))
    # Of one class it is a probability, which shap makes log-odds of.
    return base if len(base) > 1 else np.asarray(arrays.base_offset, dtype=np.float64)
