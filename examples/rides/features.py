"""What the model is trained on, made of what callers send. Packed into the bundle by `--code features.py`."""

from __future__ import annotations

from typing import Any


def prepare(ride: dict[str, Any]) -> dict[str, Any]:
    """Join the two zones to one feature: a trip's length in time depends on the pair."""
    return {"PU_DO": f"{ride['PULocationID']}_{ride['DOLocationID']}", "trip_distance": ride["trip_distance"]}
