from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.ensemble import VotingClassifier
from sklearn.naive_bayes import GaussianNB

from fairlead.bundle.build import BuildReport
from fairlead.schema import Feature, Schema

Build = Callable[..., BuildReport]


@pytest.fixture
def report(build_here: Build, small_tree: Any, numbers_only: pd.DataFrame) -> BuildReport:
    return build_here(small_tree, data=numbers_only)


def test_digests(report: BuildReport) -> None:
    for name, digest in report.manifest.files.items():
        assert hashlib.sha256((report.path / name).read_bytes()).hexdigest() == digest
    assert list(report.manifest.files) == sorted(report.manifest.files)


def test_what_mlflow_reads(report: BuildReport) -> None:
    found = yaml.safe_load((report.path / "MLmodel").read_bytes())

    assert found["flavors"]["python_function"]["loader_module"] == "fairlead.bundle.pyfunc"
    assert found["flavors"]["python_function"]["python_version"] == platform.python_version()
    inputs = json.loads(found["signature"]["inputs"])
    assert inputs == [{"type": "double", "name": name, "required": True} for name in "abcd"]


def test_the_example_is_a_row_of_the_sample(report: BuildReport, numbers_only: pd.DataFrame) -> None:
    example = json.loads((report.path / "input_example.json").read_bytes())

    assert example == {"columns": list("abcd"), "data": [numbers_only.iloc[0].tolist()]}


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        ({"type": "bool"}, ("boolean", True)),
        ({"type": "int"}, ("long", True)),
        ({"type": "int", "nullable": True}, ("any", False)),
        ({"type": "float", "nullable": True}, ("double", False)),
    ],
)
def test_columns(build_here: Build, small_tree: Any, feature: dict[str, Any], column: tuple[str, bool]) -> None:
    first = Feature(name="first", column="a", **feature | {"nullable": False})
    schema = Schema(features=(first, *(Feature(name=name, type="float") for name in "bcd")))
    from fairlead.bundle.descriptor import _column

    found = yaml.safe_load((build_here(small_tree, schema=schema).path / "MLmodel").read_bytes())
    assert json.loads(found["signature"]["inputs"])[0]["name"] == "first"
    told = _column(Feature(name="first", **feature))
    assert (told["type"], told["required"]) == column


def requirements(report: BuildReport) -> list[str]:
    return (report.path / "requirements.txt").read_text().splitlines()


def test_a_compiled_bundle_requires_little(report: BuildReport) -> None:
    names = [line.partition("==")[0] for line in requirements(report)]

    assert names == ["fairlead", "numpy", "onnxruntime", "msgspec"]
    assert f"numpy=={version('numpy')}" in requirements(report)


def test_a_native_bundle_requires_what_it_runs(build_here: Build, numbers_only: pd.DataFrame) -> None:
    model = VotingClassifier([("one", GaussianNB())]).fit(numbers_only, np.arange(400) % 2)

    assert f"scikit-learn=={version('scikit-learn')}" in requirements(build_here(model))
    assert "python: " in (build_here(model).path / "python_env.yaml").read_text()
