"""Small trained models and the way a bundle keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairlead.bundle.formats import LoadedModel, reload

CUSTOMERS = [{"contract": "one_year" if n % 3 else "two_year", "tenure": n} for n in range(30)]
LABELS = [n % 2 for n in range(30)]
FRAME = pd.DataFrame({"tenure": np.arange(30.0), "charges": np.arange(30.0)[::-1] ** 2})

Reload = Callable[..., LoadedModel]


@pytest.fixture
def customers() -> list[dict[str, Any]]:
    return CUSTOMERS


@pytest.fixture
def frame() -> pd.DataFrame:
    return FRAME


@pytest.fixture
def labels() -> list[int]:
    return LABELS


@pytest.fixture
def pair() -> tuple[Any, Any]:
    """Give the vectorizer and the model of the second document."""
    vectorizer = DictVectorizer(sparse=False)
    return vectorizer, LogisticRegression().fit(vectorizer.fit_transform(CUSTOMERS), LABELS)


@pytest.fixture
def pipeline() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LABELS)


@pytest.fixture
def reopen(tmp_path: Path) -> Reload:
    """Give a function that writes a model's files as a bundle does, and loads them again."""

    def write_and_reload(loaded: LoadedModel, code_dir: Path | None = None, **options: Any) -> LoadedModel:
        original = tmp_path / "original"
        for name, data in loaded.files.items():
            path = original / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return reload(loaded.format, original, code_dir, **options)

    return write_and_reload
