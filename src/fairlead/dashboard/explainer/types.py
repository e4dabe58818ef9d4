"""The library's explainers, for features of every kind and for what a browser may send.

Layer L3; imports explainerdashboard, so it is imported where an explainer is made or loaded. A store's file names these
classes: they stay where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairlead.dashboard.environment import library
from fairlead.errors import FairleadError

library()

from dash.exceptions import PreventUpdate  # noqa: E402 -- the environment comes first
from explainerdashboard.explainers import ClassifierExplainer, RegressionExplainer  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.dashboard.explainer.attribution import Attribution

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

    keeps_one_label = False
    notes: tuple[str, ...] = ()

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
        row = super().get_row_from_input(inputs, ranked_by_shap)  # type: ignore[misc]
        for column in self.model.display.whole():  # type: ignore[attr-defined]
            if not float(row[column].iloc[0]).is_integer():
                raise PreventUpdate
        try:
            self.model.outputs(row)  # type: ignore[attr-defined]
        except FairleadError as error:
            raise PreventUpdate from error
        return super().get_row_from_input(inputs, ranked_by_shap, True) if return_merged else row  # type: ignore[misc]

    def pdp_df(self, col: str, *args: Any, sample: Any = 500, n_grid_points: Any = 10, **kwargs: Any) -> pd.DataFrame:
        """Bound what is asked, and give integers as integers."""
        if not _is_count(sample) or not _is_count(n_grid_points):
            raise PreventUpdate
        if col in self.X and (self.X[col] != self.na_fill).sum() < FEWEST_ROWS:  # type: ignore[attr-defined]
            kwargs["drop_na"] = False  # nothing would be left
        sample, points = (
            max(2, min(int(asked), most)) for asked, most in ((sample, _MOST_SAMPLED), (n_grid_points, _MOST_POINTS))
        )
        found: pd.DataFrame = super().pdp_df(col, *args, sample=sample, n_grid_points=points, **kwargs)  # type: ignore[misc]
        if col not in self.model.display.whole():  # type: ignore[attr-defined]
            return found
        found.columns = [round(float(value)) for value in found.columns]  # as `Display.table` did
        return found.loc[:, ~found.columns.duplicated()]

    def get_idx_sample(
        self, sample_size: int | None = None, include_index: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Leave out an index of a row from outside, which is in no sample."""
        if isinstance(include_index, str) and include_index not in self.idxs:  # type: ignore[attr-defined]
            include_index = None
        return super().get_idx_sample(sample_size, include_index, *args, **kwargs)  # type: ignore[misc]

    def top_shap_interactions(self, col: str, topx: int | None = None, pos_label: Any = None) -> list[str]:
        """Give an only feature twice: the library looks at the second."""
        found: list[str] = super().top_shap_interactions(col, topx=topx, pos_label=pos_label)  # type: ignore[misc]
        return found if len(found) > 1 else found * 2


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


class FeatureClassifier(_OfFeatures, ClassifierExplainer):  # type: ignore[misc]
    """Explains a classifier."""


class FeatureRegression(_OfFeatures, RegressionExplainer):  # type: ignore[misc]
    """Explains a regression."""
