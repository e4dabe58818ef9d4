from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fairlead.predict.predictor import load


def test_a_large_table_runs_in_pieces_with_the_same_result(compiled_bundle: Path, homes: pd.DataFrame) -> None:
    predictor = load(compiled_bundle)
    many = pd.concat([homes] * 120, ignore_index=True)
    assert len(many) > 8192
    found = predictor.predict(many)
    once = predictor.predict(homes)
    np.testing.assert_allclose(found["p"].to_numpy().reshape(120, -1), np.tile(once["p"], (120, 1)), atol=1e-12)
    assert found["prediction"].tolist() == once["prediction"].tolist() * 120
