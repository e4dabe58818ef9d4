"""SHAP values from the predictor alone, for a model that cannot be looked into.

A row's features are put in place of those of background rows, one after the other, in several orders; what the
prediction gains by each, on average, is its SHAP value. With up to four features every order is gone through, which is
exact for that background; with more, a few orders, each also from its end. They are the same for every row and every
time, so that a row has the same values wherever it is shown; shap's own PermutationExplainer draws anew each time.

Layer L3; pandas comes with the frames.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fairlead.dashboard.explainer.attribution import Array, Attribution, Space
from fairlead.dashboard.explainer.served import Served

if TYPE_CHECKING:
    import pandas as pd

_BACKGROUND_ROWS = 40
_FEW_FEATURES = 4
_PAIRS = 4
_ROWS_AT_ONCE = 50_000
_SEED = 47
# A build asks the model for so many rows at most; a board holds fewer rows rather than taking hours to make.
_MOST_PREDICTIONS = 3_000_000
_FEWEST_ROWS = 200


class SampledAttribution(Attribution):
    """SHAP values by sampled orders of the features.

    Parameters
    ----------
    served : the model.
    frame : rows as shown, of which the background is drawn.

    Source: Mitchell et al., Sampling Permutations for Shapley Value Estimation (2022), section 3.1, antithetic orders.
    """

    def __init__(self, served: Served, frame: pd.DataFrame) -> None:
        self._background = frame.sample(min(_BACKGROUND_ROWS, len(frame)), random_state=_SEED)
        self._masks, self._walks, self._orders = _coalitions(frame.shape[1])
        self._predictions_a_row = 1 + len(self._masks) * len(self._background)
        base = served.outputs(self._background).mean(axis=0)
        space: Space = "probability" if hasattr(served, "classes_") else "raw"
        super().__init__(served, base, space, max(1, _ROWS_AT_ONCE // self._predictions_a_row))

    @property
    def most_rows(self) -> int:
        """How many rows are explained in reasonable time."""
        return max(_FEWEST_ROWS, _MOST_PREDICTIONS // self._predictions_a_row)

    def _of(self, frame: pd.DataFrame) -> Array:
        n_rows, n_features = frame.shape
        n_outputs = len(self.base)
        # What is known of each row at each step: nothing, some features, everything.
        known = np.empty((n_rows, len(self._masks) + 2, n_outputs))
        known[:, 0] = self.base
        known[:, 1] = self.served.outputs(frame)
        if len(self._masks):
            mixed = self.served.outputs(self._mixed(frame))
            known[:, 2:] = mixed.reshape(n_rows, len(self._masks), -1, n_outputs).mean(axis=2)
        found = np.zeros((n_rows, n_features, n_outputs))
        for walk, order in zip(self._walks, self._orders, strict=True):
            found[:, order] += np.diff(known[:, walk], axis=1)
        return found / len(self._orders)

    def _mixed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Put what is known of each row into each row of the background: rows, masks, background rows."""
        import pandas as pd

        columns = {}
        for place, name in enumerate(frame.columns):
            kind = None if frame[name].dtype.kind in "iuf" else object
            own, others = frame[name].to_numpy(dtype=kind), self._background[name].to_numpy(dtype=kind)
            mask = self._masks[None, :, None, place]
            columns[name] = np.where(mask, own[:, None, None], others).ravel()
        return pd.DataFrame(columns)


def _coalitions(
    n_features: int,
) -> tuple[npt.NDArray[np.bool_], list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]]:
    """Lay out in which orders features become known.

    Returns
    -------
    masks : bool, shape (n_masks, n_features): sets of known features that are neither empty nor whole, each once.
    walks : for each order, where each set on its way stands: 0 is the empty one, 1 the whole one, then the masks.
    orders : int64, shape (n_features,): the features in the order in which they become known.
    """
    if n_features <= _FEW_FEATURES:
        orders = [np.array(order) for order in itertools.permutations(range(n_features))]
    else:
        random = np.random.default_rng(_SEED)
        orders = [
            order for _ in range(_PAIRS) for one in [random.permutation(n_features)] for order in (one, one[::-1])
        ]
    places: dict[frozenset[int], int] = {frozenset(): 0, frozenset(range(n_features)): 1}
    walks = [
        np.array([places.setdefault(frozenset(order[:n].tolist()), len(places)) for n in range(n_features + 1)])
        for order in orders
    ]
    masks = np.zeros((len(places) - 2, n_features), dtype=bool)
    for known, place in itertools.islice(places.items(), 2, None):
        masks[place - 2, list(known)] = True
    return masks, walks, orders
