"""The user's own step between the request and the model: `prepare` or `prepare_frame` of ``--code``.

It sees records that passed the bundle's schema, and what it gives is checked against the model's own,
so that a slip in it is told by name and not turned into a plausible number.

Layer L1; imports pandas only for `prepare_frame`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from fairlead.errors import ModelFailed, SchemaError
from fairlead.predict.training_frame import to_frame
from fairlead.predict.validate import Row, Validated, Validator
from fairlead.schema import Problem, Schema


class Preparation:
    """Runs the user's module over rows.

    Parameters
    ----------
    module : defines `prepare(record) -> record` or `prepare_frame(frame) -> frame`.
    schema : of the rows that come in.
    prepared : of the records that go on to the model.

    Raises
    ------
    SchemaError
        When the module defines neither.
    """

    def __init__(self, module: ModuleType, schema: Schema, prepared: Schema) -> None:
        self._one: Callable[[dict[str, Any]], object] | None = getattr(module, "prepare", None)
        self._all: Callable[[Any], Any] | None = getattr(module, "prepare_frame", None)
        if self._one is None and self._all is None:
            raise SchemaError(f"{module.__name__}: expected a function prepare(record) or prepare_frame(frame)")
        self._schema = schema
        self._validator = Validator(prepared)

    def run(self, rows: Sequence[Row]) -> Validated:
        """Prepare rows; one that cannot be prepared is rejected and spoils no other.

        Raises
        ------
        ModelFailed
            When `prepare_frame` raises, or loses or adds rows.
        """
        if self._one is None:
            return self._after(self._validator.check(self._frame_records(rows)))
        records: list[object] = []
        failures: dict[int, Problem] = {}
        for place, row in enumerate(rows):
            try:
                records.append(self._one(dict(zip(self._schema.names, row, strict=True))))
            except Exception as error:  # the user's code may raise anything; it is told to the client by type
                records.append(None)
                failures[place] = Problem(f"$[{place}]", "a record that prepare() accepts", type(error).__name__)
        checked = self._after(self._validator.check(records))
        checked.rejections.update({place: (problem,) for place, problem in failures.items()})
        return checked

    def _frame_records(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        assert self._all is not None
        try:
            frame = self._all(to_frame(rows, self._schema))
            if sorted(frame.index) == list(range(len(rows))):
                frame = frame.sort_index()  # it may have been sorted or grouped on the way
            records: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
        except Exception as error:
            raise ModelFailed(f"prepare_frame raised {type(error).__name__}: {error}") from error
        if len(records) != len(rows):
            raise ModelFailed(f"prepare_frame: expected {len(rows)} rows back, got {len(records)}")
        return records

    def _after(self, checked: Validated) -> Validated:
        for place, problems in checked.rejections.items():
            checked.rejections[place] = tuple(
                Problem(problem.path, f"{problem.expected} from prepare", problem.got) for problem in problems
            )
        return checked
