"""What is done with a chunk, wherever there is a free core: rows of it, their predictions, the bytes of both.

Layer L3; imports predict and `formats`. It is pickled to run in other processes and on other machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fairlead.batch.formats.form import Encoder, Parser, Rows
from fairlead.errors import InputError, InvalidRecords
from fairlead.predict.columns import OutputColumns
from fairlead.predict.predictor import Predictor
from fairlead.predict.tables import is_table
from fairlead.schema import Problem

MODEL_VERSION = "model_version"


@dataclass(frozen=True)
class Scored:
    """What became of a chunk.

    Parameters
    ----------
    encoded : for the writer.
    n_rows : rows that were read.
    n_written : rows that `encoded` holds.
    rejections : problems of each row that was refused, by its place in the chunk, in order.
    """

    encoded: Any
    n_rows: int
    n_written: int
    rejections: dict[int, tuple[Problem, ...]]


@dataclass(frozen=True)
class Work:
    """How a chunk of one file becomes what is written.

    Parameters
    ----------
    parser : makes rows of it.
    encoder : makes of the scored rows what the writer takes.
    columns : makes columns of predictions.
    where : the input, for messages.
    """

    parser: Parser
    encoder: Encoder
    columns: OutputColumns
    where: str

    def score(self, predictor: Predictor, chunk: Any) -> Scored:
        """Score a chunk.

        Raises
        ------
        InputError, ModelFailed
            When the whole chunk cannot be scored.
        """
        rows = self.parser.rows(chunk)
        try:
            good, outputs, rejections = self._predicted(predictor, rows)
        except InvalidRecords as error:  # its columns are wrong
            raise InputError(f"{self.where}: {error}") from error
        scored = self._joined(_picked(rows.kept, good), outputs, predictor.version)
        return Scored(self.encoder.encode(scored), rows.n_rows, len(scored), _in_chunk(rejections, rows))

    def _predicted(self, predictor: Predictor, rows: Rows) -> tuple[Any, Any, dict[int, tuple[Problem, ...]]]:
        """Give the places of the rows that have an answer, None where all have; their answers; and the rejections."""
        if is_table(rows.data):
            outcome = predictor.run_table(rows.data, self.columns)
            return outcome.places if outcome.rejections else None, outcome.outputs, outcome.rejections
        answered = predictor.run(rows.data)
        answers = [answer for answer in answered.predictions if answer is not None]
        if not answered.rejections:
            return None, answers, {}
        places = [place for place, answer in enumerate(answered.predictions) if answer is not None]
        return np.array(places, dtype=np.int64), answers, answered.rejections

    def _joined(self, kept: Any, outputs: Any, version: str) -> Any:
        """Put the outputs beside what is kept."""
        if not is_table(kept):
            taken = {*self.columns.schema.names, MODEL_VERSION}
            return [
                {**self._free(record, taken), **answer, MODEL_VERSION: version}
                for record, answer in zip(kept, outputs, strict=True)
            ]
        table = outputs if is_table(outputs) else self.columns.of_answers(outputs)
        versions = pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), pa.array([version]))
        return pa.table(
            [*kept.columns, *table.columns, versions], names=[*kept.column_names, *table.column_names, MODEL_VERSION]
        )

    def _free(self, record: dict[str, Any], taken: set[str]) -> dict[str, Any]:
        if not taken.isdisjoint(record):
            _check_free(record, sorted(taken), self.where)
        return record


def written_schema(kept: pa.Schema, columns: OutputColumns, where: str) -> pa.Schema:
    """Give the schema of what is written: the columns that are kept, the outputs and the model's version.

    Raises
    ------
    InputError
        When a column is kept that has an output's name.
    """
    outputs = [*(field.with_type(_plain(field.type)) for field in columns.schema), pa.field(MODEL_VERSION, pa.string())]
    _check_free(kept.names, [field.name for field in outputs], where)
    return pa.schema([*kept, *outputs], kept.metadata)


def _check_free(names: Iterable[str], taken: Sequence[str], where: str) -> None:
    both = [name for name in names if name in taken]
    if both:
        raise InputError(
            f"{where}: the column {both[0]} is there, and an output too: name the columns to keep (--keep)"
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _picked(kept: Any, places: Any) -> Any:
    if places is None:
        return kept
    if is_table(kept):
        return kept if len(places) == len(kept) else kept.take(places)
    return [kept[place] for place in places.tolist()]


def _in_chunk(rejections: dict[int, tuple[Problem, ...]], rows: Rows) -> dict[int, tuple[Problem, ...]]:
    """Name rows by their places in the chunk, those among them that could not even be read."""
    if rows.places is not None:
        rejections = {int(rows.places[row]): problems for row, problems in rejections.items()}
    if rows.rejections:
        rejections = rejections | rows.rejections
    return {place: rejections[place] for place in sorted(rejections)}
