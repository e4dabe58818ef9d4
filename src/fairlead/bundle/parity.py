"""The proof that a compiled model answers as the original does.

Labels must be equal; numbers within `TOLERANCE`, absolute or relative, the looser. Layer L1, build time
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.bundle.manifest import Parity
from fairlead.bundle.probes import Probes
from fairlead.errors import ModelFailed
from fairlead.predict.engines import Engine
from fairlead.predict.outputs import Prediction
from fairlead.predict.validate import Row

TOLERANCE = 1e-6
Answers = list[tuple[list[Row], Prediction]]  # rows, and what the original answers


@dataclass(frozen=True)
class Disagreement:
    """Where compiled and original differ too much.

    Parameters
    ----------
    count : rows that differ.
    first : the first of them.
    difference : the largest, absolute or relative, the looser; infinite where labels differ.
    """

    count: int
    first: Row
    difference: float

    def __str__(self) -> str:
        return f"{self.count} rows differ from the original by up to {self.difference:.3g}, the first is {self.first}"


def compare(original: Engine, compiled: Engine, sample: Sequence[Row], found: Probes) -> Parity | Disagreement:
    """Predict the sample and the probes with both.

    Returns
    -------
    `Parity` with the figures, or the `Disagreement`.

    Raises
    ------
    ModelFailed
        When the original cannot predict the sample itself.
    """
    return judged(answers_of(original, sample, found), compiled)


def answers_of(original: Engine, sample: Sequence[Row], found: Probes) -> Answers:
    """Predict the sample and the probes with the original, to judge one or more compiled forms by.

    Raises
    ------
    ModelFailed
        When the original cannot predict the sample itself.
    """
    groups = [(list(sample), False), (found.thresholds, False), (found.oddities, True)]
    return [_predicted(original, group, may_refuse) for group, may_refuse in groups]


def judged(answers: Answers, compiled: Engine) -> Parity | Disagreement:
    """Say how far a compiled form is from what the original answered."""
    rows: list[Row] = []
    largest, wrong, worst = 0.0, [], 0.0
    for group, expected in answers:
        if not group:
            continue
        differences = _differences(expected, compiled.predict(group))
        bad = differences > TOLERANCE
        largest = max(largest, float(differences[~bad].max(initial=0.0)))
        worst = max(worst, float(differences[bad].max(initial=0.0)))
        wrong += [group[place] for place in np.flatnonzero(bad)]
        rows += group
    if wrong:
        return Disagreement(len(wrong), wrong[0], worst)
    return Parity(rows=len(rows), largest_difference=largest, tolerance=TOLERANCE)


def _predicted(original: Engine, rows: list[Row], may_refuse: bool) -> tuple[list[Row], Prediction]:
    """Predict with the original; the rows it refuses one by one are left out where it may."""
    if not rows:
        return [], Prediction([])
    try:
        return rows, original.predict(rows)
    except ModelFailed:
        if not may_refuse:
            raise
    kept = [row for row in rows if _accepts(original, row)]
    return kept, original.predict(kept) if kept else Prediction([])


def _accepts(original: Engine, row: Row) -> bool:
    try:
        original.predict([row])
    except ModelFailed:
        return False
    return True


def _numbers(prediction: Prediction) -> npt.NDArray[np.float64]:
    found = prediction.probabilities if prediction.probabilities is not None else prediction.values
    return np.asarray(found, dtype=np.float64).reshape(len(prediction.values), -1)


def _differences(expected: Prediction, got: Prediction) -> npt.NDArray[np.float64]:
    """The largest difference in each row, absolute or relative to its largest number, the looser.

    Infinite where the labels differ or only one of both is a number.
    """
    if not _is_numeric(expected):
        return np.where(_labels_differ(expected, got), np.inf, 0.0)
    wanted, given = _numbers(expected), _numbers(got)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(wanted - given)
        apart /= np.maximum(1.0, np.nan_to_num(np.abs(wanted).max(axis=1, keepdims=True), nan=1.0))
    apart[(wanted == given) | (np.isnan(wanted) & np.isnan(given))] = 0.0
    apart[np.isnan(apart)] = np.inf
    largest: npt.NDArray[np.float64] = apart.max(axis=1)
    if expected.probabilities is not None:
        largest = np.where(_labels_differ(expected, got), np.inf, largest)
    return largest


def _is_numeric(prediction: Prediction) -> bool:
    return prediction.probabilities is not None or isinstance(prediction.values, np.ndarray)


def _labels_differ(expected: Prediction, got: Prediction) -> Any:
    return np.array([one != other for one, other in zip(expected.values, got.values, strict=True)], dtype=bool)
