"""Rows on which compiled and original are compared, besides the user's own.

A model is most likely to go wrong where it changes its mind: right at a tree's thresholds and at the
float32 numbers beside them, on null, on categories it never saw, and far outside what it was trained
on. Everything is seeded: the same model gives the same rows. Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from fairlead.predict.validate import Row
from fairlead.schema import Feature, Schema

_SEED = 20
_SYNTHETIC_ROWS = 1000
_MOST_THRESHOLD_ROWS = 6000
_BASE_ROWS = 16
# A threshold lies between two float32 numbers, and rounding to them flips half-way: a quarter of
# float32's spacing steps over each of those points.
_STEPS = np.array([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]) * 2.0**-23
# Farther out the distances between training rows are rounded away, and neighbours are chance in the original too.
FAR = 1e9
UNSEEN = "fairlead: a category that nobody trained on"


@dataclass(frozen=True)
class Probes:
    """Rows of the model's schema, by what they test.

    Parameters
    ----------
    thresholds : within what the model was trained for; the original must predict them.
    oddities : nulls, unseen categories, extremes; the original may refuse any of them.
    """

    thresholds: list[Row]
    oddities: list[Row]


def synthetic_rows(schema: Schema, thresholds: dict[int, list[float]] | None = None) -> list[Row]:
    """Make rows of a schema when there is no sample: categories at random, numbers within what is known of them."""
    rng = np.random.default_rng(_SEED)
    columns = [
        _column(feature, (thresholds or {}).get(place, []), rng) for place, feature in enumerate(schema.features)
    ]
    return list(zip(*columns, strict=True))


def probes(schema: Schema, base: Sequence[Row], thresholds: dict[int, list[float]]) -> Probes:
    """Build rows around `base`, each with one feature changed.

    Parameters
    ----------
    base : rows that the model can predict, at least one.
    thresholds : where the model changes its mind, by place of the feature.
    """
    rng = np.random.default_rng(_SEED)
    few = [base[place] for place in rng.permutation(len(base))[:_BASE_ROWS]]
    near = _near_thresholds(schema, thresholds, rng)
    odd = [(place, value) for place, feature in enumerate(schema.features) for value in _odd_values(schema, feature)]
    return Probes(
        [_with(few[i % len(few)], place, value) for i, (place, value) in enumerate(near)],
        [_with(row, place, value) for place, value in odd for row in few[:4]],
    )


def _column(feature: Feature, thresholds: list[float], rng: np.random.Generator) -> list[object]:
    if feature.categories:
        places = rng.integers(len(feature.categories), size=_SYNTHETIC_ROWS)
        return [feature.categories[place] for place in places]
    if feature.type == "string":
        return [f"text {i}" for i in range(_SYNTHETIC_ROWS)]
    if feature.type == "bool":
        return list(rng.integers(2, size=_SYNTHETIC_ROWS).astype(bool).tolist())
    if feature.type == "datetime":
        start = datetime(2026, 1, 1, tzinfo=UTC)
        return [start + timedelta(hours=hour) for hour in range(_SYNTHETIC_ROWS)]
    known = [x for x in (feature.minimum, feature.maximum, *thresholds) if x is not None]
    if len(known) > 1:
        numbers = rng.uniform(min(known), max(known), _SYNTHETIC_ROWS)
    else:
        numbers = rng.normal(size=_SYNTHETIC_ROWS)
    return [int(number) for number in numbers] if feature.type == "int" else numbers.tolist()


def _near_thresholds(
    schema: Schema, thresholds: dict[int, list[float]], rng: np.random.Generator
) -> list[tuple[int, object]]:
    found: list[tuple[int, object]] = []
    for place, points in thresholds.items():
        feature = schema.features[place]
        if schema.is_closed(feature):
            continue
        around = np.outer(np.array(points), 1 + _STEPS).ravel()
        if feature.type == "int":
            found += [(place, int(x)) for x in np.unique(np.concatenate([np.floor(around), np.ceil(around)]))]
        elif feature.type == "float":
            exact = np.concatenate([around, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)])
            found += [(place, float(x)) for x in np.unique(exact)]
    if len(found) > _MOST_THRESHOLD_ROWS:
        found = [found[i] for i in rng.choice(len(found), _MOST_THRESHOLD_ROWS, replace=False)]
    return found


def _odd_values(schema: Schema, feature: Feature) -> list[object]:
    odd: list[object] = [None] if feature.nullable else []
    if schema.is_closed(feature):
        return odd
    if feature.type == "string":
        return [*odd, UNSEEN, ""]
    if feature.type == "int":
        return [*odd, 0, -1, 2**31, -(2**31)]
    if feature.type == "float":
        return [*odd, 0.0, -0.0, 1e-300, FAR, -FAR]
    return odd


def _with(row: Row, place: int, value: object) -> Row:
    return (*row[:place], value, *row[place + 1 :])
