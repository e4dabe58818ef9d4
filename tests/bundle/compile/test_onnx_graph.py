from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import skl2onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fairlead.bundle.compile.model import CompiledModel

Agree = Callable[..., CompiledModel]
Array = npt.NDArray[Any]


def convert(model: Any, *, double: bool = False, zip_map: bool | None = None, opset: int | None = None) -> bytes:
    kind = DoubleTensorType if double else FloatTensorType
    options = {} if zip_map is None else {"options": {"zipmap": zip_map}}
    made = skl2onnx.to_onnx(model, initial_types=[("X", kind([None, 4]))], target_opset=opset, **options)
    data: bytes = made.SerializeToString()
    return data


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("zip_map", [False, True])
@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("model", [LogisticRegression(max_iter=5000), RandomForestClassifier(4, max_depth=4)])
def test_classifiers(
    agree: Agree, numbers_only: pd.DataFrame, three: Array, model: Any, strings: bool, zip_map: bool, double: bool
) -> None:
    y = np.array(["low", "middle", "high"])[three] if strings else three
    graph = convert(model.fit(numbers_only.to_numpy(), y), double=double, zip_map=zip_map)

    compiled = agree(graph, numbers_only)

    assert compiled.classes == (("high", "low", "middle") if strings else (0, 1, 2))
    assert compiled.has_probabilities


@pytest.mark.parametrize("double", [False, True])
def test_linear_regressor(agree: Agree, numbers_only: pd.DataFrame, amount: Array, double: bool) -> None:
    agree(convert(LinearRegression().fit(numbers_only.to_numpy(), amount), double=double), numbers_only)


def test_forest_regressor(agree: Agree, numbers_only: pd.DataFrame, amount: Array) -> None:
    model = RandomForestRegressor(4, max_depth=4, random_state=0)

    agree(convert(model.fit(numbers_only.to_numpy(), amount)), numbers_only)


@pytest.mark.parametrize("opset", [12, 15, 18, 21])
def test_older_operators(agree: Agree, numbers_only: pd.DataFrame, three: Array, opset: int) -> None:
    model = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=3))

    agree(convert(model.fit(numbers_only.to_numpy(), three > 0), opset=opset), numbers_only)


@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize("zip_map", [False, True])
@pytest.mark.parametrize("model", [KNeighborsClassifier(3), LinearSVC(), GaussianNB()])
def test_classes_beyond_the_attributes(
    agree: Agree, numbers_only: pd.DataFrame, three: Array, model: Any, zip_map: bool, strings: bool
) -> None:
    X = numbers_only[["a", "a", "c", "d"]].to_numpy()

    y = np.where(three > 0, "yes", "no") if strings else np.where(three > 0, 4, 2)
    rows = pd.DataFrame(X, columns=list("pqrs")).head(200)
    graph = convert(model.fit(X, y), zip_map=None if isinstance(model, LinearSVC) else zip_map)

    assert agree(graph, rows).classes == (("no", "yes") if strings else (2, 4))
