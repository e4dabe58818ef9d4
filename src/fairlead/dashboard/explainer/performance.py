"""How well a classifier does at every cutoff, all at once: explainerdashboard asks scikit-learn for each by itself.

Layer L3; imports scikit-learn when called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Metrics = dict[int, dict[int, dict[str, float]]]

_CUTS = np.arange(1, 100)


def metrics(probabilities: npt.NDArray[Any], y: npt.NDArray[Any]) -> Metrics:
    """Compute what the library's `ClassifierExplainer.metrics` keeps.

    Parameters
    ----------
    probabilities : shape (n_rows, n_classes).
    y : integers, shape (n_rows,): the class that was observed; each occurs.

    Returns
    -------
    By class, by cutoff in percent (1 to 99), by name.
    """
    return {label: _of_class(column, y == label) for label, column in enumerate(probabilities.T)}


def _of_class(probabilities: npt.NDArray[Any], is_class: npt.NDArray[np.bool_]) -> dict[int, dict[str, float]]:
    from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

    truth = is_class.astype(np.int64)
    above = probabilities[:, None] > 0.01 * _CUTS
    found = above.sum(axis=0)
    hits = above[is_class].sum(axis=0)
    n_rows, n_class = len(truth), int(truth.sum())
    at_cuts = {
        "accuracy": (n_rows - n_class - found + 2 * hits) / n_rows,
        "precision": hits / np.maximum(found, 1),
        "recall": hits / n_class,
        "f1": 2 * hits / (found + n_class),
    }
    overall = {
        "roc_auc_score": float(roc_auc_score(truth, probabilities)),
        "pr_auc_score": float(average_precision_score(truth, probabilities)),
        "log_loss": float(log_loss(truth, probabilities)),
    }
    return {
        int(cut): {name: float(values[place]) for name, values in at_cuts.items()} | overall
        for place, cut in enumerate(_CUTS)
    }
