"""`Predictor`: validate → prepare → encode → run → outputs, over one open bundle.

Layer L1. Every mode calls `Predictor.run` and nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.bundle.manifest import Manifest
from fairlead.bundle.read import MODEL, Bundle, open_bundle
from fairlead.errors import InvalidRecords, ModelFailed
from fairlead.predict.encode import BLOCK_ROWS
from fairlead.predict.engines import Engine, OnnxEngine
from fairlead.predict.forest import TREES, decode_forest
from fairlead.predict.intake import Counts, Intake
from fairlead.predict.native import NativeEngine
from fairlead.predict.outputs import OutputFormatter, Prediction
from fairlead.predict.prepare import Preparation
from fairlead.predict.tables import checked_table, is_table
from fairlead.predict.trees import TreesEngine, kernel
from fairlead.predict.validate import Row, Validated
from fairlead.schema import Problem, Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from fairlead.predict.columns import OutputColumns

Answer = dict[str, Any]
Answers = tuple[list[Answer | None], dict[int, tuple[Problem, ...]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch of records.

    Parameters
    ----------
    predictions : one for each record in input order; None where the record was rejected.
    rejections : every problem of every rejected record, by its place.
    name, version, digest : of the bundle that answered.
    duration_ns : of the whole run, in nanoseconds.
    """

    predictions: list[Answer | None]
    rejections: dict[int, tuple[Problem, ...]]
    name: str
    version: str
    digest: str
    duration_ns: int


@dataclass(frozen=True, slots=True)
class TableOutcome:
    """What became of a table, column by column.

    Parameters
    ----------
    outputs : a column an output, see `columns.OutputColumns`; a row for each that was not rejected, in input order.
    places : int64, where each row of `outputs` stood in the input.
    rejections : every problem of every rejected row, by its place.
    """

    outputs: pa.Table
    places: npt.NDArray[np.int64]
    rejections: dict[int, tuple[Problem, ...]]


