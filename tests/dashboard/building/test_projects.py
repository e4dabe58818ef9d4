from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.dashboard.building.projects import read_explainer_yaml
from fairlead.errors import DashboardError


def told(project: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((project / "explainer.yaml").read_text())
    return read


@pytest.fixture
def write(project: Path, tmp_path: Path) -> Any:
    """Write an explainer.yaml beside copies of a project's files, with some keys changed; None takes one out."""

    def make(**changed: Any) -> Path:
        for name in ("model.pkl", "data.csv"):
            (tmp_path / name).write_bytes((project / name).read_bytes())
        keys = told(project)["explainer"] | changed
        keys = {name: value for name, value in keys.items() if value is not ...}
        (tmp_path / "explainer.yaml").write_text(yaml.safe_dump({"explainer": keys}))
        return tmp_path / "explainer.yaml"

    return make


def test_what_explainerdashboard_writes(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    read = read_explainer_yaml(Path(project.name, "explainer.yaml"))
    monkeypatch.chdir(tmp_path)

    assert read.source == project / "model.pkl"
    assert read.data == project / "data.csv"
    assert read.dashboard_yaml == project / "dashboard.yaml"
    assert read.explainerfile == project / "explainer.joblib"
    assert (read.target, read.index, read.kind) == ("survived", "name", "classifier")
    assert read.params["cats"] == ["Sex"]
    assert read.params["precision"] == "float32"


def test_the_spelling_of_the_python_call(write: Any) -> None:
    read = read_explainer_yaml(write(data_target=..., data_index=..., target_col="survived", index_col=None))

    assert (read.target, read.index) == ("survived", None)


def test_a_regression_and_no_dashboard_yaml(write: Any) -> None:
    read = read_explainer_yaml(write(explainer_type="regression", params=None))

    assert read.kind == "regressor"
    assert read.params == {}
    assert read.dashboard_yaml is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"modelfil": "model.pkl"}, "unknown key 'modelfil': did you mean 'modelfile'"),
        ({"modelfile": "no.pkl"}, r"modelfile: no such file: .*/no.pkl \(paths start where the YAML is\)"),
        ({"datafile": ...}, "datafile: expected a path, got nothing"),
        ({"target_col": "survived"}, "target_col and data_target are one and the same"),
        ({"explainer_type": "regressor"}, "expected classifier or regression, got 'regressor'"),
        ({"data_target": 3}, "data_target: expected the name of a column, got 3"),
        ({"params": ["cats"]}, "params: expected a mapping, got list"),
    ],
)
def test_what_is_wrong(changed: dict[str, Any], expected: str, write: Any) -> None:
    with pytest.raises(DashboardError, match=expected):
        read_explainer_yaml(write(**changed))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"dashboard: {}", "expected `explainer:` and its keys"),
        (b"explainer: {modelfile: [", "expected plain YAML, maybe it is half-written"),
        (b"explainer: !!python/object/apply:os.system [ls]", "expected plain YAML"),
        (b"", "expected `explainer:`"),
    ],
)
def test_files_of_another_kind(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "explainer.yaml").write_bytes(content)
    with pytest.raises(DashboardError, match=expected):
        read_explainer_yaml(tmp_path / "explainer.yaml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DashboardError, match="cannot be read: No such file"):
        read_explainer_yaml(tmp_path / "explainer.yaml")
