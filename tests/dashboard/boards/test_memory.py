from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.dashboard.boards import explainer_file
from fairlead.dashboard.boards.memory import measure, parts_of
from fairlead.dashboard.store import Store
from fairlead.errors import DashboardError


class _Explainer:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_parts_are_what_is_written(tmp_path: Path) -> None:
    values = np.zeros((1000, 7))
    explainer = _Explainer(X=values, _shap_values_df=values.astype(np.float32), labels=["a"], _metrics=None)
    explainer_file.dump(explainer, tmp_path / "file")
    size_bytes = (tmp_path / "file").stat().st_size
    parts = parts_of(explainer, size_bytes)

    assert sum(parts.values()) == pytest.approx(size_bytes, rel=0.01)
    assert parts["features"] == pytest.approx(values.nbytes, rel=0.01)
    assert parts["SHAP values"] == pytest.approx(values.nbytes / 2, rel=0.01)
    assert "metrics" not in parts


def test_a_store_and_a_worker_of_it(survival_store: Path) -> None:
    measured = measure(survival_store)

    explainer = Store.open(survival_store).manifest.files["explainer.pickle"].size_bytes
    bundle = sum(path.stat().st_size for path in (survival_store / "bundle").rglob("*") if path.is_file())
    assert measured.total == explainer + bundle
    assert measured.parts["SHAP interactions"] > measured.parts["SHAP values"]
    assert 0 < measured.parts["decision trees"] < measured.parts["SHAP values"]
    assert measured.settings == {"rows": "200", "precision": "float64", "interactions": "yes", "classes": "all"}
    assert measured.held.loaded_bytes > 0
    assert measured.held.worker_bytes > 0


def test_what_cannot_be_weighed(tmp_path: Path) -> None:
    with pytest.raises(DashboardError, match="not a dashboard"):
        measure(tmp_path)
