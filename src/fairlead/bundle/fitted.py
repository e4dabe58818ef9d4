"""Whether every estimator of a model was trained, told before anything else can fail on it.

Layer L1; imports scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairlead.errors import NotFitted
from fairlead.extras import require

# Elsewhere fitted attributes need not end in an underscore, so that nothing can be told from outside.
_KEEPS_THE_RULES = ("sklearn", "xgboost", "lightgbm", "imblearn")
_CURE = (
    "call fit(X, y) on the very object that you save. cross_val_score and cross_validate fit copies and leave it "
    "as it was; cross_validate(…, return_estimator=True) gives you those copies"
)


def check_fitted(model: Any) -> None:
    """Refuse a model with an estimator in it that was never fitted.

    Parameters
    ----------
    model : an estimator, a Pipeline or a vectorizer; other objects pass.

    Raises
    ------
    NotFitted
        Naming the step, the innermost that was not fitted.
    """
    for path, estimator in _walk(model, ()):
        if not _is_fitted(estimator):
            step = " → ".join(path)
            where = f"step {step}: " if step else ""
            raise NotFitted(f"{where}this {type(estimator).__name__} instance is not fitted yet: {_CURE}")


def _walk(estimator: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The steps inside an estimator, the innermost first, each with the names that lead to it."""
    if estimator is None or isinstance(estimator, str):  # "passthrough", "drop"
        return
    for name, inner in _steps(estimator):
        yield from _walk(inner, (*path, name))
    yield path, estimator


def _steps(estimator: Any) -> list[tuple[str, Any]]:
    kinds = {kind.__name__ for kind in type(estimator).__mro__}
    if "Pipeline" in kinds:
        return [(name, step) for name, step in estimator.steps]
    if "ColumnTransformer" in kinds:
        # Fitting copies the transformers; the originals stay as they were.
        return [(name, step) for name, step, _ in getattr(estimator, "transformers_", ())]
    if "FeatureUnion" in kinds:
        return [(name, step) for name, step in estimator.transformer_list]
    return []


def _is_fitted(estimator: Any) -> bool:
    # Pipeline and FeatureUnion have no state of their own: their steps have been asked.
    if type(estimator).__name__ in ("Pipeline", "FeatureUnion") or not hasattr(estimator, "fit"):
        return True
    told = getattr(estimator, "__sklearn_is_fitted__", None)
    if told is None and type(estimator).__module__.partition(".")[0] not in _KEEPS_THE_RULES:
        return True
    validation = require("sklearn.utils.validation", "build")
    exceptions = require("sklearn.exceptions", "build")
    try:
        validation.check_is_fitted(estimator)
    except exceptions.NotFittedError:
        return False
    return True
