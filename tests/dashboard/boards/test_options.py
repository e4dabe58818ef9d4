from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.dashboard.boards.options import (
    check,
    read_dashboard_yaml,
    wants_decision_trees,
    wants_interactions,
    yaml_of,
)
from fairlead.errors import DashboardError


def test_what_explainerdashboard_writes(project: Path) -> None:
    checked = check(read_dashboard_yaml(project / "dashboard.yaml"), "dashboard.yaml")

    assert checked.params["title"] == "Old & known"
    assert checked.params["hide_cutoff"] is True
    assert [tab if isinstance(tab, str) else tab["name"] for tab in checked.params["tabs"]] == [
        "ImportancesComposite", "contributions", "ShapDependenceComponent",
    ]  # fmt: skip
    assert not {"port", "logins", "mode", "url_base_pathname"} & checked.params.keys()
    assert checked.warnings == ("dashboard.yaml: port is left out: how a dashboard is reached is told to `serve`",)


def test_what_is_written_is_read(project: Path, tmp_path: Path) -> None:
    params = check(read_dashboard_yaml(project / "dashboard.yaml"), "").params
    (tmp_path / "dashboard.yaml").write_bytes(yaml_of(params))

    assert read_dashboard_yaml(tmp_path / "dashboard.yaml") == params
    written = yaml.safe_load((tmp_path / "dashboard.yaml").read_text())["dashboard"]
    assert written["params"]["kwargs"] == {"hide_cutoff": True}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"titel": "x"}, "unknown option 'titel': did you mean 'title'"),
        ({"logins": [["ann", "secret"]]}, "passwords do not belong .* `fairlead dashboard users add NAME`"),
        ({"tabs": ["importance"]}, "unknown tab 'importance': did you mean 'importances'"),
        ({"tabs": [3]}, "tabs: expected a name or a component"),
        (
            {"tabs": [{"module": "os", "name": "system", "params": None}]},
            "os.system: only what is explainerdashboard's",
        ),
        ({"tabs": [{"module": "explainerdashboardx.y", "name": "A"}]}, "only what is explainerdashboard's own"),
        (
            {"tabs": [{"module": "explainerdashboard.custom", "name": "ShapDependencyComponent"}]},
            "there is none in this version",
        ),
        (
            {"tabs": [{"module": "explainerdashboard.dashboard_methods", "name": "import_module"}]},
            "is no component of explainerdashboard",
        ),
        (
            {"tabs": [{"module": "explainerdashboard.custom", "name": "PdpComponent", "params": {"hide_colour": 1}}]},
            "PdpComponent: unknown option 'hide_colour'",
        ),
        ({"show_metrics": [{"__callable__": {"module": "subprocess", "name": "run"}}]}, "subprocess.run: only what"),
        ({"show_metrics": [{"__callable__": {"module": "sklearn.metrics", "name": "_x"}}]}, "only what"),
        ({"title": ["x"]}, "title: expected text"),
    ],
)
def test_what_is_refused(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(DashboardError, match=f"d.yaml: .*{expected}|{expected}"):
        check(params, "d.yaml")


def test_an_error_holds_no_password() -> None:
    with pytest.raises(DashboardError) as error:
        check({"logins": [["ann", "top secret"]]}, "d.yaml")

    assert "secret" not in str(error.value)


def test_a_theme_from_elsewhere_is_told() -> None:
    checked = check({"bootstrap": "https://cdn.example/theme.css", "logins": None}, "d.yaml")

    assert checked.params == {"bootstrap": "https://cdn.example/theme.css"}
    assert "bootstrap: whoever looks at the dashboard fetches it from elsewhere" in checked.warnings[0]


@pytest.mark.parametrize(
    ("params", "wants"),
    [
        ({}, False),
        ({"shap_interaction": True}, True),
        ({"shap_interaction": True, "tabs": ["importances"]}, False),
        ({"tabs": ["shap_interaction"]}, True),
        ({"tabs": [{"module": "explainerdashboard.custom", "name": "ShapInteractionsComposite"}]}, True),
    ],
)
def test_who_wants_interactions(params: dict[str, Any], wants: bool) -> None:
    assert wants_interactions(params) is wants


@pytest.mark.parametrize(
    ("params", "wants"),
    [
        ({}, None),
        ({"decision_trees": False}, False),
        ({"decision_trees": True, "tabs": ["importances"]}, False),
        ({"tabs": ["decision_trees"]}, True),
        ({"tabs": [{"module": "explainerdashboard.custom", "name": "DecisionPathTableComponent"}]}, True),
    ],
)
def test_who_wants_decision_trees(params: dict[str, Any], wants: bool | None) -> None:
    assert wants_decision_trees(params) is wants


@pytest.mark.parametrize("content", ["dashboard: {params: [1]}", "dashboard: {params: {kwargs: 3}}", "explainer: {}"])
def test_files_of_another_kind(content: str, tmp_path: Path) -> None:
    (tmp_path / "dashboard.yaml").write_text(content)
    with pytest.raises(DashboardError, match="expected"):
        read_dashboard_yaml(tmp_path / "dashboard.yaml")
