from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet
import pytest
import skl2onnx
import skops.io
import xgboost
from msgspec.structs import replace
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import fairlead
from fairlead.bundle.build import BuildReport, build
from fairlead.bundle.compile import steps
from fairlead.bundle.compile.columns import Columns, Compilation, Prediction
from fairlead.errors import BundleError, NotCompilable, NotFitted, SchemaError, SourceError
from fairlead.schema import Feature, Schema

Build = Callable[..., BuildReport]
Array = npt.NDArray[Any]


def answers(report: BuildReport, frame: pd.DataFrame) -> list[Any]:
    return list(fairlead.load(report.path).predict(frame)["prediction"])


def left_beside(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if path.name.endswith(".partial")]


# What a build takes.


def test_a_pickled_estimator(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    report = build_here(small_tree)

    manifest = report.manifest
    assert (manifest.engine, manifest.kind, manifest.classes) == ("onnx", "classifier", (0, 1, 2))
    assert (manifest.name, manifest.version) == ("bundle", manifest.origin.sha256[:12])
    assert manifest.parity is not None
    assert manifest.parity.rows > 1000
    assert answers(report, numbers_only) == small_tree.predict(numbers_only).tolist()
    there = {path.relative_to(report.path).as_posix() for path in report.path.rglob("*") if path.is_file()}
    assert there == {"MLmodel", *manifest.files}
    assert there >= {"model.onnx", "original/model.pkl", "reference.parquet", "input_example.json", "requirements.txt"}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_pair(build_here: Build, customers_model: tuple[Any, Any], swapped: bool, kind: Any) -> None:
    report = build_here(kind(customers_model[::-1] if swapped else customers_model))

    vectorizer, model = customers_model
    row = {"contract": "year", "tenure": 12.0}
    assert (report.manifest.engine, report.manifest.input_form) == ("onnx", "records")
    expected = model.predict_proba(vectorizer.transform([row]))[0, 1]
    assert fairlead.load(report.path).predict(row)["probabilities"]["1"] == pytest.approx(expected, abs=1e-9)


def test_two_files(build_here: Build, customers_model: tuple[Any, Any], tmp_path: Path) -> None:
    for name, part in zip(("dv.bin", "model1.bin"), customers_model, strict=True):
        (tmp_path / name).write_bytes(pickle.dumps(part))

    report = build_here(tmp_path / "model1.bin", vectorizer=tmp_path / "dv.bin")

    assert {"original/model1.bin", "original/vectorizer.bin"} <= report.manifest.files.keys()
    assert fairlead.load(report.path).predict({"contract": "year", "tenure": 12.0})["prediction"] in (0, 1)


def test_skops(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame, tmp_path: Path) -> None:
    skops.io.dump(small_tree, tmp_path / "model.skops")

    report = build_here(tmp_path / "model.skops")

    assert (report.manifest.engine, report.manifest.origin.format) == ("onnx", "skops")
    assert answers(report, numbers_only) == small_tree.predict(numbers_only).tolist()


def test_an_mlflow_directory(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame, tmp_path: Path) -> None:
    directory = tmp_path / "mlflow"
    directory.mkdir()
    columns = [{"name": name, "type": "double", "required": True} for name in "abcd"]
    descriptor = {
        "flavors": {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle"}},
        "signature": {"inputs": json.dumps(columns)},
        "saved_input_example_info": {"artifact_path": "input_example.json"},
    }
    (directory / "MLmodel").write_text(json.dumps(descriptor))
    (directory / "model.pkl").write_bytes(pickle.dumps(small_tree))
    (directory / "input_example.json").write_text(json.dumps({"columns": list("abcd"), "data": [[1.5, 2.5, 3.5, 4.5]]}))

    report = build_here(directory)

    assert (report.manifest.engine, report.manifest.origin.format) == ("onnx", "mlflow")
    assert answers(report, numbers_only) == small_tree.predict(numbers_only).tolist()
    assert json.loads((report.path / "input_example.json").read_bytes())["data"] == [[1.5, 2.5, 3.5, 4.5]]


def test_an_onnx_graph(build_here: Build, numbers_only: pd.DataFrame, three: Array, tmp_path: Path) -> None:
    model = RandomForestClassifier(3, max_depth=3, random_state=0).fit(numbers_only.to_numpy(), three)
    graph = skl2onnx.to_onnx(model, numbers_only.to_numpy(np.float32)[:1])
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())

    report = build_here(tmp_path / "model.onnx", data=numbers_only)

    assert (report.manifest.engine, report.manifest.schema.names) == ("onnx", ("a", "b", "c", "d"))
    assert answers(report, numbers_only) == model.predict(numbers_only.to_numpy(np.float32)).tolist()


def test_a_lightgbm_text(build_here: Build, numbers_only: pd.DataFrame, three: Array, tmp_path: Path) -> None:
    params = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(numbers_only, three), num_boost_round=3)
    booster.save_model(tmp_path / "model.txt")

    report = build_here(tmp_path / "model.txt")

    assert report.manifest.schema.names == ("a", "b", "c", "d")
    assert answers(report, numbers_only) == booster.predict(numbers_only).argmax(axis=1).tolist()


