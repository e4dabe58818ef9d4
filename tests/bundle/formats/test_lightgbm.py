from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from fairlead.bundle.formats import LoadRequest, load
from fairlead.errors import SourceError


@pytest.fixture
def booster(frame: Any, labels: Any) -> Any:
    options = {"objective": "binary", "verbose": -1, "min_data_in_leaf": 2}
    return lightgbm.train(options, lightgbm.Dataset(frame, labels), 3)


def test_a_booster(tmp_path: Path, booster: Any, frame: Any, reopen: Any) -> None:
    path = tmp_path / "model.txt"
    booster.save_model(path)
    loaded = load(LoadRequest(str(path)))
    assert loaded.files == {"model.txt": path.read_bytes()}
    for again in (loaded, reopen(loaded)):
        np.testing.assert_array_equal(again.model.predict(frame), booster.predict(frame))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.7])
def test_a_file_cut_off_is_refused(tmp_path: Path, booster: Any, keep: float) -> None:
    path = tmp_path / "model.txt"
    booster.save_model(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(data.index(b"end of trees") * keep)])
    with pytest.raises(SourceError, match="broken or cut off"):
        load(LoadRequest(str(path)))


def test_what_only_looks_like_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_text("tree\nversion=v4\nend\n\nend of trees\n")
    with pytest.raises(SourceError, match="broken or cut off"):
        load(LoadRequest(str(path)))
