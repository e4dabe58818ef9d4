"""What a source gives becomes a row of the schema, and an index becomes text.

Layer L3; imports msgspec and numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from fairlead.errors import DashboardError
from fairlead.predict.validate import Validated, Validator
from fairlead.schema import Feature, Problem, Schema

TOLD = 3


class RowMaker:
    """Makes rows of what a source gives, whose names are the features' or those of the model's training.

    Parameters
    ----------
    schema : what a row has to be like.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._validator = Validator(schema)

    def record(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Make one row, by the schema's names: numbers, text, null, datetimes as RFC 3339.

        Raises
        ------
        DashboardError
            When the schema refuses it: names every problem, but no value.
        """
        checked = self.check([values])
        if checked.rejections:
            told = "; ".join(str(problem.alone()) for problem in checked.rejections[0])
            raise DashboardError(f"{where}: a row that does not fit the model: {told}: mend it")
        return json_record(self._schema.names, checked.rows[0])

    def check(self, rows: Sequence[Mapping[str, Any]]) -> Validated:
        """Check many rows; never raises for what is in them."""
        return self._validator.check([self._picked(values) for values in rows])

    def _picked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        record = {}
        for feature in self._schema.features:
            for name in (feature.name, feature.source):
                if name in values:
                    record[feature.name] = _fitting(plain(values[name]), feature)
                    break
        return record


def json_record(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Make a record that JSON can hold: a datetime is text (RFC 3339)."""
    return dict(zip(names, msgspec.to_builtins(values), strict=True))


def check_columns(columns: Sequence[str], schema: Schema, where: str) -> None:
    """See that a source has a column for each feature that needs one.

    Raises
    ------
    DashboardError
        Names those that are not there.
    """
    missing = [
        feature.name
        for feature in schema.features
        if feature.default is UNSET and feature.name not in columns and feature.source not in columns
    ]
    if missing:
        more = f" and {len(missing) - TOLD} more" if len(missing) > TOLD else ""
        raise DashboardError(
            f"{where}: expected a column for each feature, got none for {', '.join(missing[:TOLD])}{more}; "
            f"it has {', '.join(columns)}: add what is missing"
        )


def refusal(where: str, n_refused: int, n_rows: int, problems: Sequence[Problem]) -> DashboardError:
    """Say how many rows the schema refuses, and what is wrong with the first ones."""
    told = "; ".join(map(str, problems[:TOLD]))
    return DashboardError(
        f"{where}: {n_refused:,} of {n_rows:,} rows do not fit the model: {told}: mend them or leave them out"
    )


def index_text(value: Any) -> str | None:
    """Give an index as text, as it is asked for: 7 is ``7``, 7.0 ``7.0``, true ``true``; None when it is missing.

    >>> index_text("007"), index_text(7), index_text(7.0), index_text(float("nan"))
    ('007', '7', '7.0', None)
    """
    value = plain(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):  # maybe pandas's own, of nanoseconds
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def outcome(value: Any) -> Any:
    """Give what was observed as a number, a truth or text; None for all that means missing."""
    value = plain(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return float(value) if isinstance(value, Decimal) else str(value)


def plain(value: Any) -> Any:
    """Give what a value of numpy or pandas stands for; None for all that means missing."""
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]")
    if isinstance(value, np.generic):
        value = value.item()
    # pandas's names for a missing time and for any missing value, which nothing but their type tells.
    if type(value).__name__ in ("NaTType", "NAType") or (isinstance(value, (float, Decimal)) and math.isnan(value)):
        return None
    return value


def _fitting(value: Any, feature: Feature) -> Any:
    """Bring a value to a feature's type where nothing is lost by it; the schema refuses what is still another."""
    if feature.type == "int" and isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        return int(value)  # what pandas makes of integers with nulls, and a database of `numeric`
    if feature.type == "float" and isinstance(value, Decimal):
        return float(value)
    if feature.type == "datetime" and isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)
    return value
