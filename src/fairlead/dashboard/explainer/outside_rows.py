"""Rows from outside, in the form of the functions that explainerdashboard asks for them.

Layer L3; imports numpy only, and pandas comes with the frames.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlead.dashboard.explainer.features import meant_text, shown_text
from fairlead.errors import DashboardError
from fairlead.predict.outputs import label_text

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.dashboard.rows import Rows


def attach_rows(explainer: Any, rows: Rows) -> None:
    """Have an explainer look up in `rows` what it does not hold itself.

    Parameters
    ----------
    explainer : has its predictor. The library takes plain functions only, with parameters of just these names.
    """
    display = explainer.model.display
    classes = explainer.model.predictor.manifest.classes
    # A file or a database may hold 1.0 or "1" for the class 1.
    places = {key: place for place, label in enumerate(classes or ()) for key in (label_text(label), label)}

    def row(index: str) -> pd.DataFrame:
        name = meant_text(index)
        record = rows.record(name)
        if record is None:
            raise DashboardError(f"{name}: this row was there, and is not any more")
        frame: pd.DataFrame = display.frame([record], [name])
        return frame

    def observed(index: str) -> Any:
        value = rows.y(meant_text(index))
        if value is None:
            return None
        number = _measured(value) if classes is None else places.get(value, places.get(label_text(value)))
        return None if number is None else np.array([number])

    def exists(index: str) -> bool:
        return rows.exists(meant_text(index))

    explainer.set_X_row_func(row)
    explainer.set_y_func(observed)
    explainer.set_index_exists_func(exists)
    listed = rows.indexes()
    if listed is not None:
        names = list(dict.fromkeys([*explainer.idxs, *map(shown_text, listed)]))
        explainer.set_index_list_func(lambda: names)


def _measured(value: bool | float | str) -> float | None:
    """Read what was measured; None for what is no number."""
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None
