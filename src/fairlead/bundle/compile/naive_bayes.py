"""Naive Bayes classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Columns, Compilation, Predict, Prediction, constant, matrix
from fairlead.bundle.compile.preprocessing import binarized
from fairlead.bundle.compile.scores import best, classes_of, finite, log_sum_exp, row_sum, weighted_sum


def _posterior(step: Any, joint: Var) -> Prediction:
    """Normalise joint log likelihoods, shape (n_rows, n_classes)."""
    probabilities = op.exp(op.sub(joint, log_sum_exp(joint)))
    return Prediction(label=best(joint), probabilities=probabilities, classes=classes_of(step))


def _gaussian(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    """Compute one class at a time: memory stays that of the rows."""
    finite(step, step.theta_, step.var_)
    x = matrix(columns)
    likelihoods = []
    for prior, mean, variance in zip(step.class_prior_, step.theta_, step.var_, strict=True):
        difference = op.sub(x, constant([mean]))
        spread = row_sum(op.div(op.mul(difference, difference), constant([variance])))
        norm = -0.5 * np.sum(np.log(2.0 * np.pi * variance))
        log_likelihood = op.sub(constant(norm), op.mul(constant(0.5), spread))
        likelihoods.append(op.add(constant(np.log(prior)), log_likelihood))
    return _posterior(step, op.concat(likelihoods, axis=1))


def _multinomial(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    finite(step, step.feature_log_prob_)
    return _posterior(step, weighted_sum(columns, step.feature_log_prob_.T, step.class_log_prior_))


def _complement(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    finite(step, step.feature_log_prob_)
    prior = step.class_log_prior_ if len(step.classes_) == 1 else np.zeros(len(step.classes_))
    return _posterior(step, weighted_sum(columns, step.feature_log_prob_.T, prior))


def _bernoulli(step: Any, columns: Columns, compilation: Compilation) -> Prediction:
    with np.errstate(all="ignore"):
        absent = np.log(1 - np.exp(step.feature_log_prob_))
    finite(step, step.feature_log_prob_, absent)
    if step.binarize is not None:
        columns = binarized(columns, float(step.binarize), compilation)
    intercept = step.class_log_prior_ + absent.sum(axis=1)
    return _posterior(step, weighted_sum(columns, (step.feature_log_prob_ - absent).T, intercept))


PREDICTORS: dict[str, Predict] = {
    "sklearn.GaussianNB": _gaussian,
    "sklearn.MultinomialNB": _multinomial,
    "sklearn.ComplementNB": _complement,
    "sklearn.BernoulliNB": _bernoulli,
}
