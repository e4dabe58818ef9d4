import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlead.dashboard.rows.records import RowMaker, check_columns, index_text
from fairlead.errors import DashboardError
from fairlead.schema import Schema

NOTHING = {"distance": None, "passengers": None, "zone": None, "shared": False, "start": "2026-10-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("given", "row"),
    [
        ({}, {}),
        ({"distance": np.float32(1.5), "passengers": np.int64(3), "shared": np.bool_(True)},
         {"distance": 1.5, "passengers": 3, "shared": True}),
        ({"Distance (km)": Decimal("2.5"), "passengers": 3.0, "zone": np.str_("n")},
         {"distance": 2.5, "passengers": 3, "zone": "n"}),
        ({"distance": 2, "passengers": Decimal("3.00")}, {"distance": 2.0, "passengers": 3}),
        ({"distance": float("nan"), "passengers": pd.NA, "zone": None}, {}),
        ({"distance": Decimal("NaN"), "passengers": np.nan}, {}),
        ({"start": date(2026, 10, 2)}, {"start": "2026-10-02T00:00:00Z"}),
        ({"start": pd.Timestamp("2026-10-02T10:00:00+02:00")}, {"start": "2026-10-02T08:00:00Z"}),
        ({"start": np.datetime64("2026-10-02T10:00:00.25", "ns")}, {"start": "2026-10-02T10:00:00.250000Z"}),
        ({"start": "2026-10-02T10:00:00+02:00", "more": 1}, {"start": "2026-10-02T08:00:00Z"}),
    ],
)  # fmt: skip
def test_a_row_has_values_as_json_has(given: dict[str, Any], row: dict[str, Any], schema: Schema) -> None:
    values = {"distance": None, "passengers": None, "zone": None, "start": "2026-10-01T00:00:00Z"} | given
    if "Distance (km)" in given:
        del values["distance"]
    made = RowMaker(schema).record(values, "rides")
    assert made == NOTHING | row
    assert {type(value) for value in made.values()} <= {float, int, str, bool, type(None)}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"passengers": 1.5}, "passengers: expected an integer, got a number, at $.passengers"),
        ({"passengers": Decimal("Infinity")}, "passengers: expected an integer, got a Decimal"),
        (
            {"distance": float("inf"), "zone": 3},
            "got an infinity, at $.distance; zone: expected a string, got an integer",
        ),
        ({"start": pd.NaT}, "start: expected a date and time (RFC 3339), got null"),
    ],
)
def test_a_row_that_does_not_fit_is_told_with_every_problem(given: dict[str, Any], told: str, schema: Schema) -> None:
    values = {"distance": None, "passengers": None, "zone": None, "start": "2026-10-01T00:00:00Z"} | given
    with pytest.raises(DashboardError) as caught:
        RowMaker(schema).record(values, "rides:row")
    assert str(caught.value).startswith("rides:row: a row that does not fit the model: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("007", "007"), (7, "7"), (np.int16(7), "7"), (7.0, "7.0"), (np.float32(0.5), "0.5"), (True, "true"),
        (Decimal("7.50"), "7.50"), (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 10, 1), "2026-10-01"), (datetime(2026, 10, 1, 8, tzinfo=UTC), "2026-10-01T08:00:00Z"),
        (None, None), (float("nan"), None), (pd.NaT, None), (pd.NA, None),
    ],
)  # fmt: skip
def test_an_index_is_text(value: Any, text: str | None) -> None:
    assert index_text(value) == text


def test_what_has_no_column_is_named(schema: Schema) -> None:
    check_columns(["Distance (km)", "passengers", "zone", "start"], schema, "rides")
    with pytest.raises(DashboardError) as caught:
        check_columns(["id"], schema, "rides")
    assert str(caught.value) == (
        "rides: expected a column for each feature, got none for distance, passengers, zone and 1 more; it has id: "
        "add what is missing"
    )
