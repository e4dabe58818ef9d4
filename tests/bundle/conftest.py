"""The whole way from a fitted model to the proof that its compiled form agrees."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.build import BuildOptions, BuildReport, build
from fairlead.bundle.compile.model import CompiledModel, compile_model
from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.manifest import Parity
from fairlead.bundle.originals import original_of
from fairlead.bundle.parity import compare
from fairlead.bundle.probes import probes
from fairlead.bundle.samples import records_of
from fairlead.bundle.signature import schema_of
from fairlead.predict.engines import OnnxEngine
from fairlead.predict.native import NativeEngine
from fairlead.predict.trees import TreesEngine
from fairlead.predict.validate import Validator
from fairlead.schema import Schema

Agree = Callable[..., CompiledModel]
Build = Callable[..., BuildReport]


def loaded_model(model: Any, vectorizer: Any = None) -> LoadedModel:
    return LoadedModel(model, "onnx" if isinstance(model, bytes) else "pickle", {}, vectorizer=vectorizer)


@pytest.fixture(scope="session")
def agree() -> Agree:
    """Compile a model and prove it on a sample and on all probes; gives what was compiled."""

    def check(
        model: Any, frame: pd.DataFrame, schema: Schema | None = None, tolerance: float = 1e-6, vectorizer: Any = None
    ) -> CompiledModel:
        loaded = loaded_model(model, vectorizer)
        original = original_of(loaded)
        schema = schema_of(loaded, original, frame, schema)
        checked = Validator(schema).check(records_of(frame))
        assert not checked.rejections
        native = NativeEngine(original.model, original.kind, schema, original.form, original.has_probabilities)
        inner = original.model if isinstance(model, bytes) else getattr(original.model, "inner", original.model)
        compiled = compile_model(inner, schema)
        assert compiled.kind == original.kind
        assert compiled.classes == original.classes
        assert compiled.has_probabilities == original.has_probabilities
        engine = OnnxEngine(compiled.graph, schema, compiled.classes)
        proof = compare(native, engine, checked.rows, probes(schema, checked.rows, compiled.thresholds))
        assert isinstance(proof, Parity), proof
        assert proof.rows > len(frame)
        assert proof.largest_difference <= tolerance
        if compiled.forest is not None:
            trees = TreesEngine(compiled.forest, schema, compiled.classes)
            proof = compare(native, trees, checked.rows, probes(schema, checked.rows, compiled.thresholds))
            assert isinstance(proof, Parity), proof
            assert proof.largest_difference <= tolerance
        return compiled

    return check


@pytest.fixture(scope="session")
def people() -> pd.DataFrame:
    """Give 400 rows: two numbers (one with nulls), a small integer, and two strings."""
    random = np.random.default_rng(5)
    income = random.normal(3000, 800, size=400)
    income[random.random(400) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "age": random.uniform(18, 90, size=400),
            "income": income,
            "children": random.integers(0, 5, size=400),
            "city": random.choice(["Oslo", "Bergen", "Tromsø", "Bodø"], size=400),
            "plan": random.choice(["basic", "gold"], size=400, p=[0.7, 0.3]),
        }
    )


@pytest.fixture(scope="session")
def numbers_only() -> pd.DataFrame:
    """Give 400 rows of four numbers of several scales, none of them null."""
    random = np.random.default_rng(6)
    return pd.DataFrame(random.normal(size=(400, 4)) * [1, 100, 0.01, 1] + [0, 1e4, 0, 3], columns=list("abcd"))


@pytest.fixture(scope="session")
def three(numbers_only: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Give a label of three classes for `numbers_only`."""
    score = numbers_only["a"] + (numbers_only["b"] - 1e4) / 100 + np.sin(np.arange(400))
    return np.asarray(pd.cut(score, [-np.inf, -0.7, 0.7, np.inf], labels=False), dtype=np.int64)


@pytest.fixture(scope="session")
def amount(numbers_only: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Give a positive number to predict for `numbers_only`."""
    return np.asarray(np.exp(numbers_only["a"] / 2) + np.abs(numbers_only["d"]))


@pytest.fixture(scope="session")
def small_tree(numbers_only: pd.DataFrame, three: np.ndarray[Any, Any]) -> Any:
    """Give a tree over the columns a, b, c, d that answers 0, 1 or 2."""
    return DecisionTreeClassifier(max_depth=3, random_state=0).fit(numbers_only, three)


@pytest.fixture(scope="session")
def customers_model() -> tuple[Any, Any]:
    """Give a DictVectorizer over `contract` and `tenure`, and its classifier."""
    records = [{"contract": "year" if n % 3 else "month", "tenure": float(n)} for n in range(60)]
    vectorizer = DictVectorizer(sparse=False)
    return vectorizer, LogisticRegression().fit(vectorizer.fit_transform(records), [n % 2 for n in range(60)])


@pytest.fixture
def build_here(tmp_path: Path) -> Build:
    """Pickle a model, or take the source it is given, and build `tmp_path/bundle`."""

    def build_it(source: Any, into: Path | None = None, **options: Any) -> BuildReport:
        if not isinstance(source, str | Path):
            path = tmp_path / "model.pkl"
            path.write_bytes(pickle.dumps(source))
            source = path
        return build(source, into or tmp_path / "bundle", BuildOptions(**options))

    return build_it


@pytest.fixture(autouse=True)
def forget_user_code() -> Iterator[None]:
    """Take the modules that `load_module` made out of the process again: no import system knows them."""
    yield
    for name, module in list(sys.modules.items()):
        made_by_hand = type(module) is ModuleType and module.__spec__ is None and name != "__main__"
        if made_by_hand and str(getattr(module, "__file__", "")).endswith(".py"):
            del sys.modules[name]
