"""Predictions for people in a notebook: a frame, a list of records or one record in, the same out.

Layer L1; imports pandas and pyarrow only when a frame comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fairlead.errors import InvalidRecords

if TYPE_CHECKING:
    from fairlead.predict.predictor import Outcome, Predictor


def predict_data(predictor: Predictor, data: Any) -> Any:
    """Predict `data` and answer in its own form; see `Predictor.predict`."""
    if isinstance(data, Mapping):
        return _answers(predictor.run([data]))[0]
    if isinstance(data, list | tuple):
        return _answers(predictor.run(data))
    import pandas as pd
    import pyarrow as pa

    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"expected a DataFrame, a list of records or a record, got {type(data).__name__}")
    table = pa.Table.from_pandas(data, preserve_index=False)
    names = [output.name for output in predictor.manifest.outputs]
    return pd.DataFrame(_answers(predictor.run(table)), index=data.index, columns=names)


def _answers(outcome: Outcome) -> list[Any]:
    if outcome.rejections:
        raise InvalidRecords([problem for found in outcome.rejections.values() for problem in found])
    return outcome.predictions
