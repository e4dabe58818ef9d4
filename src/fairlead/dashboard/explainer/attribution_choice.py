"""Which SHAP values a model gets: those of its last step where they add up to the predictions, sampled ones else.

It is tried, not known: a model that is called linear may be anything, and trees behind a calibration no longer make the
prediction. Layer L3; shap is imported when trees are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.bundle.originals import load_original
from fairlead.bundle.read import Bundle
from fairlead.dashboard.explainer.attribution import (
    Array,
    Attribution,
    ExactAttribution,
    Explained,
    LinearStep,
    Origins,
    Told,
    TreesStep,
    adds_up,
    exact_attribution,
    in_chunks,
)
from fairlead.dashboard.explainer.preprocessing import Preprocessing, origins, split
from fairlead.dashboard.explainer.sampling import SampledAttribution
from fairlead.dashboard.explainer.served import Served
from fairlead.errors import DashboardError, FairleadError

if TYPE_CHECKING:
    import pandas as pd

# Rows by which it is found out what a model does with features.
_TRIED_ROWS = 100
# Rows against which trees are held to explain a probability; each costs as much as a row explained.
_BACKGROUND_ROWS = 100
_FEW_OF_A_CLASS = 10
_SEED = 47
_OTHERWISE = "the predictions are not what one linear step, or trees, give"


@dataclass(frozen=True)
class Attributed:
    """SHAP values of rows.

    Parameters
    ----------
    attribution : for the rows to come.
    values : shape (n_rows, n_features, n_outputs).
    rows : int64, the places of those rows among the ones that were given.
    notes : what the user should know.
    """

    attribution: Attribution
    values: Array
    rows: npt.NDArray[np.int64]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RowsToExplain:
    """Rows to be explained.

    Parameters
    ----------
    frame : as shown.
    outputs : what the model gives for them, shape (n_rows, n_outputs).
    y : the number of each row's class, or what was measured; None when nothing was.
    """

    frame: pd.DataFrame
    outputs: Array
    y: npt.NDArray[Any] | None

    def some(self, n_rows: int) -> RowsToExplain:
        """Draw rows, the same each time."""
        if n_rows >= len(self.frame):
            return self
        chosen = np.sort(np.random.default_rng(_SEED).choice(len(self.frame), n_rows, replace=False))
        return RowsToExplain(self.frame.iloc[chosen], self.outputs[chosen], None)


@dataclass(frozen=True)
class ModelOutput:
    """What SHAP values of a classifier are to add up to.

    Parameters
    ----------
    name : ``probability`` or ``logodds``; None for what is exact and cheap.
    is_firm : whether anything else is an error; explainerdashboard writes ``probability`` into every explainer.yaml,
        and does not keep to it.
    """

    name: str | None
    is_firm: bool


def attribute(bundle: Bundle, served: Served, rows: RowsToExplain, wanted: ModelOutput, told: Told) -> Attributed:
    """Compute SHAP values.

    Parameters
    ----------
    bundle : whose original is looked into.
    served : its model.
    told : is told what share is done.

    Raises
    ------
    DashboardError
        When SHAP values of this model cannot add up to what is wanted.
    """
    if not hasattr(served, "classes_"):
        if wanted.is_firm:
            raise DashboardError(f"model_output: expected none for a regression, got {wanted.name}: leave it out")
        wanted = ModelOutput(None, is_firm=False)
    exact, reason = _exact(bundle, served, rows, wanted)
    if exact is not None:
        values = exact.values(rows.frame, told)
        if adds_up(exact.base, values, rows.outputs, exact.space):
            notes = _check_space(exact, wanted)
            return Attributed(exact, values, np.arange(len(rows.frame)), notes)
        reason = _OTHERWISE
    sampled = SampledAttribution(served, rows.frame)
    notes = [*_check_space(sampled, wanted), f"SHAP values are sampled: {reason}"]
    places = _spread(rows.y, len(rows.frame), sampled.most_rows)
    if len(places) < len(rows.frame):
        notes.append(f"{len(places)} of {len(rows.frame)} rows are kept: to sample SHAP values of more takes too long")
    return Attributed(sampled, sampled.values(rows.frame.iloc[places], told), places, notes)


def _check_space(attribution: Attribution, wanted: ModelOutput) -> list[str]:
    if wanted.name in (None, attribution.space):
        return []
    said = f"model_output: SHAP values of this model add up to its {attribution.space}, not to {wanted.name}"
    if wanted.is_firm:
        raise DashboardError(f"{said}: leave it out")
    return [said]


def _exact(
    bundle: Bundle, served: Served, rows: RowsToExplain, wanted: ModelOutput
) -> tuple[ExactAttribution | None, str]:
    """Look into the original; where that is of no use, say why."""
    manifest = bundle.manifest
    if manifest.kind == "function":
        return None, "the model is a class of its own"
    try:
        steps, last = split(load_original(bundle))
    except FairleadError as error:
        return None, f"the original cannot be loaded here: {error}"
    preprocessing = Preprocessing(manifest.model_schema, manifest.input_form, steps, _absent(last))
    tried = rows.some(_TRIED_ROWS)
    found = _origins(served, preprocessing, tried.frame, rows.frame)
    if found is None:
        return None, "what comes before its last step does not keep features apart, or gives no numbers"

    def matrix(frame: pd.DataFrame) -> Array:
        return preprocessing.matrix(served.model_rows(frame))

    def attribution(step: Explained | None) -> ExactAttribution | None:
        if step is None:
            return None
        return exact_attribution(served, preprocessing, step, found, tried.frame, tried.outputs)

    row = matrix(rows.frame.iloc[:1])
    made = attribution(_linear(last, lambda: _means(matrix, rows.frame))) or attribution(_trees(last, row))
    if made is None or made.space == "probability" or wanted.name != "probability":
        return made, _OTHERWISE
    background = matrix(rows.some(_BACKGROUND_ROWS).frame)
    held = _trees(last, row, background, feature_perturbation="interventional", model_output="probability")
    return attribution(held) or (None if wanted.is_firm else made), "its own add up to log-odds, not to the probability"


def _origins(served: Served, preprocessing: Preprocessing, frame: pd.DataFrame, every: pd.DataFrame) -> Origins | None:
    display = served.display

    def matrix(records: Sequence[Mapping[str, Any]]) -> Array:
        return preprocessing.matrix(served.model_rows(display.frame(records, [""] * len(records))))

    try:
        places = origins(matrix, display.records(frame), display.schema, display.records(every))
    except Exception:  # a step, or the user's own code, may raise anything for a row that nobody has seen
        return None
    return None if places is None else Origins(places, len(display.columns))


def _absent(last: Any) -> float:
    """Tell what a step takes numbers for that a sparse matrix does not hold: for XGBoost alone they are missing."""
    return np.nan if type(last).__module__.startswith("xgboost.") else 0.0


def _linear(last: Any, means: Callable[[], Array]) -> LinearStep | None:
    if not hasattr(last, "coef_") or not hasattr(last, "intercept_"):
        return None
    weights = np.atleast_2d(np.asarray(last.coef_, dtype=np.float64))
    middle = means()
    if not np.isfinite(middle).all() or weights.shape[1] != len(middle):
        return None
    return LinearStep(weights, middle, weights @ middle + np.asarray(last.intercept_, dtype=np.float64))


def _means(matrix: Callable[[pd.DataFrame], Array], frame: pd.DataFrame) -> Array:
    def sums(part: pd.DataFrame) -> Array:
        found: Array = matrix(part).sum(axis=0, keepdims=True)
        return found

    found: Array = in_chunks(frame, _TRIED_ROWS, sums, lambda share: None).sum(axis=0) / len(frame)
    return found


def _trees(last: Any, row: Array, *background: Array, **options: str) -> TreesStep | None:
    import shap

    try:
        return TreesStep(shap.TreeExplainer(last, *background, **options), row)
    except Exception:  # shap raises what it likes for a model that it does not know
        return None


def _spread(y: npt.NDArray[Any] | None, n_rows: int, most: int) -> npt.NDArray[np.int64]:
    """Choose rows; of classes, which are integers, the rarest keeps some."""
    if n_rows <= most:
        return np.arange(n_rows)
    order = np.random.default_rng(_SEED).permutation(n_rows)
    if y is not None and y.dtype.kind in "iu":
        drawn = y[order]
        rank = np.empty(n_rows, dtype=np.int64)
        for number in np.unique(drawn):
            places = np.flatnonzero(drawn == number)
            rank[places] = np.arange(len(places))
        # The first few of each class come first, then all as they were drawn.
        order = order[np.argsort(np.where(rank < _FEW_OF_A_CLASS, 0, 1), kind="stable")]
    return np.sort(order[:most])
