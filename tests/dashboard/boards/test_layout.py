from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.read import open_bundle
from fairlead.dashboard.boards import layout
from fairlead.dashboard.boards.board import Board
from fairlead.dashboard.explainer.features import Display
from fairlead.errors import DashboardError

COMPONENTS = "explainerdashboard.custom"


@pytest.fixture
def make(survival_board: Board, survival_bundle: Path) -> Any:
    schema = open_bundle(survival_bundle).manifest.schema
    features = dict(zip(Display(schema).columns, schema.features, strict=True))

    def made(is_listed: bool = True, **params: Any) -> Any:
        return layout.make(survival_board.explainer, params, "/x/", features, is_listed)

    return made


def components(dashboard: Any) -> dict[str, Any]:
    found = (one for one in dashboard.app.layout._traverse() if getattr(one, "id", None) is not None)
    return {one.id: one for one in found}


def test_the_title_is_text(make: Any) -> None:
    dashboard = make(title="<script>alert(1)</script>", tabs=["importances"])
    page = dashboard.app.server.test_client().get("/x/").get_data(as_text=True)

    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>" in page
    assert components(dashboard)["dashboard-title"].children == "<script>alert(1)</script>"  # React escapes it


def test_nothing_comes_from_elsewhere(make: Any) -> None:
    dashboard = make(tabs=["importances"])
    page = dashboard.app.server.test_client().get("/x/").get_data(as_text=True)

    assert "bootstrap.min.css" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert dashboard.app.server.test_client().post("/x/_mcp").status_code in (404, 405)


def test_any_number_can_be_typed(make: Any) -> None:
    by_id = components(make(tabs=["whatif"]))
    age, travel_class = (
        next(one for id_, one in by_id.items() if id_.startswith(f"feature-input-{name}-input-"))
        for name in ("age", "class")
    )

    assert age.step == "any"
    assert travel_class.step == 1
    assert not hasattr(age, "min")
    hints = [one.children for one in make(tabs=["whatif"]).app.layout._traverse() if type(one).__name__ == "FormText"]
    assert sum(str(hint).endswith("-999 where it is missing") for hint in hints) == 1


def selector(dashboard: Any) -> str:
    return next(
        type(one).__name__ for id_, one in components(dashboard).items() if id_.startswith("random-index-clas-index")
    )


def test_how_a_row_is_chosen(make: Any) -> None:
    assert selector(make(tabs=["contributions"])) == "Dropdown"
    assert selector(make(tabs=["contributions"], is_listed=False)) == "Input"
    own = {
        "module": COMPONENTS,
        "name": "IndividualPredictionsComposite",
        "params": {"index_dropdown": True, "title": "Mine"},
    }
    dashboard = make(tabs=[own, "importances"], is_listed=False)
    assert selector(dashboard) == "Input"
    assert dashboard.explainer_layout.tabs[0].title == "Mine"


def test_a_tab_of_a_class_and_one_with_options(make: Any) -> None:
    tabs = [
        {"module": COMPONENTS, "name": "ImportancesComposite", "params": None},
        {"module": COMPONENTS, "name": "ShapDependenceComponent", "params": {"name": None, "hide_title": True}},
    ]
    made = make(tabs=tabs, depth=3).explainer_layout.tabs

    assert [type(tab).__name__ for tab in made] == ["ImportancesComposite", "ShapDependenceComponent"]
    assert made[1].hide_title is True
    assert made[1].name == "2"
    assert make(tabs=tabs).explainer_layout.tabs[1].name == "2"  # in every worker


def test_interactions_are_shown_when_they_were_computed(make: Any, pay_board: Board) -> None:
    assert layout.has_interactions(make(tabs=["shap_interaction", "importances"]).explainer)
    with pytest.raises(DashboardError, match="expected one that the explainer has, it has no interactions"):
        layout.make(pay_board.explainer, {"tabs": ["shap_interaction"]}, "/x/", {})
    dashboard = layout.make(pay_board.explainer, {"tabs": ["shap_interaction", "importances"]}, "/x/", {})
    assert type(dashboard.explainer_layout).__name__ == "ExplainerPageLayout"
    assert not layout.has_interactions(pay_board.explainer)


def test_an_option_that_does_not_fit(make: Any) -> None:
    with pytest.raises(DashboardError, match=r"cannot be made of its options .*: look at dashboard\.yaml"):
        make(tabs=["whatif"], hide_features=["no such"])


def test_a_class_cannot_be_chosen_where_one_only_is_explained(
    make: Any, survival_board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not make(tabs=["importances"]).header_hide_selector
    monkeypatch.setattr(survival_board.explainer, "keeps_one_label", True, raising=False)
    dashboard = make(tabs=["importances", "contributions"], pos_label="0")

    assert dashboard.header_hide_selector
    assert components(dashboard)["pos-label-0"].value == 1
