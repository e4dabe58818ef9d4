from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fairlead.dashboard.boards import explainer_file
from fairlead.dashboard.boards.board import load_board
from fairlead.dashboard.boards.options import read_dashboard_yaml
from fairlead.dashboard.building import build as module
from fairlead.dashboard.building.build import DashboardOptions, build, rebuild
from fairlead.dashboard.rows import RowsOptions
from fairlead.dashboard.store import Store
from fairlead.dashboard.trouble import Trouble
from fairlead.errors import DashboardError, FairleadError


@pytest.fixture
def copy(survival_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(survival_store, tmp_path / "titanic.dash"))


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_project_of_explainerdashboard_from_another_directory(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, data and both YAML files as they are; the store lands beside them, and can be built again."""
    folder = shutil.copytree(project, tmp_path / "project")
    monkeypatch.setenv("FAIRLEAD_CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    steps: list[tuple[str, float]] = []
    built = build(Path("project", "explainer.yaml"), None, None, lambda *told: steps.append(told))

    assert built.path == folder / "explainer.dash"
    assert built.manifest.title == "Old & known"
    assert built.manifest.settings["precision"] == "float32"
    assert set(built.manifest.inputs) == {
        str(folder / name) for name in ("explainer.yaml", "dashboard.yaml", "data.csv", "model.pkl")
    }
    assert any("port is left out" in warning for warning in built.warnings)
    assert steps[0] == ("check", 0.0)
    assert steps[-1] == ("try", 1.0)
    assert all(0 <= share <= 1 for _, share in steps)

    monkeypatch.chdir("/")
    board = load_board(built.path, "/explainer/")
    assert board.explainer.labels == ["drowned", "survived"]
    assert "Sex" in board.explainer.onehot_cols
    assert [tab.title for tab in board.dashboard.explainer_layout.tabs][:1] == ["Feature Importances"]

    before = content(built.path)
    Trouble("it is away").write(built.path)
    write_options(folder, tabs=["whatif"], hide_features=["no such"])
    with pytest.raises(DashboardError, match="does not work:\n  the dashboard cannot be made of its options"):
        rebuild(built.path)
    assert content(built.path) == before
    assert Trouble.of(built.path) is not None

    write_options(folder, tabs=["importances"])
    again = rebuild(built.path)
    assert Trouble.of(built.path) is None
    assert again.path == built.path
    assert read_dashboard_yaml(built.path / "dashboard.yaml")["tabs"] == ["importances"]
    Store.open(built.path).verify()


def write_options(folder: Path, **params: Any) -> None:
    (folder / "dashboard.yaml").write_text(yaml.safe_dump({"dashboard": {"params": params}}))


def test_what_is_written_holds_no_predictor(survival_store: Path) -> None:
    explainer = explainer_file.load(survival_store / "explainer.pickle")

    assert explainer.model.predictor is None


def refused(source: Path, store: Path, **options: Any) -> str:
    with pytest.raises(FairleadError) as error:
        build(source, store, DashboardOptions(**options))
    return str(error.value)


def test_bad_inputs_leave_the_old_one(
    survival_bundle: Path, copy: Path, passengers: pd.DataFrame, passengers_csv: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each is refused before anything is computed."""
    monkeypatch.setattr(module, "explain", None)
    before = content(copy)
    half = tmp_path / "half.csv"
    half.write_bytes(passengers_csv.read_bytes()[:-20])
    doubled = tmp_path / "doubled.csv"
    pd.concat([passengers, passengers[:3]]).to_csv(doubled)
    options = tmp_path / "dashboard.yaml"
    options.write_text("dashboard: {params: {titel: x}}")
    data = {"data": passengers_csv, "target": "survived"}

    assert "no column 'Survived'" in refused(survival_bundle, copy, data=passengers_csv, target="Survived")
    assert "half-written" in refused(survival_bundle, copy, data=half)
    assert "got 'P000' 2 times" in refused(survival_bundle, copy, data=doubled, index="name")
    assert "expected the model's classes" in refused(survival_bundle, copy, data=passengers_csv, target="pay")
    assert "give a file of them with --data" in refused(survival_bundle, copy)
    assert "unknown option 'titel'" in refused(survival_bundle, copy, **data, dashboard_yaml=options)
    assert "unknown tab 'all'" in refused(survival_bundle, copy, **data, tabs=("all",))
    assert "got 1" in refused(survival_bundle, copy, **data, sample=1)
    assert "its directory does not exist" in refused(survival_bundle, copy, **data, static=Path("/none/x.html"))
    assert "there is a directory: name a file in it" in refused(survival_bundle, copy, **data, static=tmp_path)
    assert "the page cannot be written" in refused(survival_bundle, copy, **data, static=Path("/sys/x.html"))
    for rows, told in (("none.parquet", "none.parquet: no such file"), ("none:row", "cannot be imported")):
        monkeypatch.setattr(module, "bundle_of", None)  # which may build a model for minutes
        assert told in refused(survival_bundle, copy, **data, rows=RowsOptions(rows, "name"))
    monkeypatch.undo()
    monkeypatch.setattr(module, "explain", None)
    assert "no such bundle or model" in refused(tmp_path / "none.pkl", copy, **data)
    cut = tmp_path / "bundle"
    shutil.copytree(survival_bundle, cut)
    (cut / "model.onnx").write_bytes((cut / "model.onnx").read_bytes()[:100])
    assert "model.onnx: changed since the bundle was built" in refused(cut, copy, **data)
    assert content(copy) == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "titanic.dash", "half.csv", "doubled.csv", "dashboard.yaml", "bundle",
    }  # fmt: skip


def test_the_kind_that_a_project_tells(project: Path, tmp_path: Path, survival_bundle: Path) -> None:
    folder = shutil.copytree(project, tmp_path / "project")
    told = yaml.safe_load((folder / "explainer.yaml").read_text())
    told["explainer"] |= {"explainer_type": "regression", "modelfile": str(survival_bundle), "params": {}}
    (folder / "explainer.yaml").write_text(yaml.safe_dump(told))

    with pytest.raises(DashboardError, match="expected a regressor, as explainer_type says, got a classifier"):
        build(folder / "explainer.yaml")
