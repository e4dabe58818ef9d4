"""Explainers over a bundle's own features, with everything computed that a board will ask for.

    bundle + observed rows ──explain──▶ explainer ──detach──▶ file ──attach──▶ explainer of a board

Layer L3; imports explainerdashboard when an explainer is made.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fairlead.bundle.read import Bundle
from fairlead.dashboard.environment import library
from fairlead.dashboard.explainer.features import MISSING_NUMBER, Display, shown_text
from fairlead.dashboard.explainer.outside_rows import attach_rows
from fairlead.dashboard.explainer.params import Params, params_of
from fairlead.dashboard.explainer.precomputing import (
    Step,
    compute_rest,
    keep_one_label,
    set_decision_trees,
    set_interactions,
    set_shap_values,
)
from fairlead.dashboard.explainer.served import served_of
from fairlead.errors import DashboardError, InvalidRecords
from fairlead.predict.predictor import predictor_of

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.dashboard.building.data import Observed
    from fairlead.dashboard.explainer.attribution import Attribution
    from fairlead.dashboard.explainer.attribution_choice import ModelOutput
    from fairlead.dashboard.rows import Rows
    from fairlead.predict.predictor import Predictor

_SEED = 47


@dataclass(frozen=True)
class ExplainerOptions:
    """What an explainer may be told.

    Parameters
    ----------
    precision : of what is computed, and of the features where that changes no prediction.
    interactions : compute SHAP interactions, which trees have.
    positive_class_only : of three classes and more keep the SHAP values of the positive one.
    model_output : what SHAP values of a classifier add up to; None is what is exact and cheap for the model.
    decision_trees : have single trees told, where the model is made of some; None says nothing where it is not.
    params : of explainer.yaml: cats, cats_notencoded, labels, descriptions, units, target, index_name, pos_label. Where
        the fields above are left as they are, precision and model_output there are heeded.
    """

    precision: Literal["float64", "float32"] = "float64"
    interactions: bool = False
    positive_class_only: bool = False
    model_output: Literal["probability", "logodds"] | None = None
    decision_trees: bool | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


def explain(bundle: Bundle, observed: Observed, options: ExplainerOptions, step: Step) -> Any:
    """Make an explainer, and compute all that a board of it will ask for.

    Parameters
    ----------
    observed : rows of the bundle's schema; those of a model that cannot be looked into may be too many, and the
        explainer then has fewer.
    step : is told what is being done and what share is done, 0 to 1.

    Returns
    -------
    An explainer of explainerdashboard; its `notes` are what the user should know.

    Raises
    ------
    DashboardError
        When a row is refused, a class was never observed, the model answers no numbers, or a parameter is wrong.
    ModelFailed
        When the model raises.
    """
    library()
    with warnings.catch_warnings(), _seeded():
        warnings.simplefilter("ignore")  # the library warns of all that it decides
        return _explained(bundle, observed, options, step)


def _explained(bundle: Bundle, observed: Observed, options: ExplainerOptions, step: Step) -> Any:
    from fairlead.dashboard.explainer.attribution_choice import RowsToExplain, attribute
    from fairlead.dashboard.explainer.types import FEWEST_ROWS

    if len(observed.records) < FEWEST_ROWS:
        raise DashboardError(f"expected {FEWEST_ROWS} rows or more to be explained, got {len(observed.records)}")
    step("predictions", 0.0)
    display = Display(bundle.manifest.schema)
    served = served_of(display, predictor_of(bundle))
    params = params_of(options.params, display, observed.labels)
    precision = _precision(options)
    frame = display.frame(observed.records, observed.index)
    y = None if observed.y is None else np.asarray(observed.y)
    _check_classes(y, observed)
    try:
        outputs = served.outputs(frame)
    except InvalidRecords as error:
        raise DashboardError(f"the model refuses rows that are to be explained:\n{error}") from error
    made = attribute(
        bundle,
        served,
        RowsToExplain(frame, outputs, y),
        _model_output(options),
        lambda share: step("SHAP values", 0.05 + 0.55 * share),
    )
    frame = frame.iloc[made.rows]
    y = None if y is None else y[made.rows]
    params.notes += made.notes
    if precision == "float32":
        frame = _smaller(served, frame, params.notes)
    explainer = _constructed(served, made.attribution, frame, y, observed, params, precision)
    set_shap_values(explainer, made.attribution.base, made.values)
    if options.interactions:
        lacking = set_interactions(explainer, made, frame, lambda share: step("SHAP interactions", 0.6 + 0.2 * share))
        params.notes += [lacking] if lacking else []
    if options.decision_trees is not False:
        lacking = set_decision_trees(explainer, frame)
        params.notes += [lacking] if lacking and options.decision_trees else []
    compute_rest(explainer, step)
    if options.positive_class_only:
        keep_one_label(explainer)
    explainer.notes = tuple(params.notes)
    step("done", 1.0)
    return explainer


def detach(explainer: Any) -> None:
    """Take from an explainer what must not be in a file: predictor, locks, rows from outside."""
    explainer.model.predictor = None
    explainer.__dict__.pop("_lock", None)
    explainer.__dict__.pop("_index_list", None)
    for name in ("_index_exists_func", "_get_index_list_func", "_get_X_row_func", "_get_y_func"):
        setattr(explainer, name, None)


def attach(explainer: Any, predictor: Predictor, rows: Rows | None) -> None:
    """Give a loaded explainer its predictor, and where its rows from outside come from.

    Raises
    ------
    DashboardError
        When the predictor is of another schema or has other classes than the explainer was made with.
    """
    model = explainer.model
    classes = len(predictor.manifest.classes or ())
    if predictor.schema != model.display.schema or classes != len(getattr(model, "classes_", ())):
        raise DashboardError(
            f"{predictor.name} {predictor.version}: the explainer was made of a model with other features or classes: "
            "build the dashboard again"
        )
    model.predictor = predictor
    explainer._lock = threading.Lock()
    if rows is not None:
        attach_rows(explainer, rows)


def _precision(options: ExplainerOptions) -> str:
    asked = options.precision if options.precision != "float64" else options.params.get("precision") or "float64"
    if asked not in ("float64", "float32"):
        raise DashboardError(f"precision: expected float64 or float32, got {asked!r}")
    return str(asked)


def _model_output(options: ExplainerOptions) -> ModelOutput:
    from fairlead.dashboard.explainer.attribution_choice import ModelOutput

    if options.model_output is not None:
        return ModelOutput(options.model_output, is_firm=True)
    wished = options.params.get("model_output")
    if wished not in (None, "probability", "logodds", "raw"):
        raise DashboardError(f"model_output: expected probability or logodds, got {wished!r}")
    return ModelOutput(None if wished == "raw" else wished, is_firm=False)


def _check_classes(y: Any, observed: Observed) -> None:
    if y is None or observed.labels is None:
        return
    absent = [label for place, label in enumerate(observed.labels) if place not in y]
    if absent:
        raise DashboardError(
            f"{observed.target}: no row was observed as {', '.join(absent)}: give rows of every class, or none of the "
            "target, and the dashboard shows no performance"
        )


def _smaller(served: Any, frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Hold each column of floats in float32 where no prediction changes by that."""
    outputs = served.outputs(frame)
    kept = []
    for column in frame.columns[frame.dtypes == np.float64]:
        tried = frame.astype({column: np.float32})
        if np.array_equal(served.outputs(tried), outputs):
            frame = tried
        else:
            kept.append(column)
    if kept:
        notes.append(f"{', '.join(kept)}: held in float64, since predictions change with the digits that float32 lacks")
    return frame


