from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import pytest
import skl2onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fairlead.bundle.onnx_model import OnnxModel
from fairlead.errors import SourceError

Array = npt.NDArray[Any]


def convert(model: Any, kind: Any, **options: Any) -> bytes:
    data: bytes = skl2onnx.to_onnx(model, initial_types=[("X", kind)], **options).SerializeToString()
    return data


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("zip_map", [False, True])
@pytest.mark.parametrize("strings", [False, True])
def test_a_classifier(numbers_only: pd.DataFrame, three: Array, strings: bool, zip_map: bool, double: bool) -> None:
    X = numbers_only.to_numpy()
    y = np.array(["low", "middle", "high"])[three] if strings else three + 1
    model = LogisticRegression(max_iter=5000).fit(X, y)
    kind = (DoubleTensorType if double else FloatTensorType)([None, 4])

    found = OnnxModel(convert(model, kind, options={"zipmap": zip_map}))

    assert (found.kind, found.classes, found.n_features_in_) == ("classifier", tuple(model.classes_.tolist()), 4)
    assert found.dtype == (np.float64 if double else np.float32)
    assert (found.predict(X) == model.predict(X)).mean() > 0.99
    np.testing.assert_allclose(found.predict_proba(X), model.predict_proba(X), atol=1e-3)


def test_a_regressor(numbers_only: pd.DataFrame, amount: Array) -> None:
    X = numbers_only.to_numpy()
    model = LinearRegression().fit(X, amount)

    found = OnnxModel(convert(model, DoubleTensorType([None, 4])))

    assert (found.kind, found.classes, found.has_probabilities) == ("regressor", None, False)
    assert found.predict(X).shape == (400,)
    np.testing.assert_allclose(found.predict(X), model.predict(X))


def test_other_inputs_are_refused() -> None:
    words = np.array([["a"], ["b"]] * 4, dtype=object)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(words, [0, 1] * 4)

    with pytest.raises(SourceError, match=r"expected a graph with one float or double input .*, got X: tensor\(string"):
        OnnxModel(convert(model, StringTensorType([None, 1])))
    make = onnx.helper.make_tensor_value_info
    two = [make(name, onnx.TensorProto.FLOAT, [None, 1]) for name in "ab"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "b"], ["c"])], "g", two, [make("c", onnx.TensorProto.FLOAT, [None, 1])]
    )
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(SourceError, match=r"got a: tensor\(float\) .*, b: tensor\(float\)"):
        OnnxModel(data.SerializeToString())


def test_a_graph_that_does_not_tell_its_width(numbers_only: pd.DataFrame, amount: Array) -> None:
    data = convert(LinearRegression().fit(numbers_only, amount), FloatTensorType([None, None]))

    with pytest.raises(SourceError, match="X: the graph does not tell how many features it takes"):
        OnnxModel(data)


def test_a_graph_that_does_not_tell_its_classes() -> None:
    make = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("ArgMax", ["X"], ["label"], axis=1, keepdims=0)
    graph = onnx.helper.make_graph(
        [node], "g", [make("X", onnx.TensorProto.FLOAT, [None, 3])], [make("label", onnx.TensorProto.INT64, [None])]
    )
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)

    with pytest.raises(SourceError, match="does not tell its classes"):
        OnnxModel(data.SerializeToString())


def test_a_graph_that_onnxruntime_refuses(numbers_only: pd.DataFrame, amount: Array) -> None:
    forest = RandomForestRegressor(2, max_depth=2).fit(numbers_only.to_numpy(), amount)

    # skl2onnx 1.20 writes such a graph itself.
    with pytest.raises(SourceError, match=r"onnxruntime refuses the graph .*TreeEnsembleRegressor"):
        OnnxModel(convert(forest, DoubleTensorType([None, 4])))
