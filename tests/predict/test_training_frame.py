from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from fairlead.predict import training_frame
from fairlead.predict.training_frame import to_frame
from fairlead.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="i", type="int", nullable=True),
        Feature(name="b", type="bool", nullable=True),
        Feature(name="f", type="float", nullable=True),
        Feature(name="s", type="string", nullable=True, column="S 1"),
        Feature(name="d", type="datetime", nullable=True),
    )
)
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


def test_the_frame_of_a_native_model_has_its_dtypes() -> None:
    frame = to_frame([(1, True, 0.5, "a", NOON), (2**53 + 1, False, 1.0, "b", datetime(1, 1, 1, tzinfo=UTC))], SCHEMA)
    assert list(frame.columns) == ["i", "b", "f", "S 1", "d"]
    assert [str(kind) for kind in frame.dtypes] == ["int64", "bool", "float64", "object", "datetime64[us, UTC]"]
    assert frame["i"][1] == 2**53 + 1
    assert frame["d"][0] == pd.Timestamp(NOON)


def test_null_is_nan_in_it() -> None:
    frame = to_frame([(1, True, 0.5, "a", NOON), (None,) * 5], SCHEMA)
    assert [str(kind) for kind in frame.dtypes] == ["float64", "float64", "float64", "object", "datetime64[us, UTC]"]
    assert frame.iloc[1].isna().all()
    # scikit-learn's encoders know NaN, and take None for another category.
    assert isinstance(frame["S 1"][1], float)
    assert frame["d"][1] is pd.NaT


def test_no_rows_keep_columns_and_dtypes() -> None:
    frame = to_frame([], SCHEMA)
    assert (len(frame), [str(kind) for kind in frame.dtypes][:3]) == (0, ["int64", "bool", "float64"])


ROWS = [(1, True, 0.5, "a"), (2**53 + 1, False, 1.0, "b"), (-3, True, -0.0, "c")]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [*ROWS, (None,) * 4], []])
def test_blocks_make_the_frame_that_series_make(
    rows: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = Schema(features=SCHEMA.features[:4])
    fast = to_frame(rows, schema)
    monkeypatch.setattr(training_frame, "_from_blocks", lambda: None)
    slow = to_frame(rows, schema)
    pd.testing.assert_frame_equal(fast, slow)
    assert fast.columns.dtype == slow.columns.dtype
    # BLAS adds in the order that the memory is laid out in.
    assert fast[["f"]].to_numpy().strides == slow[["f"]].to_numpy().strides
