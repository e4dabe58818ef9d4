"""Predictions for people in a notebook: a frame, a list of records or one record in, the same out.

Layer L1; imports pandas and pyarrow only when a frame comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from fairlead.errors import InvalidRecords
from fairlead.schema import Problem

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.predict.predictor import Predictor


# Of a frame so many rows are worked on at once, so that what is needed in between stays small.
_SLICE_ROWS = 65_536

OnProgress = Callable[[int, int], object]


def predict_data(predictor: Predictor, data: Any, on_progress: OnProgress | None) -> Any:
    """Predict `data` and answer in its own form; see `Predictor.predict`."""
    if isinstance(data, Mapping):
        outcome = predictor.run([data])
        if outcome.rejections:
            raise InvalidRecords([problem.alone() for problem in outcome.rejections[0]])
        return outcome.predictions[0]
    told = on_progress or (lambda done, total: None)
    if isinstance(data, list | tuple):
        return list(chain.from_iterable(_in_slices(data, partial(_answers, predictor), told)))
    import pandas as pd

    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"expected a DataFrame, a list of records or a record, got {type(data).__name__}")
    if data.columns.has_duplicates:
        raise InvalidRecords([Problem("$", "columns of different names", "one name twice")])
    frames = _in_slices(data, partial(_frame, predictor), told)
    return frames[0] if len(frames) == 1 else pd.concat(frames)


def _in_slices(data: Any, predict: Callable[[Any], tuple[Any, list[Problem]]], told: OnProgress) -> list[Any]:
    """Predict slice by slice; what is wrong is told of all of them."""
    answers: list[Any] = []
    problems: list[Problem] = []
    for start in range(0, len(data) or 1, _SLICE_ROWS):
        piece = data[start : start + _SLICE_ROWS]
        answer, found = predict(piece)
        answers.append(answer)
        problems += [problem.shifted(start) for problem in found] if start else found
        told(start + len(piece), len(data))
    if problems:
        raise InvalidRecords(problems)
    return answers


def _answers(predictor: Predictor, records: Sequence[Any]) -> tuple[list[Any], list[Problem]]:
    outcome = predictor.run(records)
    return outcome.predictions, [problem for found in outcome.rejections.values() for problem in found]


def _frame(predictor: Predictor, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    import pandas as pd
    import pyarrow as pa

    names = [output.name for output in predictor.manifest.outputs]
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except pa.ArrowException:
        # A column holds values of several types. Row by row, the bad ones are told by place.
        table = None
    if table is None or predictor.manifest.kind == "function":
        answers, problems = _answers(predictor, _records(frame, predictor) if table is None else table)
        return pd.DataFrame([] if problems else answers, [] if problems else frame.index, names), problems
    from fairlead.predict.columns import OutputColumns

    outcome = predictor.run_table(table, OutputColumns(predictor.manifest))
    problems = [problem for found in outcome.rejections.values() for problem in found]
    made = outcome.outputs.to_pandas(strings_to_categorical=False)
    for name in made.select_dtypes("category"):
        made[name] = made[name].astype(made[name].cat.categories.dtype)
    return made if problems else made.set_index(frame.index), problems


def _records(frame: pd.DataFrame, predictor: Predictor) -> list[Any]:
    renamed = frame.rename(columns={feature.source: feature.name for feature in predictor.schema.features})
    records: list[Any] = renamed.astype(object).where(renamed.notna(), None).to_dict("records")
    return records
