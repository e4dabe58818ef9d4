"""Rows become the pandas frame that a native model was trained on.

Layer L1; imports pandas when called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlead.predict.validate import Row
from fairlead.schema import Feature, Schema

if TYPE_CHECKING:
    import pandas as pd


def to_frame(rows: Sequence[Row], schema: Schema) -> pd.DataFrame:
    """Make the frame of `rows`: the training's column names and dtypes, nulls as NaN."""
    import pandas as pd

    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(schema.features)
    names = [feature.source for feature in schema.features]
    dtypes = [_dtype(feature, column) for feature, column in zip(schema.features, columns, strict=True)]
    filled = [
        [np.nan if value is None else value for value in column] if dtype == "object" and None in column else column
        for dtype, column in zip(dtypes, columns, strict=True)
    ]
    from_blocks = _from_blocks()
    if from_blocks is None or any(dtype.startswith("datetime64") for dtype in dtypes):
        series = {
            name: pd.Series(list(column), dtype=dtype)
            for name, column, dtype in zip(names, filled, dtypes, strict=True)
        }
        return pd.DataFrame(series)
    # A Series a column costs 50 µs each; one array a dtype is how pandas lays the same frame out in the end.
    blocks = []
    for dtype in dict.fromkeys(dtypes):
        places = [place for place, other in enumerate(dtypes) if other == dtype]
        block = np.empty((len(places), len(rows)), dtype)
        for line, place in enumerate(places):
            block[line] = filled[place]
        blocks.append((block, np.array(places)))
    frame: pd.DataFrame = from_blocks(blocks, index=pd.RangeIndex(len(rows)), columns=pd.Index(names))
    return frame


def _from_blocks() -> Callable[..., Any] | None:
    """Find pandas's public way to make a frame of blocks, which pyarrow uses too; new in pandas 3.0."""
    internals = importlib.import_module("pandas.api.internals")
    found: Callable[..., Any] | None = getattr(internals, "create_dataframe_from_blocks", None)
    return found


def _dtype(feature: Feature, column: Sequence[object]) -> str:
    if feature.type == "string":
        return "object"
    if feature.type in ("int", "bool") and None in column:
        return "float64"
    return {"int": "int64", "bool": "bool", "float": "float64", "datetime": "datetime64[us, UTC]"}[feature.type]
