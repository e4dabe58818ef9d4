from __future__ import annotations

from pathlib import Path

import pytest

from streams import Pricers


@pytest.fixture(scope="session")
def _pricers(tmp_path_factory: pytest.TempPathFactory) -> Pricers:
    return Pricers(tmp_path_factory.mktemp("pricers"))


@pytest.fixture
def pricers(_pricers: Pricers) -> Pricers:
    """Give what builds versions of a model, none of which fails yet."""
    _pricers.fail()
    return _pricers


@pytest.fixture
def bundle(pricers: Pricers) -> Path:
    """Give a bundle whose price is the size; do not change it."""
    return pricers.build("1")