def _constructed(
    served: Any,
    attribution: Attribution,
    frame: pd.DataFrame,
    y: Any,
    observed: Observed,
    params: Params,
    precision: str,
) -> Any:
    import pandas as pd

    from fairlead.dashboard.explainer.types import FeatureClassifier, FeatureRegression

    kind: Any = FeatureRegression if observed.labels is None else FeatureClassifier
    named = {"target": shown_text(observed.target), "index_name": shown_text(observed.index_name)} | params.kwargs
    try:
        explainer = kind(
            attribution,
            served,
            frame,
            None if y is None else pd.Series(y, index=frame.index, name=observed.target),
            shap="tree",
            model_output=attribution.space,
            na_fill=MISSING_NUMBER,
            precision=precision,
            **named,
        )
    except AssertionError as error:
        raise DashboardError(f"cats: {error}") from error
    explainer.index_name = explainer.idxs.name = named["index_name"]  # which it writes in small letters
    # The library takes features of words for a reason to show log-odds, and interactions not at all.
    explainer.model_output = attribution.space
    explainer.interactions_should_work = False
    for column, known in served.display.words().items():
        if not served.display.fixed(column):
            # As a categorical, a word that comes with a row from outside would be lost.
            explainer.X[column] = explainer.X[column].astype(object)
        shown = dict.fromkeys([*known, *explainer.categorical_dict[column]])
        explainer.categorical_dict[column] = sorted(shown)
    return explainer


@contextmanager
def _seeded() -> Iterator[None]:
    """Have what the library draws from numpy's own generator be the same in each build."""
    state = np.random.get_state()
    np.random.seed(_SEED)
    try:
        yield
    finally:
        np.random.set_state(state)
