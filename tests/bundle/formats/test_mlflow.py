from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import sklearn
import skops.io
import xgboost
import yaml
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from fairlead.bundle.formats import LoadRequest, load
from fairlead.errors import SourceError, UnsafePickle, VersionSkew

COLUMNS = [
    {"type": "double", "name": "tenure", "required": True},
    {"type": "double", "name": "charges", "required": True},
]


def write(
    directory: Path,
    flavor: str,
    options: dict[str, Any],
    data: bytes,
    requirements: str = "mlflow==3.17.2\nscikit-learn==1.2.0\nnumpy>=2\n",
    **more: Any,
) -> Path:
    """Write a model directory the way MLflow does."""
    directory.mkdir(exist_ok=True)
    (directory / (options.get("pickled_model") or options["data"])).write_bytes(data)
    flavors = {flavor: options, "python_function": {"loader_module": f"mlflow.{flavor}"}}
    (directory / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "mlflow_version": "3.17.2", **more}))
    (directory / "requirements.txt").write_text(requirements)
    return directory


@pytest.mark.parametrize("form", ["pickle", "cloudpickle", "skops"])
def test_a_scikit_learn_model(tmp_path: Path, pipeline: Any, frame: Any, reopen: Any, form: str) -> None:
    data = skops.io.dumps(pipeline) if form == "skops" else cloudpickle.dumps(pipeline)
    name = "model.skops" if form == "skops" else "model.pkl"
    source = write(
        tmp_path / "model",
        "sklearn",
        {"pickled_model": name, "serialization_format": form, "sklearn_version": "1.2.0", "code": None},
        data,
        signature={"inputs": json.dumps(COLUMNS), "outputs": "[]"},
        saved_input_example_info={"artifact_path": "input_example.json", "pandas_orient": "split", "type": "dataframe"},
    )
    (source / "input_example.json").write_text('{"columns": ["tenure", "charges"], "data": [[1.0, 2.0], [3.0, null]]}')
    loaded = load(LoadRequest(str(source)))
    assert loaded.format == "mlflow"
    assert loaded.files.keys() == {"MLmodel", name, "requirements.txt", "input_example.json"}
    assert loaded.versions == {"scikit-learn": sklearn.__version__}  # the file knows better than the requirements
    assert loaded.signature == COLUMNS
    assert loaded.input_example == [{"tenure": 1.0, "charges": 2.0}, {"tenure": 3.0, "charges": None}]
    for again in (loaded, reopen(loaded)):
        np.testing.assert_array_equal(again.model.predict_proba(frame), pipeline.predict_proba(frame))


def test_what_mlflow_itself_writes(tmp_path: Path, pipeline: Any, frame: Any) -> None:
    script = tmp_path / "save.py"
    (tmp_path / "model.pkl").write_bytes(cloudpickle.dumps((pipeline, frame)))
    script.write_text(
        "import pickle, mlflow.sklearn\nfrom mlflow.models import infer_signature\n"
        "model, frame = pickle.load(open('model.pkl', 'rb'))\n"
        "mlflow.sklearn.save_model(model, 'model', signature=infer_signature(frame), input_example=frame.head(2),\n"
        "    pip_requirements=['scikit-learn'])\n"
    )
    import subprocess
    import sys

    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, script], cwd=tmp_path, check=True, capture_output=True, env=environment)
    loaded = load(LoadRequest(str(tmp_path / "model")))
    assert loaded.signature == COLUMNS
    assert loaded.input_example == frame.head(2).to_dict("records")
    np.testing.assert_array_equal(loaded.model.predict(frame), pipeline.predict(frame))


@pytest.mark.parametrize("kind", ["XGBClassifier", "Booster"])
def test_an_xgboost_model(tmp_path: Path, frame: Any, labels: Any, reopen: Any, kind: str) -> None:
    model = xgboost.XGBClassifier(n_estimators=2).fit(frame, labels)
    options = {"data": "model.ubj", "model_class": f"xgboost.sklearn.{kind}", "xgb_version": "3.0.0"}
    data = bytes(model.get_booster().save_raw("ubj")) if kind == "Booster" else b""
    if not data:
        model.save_model(tmp_path / "raw.ubj")
        data = (tmp_path / "raw.ubj").read_bytes()
    loaded = reopen(load(LoadRequest(str(write(tmp_path / "model", "xgboost", options, data)))))
    assert type(loaded.model).__name__ == kind
    assert loaded.versions["xgboost"] == xgboost.__version__
    if kind == "XGBClassifier":
        np.testing.assert_array_equal(loaded.model.predict_proba(frame), model.predict_proba(frame))


