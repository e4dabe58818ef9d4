"""A bench for compiled steps: the original and the graph made of it, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pandas as pd
import pytest
import spox
from sklearn.pipeline import Pipeline

from fairlead.bundle.compile import steps
from fairlead.bundle.compile.columns import Columns, Compilation, Prediction, Value, matrix
from fairlead.schema import Feature, Schema

Categories = Mapping[int, Sequence[str]]


def run_graph(X: spox.Var, outputs: dict[str, spox.Var], rows: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Build a graph from `X` to `outputs` and run it on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graph = spox.build({"X": X}, outputs).SerializeToString()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(list(outputs), {"X": rows}), strict=True))


def difference(got: Any, wanted: Any) -> float:
    """Say how far numbers are apart, absolute or relative, the looser; infinite where they differ in kind."""
    got, wanted = np.asarray(got, dtype=float), np.asarray(wanted, dtype=float)
    assert got.shape == wanted.shape
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    with np.errstate(all="ignore"):
        apart = np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))
    apart = np.where(same, 0.0, np.where(np.isfinite(apart), apart, np.inf))
    return float(apart.max(initial=0.0))


class Bench:
    """Compiles steps and compares them with the original.

    Strings come in as categories' codes. `categories` gives them by column; by default they are those
    in the rows, in sorted order.
    """

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self.properties = properties

    def record(self, apart: float) -> None:
        """Keep how far a test's numbers were apart, for a report made with ``--junitxml``."""
        self.properties.append(("largest_difference", apart))

    def compilation(self, X: Any, categories: Categories | None = None) -> tuple[Compilation, npt.NDArray[np.float64]]:
        columns = [X.iloc[:, i] for i in range(X.shape[1])] if isinstance(X, pd.DataFrame) else list(np.asarray(X).T)
        features, encoded = [], []
        for i, column in enumerate(columns):
            values = list(column)
            known = (categories or {}).get(i) or sorted({v for v in values if isinstance(v, str)})
            if known:
                features.append(Feature(name=f"x{i}", type="string", categories=tuple(known)))
                codes = {category: float(code) for code, category in enumerate(known)}
                encoded.append([codes.get(v, -1.0) if isinstance(v, str) else np.nan for v in values])
            else:
                features.append(Feature(name=f"x{i}", type="float"))
                encoded.append([np.nan if v is None else float(v) for v in values])
        tensor = spox.argument(spox.Tensor(np.float64, ("N", len(features))))
        inputs = tuple(
            Value(tensor, i, categories=f.categories if f.type == "string" else None, feature=i)
            for i, f in enumerate(features)
        )
        names = tuple(map(str, X.columns)) if isinstance(X, pd.DataFrame) else tuple(f.name for f in features)
        return Compilation(Schema(features=tuple(features)), inputs, names), np.array(encoded, dtype=float).T

    def columns(
        self, step: Any, X: Any, categories: Categories | None = None
    ) -> tuple[Columns, Compilation, npt.NDArray[np.float64]]:
        """Compile a transformer, or a Pipeline of them."""
        compilation, rows = self.compilation(X, categories)
        columns = compilation.inputs
        for _, member in step.steps if isinstance(step, Pipeline) else [("", step)]:
            columns = steps.transform(member, columns, compilation)
        return columns, compilation, rows

    def transformed(self, step: Any, X: Any, categories: Categories | None = None) -> npt.NDArray[np.float64]:
        columns, compilation, rows = self.columns(step, X, categories)
        tensor = compilation.inputs[0].tensor
        found: npt.NDArray[np.float64] = run_graph(tensor, {"Y": matrix(columns)}, rows)["Y"]
        return found

    def transform(self, step: Any, X: Any, categories: Categories | None = None, tolerance: float = 0.0) -> None:
        """Assert that a compiled transformer gives what the original gives, to the last bit by default."""
        wanted = step.transform(X)
        wanted = np.asarray(wanted.toarray() if hasattr(wanted, "toarray") else wanted, dtype=float)
        apart = difference(self.transformed(step, X, categories), wanted)
        self.record(apart)
        assert apart <= tolerance

    def predicted(self, model: Any, X: Any, categories: Categories | None = None) -> tuple[Prediction, dict[str, Any]]:
        if isinstance(model, Pipeline):
            columns, compilation, rows = self.columns(model[:-1], X, categories)
            model = model[-1]
        else:
            compilation, rows = self.compilation(X, categories)
            columns = compilation.inputs
        prediction = steps.predict(model, columns, compilation)
        found = {"value": prediction.value, "label": prediction.label, "probabilities": prediction.probabilities}
        outputs = {name: var for name, var in found.items() if var is not None}
        tensor = compilation.inputs[0].tensor
        return prediction, run_graph(tensor, outputs, rows)

    def predict(self, model: Any, X: Any, categories: Categories | None = None, tolerance: float = 1e-12) -> None:
        """Assert that a compiled model gives the original's labels, and its numbers within `tolerance`."""
        prediction, found = self.predicted(model, X, categories)
        if prediction.classes is None:
            apart = difference(found["value"], model.predict(X))
        else:
            assert all(type(label) in (bool, int, float, str) for label in prediction.classes)
            assert found["label"].dtype == np.int64
            assert [prediction.classes[place] for place in found["label"]] == model.predict(X).tolist()
            assert hasattr(model, "predict_proba") == ("probabilities" in found)
            apart = difference(found["probabilities"], model.predict_proba(X)) if "probabilities" in found else 0.0
        self.record(apart)
        assert apart <= tolerance


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    """Compare compiled steps with their originals."""
    return Bench(request.node.user_properties)


@pytest.fixture
def numbers() -> npt.NDArray[np.float64]:
    """Give 600 rows of 5 columns of several scales, with zeros and extremes."""
    random = np.random.default_rng(7)
    X = random.normal(size=(600, 5)) * [1, 10, 1000, 0.01, 1] + [0, 5, -300, 0, 1e3]
    X[random.random(X.shape) < 0.02] = 0.0
    X[0], X[1], X[2] = 1e6, -1e6, 1e-300
    return X


@pytest.fixture
def mixed() -> pd.DataFrame:
    """Give 600 rows of a string, a skewed string with nulls, a small integer, a bool and a number."""
    random = np.random.default_rng(11)
    skewed = random.choice(list("abcdefgh"), size=600, p=[0.4, 0.3, 0.15, 0.1, 0.02, 0.01, 0.01, 0.01])
    return pd.DataFrame(
        {
            "colour": random.choice(["red", "green", "blue"], size=600),
            "letter": pd.Series(np.where(random.random(600) < 0.05, None, skewed), dtype="str"),
            "count": random.integers(0, 5, size=600),
            "yes": random.random(600) < 0.5,
            "number": random.normal(size=600),
        }
    )
