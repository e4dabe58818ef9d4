from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import spox

from fairlead.bundle.compile.columns import (
    Column,
    Compilation,
    Indicator,
    Value,
    computed,
    elementwise,
    gather,
    matrix,
    values_of,
)
from fairlead.schema import Feature, Schema

ROWS = np.array([[0.0, 1.0, np.nan], [1.0, -1.0, 5.0], [2.0, 0.0, -0.0]])


@pytest.fixture
def X() -> spox.Var:
    return spox.argument(spox.Tensor(np.float64, ("N", 3)))


def run(X: spox.Var, Y: spox.Var) -> Any:
    graph = spox.build({"X": X}, {"Y": Y}).SerializeToString()
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(["Y"], {"X": ROWS})[0]


def test_gathering_keeps_the_order(X: spox.Var) -> None:
    values = values_of(X, 3)
    doubled = elementwise(values, [("mul", 2.0)])
    mixed = [values[2], doubled[0], values[0], doubled[1]]
    assert all(isinstance(value, Value) for value in mixed)

    found = run(X, gather(mixed))

    np.testing.assert_array_equal(found, np.column_stack([ROWS[:, 2], 2 * ROWS[:, 0], ROWS[:, 0], 2 * ROWS[:, 1]]))


def test_a_whole_tensor_is_not_gathered(X: spox.Var) -> None:
    assert gather(values_of(X, 3)) is X


def test_indicators_are_computed_only_when_asked(X: spox.Var) -> None:
    code = Value(X, 0, categories=("a", "b", "c"))
    columns: list[Column] = [Indicator(code, 1.0), values_of(X, 3)[1], Indicator(code, 2.0, on=5.0, off=-1.0)]

    np.testing.assert_array_equal(run(X, matrix(columns)), [[0, 1, -1], [1, -1, -1], [0, 0, 5]])
    assert computed([columns[1]]) == (columns[1],)


def test_null_is_no_category(X: spox.Var) -> None:
    assert run(X, matrix([Indicator(Value(X, 2), 5.0)])).ravel().tolist() == [0.0, 1.0, 0.0]


def test_arithmetic_moves_indicators_without_computing_them(X: spox.Var) -> None:
    code = Value(X, 0, categories=("a", "b", "c"))

    moved = elementwise((Indicator(code, 1.0),), [("sub", 0.5), ("div", 0.25)])

    assert moved == (Indicator(code, 1.0, on=2.0, off=-2.0),)


def test_arithmetic_is_the_originals_to_the_last_bit(X: spox.Var) -> None:
    steps = [("sub", [0.1, 0.2, 0.3]), ("div", [0.7, 1e-9, 3.0])]

    moved = elementwise(values_of(X, 3), steps)

    np.testing.assert_array_equal(run(X, matrix(moved)), (ROWS - [0.1, 0.2, 0.3]) / [0.7, 1e-9, 3.0])


def test_thresholds_are_kept_on_the_features_own_axis(X: spox.Var) -> None:
    schema = Schema(features=tuple(Feature(name=name, type="float") for name in "abc"))
    inputs = tuple(Value(X, place, feature=place) for place in range(3))
    compilation = Compilation(schema, inputs, ("a", "b", "c"))
    scaled = elementwise(elementwise(inputs, [("sub", 10.0), ("div", 4.0)]), [("mul", -2.0), ("add", 1.0)])

    for value in scaled:
        assert isinstance(value, Value)
        compilation.note_thresholds(value, np.array([1.0, 2.0, np.inf]))

    assert compilation.thresholds == {place: [10.0, 8.0] for place in range(3)}


def test_codes_have_no_thresholds(X: spox.Var) -> None:
    schema = Schema(features=(Feature(name="a", type="string", categories=("x",)),))
    code = Value(X, 0, categories=("x",), feature=0)
    compilation = Compilation(schema, (code,), ("a",))

    compilation.note_thresholds(code, np.array([0.5]))
    compilation.note_thresholds(Value(X, 1), np.array([0.5]))

    assert compilation.thresholds == {}