@pytest.mark.parametrize("engine", ["auto", "native"])
def test_a_softmax_booster(
    build_here: Build, numbers_only: pd.DataFrame, three: Array, tmp_path: Path, engine: str
) -> None:
    data = xgboost.DMatrix(numbers_only, three)
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3, "nthread": 1}, data, num_boost_round=3)
    booster.save_model(tmp_path / "model.json")

    report = build_here(tmp_path / "model.json", engine=engine)

    assert answers(report, numbers_only) == booster.predict(data).astype(int).tolist()


CLASS = """
class Greeter:
    def predict(self, name: str, times: int = 2) -> str:
        return " ".join(["hello", name] * times)
"""


def test_a_class(build_here: Build, tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(CLASS)

    report = build_here("greet:Greeter", code=tmp_path / "greet.py")

    assert (report.manifest.engine, report.manifest.kind) == ("native", "function")
    assert report.manifest.engine_reason == "Greeter: has no compiled form"
    (tmp_path / "greet.py").unlink()
    assert fairlead.load(report.path).predict({"name": "you", "times": 1}) == {"prediction": "hello you"}


# Which schema wins.


@pytest.fixture
def mlflow_pair(numbers_only: pd.DataFrame, three: Array, tmp_path: Path) -> Path:
    """Give an MLflow directory of a model that knows places only, whose signature names them m0 to m3."""
    directory = tmp_path / "mlflow"
    directory.mkdir()
    columns = [{"name": f"m{place}", "type": "double"} for place in range(4)]
    flavor = {"pickled_model": "model.pkl", "serialization_format": "pickle"}
    descriptor = {"flavors": {"sklearn": flavor}, "signature": {"inputs": json.dumps(columns)}}
    (directory / "MLmodel").write_text(json.dumps(descriptor))
    model = DecisionTreeClassifier(max_depth=2).fit(numbers_only.to_numpy(), three)
    (directory / "model.pkl").write_bytes(pickle.dumps(model))
    return directory


def test_a_signature_beats_the_model(build_here: Build, mlflow_pair: Path) -> None:
    assert build_here(mlflow_pair).manifest.schema.names == ("m0", "m1", "m2", "m3")


def test_a_sample_beats_the_signature(build_here: Build, mlflow_pair: Path, numbers_only: pd.DataFrame) -> None:
    schema = build_here(mlflow_pair, data=numbers_only.assign(y=0), target="y").manifest.schema

    assert schema.names == ("a", "b", "c", "d")
    assert schema.features[0].minimum == numbers_only["a"].min()


def test_a_declared_schema_beats_all(
    build_here: Build, mlflow_pair: Path, numbers_only: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "schema.yaml").write_text(
        "features:\n" + "".join(f"- {{name: d{i}, column: {c}, type: float, unit: m}}\n" for i, c in enumerate("abcd"))
    )

    report = build_here(mlflow_pair, data=numbers_only, schema=tmp_path / "schema.yaml")

    assert report.manifest.schema.names == ("d0", "d1", "d2", "d3")
    assert report.manifest.schema.features[0].unit == "m"
    assert pyarrow.parquet.read_table(report.path / "reference.parquet").column_names == ["d0", "d1", "d2", "d3"]


def test_a_model_alone(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame, three: Array) -> None:
    assert build_here(small_tree).manifest.schema.names == ("a", "b", "c", "d")
    bare = DecisionTreeClassifier(max_depth=2).fit(numbers_only.to_numpy(), three)
    assert build_here(bare).manifest.schema.names == ("x0", "x1", "x2", "x3")


# Which engine.


def test_native_says_why(build_here: Build, numbers_only: pd.DataFrame, three: Array) -> None:
    vote = VotingClassifier([("one", LogisticRegression()), ("two", GaussianNB())])
    report = build_here(make_pipeline(StandardScaler(), vote).fit(numbers_only, three))

    assert (report.manifest.engine, report.manifest.parity) == ("native", None)
    assert "VotingClassifier" in (report.manifest.engine_reason or "")
    assert "model.onnx" not in report.manifest.files
    assert (
        answers(report, numbers_only.head(5))
        == list(fairlead.load(report.path).predict(numbers_only)["prediction"])[:5]
    )


def test_onnx_insists(build_here: Build, numbers_only: pd.DataFrame, three: Array, tmp_path: Path) -> None:
    model = AdaBoostClassifier(n_estimators=2).fit(numbers_only, three)

    with pytest.raises(NotCompilable, match="AdaBoostClassifier: has no compiled form"):
        build_here(model, engine="onnx")
    assert not (tmp_path / "bundle").exists()


def test_native_when_asked_for(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    report = build_here(small_tree, engine="native")

    assert report.manifest.engine_reason == "asked for with --engine native"
    assert answers(report, numbers_only) == small_tree.predict(numbers_only).tolist()


@pytest.fixture
def wrong_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the compiled form of a decision tree answer half of each probability."""
    import spox.opset.ai.onnx.v21 as op

    from fairlead.bundle.compile.columns import constant

    right = steps.tables()[1]["sklearn.DecisionTreeClassifier"]

    def wrong(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
        found = right(model, columns, compilation)
        assert found.probabilities is not None
        half = op.mul(found.probabilities, constant(0.5))
        return Prediction(label=found.label, probabilities=half, classes=found.classes)

    monkeypatch.setitem(steps.tables()[1], "sklearn.DecisionTreeClassifier", wrong)


@pytest.mark.usefixtures("wrong_tree")
def test_a_compiled_form_that_disagrees_is_not_used(build_here: Build, small_tree: Any) -> None:
    manifest = build_here(small_tree).manifest

    assert manifest.engine == "native"
    reason = manifest.engine_reason or ""
    assert reason.startswith("parity: ")
    assert "rows differ from the original by up to 0.4" in reason


@pytest.mark.usefixtures("wrong_tree")
def test_onnx_insists_on_agreement(build_here: Build, small_tree: Any) -> None:
    with pytest.raises(NotCompilable, match=r"parity: .* rows differ"):
        build_here(small_tree, engine="onnx")


@pytest.mark.parametrize("fault", ["raises", "other classes"])
def test_a_fault_of_the_compiler_does_not_stop_a_build(
    build_here: Build, small_tree: Any, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    right = steps.tables()[1]["sklearn.DecisionTreeClassifier"]

    def wrong(model: Any, columns: Columns, compilation: Compilation) -> Prediction:
        if fault == "raises":
            raise KeyError("a bug")
        found = right(model, columns, compilation)
        return Prediction(label=found.label, probabilities=found.probabilities, classes=("a", "b", "c"))

    monkeypatch.setitem(steps.tables()[1], "sklearn.DecisionTreeClassifier", wrong)
    manifest = build_here(small_tree).manifest

    assert manifest.engine == "native"
    told = {"raises": "the compiler failed: KeyError: 'a bug'", "other classes": "its compiled form"}
    assert told[fault] in (manifest.engine_reason or "")


# Outputs and code.


def test_outputs(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    report = build_here(small_tree, outputs=["p=probability:2", "sure = probability:2 >= 0.5", "best=prediction"])

    answer = fairlead.load(report.path).predict(numbers_only.iloc[0].to_dict())
    assert list(answer) == ["p", "sure", "best"]
    assert answer["sure"] == (answer["p"] >= 0.5)


@pytest.mark.parametrize("output", ["p=probability:9", "p=nonsense", "p"])
def test_wrong_outputs(build_here: Build, small_tree: Any, output: str) -> None:
    with pytest.raises(SchemaError, match="output"):
        build_here(small_tree, outputs=[output])


PREPARE = """
def prepare(record):
    return {"contract": record["plan"].lower(), "tenure": record["months"] / 1.0}
"""


@pytest.mark.parametrize("engine", ["auto", "native"])
def test_code_takes_another_record(
    build_here: Build, customers_model: tuple[Any, Any], tmp_path: Path, engine: str
) -> None:
    (tmp_path / "features.py").write_text(PREPARE)
    data = pd.DataFrame({"plan": ["YEAR", "Month"] * 10, "months": range(20)})

    report = build_here(customers_model, code=tmp_path / "features.py", data=data, engine=engine)

    manifest = report.manifest
    assert (manifest.schema.names, manifest.model_schema.names) == (("plan", "months"), ("contract", "tenure"))
    assert "code/features.py" in manifest.files
    vectorizer, model = customers_model
    expected = model.predict_proba(vectorizer.transform([{"contract": "year", "tenure": 5.0}]))[0, 1]
    answer = fairlead.load(report.path).predict({"plan": "Year", "months": 5})
    assert answer["probabilities"]["1"] == pytest.approx(expected, abs=1e-9)


def test_code_wants_to_know_what_comes_in(build_here: Build, customers_model: Any, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text(PREPARE)

    with pytest.raises(SchemaError, match=r"give a sample with --data or a schema with --schema"):
        build_here(customers_model, code=tmp_path / "features.py")


def test_code_that_fails_on_the_sample(build_here: Build, customers_model: Any, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text("def prepare(record):\n    return {'contract': 3, 'tenure': 1.0}\n")
    data = pd.DataFrame({"plan": ["YEAR"], "months": [1]})

    with pytest.raises(SchemaError, match=r"row 1 cannot be prepared: contract: expected a string from prepare"):
        build_here(customers_model, code=tmp_path / "features.py", data=data)


# What is refused.


@pytest.mark.parametrize("name", ["a b", "-x", ".x", "a/b", "naïve", "x\n"])
def test_wrong_names(build_here: Build, small_tree: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(SchemaError, match="expected a model name of letters, digits"):
        build_here(small_tree, name=name)
    with pytest.raises(SchemaError, match="give one with --name"):
        build_here(small_tree, into=tmp_path / "my bundle")


@pytest.mark.parametrize("name", ["churn", "a.b-c_1", "7"])
def test_names(build_here: Build, small_tree: Any, tmp_path: Path, name: str) -> None:
    assert build_here(small_tree, into=tmp_path / "my bundle", name=name, version="3").manifest.name == name


def test_a_model_that_was_not_fitted(build_here: Build, tmp_path: Path) -> None:
    with pytest.raises(NotFitted):
        build_here(DecisionTreeClassifier())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("cls", [DecisionTreeClassifier, DecisionTreeRegressor])
def test_several_outputs(build_here: Build, numbers_only: pd.DataFrame, three: Array, cls: Any) -> None:
    with pytest.raises(SourceError, match=r"more than one output|one value each"):
        build_here(cls(max_depth=2).fit(numbers_only, np.column_stack([three, three])))


def test_a_sample_that_does_not_fit(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    schema = Schema(features=tuple(Feature(name=name, type="float") for name in "abcd"))

    with pytest.raises(SchemaError, match=r"row 3 does not fit the schema: b: expected a number, got null"):
        build_here(small_tree, schema=schema, data=numbers_only.assign(b=[1.0, 2.0, None, *range(397)]))


# What lies on the disk.


def test_reference_rows(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    report = build_here(small_tree, data=numbers_only)

    table = pyarrow.parquet.read_table(report.path / "reference.parquet")
    pd.testing.assert_frame_equal(table.to_pandas(), numbers_only)


def test_no_more_than_ten_thousand_reference_rows(
    build_here: Build, small_tree: Any, numbers_only: pd.DataFrame
) -> None:
    many = pd.concat([numbers_only] * 26, ignore_index=True)

    report = build_here(small_tree, data=many)

    assert pyarrow.parquet.read_table(report.path / "reference.parquet").num_rows == 10_000
    assert report.manifest.parity is not None
    assert report.manifest.parity.rows > 10_000


def test_made_up_reference_rows(build_here: Build, customers_model: Any) -> None:
    table = pyarrow.parquet.read_table(build_here(customers_model).path / "reference.parquet")

    assert 0 < table.num_rows <= 10_000
    assert set(table["contract"].to_pylist()) == {"year", "month"}


def test_the_same_input_gives_the_same_bundle(
    build_here: Build, small_tree: Any, numbers_only: pd.DataFrame, tmp_path: Path
) -> None:
    first = build_here(small_tree, data=numbers_only)
    second = build_here(small_tree, into=tmp_path / "again", name="bundle", data=numbers_only)

    assert first.manifest == second.manifest
    assert (first.path / "MLmodel").read_bytes() == (second.path / "MLmodel").read_bytes()


def test_an_error_in_the_middle_leaves_nothing(
    build_here: Build, small_tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(partial: Path, example: object) -> None:
        assert (partial / "MLmodel").is_file()
        raise BundleError("the disk is full")

    monkeypatch.setattr("fairlead.bundle.build._try", fail)
    with pytest.raises(BundleError, match="the disk is full"):
        build_here(small_tree)

    assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]


def test_a_failed_rebuild_leaves_the_old_bundle(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> None:
    before = build_here(small_tree)

    with pytest.raises(SchemaError):
        build_here(small_tree, outputs=["p=probability:9"])

    assert fairlead.load(before.path).digest
    assert not left_beside(before.path)


def test_a_rebuild_takes_the_place_of_the_old_one(build_here: Build, small_tree: Any) -> None:
    build_here(small_tree, version="1", engine="native")
    report = build_here(small_tree, version="2")

    assert fairlead.load(report.path).version == "2"
    assert not left_beside(report.path)


def test_a_reader_never_sees_half_a_bundle(build_here: Build, small_tree: Any, tmp_path: Path) -> None:
    target = build_here(small_tree, version="0").path
    done = threading.Event()
    seen: set[str] = set()
    torn: list[BundleError] = []

    def read() -> None:
        while not done.is_set():
            try:
                data = (target / "MLmodel").read_bytes()
                seen.add("1" if b'"version": "1"' in data else "0")
            except OSError as error:
                torn.append(BundleError(str(error)))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(3):
        build_here(small_tree, version="1")
    done.set()
    reader.join()

    assert not torn
    assert "1" in seen


@pytest.mark.parametrize("kind", ["file", "link", "full", "mlflow", "no parent"])
def test_targets_that_are_refused(build_here: Build, small_tree: Any, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(tmp_path)
    elif kind == "full":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif kind == "mlflow":
        target.mkdir()
        (target / "MLmodel").write_text("flavors:\n  sklearn: {}\n")
    else:
        target = tmp_path / "missing" / "target"
    expected = {"file": "something else", "link": "something else", "no parent": "does not exist: make it first"}

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match=expected.get(kind, "not empty and no intact bundle, so it is left alone")):
        build_here(small_tree, into=target)
    assert {*tmp_path.rglob("*")} - {tmp_path / "model.pkl"} == {*before}


def test_an_empty_directory_is_a_target(build_here: Build, small_tree: Any, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()

    assert fairlead.load(build_here(small_tree).path).name == "bundle"


def test_a_broken_bundle_is_a_target(build_here: Build, small_tree: Any) -> None:
    path = build_here(small_tree).path
    (path / "model.onnx").write_bytes(b"broken")

    assert fairlead.load(build_here(small_tree).path).name == "bundle"


SLOW = """
import sys, time
from pathlib import Path
from fairlead.bundle import build as module
def wait(partial, example):
    print("written", flush=True)
    time.sleep(60)
module._try = wait
module.build(sys.argv[1], sys.argv[2], module.BuildOptions(version="new"))
"""


def test_killed_in_the_middle(build_here: Build, small_tree: Any, tmp_path: Path) -> None:
    report = build_here(small_tree, version="old")
    command = [sys.executable, "-c", SLOW, str(tmp_path / "model.pkl"), str(report.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)

    assert fairlead.load(report.path).version == "old"
    assert build_here(small_tree, version="new").manifest.version == "new"
    assert fairlead.load(report.path).version == "new"


def test_two_at_once(small_tree: Any, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(small_tree))
    command = [sys.executable, "-m", "fairlead", "build", "model.pkl", "-o", "bundle", "--model-version"]
    both = [subprocess.Popen([*command, version], cwd=tmp_path, stderr=subprocess.PIPE) for version in "12"]

    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0), (b"", 0)]
    assert fairlead.load(tmp_path / "bundle").version in ("1", "2")
    assert not left_beside(tmp_path / "bundle")


def test_progress(small_tree: Any, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(small_tree))
    told: list[str] = []

    build(tmp_path / "model.pkl", tmp_path / "bundle", progress=told.append)

    assert told == ["load", "schema", "compile", "parity", "write"]


def test_null_is_not_promised_where_the_original_refuses_it(build_here: Build, small_tree: Any) -> None:
    known = build_here(small_tree).manifest.schema
    nullable = Schema(features=tuple(replace(feature, nullable=True) for feature in known.features))
    refusing = LinearRegression().fit(np.zeros((4, len(known.features))), np.arange(4.0))
    with pytest.raises(SchemaError, match="nullable, but the model refuses null"):
        build_here(refusing, schema=nullable)
