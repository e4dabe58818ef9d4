"""SHAP values of a bundle's own features.

`ExactAttribution` has them from the original's last step, behind its preprocessing, summed up to the features that the
preprocessing makes its columns of; `sampling.SampledAttribution` has them from the predictor alone. To
explainerdashboard either is a SHAP explainer: `shap_values` and `expected_value` is all that it asks for.

Layer L3; shap is imported when trees are looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fairlead.dashboard.explainer.preprocessing import Preprocessing
from fairlead.dashboard.explainer.served import Served, centred

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Space = Literal["probability", "logodds", "raw"]
Told = Callable[[float], None]

# The base and the SHAP values of a row add up to its prediction, but for so much of the largest one: xgboost adds in
# float32, and in another order.
TOLERANCE = 1e-5
# Numbers that a chunk of rows may take; of a wide matrix there are fewer rows in one.
_CHUNK_NUMBERS = 2**22
_CHUNK_ROWS = 500


class Attribution(ABC):
    """SHAP values of rows as they are shown.

    Parameters
    ----------
    served : the model.
    base : float64, shape (n_outputs,): what the model gives when nothing is known.
    space : what base and SHAP values add up to.
    chunk_rows : rows that are worked on at once.
    """

    def __init__(self, served: Served, base: Array, space: Space, chunk_rows: int) -> None:
        self.served = served
        self.base = base
        self.space = space
        self._chunk_rows = chunk_rows

    @property
    def expected_value(self) -> Any:
        """The base, as shap gives it: a number, or a list of one for each class."""
        return float(self.base[0]) if len(self.base) == 1 else self.base.tolist()

    def values(self, frame: pd.DataFrame, told: Told = lambda share: None) -> Array:
        """Compute SHAP values.

        Parameters
        ----------
        frame : rows as shown.
        told : is told what share is done.

        Returns
        -------
        float64, shape (n_rows, n_features, n_outputs).
        """
        return in_chunks(frame, self._chunk_rows, self._of, told)

    def interactions(self, frame: pd.DataFrame, told: Told = lambda share: None) -> Array | None:
        """Compute SHAP interactions of features.

        Returns
        -------
        float64, shape (n_rows, n_features, n_features, n_outputs); None where there is no way to have them.
        """
        return None

    def shap_values(self, frame: pd.DataFrame, **_: Any) -> Array:
        """Compute SHAP values in the shape that explainerdashboard wants: of a regression (n_rows, n_features)."""
        values = self.values(frame)
        return values[:, :, 0] if len(self.base) == 1 else values

    @abstractmethod
    def _of(self, frame: pd.DataFrame) -> Array: ...


def in_chunks(frame: pd.DataFrame, rows: int, compute: Callable[[pd.DataFrame], Array], told: Told) -> Array:
    """Compute something of a frame so many rows at once, and tell what share is done."""
    parts = []
    for start in range(0, len(frame), rows):
        parts.append(compute(frame.iloc[start : start + rows]))
        told(min(1.0, (start + rows) / len(frame)))
    return np.concatenate(parts)


def adds_up(base: Array, values: Array, outputs: Array, space: Space) -> bool:
    """Whether base and SHAP values of rows add up to what the model gives.

    Parameters
    ----------
    base : shape (n_outputs,).
    values : shape (n_rows, n_features, n_outputs).
    outputs : shape (n_rows, n_outputs).
    """
    total = base + values.sum(axis=1)
    if space == "logodds":
        total = _probabilities(total)
    return bool(np.abs(total - outputs).max() <= TOLERANCE * max(1e-300, float(np.abs(outputs).max())))


def _probabilities(margins: Array) -> Array:
    """Make probabilities of margins, of two classes opposite ones: shape (n_rows, n_classes)."""
    if margins.shape[1] == 2:
        margins = margins / 2
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found


class Explained(Protocol):
    """What can be said of the original's last step, over the matrix that it takes."""

    @property
    def base(self) -> Array:
        """What it gives when nothing is known: shape (n_margins,)."""
        ...

    def values(self, matrix: Array) -> Array:
        """Compute SHAP values: shape (n_rows, n_columns, n_margins), with `n_margins` that of `base`."""
        ...


@dataclass(frozen=True)
class LinearStep:
    """A linear model: a column's value is its weight times how far it is from the mean.

    Parameters
    ----------
    weights : shape (n_margins, n_columns).
    means : shape (n_columns,).
    base : shape (n_margins,).

    Source: Lundberg and Lee, A Unified Approach to Interpreting Model Predictions (2017), corollary 1.
    """

    weights: Array
    means: Array
    base: Array

    def values(self, matrix: Array) -> Array:
        found: Array = (matrix - self.means)[:, :, None] * self.weights.T
        return found


