from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fairlead.bundle.manifest import Parity
from fairlead.bundle.parity import TOLERANCE, Disagreement, compare
from fairlead.bundle.probes import Probes
from fairlead.errors import ModelFailed
from fairlead.predict.outputs import Prediction
from fairlead.predict.validate import Row

NONE = Probes([], [])
SAMPLE: list[Row] = [(1.0,), (2.0,), (3.0,)]


class Formula:
    """An engine that computes a formula of the first column."""

    unseen: dict[str, int] = {}  # noqa: RUF012  # never changed

    def __init__(self, value: Callable[[Any], Any], probability: Callable[[Any], Any] | None = None) -> None:
        self.value = value
        self.probability = probability

    def predict(self, rows: Sequence[Row]) -> Prediction:
        x = [row[0] for row in rows]
        if None in x:
            raise ModelFailed("null")
        if self.probability is None:
            found = [self.value(one) for one in x]
            return Prediction(found if isinstance(found[0], str) else np.array(found, dtype=np.float64))
        return Prediction([self.value(one) for one in x], np.array([self.probability(one) for one in x], np.float64))

    def predict_table(self, table: Any) -> Prediction:
        raise NotImplementedError


def test_figures() -> None:
    found = compare(Formula(lambda x: x), Formula(lambda x: x + (3e-7 if x == 2 else 1e-8)), SAMPLE, NONE)

    assert isinstance(found, Parity)
    assert (found.rows, found.tolerance) == (3, TOLERANCE)
    assert found.largest_difference == pytest.approx(1.5e-7)  # 3e-7 of 2


def test_probes_count_as_rows() -> None:
    found = compare(Formula(abs), Formula(abs), SAMPLE, Probes([(9.0,)], [(8.0,), (7.0,)]))

    assert found == Parity(rows=6, largest_difference=0.0, tolerance=TOLERANCE)


@pytest.mark.parametrize(("size", "agrees"), [(0.1, False), (1.0, False), (100.0, True), (1e9, True)])
def test_tolerance_is_absolute_or_relative_the_looser(size: float, agrees: bool) -> None:
    found = compare(Formula(lambda x: size), Formula(lambda x: size + 2e-6), SAMPLE, NONE)

    assert isinstance(found, Parity) == agrees


def test_what_disagrees_is_told() -> None:
    found = compare(Formula(lambda x: x), Formula(lambda x: x + (x - 1) / 10), SAMPLE, NONE)

    assert isinstance(found, Disagreement)
    assert (found.count, found.first) == (2, (2.0,))
    assert str(found) == "2 rows differ from the original by up to 0.0667, the first is (2.0,)"


@pytest.mark.parametrize("with_probabilities", [True, False])
def test_another_label_disagrees_whatever_the_numbers(with_probabilities: bool) -> None:
    same = (lambda x: [0.5, 0.5]) if with_probabilities else None
    original = Formula(lambda x: "yes", same)
    compiled = Formula(lambda x: "no" if x == 3 else "yes", same)

    found = compare(original, compiled, SAMPLE, NONE)

    assert found == Disagreement(1, (3.0,), np.inf)
    assert isinstance(compare(original, original, SAMPLE, NONE), Parity)


def test_the_largest_of_all_probabilities_counts() -> None:
    original = Formula(lambda x: 0, lambda x: [0.5, 0.25, 0.25])
    compiled = Formula(lambda x: 0, lambda x: [0.5, 0.25, 0.2501])

    found = compare(original, compiled, SAMPLE, NONE)

    assert isinstance(found, Disagreement)
    assert found.difference == pytest.approx(1e-4)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_must_be_the_same(odd: float) -> None:
    assert isinstance(compare(Formula(lambda x: odd), Formula(lambda x: odd), SAMPLE, NONE), Parity)
    for one, other in ((odd, 1.0), (1.0, odd), (odd, -odd if odd == odd else np.inf)):
        found = compare(Formula(lambda x, y=one: y), Formula(lambda x, y=other: y), SAMPLE, NONE)
        assert found == Disagreement(3, (1.0,), np.inf)


def test_oddities_that_the_original_refuses_are_left_out() -> None:
    seen: list[Row] = []

    class Recording(Formula):
        def predict(self, rows: Sequence[Row]) -> Prediction:
            seen.extend(rows)
            return super().predict(rows)

    found = compare(Formula(abs), Recording(abs), SAMPLE, Probes([], [(None,), (5.0,), (None,)]))

    assert found == Parity(rows=4, largest_difference=0.0, tolerance=TOLERANCE)
    assert seen == [*SAMPLE, (5.0,)]
    assert isinstance(compare(Formula(abs), Formula(abs), SAMPLE, Probes([], [(None,)])), Parity)


@pytest.mark.parametrize(("sample", "near"), [([(None,)], []), (SAMPLE, [(None,)])])
def test_the_rest_the_original_must_predict(sample: list[Row], near: list[Row]) -> None:
    with pytest.raises(ModelFailed, match="null"):
        compare(Formula(abs), Formula(abs), sample, Probes(near, []))


def test_oddities_disagree_too() -> None:
    found = compare(Formula(abs), Formula(lambda x: x), SAMPLE, Probes([(4.0,)], [(-5.0,)]))

    assert found == Disagreement(1, (-5.0,), 2.0)
