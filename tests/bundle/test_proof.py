"""The trees engine is proved as the graph is, and kept out of a bundle where it cannot be."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

import fairlead
from fairlead import report
from fairlead.bundle import descriptor, proof
from fairlead.bundle.build import BuildOptions, BuildReport, build
from fairlead.bundle.compile import model
from fairlead.bundle.read import open_bundle
from fairlead.errors import BundleError
from fairlead.predict.engines import OnnxEngine
from fairlead.predict.forest import TREES, decode_forest, encode_forest
from fairlead.predict.trees import NO_KERNEL, TreesEngine


def built(tmp_path: Path, fitted: Any, frame: pd.DataFrame) -> BuildReport:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    return build(tmp_path / "model.pkl", tmp_path / "bundle", BuildOptions(data=frame, engine="onnx"))


@pytest.fixture
def frame(people: pd.DataFrame) -> pd.DataFrame:
    return people[["age", "children"]]


@pytest.fixture
def fitted(frame: pd.DataFrame) -> Any:
    return RandomForestClassifier(5, random_state=0).fit(frame, frame["age"] > 40)


def records(frame: pd.DataFrame) -> list[Any]:
    return list(frame.to_dict("records"))


def test_a_tree_ensemble_runs_as_trees(tmp_path: Path, fitted: Any, frame: pd.DataFrame) -> None:
    made = built(tmp_path, fitted, frame)

    assert TREES in made.manifest.files
    assert (made.manifest.engine, made.manifest.trees_reason) == ("onnx", None)
    assert "compiled to trees and ONNX; " in report.built(made.path, made.manifest)
    assert isinstance(fairlead.load(made.path).engine, TreesEngine)


def test_without_the_extension_the_graph_serves(
    tmp_path: Path, fitted: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = built(tmp_path, fitted, frame)
    trees = fairlead.load(made.path)
    monkeypatch.setitem(sys.modules, "fairlead.predict._trees", None)
    graph = fairlead.load(made.path)

    assert isinstance(graph.engine, OnnxEngine)
    assert graph.predict(records(frame)) == trees.predict(records(frame))


def test_nothing_is_written_that_could_not_be_proved(
    tmp_path: Path, fitted: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fairlead.predict._trees", None)
    made = built(tmp_path, fitted, frame)

    assert TREES not in made.manifest.files
    assert made.manifest.trees_reason == NO_KERNEL
    assert f"compiled to ONNX alone ({NO_KERNEL}); " in report.built(made.path, made.manifest)


def test_a_forest_that_disagrees_is_dropped(
    tmp_path: Path, fitted: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model.folded

    def wrong(*args: Any) -> Any:
        forest = real(*args)
        return replace(forest, leaves=forest.leaves + 0.01)

    monkeypatch.setattr(model, "folded", wrong)
    made = built(tmp_path, fitted, frame)

    assert TREES not in made.manifest.files
    assert made.manifest.trees_reason is not None
    assert "rows differ from the original by up to" in made.manifest.trees_reason
    assert isinstance(fairlead.load(made.path).engine, OnnxEngine)


def test_a_forest_that_is_unsound_is_dropped(
    tmp_path: Path, fitted: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model.folded
    monkeypatch.setattr(model, "folded", lambda *args: replace(real(*args), roots=real(*args).roots + 10**6))
    made = built(tmp_path, fitted, frame)

    assert made.manifest.trees_reason == (
        "trees.bin: expected a tree's root inside the table of nodes: build the bundle again"
    )


def test_a_difference_counts_whichever_engine_has_it(
    tmp_path: Path, fitted: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = proof._trees_parity

    def farther(*args: Any) -> Any:
        found: Any = real(*args)
        return type(found)(rows=found.rows, largest_difference=5e-7, tolerance=found.tolerance)

    monkeypatch.setattr(proof, "_trees_parity", farther)
    parity = built(tmp_path, fitted, frame).manifest.parity

    assert parity is not None
    assert parity.largest_difference == 5e-7


def test_the_reason_is_told(tmp_path: Path, frame: pd.DataFrame) -> None:
    fitted = make_pipeline(PCA(2), RandomForestClassifier(5, random_state=0)).fit(frame, frame["age"] > 40)
    made = built(tmp_path, fitted, frame)

    assert made.manifest.trees_reason == "trees: a split looks at a column that is made of several features"


def rewritten(made: BuildReport, trees: bytes) -> Path:
    """Put other trees into a bundle, with all digests right."""
    (made.path / TREES).write_bytes(trees)
    files = {name: (made.path / name).read_bytes() for name in made.manifest.files}
    _, described = descriptor.finish(made.manifest, files)
    (made.path / "MLmodel").write_bytes(described)
    open_bundle(made.path)
    return made.path


def test_trees_of_another_form_are_left_to_the_graph(tmp_path: Path, fitted: Any, frame: pd.DataFrame) -> None:
    path = rewritten(built(tmp_path, fitted, frame), b"fairlead trees 2\n")

    assert isinstance(fairlead.load(path).engine, OnnxEngine)


def test_corrupt_trees_are_refused(tmp_path: Path, fitted: Any, frame: pd.DataFrame) -> None:
    made = built(tmp_path, fitted, frame)
    good = (made.path / TREES).read_bytes()
    forest = decode_forest(good, "")
    assert forest is not None
    for bad in (good[:-8], encode_forest(replace(forest, roots=forest.roots + 10**6))):
        with pytest.raises(BundleError, match=r"trees\.bin: expected"):
            fairlead.load(rewritten(made, bad))
