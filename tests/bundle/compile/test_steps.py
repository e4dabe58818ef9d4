from __future__ import annotations

from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fairlead.bundle.compile import steps
from fairlead.errors import NotCompilable


class MyModel(LogisticRegression):
    pass


def test_every_family_is_found() -> None:
    transforms, predictors = steps.tables()

    assert {"sklearn.StandardScaler", "sklearn.DictVectorizer", "sklearn.Pipeline"} <= transforms.keys()
    assert {"sklearn.Pipeline", "xgboost.Booster", "lightgbm.Booster", "fairlead.OnnxModel"} <= predictors.keys()
    assert all(callable(function) for table in (transforms, predictors) for function in table.values())


def test_a_class_is_known_by_its_library() -> None:
    assert steps.key_of(StandardScaler()) == "sklearn.StandardScaler"
    assert steps.key_of(MyModel()) != steps.key_of(LogisticRegression())


@pytest.mark.parametrize(
    ("name", "label"),
    [("scale", "scale: StandardScaler"), ("standardscaler", "StandardScaler"), ("", "StandardScaler")],
)
def test_labels(name: str, label: str) -> None:
    assert steps.label_of(StandardScaler(), name) == label


@pytest.mark.parametrize("walk", [steps.transform, steps.predict])
def test_an_unknown_class_is_refused_by_name(walk: Any, bench: Any) -> None:
    compilation, _ = bench.compilation([[1.0], [2.0]])

    with pytest.raises(NotCompilable, match=r"^last: MyModel: has no compiled form$"):
        walk(MyModel(), compilation.inputs, compilation, "last")