class TreesStep:
    """A tree or an ensemble, by shap's TreeExplainer.

    Parameters
    ----------
    inner : the TreeExplainer.
    row : shape (1, n_columns), any row: of some libraries' trees shap knows the base only after it has explained one.
    """

    def __init__(self, inner: Any, row: Array) -> None:
        self.inner = inner
        self.values(row)
        self.base: Array = np.atleast_1d(np.asarray(inner.expected_value, dtype=np.float64))

    def values(self, matrix: Array) -> Array:
        return _stacked(self.inner.shap_values(matrix, check_additivity=False), 3)

    def interactions(self, matrix: Array) -> Array:
        """Compute interactions: shape (n_rows, n_columns, n_columns, n_margins)."""
        return _stacked(self.inner.shap_interaction_values(matrix), 4)


def _stacked(values: Any, n_dimensions: int) -> Array:
    if isinstance(values, list):
        return np.stack(values, axis=-1)
    array: Array = np.asarray(values, dtype=np.float64)
    return array if array.ndim == n_dimensions else array[..., None]


@dataclass(frozen=True)
class Origins:
    """Which feature each column of a matrix is made of.

    Parameters
    ----------
    places : int64, shape (n_columns,): the feature's place; -1 where no feature was seen to move the column.
    n_features : how many there are.
    """

    places: npt.NDArray[np.int64]
    n_features: int

    def summed(self, values: Array, axis: int) -> Array:
        """Add up the columns along an axis to the features that they are made of."""
        order = np.argsort(self.places, kind="stable")
        order = order[self.places[order] >= 0]
        present, starts = np.unique(self.places[order], return_index=True)
        shape = list(values.shape)
        shape[axis] = self.n_features
        found = np.zeros(shape)
        if len(order):
            where = (slice(None),) * axis + (present,)
            found[where] = np.add.reduceat(np.take(values, order, axis=axis), starts, axis=axis)
        return found


class ExactAttribution(Attribution):
    """SHAP values of the original's last step, summed up to features.

    Parameters
    ----------
    served : the model.
    preprocessing : from rows to the matrix that the last step takes.
    step : what can be said of that step.
    origins : of the matrix's columns.
    space : what they add up to, see `exact_attribution`.
    """

    def __init__(
        self, served: Served, preprocessing: Preprocessing, step: Explained, origins: Origins, space: Space
    ) -> None:
        self.preprocessing = preprocessing
        self.step = step
        self.origins = origins
        self._n_outputs = len(getattr(served, "classes_", (0,)))
        base = self._finished(step.base, space, is_base=True)
        self._row_numbers = max(1, len(origins.places) * len(step.base))
        super().__init__(served, base, space, _chunk_rows(self._row_numbers))

    def matrix(self, frame: pd.DataFrame) -> Array:
        """Make what the last step takes of rows as shown: shape (n_rows, n_columns)."""
        return self.preprocessing.matrix(self.served.model_rows(frame))

    def interactions(self, frame: pd.DataFrame, told: Told = lambda share: None) -> Array | None:
        step = self.step
        if not isinstance(step, TreesStep):
            return None

        def compute(part: pd.DataFrame) -> Array:
            values = step.interactions(self.matrix(part))
            return self._finished(self.origins.summed(self.origins.summed(values, axis=1), axis=2), self.space)

        return in_chunks(frame, _chunk_rows(self._row_numbers * len(self.origins.places)), compute, told)

    def _of(self, frame: pd.DataFrame) -> Array:
        values = self.step.values(self.matrix(frame))
        return self._finished(self.origins.summed(values, axis=1), self.space)

    def _finished(self, values: Array, space: Space, *, is_base: bool = False) -> Array:
        """Make of margins along the last axis one for each output."""
        if values.shape[-1] == 1 and self._n_outputs == 2:
            other = 1 - values if is_base and space == "probability" else -values
            return np.concatenate([other, values], axis=-1)
        return centred(values) if space == "logodds" else values


def _chunk_rows(numbers_a_row: int) -> int:
    return max(1, min(_CHUNK_ROWS, _CHUNK_NUMBERS // numbers_a_row))


def exact_attribution(
    served: Served,
    preprocessing: Preprocessing,
    step: Explained,
    origins: Origins,
    frame: pd.DataFrame,
    outputs: Array,
) -> ExactAttribution | None:
    """Find the space in which SHAP values of the last step add up to the predictions.

    Parameters
    ----------
    frame, outputs : rows as shown, and what the predictor gives for them: shape (n_rows, n_outputs).

    Returns
    -------
    None when they add up in none: the last step is not all that makes the prediction.
    """
    spaces: tuple[Space, ...] = ("probability", "logodds") if hasattr(served, "classes_") else ("raw",)
    for space in spaces:
        attribution = ExactAttribution(served, preprocessing, step, origins, space)
        values = attribution.values(frame)
        if values.shape[2] == outputs.shape[1] and adds_up(attribution.base, values, outputs, space):
            return attribution
    return None
