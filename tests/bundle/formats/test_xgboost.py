from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from fairlead.bundle.formats import LoadRequest, load
from fairlead.errors import SourceError, VersionSkew


@pytest.fixture
def booster(frame: Any, labels: Any) -> Any:
    return xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(frame, labels), 3)


@pytest.mark.parametrize("name", ["model.json", "model.ubj"])
def test_a_booster(tmp_path: Path, booster: Any, frame: Any, reopen: Any, name: str) -> None:
    path = tmp_path / name
    booster.save_model(path)
    loaded = load(LoadRequest(str(path)))
    assert isinstance(loaded.model, xgboost.Booster)
    assert loaded.versions == {"xgboost": xgboost.__version__}
    assert loaded.warnings == ()
    matrix = xgboost.DMatrix(frame)
    for again in (loaded, reopen(loaded)):
        np.testing.assert_array_equal(again.model.predict(matrix), booster.predict(matrix))


def test_an_estimators_own_file(tmp_path: Path, frame: Any, labels: Any) -> None:
    path = tmp_path / "model.json"
    model = xgboost.XGBClassifier(n_estimators=2).fit(frame, labels)
    model.save_model(path)
    got = load(LoadRequest(str(path))).model.predict(xgboost.DMatrix(frame))
    np.testing.assert_allclose(got, model.predict_proba(frame)[:, 1])


def test_a_newer_version_is_told(tmp_path: Path, booster: Any) -> None:
    path = tmp_path / "model.json"
    booster.save_model(path)
    document = json.loads(path.read_text())
    document["version"] = [99, 0, 0]
    path.write_text(json.dumps(document))
    loaded = load(LoadRequest(str(path)))
    assert loaded.versions == {"xgboost": "99.0.0"}
    assert any("99.0.0" in warning for warning in loaded.warnings)
    document["learner"]["gradient_booster"] = {"name": "gbquantum"}
    path.write_text(json.dumps(document))
    with pytest.raises(VersionSkew, match=r"pip install xgboost==99\.0\.0"):
        load(LoadRequest(str(path)))


@pytest.mark.parametrize("text", ['{"learner": 1}', '{"learner": {}}', '{"a": 1}', '{"learner": {"objective": '])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"model\.json: expected an XGBoost model"):
        load(LoadRequest(str(path)))


def test_a_file_cut_off_is_refused(tmp_path: Path, booster: Any) -> None:
    path = tmp_path / "model.ubj"
    booster.save_model(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match="broken"):
        load(LoadRequest(str(path)))
