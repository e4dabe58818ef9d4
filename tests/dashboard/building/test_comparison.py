from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlead.dashboard.building.comparison import compare
from fairlead.dashboard.store import Store


def test_what_options_save(survival_store: Path) -> None:
    before = Store.open(survival_store).manifest
    steps: list[str] = []
    smaller: dict[str, Any] = {"interactions": False, "precision": "float32", "positive_class_only": True, "sample": 60}
    smaller["tabs"] = ("importances",)  # of the others there is nothing to be proved

    now, then = compare(survival_store, {"smaller": smaller}, lambda what, share: steps.append(what))

    assert (now.name, then.name) == ("survival", "smaller")
    assert then.settings == {"rows": "60", "precision": "float32", "interactions": "no", "classes": "positive only"}
    assert now.parts["SHAP interactions"] > 0
    assert "SHAP interactions" not in then.parts
    # Rows, classes and bytes of each number are fewer; what rows are called is not.
    assert then.parts["SHAP values"] < now.parts["SHAP values"] / 2
    assert then.held.loaded_bytes > 0
    assert "smaller: weigh" in steps
    assert Store.open(survival_store).manifest == before
