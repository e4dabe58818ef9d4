"""Metrics at every cutoff, all at once."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from fairlead.dashboard.explainer.performance import metrics


def test_performance_is_what_scikit_learn_says() -> None:
    random = np.random.default_rng(3)
    y = random.integers(0, 3, 200)
    shares = random.dirichlet(np.ones(3), 200)
    found = metrics(shares, y)
    for label in range(3):
        truth = (y == label).astype(int)
        for cut in (1, 30, 50, 99):
            guess = (shares[:, label] > 0.01 * cut).astype(int)
            assert found[label][cut] == pytest.approx(
                {
                    "accuracy": (guess == truth).mean(),
                    "precision": precision_score(truth, guess, zero_division=0),
                    "recall": recall_score(truth, guess),
                    "f1": f1_score(truth, guess),
                    "roc_auc_score": roc_auc_score(truth, shares[:, label]),
                    "pr_auc_score": average_precision_score(truth, shares[:, label]),
                    "log_loss": log_loss(truth, shares[:, label]),
                }
            )