@pytest.mark.parametrize("form", ["model.lgb", "model.pkl", "model.skops"])
def test_a_lightgbm_model(tmp_path: Path, frame: Any, labels: Any, form: str) -> None:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, min_child_samples=2).fit(frame, labels)
    data = {
        "model.lgb": lambda: model.booster_.model_to_string().encode(),
        "model.pkl": lambda: cloudpickle.dumps(model),
        "model.skops": lambda: skops.io.dumps(model),
    }[form]()
    options = {"data": form, "lgb_version": "4.7.0"}
    if form == "model.skops":
        options["serialization_format"] = "skops"
    loaded = load(LoadRequest(str(write(tmp_path / "model", "lightgbm", options, data))))
    assert loaded.versions["lightgbm"] == "4.7.0"
    booster = loaded.model if form == "model.lgb" else loaded.model.booster_
    np.testing.assert_array_equal(booster.predict(frame), model.booster_.predict(frame))


def test_an_onnx_model(tmp_path: Path, reopen: Any) -> None:
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    source = write(tmp_path / "model", "onnx", {"data": "model.onnx", "onnx_version": "1.23.2"}, data)
    loaded = load(LoadRequest(str(source)))
    assert loaded.model == data
    assert loaded.versions["onnx"] == "1.23.2"
    assert reopen(loaded).model == data
    (source / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"model/model\.onnx: expected an ONNX model"):
        load(LoadRequest(str(source)))


def test_a_lambda_by_cloudpickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = make_pipeline(FunctionTransformer(lambda X: (marker.touch(), X)[1]), StandardScaler())
    options = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}
    source = write(tmp_path / "model", "sklearn", options, cloudpickle.dumps(model))
    with pytest.raises(UnsafePickle, match=r"model/model\.pkl: refused.*_make_function"):
        load(LoadRequest(str(source)))
    assert not marker.exists()


def test_a_newer_scikit_learn_is_refused(tmp_path: Path, pipeline: Any) -> None:
    data = cloudpickle.dumps(pipeline, 2).replace(sklearn.__version__.encode(), b"9.9.9")
    source = write(tmp_path / "model", "sklearn", {"pickled_model": "model.pkl"}, data)
    with pytest.raises(VersionSkew, match=r"9\.9\.9"):
        load(LoadRequest(str(source)))


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        ("", "the file is empty"),
        ("nonsense", "got no flavors"),
        ("a: [", "expected YAML"),
        ("flavors: [sklearn]", "got no flavors"),
        ("flavors: {sklearn: 1}", "got no flavors"),
        ("flavors: {keras: {}, python_function: {}}", "lightgbm, onnx, got keras, python_function"),
        ("flavors: {}", "got none"),
        ("flavors: {fairlead: {}, python_function: {}}", "a fairlead bundle already"),
        ("flavors: {sklearn: {}}", "names no model file"),
        ("flavors: {sklearn: {pickled_model: missing.pkl}}", r"missing\.pkl: cannot be read"),
        ("flavors: {sklearn: {pickled_model: ../outside.pkl}}", "lies outside the directory"),
        ("flavors: {sklearn: {pickled_model: /etc/passwd}}", "lies outside the directory"),
        (
            "flavors: {sklearn: {pickled_model: MLmodel, serialization_format: dill}}",
            "expected serialization pickle, cloudpickle or skops, got dill",
        ),
    ],
)
def test_a_descriptor_that_cannot_be_used_is_told(tmp_path: Path, descriptor: str, message: str) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "MLmodel").write_text(descriptor)
    with pytest.raises(SourceError, match=message):
        load(LoadRequest(str(source)))


@pytest.mark.parametrize(
    ("content", "records"),
    [
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{"a": [1, 2], "b": ["x", "y"]}', [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ('{"a": 1, "b": "x"}', [{"a": 1, "b": "x"}]),
        ('{"inputs": [[1, 2]]}', None),
        ('{"a": [1], "b": [1, 2]}', None),
        ("[[1, 2]]", None),
        ("not json", None),
        ("[]", None),
    ],
)
def test_every_form_of_input_example(tmp_path: Path, pipeline: Any, content: str, records: Any) -> None:
    info = {"artifact_path": "input_example.json"}
    options = {"pickled_model": "model.pkl"}
    source = write(tmp_path / "m", "sklearn", options, cloudpickle.dumps(pipeline), saved_input_example_info=info)
    (source / "input_example.json").write_text(content)
    assert load(LoadRequest(str(source))).input_example == records


@pytest.mark.parametrize(
    "inputs",
    [None, "[]", "not json", '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]', "{}", 3],
)
def test_a_signature_without_names_tells_nothing(tmp_path: Path, pipeline: Any, inputs: Any) -> None:
    options = {"pickled_model": "model.pkl"}
    data = cloudpickle.dumps(pipeline)
    source = write(tmp_path / "m", "sklearn", options, data, signature={"inputs": inputs}, requirements="# none\n")
    loaded = load(LoadRequest(str(source)))
    assert loaded.signature is None
    assert loaded.input_example is None
    shutil.rmtree(source)