class Predictor:
    """Predicts with one bundle. Threads may share it.

    Parameters
    ----------
    manifest : of the bundle.
    digest : the bundle's own SHA-256.
    engine : computes; takes rows of the manifest's model schema.
    preparation : the user's step before the model, when there is one.
    intake : checks its records, where there is one already.
    """

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        engine: Engine,
        preparation: Preparation | None = None,
        intake: Intake | None = None,
    ) -> None:
        self.intake = intake or Intake(manifest, digest)
        self.manifest = manifest
        self.digest = digest
        self.name = manifest.name
        self.version = manifest.version
        self.schema: Schema = manifest.schema
        self.engine = engine
        self.counts: Counts = self.intake.counts
        self._preparation = preparation
        self._formatter = OutputFormatter(manifest.outputs, manifest.classes, manifest.has_probabilities)

    def run(self, records: Sequence[object] | pa.Table) -> Outcome:
        """Predict decoded records, or an Arrow table.

        Parameters
        ----------
        records : objects as decoded from JSON, one a row; a table has a column a feature, by `name` or
            by the `column` it was trained with, others are ignored.

        Returns
        -------
        An `Outcome`; a bad record is rejected there and spoils no other.

        Raises
        ------
        InvalidRecords
            When a table lacks a column or has one of another type.
        ModelFailed
            When the user's own model or code raises.
        """
        start = perf_counter_ns()
        if is_table(records):
            predictions, rejections = self._run_table(records)
        else:
            predictions, rejections = self._run_records(records)
        self.counts.rows += len(predictions) - len(rejections)
        self.counts.rejected += len(rejections)
        return Outcome(predictions, rejections, self.name, self.version, self.digest, perf_counter_ns() - start)

    def run_table(self, table: pa.Table, columns: OutputColumns) -> TableOutcome:
        """Predict an Arrow table, and answer in columns: for many rows, of which none becomes a Python object.

        Parameters
        ----------
        table : as for `run`.
        columns : of this predictor's bundle.

        Raises
        ------
        InvalidRecords, ModelFailed
            As `run`.
        """
        checked = checked_table(table, self.schema)
        self.counts.ignored_keys += checked.ignored_keys
        places, rejections = checked.places, checked.rejections
        late: dict[int, tuple[Problem, ...]] = {}
        if not len(places):
            outputs = columns.schema.empty_table()
        elif self._preparation is not None:
            answers, late = self._prepared(checked.table)
            outputs = columns.of_answers([answer for answer in answers if answer is not None])
        else:
            prediction = self._predicted(checked.table)
            outputs = columns.of_prediction(prediction)
            late = {row: (_not_finite(row),) for row in prediction.not_finite()}
            if late:
                outputs = outputs.take(np.delete(np.arange(len(places)), list(late)))
        if late:
            rejections = rejections | {
                place: tuple(problem.moved(place) for problem in late[row])
                for row, place in ((row, int(places[row])) for row in late)
            }
            places = np.delete(places, list(late))
        self.counts.rows += len(places)
        self.counts.rejected += len(rejections)
        return TableOutcome(outputs, places, rejections)

    def raw_prediction(self, table: pa.Table) -> Prediction:
        """Predict an Arrow table, and give what the model does: every probability, whatever outputs are declared.

        Raises
        ------
        InvalidRecords
            When one row or more is refused, or gives no finite number.
        ModelFailed
            As `run`.
        """
        if self._preparation is None:
            checked = checked_table(table, self.schema)
            _raise_for(checked.rejections)
            prediction = self._predicted(checked.table)
        else:
            prediction = self.engine.predict(self.model_rows(table))
        _raise_for({row: (_not_finite(row),) for row in prediction.not_finite()})
        return prediction

    def model_rows(self, table: pa.Table) -> list[Row]:
        """Give what reaches the model of an Arrow table: rows of the manifest's model schema.

        Raises
        ------
        InvalidRecords, ModelFailed
            As `raw_prediction`.
        """
        checked = checked_table(table, self.schema)
        _raise_for(checked.rejections)
        rows = _rows(checked.table)
        if self._preparation is None:
            return rows
        after = self._preparation.run(rows)
        _raise_for(after.rejections)
        return after.rows

    def predict(self, data: Any, on_progress: Callable[[int, int], object] | None = None) -> Any:
        """Predict a pandas frame, a list of records or one record, and raise for what is refused.

        Parameters
        ----------
        on_progress : called with the rows that are done and the number of all, now and then.

        Returns
        -------
        For a frame, a frame of the outputs with the same index; for a list, a list of dicts; for one
        record, one dict.

        Raises
        ------
        InvalidRecords
            With every problem of every record.
        """
        from fairlead.predict.frames import predict_data

        return predict_data(self, data, on_progress)

    def answer(self, rows: Sequence[Row]) -> Answers:
        """Predict rows that `Intake.check` or `Intake.read` gave.

        Returns
        -------
        A prediction for each row, None where it has none; and why, by place: the user's own step
        refused it, or the model gave no finite number.

        Raises
        ------
        ModelFailed
            When the user's own model or code raises.
        """
        if self._preparation is None:
            return self._answers(self.engine.predict(rows), range(len(rows)), {}, len(rows))
        after = self._preparation.run(rows)
        if not after.rows:
            return [None] * len(rows), after.rejections
        return self._answers(self.engine.predict(after.rows), after.places, dict(after.rejections), len(rows))

    def _run_records(self, records: Sequence[object]) -> Answers:
        return self._run_rows(self.intake.check(records), len(records))

    def _run_rows(self, checked: Validated, n_records: int) -> Answers:
        rejections = checked.rejections
        if not checked.rows:
            return [None] * n_records, rejections
        answers, late = self.answer(checked.rows)
        if not rejections and not late:
            return answers, rejections
        predictions: list[Answer | None] = [None] * n_records
        for place, answer in zip(checked.places, answers, strict=True):
            predictions[place] = answer
        moved = {
            checked.places[row]: tuple(problem.moved(checked.places[row]) for problem in problems)
            for row, problems in late.items()
        }
        return predictions, rejections | moved

    def _answers(
        self,
        prediction: Prediction,
        places: Sequence[int],
        rejections: dict[int, tuple[Problem, ...]],
        n_records: int,
    ) -> Answers:
        """Put the answers of the rows at `places` in input order, without those that are no numbers."""
        answers = self._formatter.rows(prediction)
        if len(answers) != len(places):
            raise ModelFailed(f"the model gave {len(answers)} predictions for {len(places)} rows")
        odd = prediction.not_finite()
        if not rejections and not odd:
            return answers, rejections  # type: ignore[return-value]  # list is invariant
        predictions: list[Answer | None] = [None] * n_records
        for place, answer in zip(places, answers, strict=True):
            predictions[place] = answer
        for place in [places[row] for row in odd]:
            predictions[place] = None
            rejections[place] = (_not_finite(place),)
        return predictions, rejections

    def _run_table(self, table: pa.Table) -> Answers:
        checked = checked_table(table, self.schema)
        self.counts.ignored_keys += checked.ignored_keys
        if self._preparation is not None:
            rows = _rows(checked.table)
            return self._run_rows(Validated(rows, checked.places.tolist(), checked.rejections), table.num_rows)
        if not checked.table.num_rows:
            return [None] * table.num_rows, checked.rejections
        prediction = self._predicted(checked.table)
        return self._answers(prediction, checked.places.tolist(), checked.rejections, table.num_rows)

    def _prepared(self, table: pa.Table) -> Answers:
        """Answer rows of a table by way of the user's own step: in blocks, whose rows are Python objects."""
        answers: list[Answer | None] = []
        rejections: dict[int, tuple[Problem, ...]] = {}
        for start in range(0, table.num_rows, BLOCK_ROWS):
            found, late = self.answer(_rows(table.slice(start, BLOCK_ROWS)))
            answers += found
            rejections |= {start + row: problems for row, problems in late.items()}
        return answers, rejections

    def _predicted(self, table: pa.Table) -> Prediction:
        prediction = self.engine.predict_table(table)
        given = prediction.values if prediction.codes is None else prediction.codes
        if len(given) != table.num_rows:
            raise ModelFailed(f"the model gave {len(given)} predictions for {table.num_rows} rows")
        return prediction


