"""A schema of rides, whose model was trained with another name for one column, and some rides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairlead.dashboard.rows import CachedRows, RowsOptions, open_rows, prepare
from fairlead.schema import Schema


@pytest.fixture(scope="session")
def schema() -> Schema:
    return Schema.parse(
        {
            "features": [
                {"name": "distance", "type": "float", "nullable": True, "column": "Distance (km)"},
                {"name": "passengers", "type": "int", "nullable": True},
                {"name": "zone", "type": "string", "categories": ["1", "2"], "nullable": True},
                {"name": "shared", "type": "bool", "default": False},
                {"name": "start", "type": "datetime"},
            ]
        }
    )


@pytest.fixture
def rides() -> pd.DataFrame:
    """Give five rides, with a null of each kind."""
    return pd.DataFrame(
        {
            "ride_id": ["007", "7", "a,b", "é", "x"],
            "Distance (km)": [1.5, None, 3.0, 4.25, 5.0],
            "passengers": [1, 2, None, 4, 5],
            "zone": ["1", "2", None, "3", "1"],
            "shared": [True, False, True, True, False],
            "start": pd.to_datetime(["2026-10-01T10:00:00.5Z", *["2026-10-02T00:00:00Z"] * 4], format="ISO8601"),
            "note": "n",
            "late": [0, 1, None, 1, 0],
        }
    )


@pytest.fixture
def first() -> dict[str, Any]:
    """Give the first ride as a record."""
    return {"distance": 1.5, "passengers": 1, "zone": "1", "shared": True, "start": "2026-10-01T10:00:00.500000Z"}


Opened = Callable[..., CachedRows]


@pytest.fixture
def opened(schema: Schema, tmp_path: Path) -> Opened:
    """Prepare rows and open them, with `environ` and the fields of `RowsOptions`."""

    def do(source: object, environ: dict[str, str] | None = None, **options: Any) -> CachedRows:
        folder = tmp_path / "rows"
        part = prepare(RowsOptions(str(source), **options), schema, folder, lambda what, share: None)
        return open_rows(folder, part, schema, environ or {})

    return do
