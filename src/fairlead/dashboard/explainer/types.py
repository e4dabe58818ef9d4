"""The library's explainers, for features of every kind and for what a browser may send.

Layer L3; imports explainerdashboard, so it is imported where an explainer is made or loaded. A store's file names these
classes: they stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fairlead.dashboard.environment import library
from fairlead.dashboard.explainer.decision_trees import DecisionTrees
from fairlead.dashboard.explainer.tree_plots import Scale, bars_of_mean, bars_of_sum, drawn
from fairlead.errors import FairleadError

library()

from dash.exceptions import PreventUpdate  # noqa: E402 -- the environment comes first
from explainerdashboard.explainers import ClassifierExplainer, RegressionExplainer  # noqa: E402 -- as above

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.dashboard.explainer.attribution import Attribution
    from fairlead.dashboard.explainer.tree_columns import Column

# What one request of a browser may ask of a partial dependence.
_MOST_SAMPLED = 500
_MOST_POINTS = 50
# A partial dependence is drawn of two rows beside the chosen one.
FEWEST_ROWS = 3


class _OfFeatures:
    """What both kinds have in common: `model` is a `Served`, X holds features as they are shown.

    Parameters
    ----------
    attribution : its SHAP explainer, which the library finds in place and does not look for another.

    Attributes
    ----------
    keeps_one_label : whether SHAP values are those of `pos_label` alone.
    notes : what the user should know of how it was made.
    """

    # What the library's explainer has.
    model: Any
    X: pd.DataFrame
    idxs: Any
    na_fill: float
    target: str
    units: str
    is_classifier: bool
    pos_label: int
    pos_label_index: Callable[[Any], int]
    get_X_row: Callable[[Any], pd.DataFrame]  # noqa: N815  # the library calls it so
    get_y: Callable[[Any], Any]

    keeps_one_label = False
    notes: tuple[str, ...] = ()
    _tree_columns: tuple[Column, ...] = ()

    def __init__(self, attribution: Attribution, *args: Any, **kwargs: Any) -> None:
        self._shap_explainer = attribution
        super().__init__(*args, **kwargs)

    def get_row_from_input(self, inputs: Any, ranked_by_shap: bool = False, return_merged: bool = False) -> Any:
        """Make a row of what was typed.

        Raises
        ------
        PreventUpdate
            When something is not filled in, or the model refuses the row: there is nothing to be shown then.
        """
        flat = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], list | tuple) else inputs
        if any(value is None or value == "" for value in flat):
            raise PreventUpdate
        row = super().get_row_from_input(inputs, ranked_by_shap)  # type: ignore[misc]  # the other base has it
        try:
            self.model.outputs(row)
        except FairleadError as error:
            raise PreventUpdate from error
        for column in self.model.display.whole():
            if not float(row[column].iloc[0]).is_integer():
                raise PreventUpdate
        return super().get_row_from_input(inputs, ranked_by_shap, True) if return_merged else row  # type: ignore[misc]  # the other base has it

    def pdp_df(self, col: str, *args: Any, sample: Any = 500, n_grid_points: Any = 10, **kwargs: Any) -> pd.DataFrame:
        """Bound what is asked, and give integers as integers."""
        if not _is_count(sample) or not _is_count(n_grid_points):
            raise PreventUpdate
        if col in self.X and (self.X[col] != self.na_fill).sum() < FEWEST_ROWS:
            kwargs["drop_na"] = False  # nothing would be left
        sample, points = (
            max(2, min(int(asked), most)) for asked, most in ((sample, _MOST_SAMPLED), (n_grid_points, _MOST_POINTS))
        )
        found: pd.DataFrame = super().pdp_df(col, *args, sample=sample, n_grid_points=points, **kwargs)  # type: ignore[misc]  # the other base has it
        if col not in self.model.display.whole():
            return found
        found.columns = [round(float(value)) for value in found.columns]  # as `Display.table` did
        return found.loc[:, ~found.columns.duplicated()]

    def get_idx_sample(
        self, sample_size: int | None = None, include_index: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Leave out an index of a row from outside, which is in no sample."""
        if isinstance(include_index, str) and include_index not in self.idxs:
            include_index = None
        return super().get_idx_sample(sample_size, include_index, *args, **kwargs)  # type: ignore[misc]  # the other base has it

    def top_shap_interactions(self, col: str, topx: int | None = None, pos_label: Any = None) -> list[str]:
        """Give an only feature twice: the library looks at the second."""
        found: list[str] = super().top_shap_interactions(col, topx=topx, pos_label=pos_label)  # type: ignore[misc]  # the other base has it
        return found if len(found) > 1 else found * 2

    @property
    def no_of_trees(self) -> int:
        """How many trees can be chosen."""
        return self._trees().n_trees

    def plot_trees(
        self, index: Any, highlight_tree: int | None = None, higher_is_better: bool = True, pos_label: Any = None
    ) -> Any:
        """Draw what each tree makes of a row's prediction."""
        trees, label = self._trees(), self._label(pos_label)
        y = self.get_y(index)
        if y is not None and self.is_classifier:
            y = float(y == label)
        predictions = trees.predictions(trees.rows(self.get_X_row(index))[0], label)
        if trees.is_mean:
            return bars_of_mean(predictions, self._scale(), y, highlight_tree)
        return bars_of_sum(predictions, self._scale(), y, highlight_tree, higher_is_better)

    def get_decisionpath_summary_df(self, tree_idx: int, index: Any, pos_label: Any = None) -> Any:
        """Tell the way of a row through a tree, one node after the other; nothing without a row."""
        import pandas as pd

        names = ["Feature", "Condition", "Adjustment", "New Prediction"]
        if index is None:
            return pd.DataFrame(columns=names)
        frame = self.get_X_row(index)
        told = self._told_path(frame, self._checked(tree_idx), self._label(pos_label))
        return pd.DataFrame(told, columns=names)

    def decisiontree_encoded(self, tree_idx: int, index: Any) -> str:
        """Draw a tree and the way of a row through it, as the address of an image."""
        trees, label = self._trees(), self._label(None)
        row = trees.rows(self.get_X_row(index))[0]
        return drawn(trees, self._tree_columns, self._checked(tree_idx), label, row, self._tree_scale())

    def _told_path(self, frame: pd.DataFrame, tree: int, label: int) -> list[tuple[str, str, str, str]]:
        trees, scale = self._trees(), self._tree_scale()
        row = trees.rows(frame)[0]
        turns = trees.path(row, tree, label)
        _, values = trees.tree(tree, label)
        told = [("", "", "Starting average", scale.text(float(values[0])))]
        for turn in turns:
            column = self._tree_columns[turn.column]
            value = frame[column.feature].iloc[0] if column.feature else None
            condition = column.condition(turn.split, value, turn.number)
            change = scale.text(turn.next_value - turn.value, signed=True)
            told.append((column.feature, condition, change, scale.text(turn.next_value)))
        return [*told, ("", "", "Final Prediction", told[-1][3])]

    def _trees(self) -> DecisionTrees:
        return DecisionTrees(self._shap_explainer)  # type: ignore[arg-type]  # the tab is there for such only

    def _checked(self, tree: int) -> int:
        if not 0 <= tree < self.no_of_trees:
            raise PreventUpdate
        return tree

    def _label(self, pos_label: Any) -> int:
        """Give the class that is meant, 0 for a regression."""
        if not self.is_classifier:
            return 0
        return int(self.pos_label if pos_label is None else self.pos_label_index(pos_label))

    def _scale(self) -> Scale:
        """Give what predictions are written as."""
        axis = f"Predicted {self.target}" if self.target else "Prediction"
        if self.is_classifier:
            return Scale(100, "%", f"{axis} (%)")
        units = self.units
        return Scale(1, f" {units}" if units else "", f"{axis} ({units})" if units else axis)

    def _tree_scale(self) -> Scale:
        """Give what the values of one tree are written as; boosted ones of a classifier move its log-odds."""
        is_margin = self.is_classifier and not self._trees().is_mean
        return Scale(1, " log-odds", "") if is_margin else self._scale()


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


class FeatureClassifier(_OfFeatures, ClassifierExplainer):  # type: ignore[misc]  # has no types
    """Explains a classifier."""


class FeatureRegression(_OfFeatures, RegressionExplainer):  # type: ignore[misc]  # has no types
    """Explains a regression."""