def _rows(table: pa.Table) -> list[Row]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _raise_for(rejections: dict[int, tuple[Problem, ...]]) -> None:
    if rejections:
        raise InvalidRecords([problem for found in rejections.values() for problem in found])


def _not_finite(place: int) -> Problem:
    return Problem(f"$[{place}]", "features for which the model gives a finite number", "others")


def predictor_of(bundle: Bundle, intake: Intake | None = None) -> Predictor:
    """Make the predictor of an open, verified bundle.

    Parameters
    ----------
    intake : of the same bundle, where there is one already.
    """
    return Predictor(bundle.manifest, bundle.digest, _engine(bundle), _preparation(bundle), intake)


def load(path: str | Path) -> Predictor:
    """Open a bundle, verify every byte of it, and make its predictor.

    Raises
    ------
    BundleError
        When it is no bundle or was changed.
    MissingExtra
        When its engine needs a library that is not installed.
    """
    return predictor_of(open_bundle(Path(path)))


def _engine(bundle: Bundle) -> Engine:
    manifest = bundle.manifest
    if manifest.engine == "onnx":
        if TREES in manifest.files and kernel() is not None:
            forest = decode_forest(bundle.read(TREES), str(bundle.path / TREES))
            if forest is not None:
                return TreesEngine(forest, manifest.model_schema, manifest.classes)
        return OnnxEngine(bundle.read(MODEL), manifest.model_schema, manifest.classes)
    from fairlead.bundle.originals import load_original

    return NativeEngine(
        load_original(bundle),
        manifest.kind,
        manifest.model_schema,
        manifest.input_form,
        manifest.has_probabilities,
        manifest.shortcut,
    )


def _preparation(bundle: Bundle) -> Preparation | None:
    manifest = bundle.manifest
    if manifest.code is None:
        return None
    from fairlead.bundle.user_code import load_module

    name = manifest.code.removesuffix(".py")
    module = load_module(bundle.read(f"code/{manifest.code}"), name)
    return Preparation(module, manifest.schema, manifest.model_schema)
