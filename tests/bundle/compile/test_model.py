from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest

from fairlead.bundle.compile.model import compile_model
from fairlead.errors import NotCompilable
from fairlead.schema import Feature, Schema

FLOATS = tuple(Feature(name=name, type="float") for name in "abcd")


def test_the_graph_of_a_classifier(small_tree: Any, numbers_only: pd.DataFrame) -> None:
    compiled = compile_model(small_tree, Schema(features=FLOATS))
    session = ort.InferenceSession(compiled.graph, providers=["CPUExecutionProvider"])

    assert [(one.name, one.type, one.shape[1]) for one in session.get_inputs()] == [("X", "tensor(double)", 4)]
    outputs = {one.name: one.type for one in session.get_outputs()}
    assert outputs == {"label": "tensor(int64)", "probabilities": "tensor(double)"}
    label, _ = session.run(["label", "probabilities"], {"X": numbers_only.to_numpy()})
    assert label.shape == (400,)
    onnx.checker.check_model(onnx.load_from_string(compiled.graph), full_check=True)


def test_what_is_told_of_it(small_tree: Any) -> None:
    compiled = compile_model(small_tree, Schema(features=FLOATS))

    assert (compiled.kind, compiled.classes, compiled.has_probabilities) == ("classifier", (0, 1, 2), True)
    learned = small_tree.tree_.threshold[small_tree.tree_.feature == 1]
    assert set(compiled.thresholds[1]) == set(learned.tolist())


def test_columns_go_by_the_names_of_training(small_tree: Any) -> None:
    renamed = tuple(Feature(name=f"new {name}", column=name, type="float") for name in "abcd")

    assert compile_model(small_tree, Schema(features=renamed)).kind == "classifier"


def test_a_datetime_is_refused(small_tree: Any) -> None:
    schema = Schema(features=(*FLOATS[:3], Feature(name="when", type="datetime")))

    with pytest.raises(NotCompilable, match="when: a datetime has no place in a compiled model"):
        compile_model(small_tree, schema)


SCRIPT = """
import sys, hashlib, pickle
from fairlead.bundle.compile.model import compile_model
from fairlead.schema import Feature, Schema
model = pickle.loads(bytes.fromhex(sys.stdin.read()))
features = [Feature(name=n, type="float") for n in ("age", "income")]
features += [Feature(name=n, type="string", categories=tuple(c)) for n, c in (("city", "xyz"), ("plan", "uv"))]
print(hashlib.sha256(compile_model(model, Schema(features=tuple(features))).graph).hexdigest())
"""


def test_the_same_model_gives_the_same_bytes_in_any_process() -> None:
    import pickle

    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(60, 2)), columns=["age", "income"])
    frame["city"], frame["plan"] = random.choice(list("xyz"), 60), random.choice(list("uv"), 60)
    encode = make_column_transformer((OneHotEncoder(), ["city", "plan"]), (StandardScaler(), ["age", "income"]))
    model = make_pipeline(encode, RandomForestClassifier(3, random_state=0)).fit(frame, frame["age"] > 0)

    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=pickle.dumps(model).hex(),
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"},
        ).stdout
        for seed in (1, 2)
    }

    assert len(digests) == 1
