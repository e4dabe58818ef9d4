"""Rows as a dashboard is built from, made of frames: what `fairlead.dashboard.building.data` reads from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fairlead.bundle.read import Bundle
from fairlead.dashboard.building.data import Observed
from fairlead.predict.outputs import label_text


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Give the rows of a frame as decoded from JSON."""
    values = frame.astype(object).where(frame.notna(), None)
    return [
        {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()}
        for row in values.to_dict("records")
    ]


def observed_of(bundle: Bundle, frame: pd.DataFrame, y: Sequence[Any] | None) -> Observed:
    """Give the rows of a frame, named by its index, and what was observed of each, in the target's own values."""
    classes = bundle.manifest.classes
    places = {label: place for place, label in enumerate(classes or ())}
    numbers = None if y is None else pd.Series([places[value] if classes else float(value) for value in y])
    labels = None if classes is None else tuple(map(label_text, classes))
    return Observed(records_of(frame), [str(name) for name in frame.index], numbers, "Outcome", "Row", labels)
