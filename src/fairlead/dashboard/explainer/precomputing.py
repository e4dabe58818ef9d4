"""What an explainer is given or computes ahead, so that a board computes nothing of it again.

Layer L3; works on explainers of explainerdashboard, and imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlead.dashboard.explainer.decision_trees import trees_of
from fairlead.dashboard.explainer.performance import metrics
from fairlead.dashboard.explainer.tree_columns import columns_of

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.dashboard.explainer.attribution import Array
    from fairlead.dashboard.explainer.attribution_choice import Attributed

Step = Callable[[str, float], None]

# Interactions of a feature add up to its SHAP value, but for so much of the largest one.
_TOLERANCE = 1e-5


def set_shap_values(explainer: Any, base: Array, values: Array) -> None:
    """Hand over SHAP values: shape (n_rows, n_features, n_outputs), and their base, shape (n_outputs,)."""
    if explainer.is_classifier:
        explainer.set_shap_values(base.tolist(), [values[:, :, place] for place in range(values.shape[2])])
    else:
        explainer.set_shap_values(float(base[0]), values[:, :, 0])


def set_interactions(
    explainer: Any, made: Attributed, frame: pd.DataFrame, told: Callable[[float], None]
) -> str | None:
    """Compute interactions, or say why there are none."""
    try:
        found = made.attribution.interactions(frame, told)
    except Exception as error:  # shap has them for some kinds of trees only, and raises what it likes for others
        return f"no SHAP interactions: shap cannot compute them for this model ({type(error).__name__}: {error})"
    if found is None:
        return "no SHAP interactions: only trees have them"
    if not np.allclose(found.sum(axis=2), made.values, atol=_TOLERANCE * float(np.abs(made.values).max())):
        return "no SHAP interactions: those that shap gives do not add up to its values"
    if explainer.is_classifier:
        explainer.set_shap_interaction_values([found[..., place] for place in range(found.shape[3])])
    else:
        explainer.set_shap_interaction_values(found[..., 0])
    explainer.interactions_should_work = True
    return None


def set_decision_trees(explainer: Any, frame: pd.DataFrame) -> str | None:
    """Find out how single trees are told, or say why there are none; then the explainer has no `is_tree_explainer`."""
    attribution = explainer._shap_explainer
    if trees_of(attribution, frame) is None:
        return "no decision trees: only a model whose last step is trees has them, as shap reads them"
    explainer._tree_columns = columns_of(attribution, frame)
    explainer.is_tree_explainer = True
    return None


def compute_rest(explainer: Any, step: Step) -> None:
    """Have the library compute all that it would at the first look; it is not safe to leave that to threads."""
    step("importances", 0.8)
    if explainer.is_classifier and not explainer.y_missing:
        explainer._metrics = metrics(explainer.pred_probas_raw, explainer.y.to_numpy())
    explainer.calculate_properties(include_interactions=False)
    if explainer.y_missing:
        return
    step("performance", 0.95)
    if explainer.is_classifier:
        explainer.get_liftcurve_df()
        explainer.confusion_matrix()
    else:
        _ = explainer.residuals, explainer.abs_residuals


def keep_one_label(explainer: Any) -> None:
    """Let go of the SHAP values of all classes but the positive one, where there are three or more."""
    if explainer.is_classifier and len(explainer.labels) > 2:
        explainer.keep_shap_pos_label_only()
        explainer.keeps_one_label = True
