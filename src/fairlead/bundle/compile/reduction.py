"""Feature selection, PCA and TruncatedSVD: fewer columns out than in."""

from __future__ import annotations

from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op

from fairlead.bundle.compile.columns import Columns, Compilation, Transform, constant, values_of
from fairlead.bundle.compile.scores import weighted_sum


def select(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a selector to the columns that it keeps."""
    return tuple(columns[i] for i in np.flatnonzero(step.get_support()))


def pca(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a PCA: project, then centre, then whiten, as the original does."""
    n = len(step.components_)
    shift = -(np.reshape(step.mean_, (1, -1)) @ step.components_.T)[0]
    projected = weighted_sum(columns, step.components_.T, shift)
    if step.whiten:
        scale = np.sqrt(step.explained_variance_)
        projected = op.div(projected, constant([np.maximum(scale, np.finfo(scale.dtype).eps)]))
    compilation.sparse = False
    return values_of(projected, n)


def truncated_svd(step: Any, columns: Columns, compilation: Compilation) -> Columns:
    """Compile a TruncatedSVD."""
    n = len(step.components_)
    compilation.sparse = False
    return values_of(weighted_sum(columns, step.components_.T, np.zeros(n)), n)


_SELECTORS = (
    "VarianceThreshold",
    "SelectKBest",
    "SelectPercentile",
    "SelectFpr",
    "SelectFdr",
    "SelectFwe",
    "GenericUnivariateSelect",
    "SelectFromModel",
    "SequentialFeatureSelector",
    "RFE",
    "RFECV",
)

TRANSFORMS: dict[str, Transform] = {
    **{f"sklearn.{name}": select for name in _SELECTORS},
    "sklearn.PCA": pca,
    "sklearn.TruncatedSVD": truncated_svd,
}
