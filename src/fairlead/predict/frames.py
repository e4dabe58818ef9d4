"""Predictions for people in a notebook: a frame, a list of records or one record in, the same out.

Layer L1; imports pandas and pyarrow only when a frame comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fairlead.errors import InvalidRecords
from fairlead.schema import Problem

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.predict.predictor import Outcome, Predictor


def predict_data(predictor: Predictor, data: Any) -> Any:
    """Predict `data` and answer in its own form; see `Predictor.predict`."""
    if isinstance(data, Mapping):
        outcome = predictor.run([data])
        if outcome.rejections:
            raise InvalidRecords([problem.alone() for problem in outcome.rejections[0]])
        return outcome.predictions[0]
    if isinstance(data, list | tuple):
        return _answers(predictor.run(data))
    import pandas as pd
    import pyarrow as pa

    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"expected a DataFrame, a list of records or a record, got {type(data).__name__}")
    names = [output.name for output in predictor.manifest.outputs]
    try:
        rows = pa.Table.from_pandas(data, preserve_index=False)
    except pa.ArrowException:
        # A column holds values of several types. Row by row, the bad ones are told by place.
        rows = _records(data, predictor)
    except ValueError as error:
        raise InvalidRecords([Problem("$", "columns of different names", "one name twice")]) from error
    return pd.DataFrame(_answers(predictor.run(rows)), index=data.index, columns=names)


def _records(frame: pd.DataFrame, predictor: Predictor) -> list[Any]:
    renamed = frame.rename(columns={feature.source: feature.name for feature in predictor.schema.features})
    records: list[Any] = renamed.astype(object).where(renamed.notna(), None).to_dict("records")
    return records


def _answers(outcome: Outcome) -> list[Any]:
    if outcome.rejections:
        raise InvalidRecords([problem for found in outcome.rejections.values() for problem in found])
    return outcome.predictions
