"""One model whose features are of all types, one of numbers alone, one that is a function."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.schema import Schema

EVERY_TYPE = {
    "features": [
        {"name": "is_new", "type": "bool"},
        {"name": "rooms", "type": "int", "nullable": True},
        {"name": "size", "type": "float", "nullable": True, "column": "Size m2"},
        {"name": "town", "type": "string", "nullable": True},
        {"name": "sold", "type": "datetime", "default": "2020-01-01T00:00:00Z"},
    ]
}
CODE = """
class House:
    def predict(self, is_new, rooms, size, town, sold):
        return (size or 0.0) * 3.5 + (rooms or 0) + is_new + len(town or "") / 7 + sold.year + sold.minute / 60
"""


@pytest.fixture(scope="session")
def house_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a native bundle `house`, with a threshold among its outputs."""
    folder = tmp_path_factory.mktemp("house")
    code = folder / "house_model.py"
    code.write_text(CODE)
    schema = Schema.parse(EVERY_TYPE)
    rows = pd.DataFrame(
        {
            "is_new": [True, False],
            "rooms": [3, 4],
            "size": [70.5, None],
            "town": ["Delft", None],
            "sold": [datetime(2020, 1, 1, tzinfo=UTC)] * 2,
        }
    )
    options = BuildOptions(
        data=rows.rename(columns={"size": "Size m2"}),
        schema=schema,
        code=code,
        outputs=("price=prediction", "is_dear=prediction > 2100"),
    )
    return fairlead.build("house_model:House", folder / "house", options).path


@pytest.fixture(scope="session")
def flower_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a compiled classifier `flower` of text labels, over a bool, an int and two floats."""
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame(
        {
            "is_wild": [True, False, True, False, True, False],
            "petals": [3, 4, 5, 6, 5, 4],
            "length": [1.5, 2.25, 3.1, 4.0, 5.5, 0.1],
            "width": [0.5, 0.25, 1.1, 1.0, 1.5, 0.1],
        }
    )
    folder = tmp_path_factory.mktemp("flower")
    model = LogisticRegression().fit(rows.astype(float), ["aster", "rose", "aster", "tulip", "tulip", "rose"])
    source = folder / "flower.pkl"
    source.write_bytes(pickle.dumps(model))
    types = {"is_wild": "bool", "petals": "int", "length": "float", "width": "float"}
    schema = Schema.parse({"features": [{"name": name, "type": kind} for name, kind in types.items()]})
    return fairlead.build(source, folder / "flower", BuildOptions(data=rows, schema=schema, version="7")).path
