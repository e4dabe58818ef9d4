from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.compile.model import compile_model
from fairlead.bundle.probes import FAR, UNSEEN, probes, synthetic_rows
from fairlead.predict.validate import Validator
from fairlead.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="number", type="float", nullable=True, minimum=-1.0, maximum=1.0),
        Feature(name="count", type="int"),
        Feature(name="word", type="string", categories=("a", "b")),
        Feature(name="closed", type="string", categories=("c", "d"), closed=True, nullable=True),
        Feature(name="level", type="int", categories=(1, 2), closed=True),
        Feature(name="yes", type="bool"),
        Feature(name="text", type="string"),
        Feature(name="when", type="datetime"),
    )
)


def test_made_up_rows_fit_the_schema() -> None:
    rows = synthetic_rows(SCHEMA)

    records = [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]
    assert not Validator(SCHEMA).check(records).rejections
    assert {row[2] for row in rows} == {"a", "b"}
    assert {row[4] for row in rows} == {1, 2}
    assert all(-1 <= row[0] <= 1 for row in rows)
    assert rows == synthetic_rows(SCHEMA)


def test_made_up_rows_lie_around_the_thresholds() -> None:
    schema = Schema(features=(Feature(name="x", type="float"), Feature(name="y", type="float")))

    rows = synthetic_rows(schema, {0: [1000.0, 1010.0, 1020.0]})

    assert all(1000 <= row[0] <= 1020 for row in rows)
    assert any(row[0] < 1010 for row in rows)
    assert any(row[0] > 1010 for row in rows)


def test_float_thresholds_get_both_neighbours() -> None:
    found = probes(SCHEMA, synthetic_rows(SCHEMA), {0: [0.1, 3.0]})

    points = {row[0] for row in found.thresholds}
    for threshold in (0.1, 3.0):
        single = np.float32(threshold)
        assert {threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)} <= points
        rounded = {float(np.float32(point)) for point in points}
        assert {float(np.nextafter(single, np.float32(side))) for side in (-np.inf, np.inf)} <= rounded


def test_whole_thresholds_stay_whole() -> None:
    found = probes(SCHEMA, synthetic_rows(SCHEMA), {1: [2.5, 7.0]})

    points = {row[1] for row in found.thresholds}
    assert {2, 3, 7} <= points
    assert all(type(point) is int for point in points)


def test_closed_features_are_left_as_they_are() -> None:
    base = synthetic_rows(SCHEMA)
    found = probes(SCHEMA, base, {4: [1.5]})

    assert not found.thresholds
    assert {row[3] for row in found.oddities} <= {"c", "d", None}
    assert {row[4] for row in found.oddities} <= {1, 2}


def test_oddities() -> None:
    odd = probes(SCHEMA, synthetic_rows(SCHEMA), {}).oddities

    assert any(row[0] is None for row in odd)
    assert all(row[1] is not None for row in odd)
    assert {UNSEEN, ""} <= {row[2] for row in odd}
    assert {FAR, -FAR, 0.0} <= {row[0] for row in odd}
    assert {2**31, -1} <= {row[1] for row in odd}


def test_one_feature_is_changed_at_a_time() -> None:
    base = synthetic_rows(SCHEMA)
    found = probes(SCHEMA, base, {0: [0.5], 1: [3.5]})

    for row in (*found.thresholds, *found.oddities):
        assert any(sum(a != b for a, b in zip(row, other, strict=True)) <= 1 for other in base)


def test_no_more_than_can_be_compared_at_a_build() -> None:
    many = {0: np.linspace(0, 1, 5000).tolist()}
    found = probes(SCHEMA, synthetic_rows(SCHEMA), many)

    assert len(found.thresholds) == 6000
    assert found == probes(SCHEMA, synthetic_rows(SCHEMA), many)


def test_thresholds_behind_scalers_lie_on_the_features_own_axis(numbers_only: pd.DataFrame, three: Any) -> None:
    tree = DecisionTreeClassifier(max_depth=4, random_state=0)
    model = make_pipeline(StandardScaler(), MinMaxScaler((-5, 3)), tree).fit(numbers_only, three)
    schema = Schema(features=tuple(Feature(name=name, type="float") for name in "abcd"))

    found = compile_model(model, schema).thresholds

    inner = model[-1].tree_
    scaled = np.zeros((int((inner.feature == 1).sum()), 4))
    scaled[:, 1] = inner.threshold[inner.feature == 1]
    raw = model[0].inverse_transform(model[1].inverse_transform(scaled))[:, 1]
    np.testing.assert_allclose(sorted(set(found[1])), sorted(set(raw)), rtol=1e-9)
    assert numbers_only["b"].min() < min(found[1]) < max(found[1]) < numbers_only["b"].max()
