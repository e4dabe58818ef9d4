"""What the original does to a row before its last step, and which feature each column is made of then.

Layer L3; imports numpy, and what the original is made with comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.bundle.manifest import InputForm
from fairlead.bundle.originals import BoosterModel
from fairlead.predict.encode import Encoder
from fairlead.predict.native import model_input
from fairlead.predict.validate import Row
from fairlead.schema import Feature, Schema

Matrix = Callable[[Sequence[Mapping[str, Any]]], npt.NDArray[np.float64]]

_UNKNOWN_WORD = "\N{ZERO WIDTH SPACE}fairlead"
# Records that are looked at together, of which the matrix may be wide.
_BLOCK = 256


class Preprocessing:
    """The steps of an original before its last one.

    Parameters
    ----------
    schema : the features that reach the model.
    form : how rows are handed to it, see `bundle.manifest.Manifest`.
    steps : have `transform`; the first takes what the model took.
    absent : what the last step takes a number for that a sparse matrix does not hold.
    """

    def __init__(self, schema: Schema, form: InputForm, steps: Sequence[Any], absent: float = 0.0) -> None:
        self._schema = schema
        self._form = form
        self._steps = list(steps)
        self._absent = absent

    def matrix(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        """Make the matrix that the last step takes: float64, shape (n_rows, n_columns).

        Raises
        ------
        Exception
            What a step raises, or numpy for what is no number.
        """
        batch = model_input(rows, self._schema, self._form, Encoder(self._schema))
        for step in self._steps:
            batch = step.transform(batch)
        if not hasattr(batch, "tocoo"):
            return np.asarray(batch, dtype=np.float64)
        held = batch.tocoo()
        found = np.full(held.shape, self._absent)
        found[held.row, held.col] = held.data
        return found

    def column_names(self) -> list[str] | None:
        """Name the columns of the matrix as the steps themselves do; None where one of them has no names."""
        names: Any = np.array(self._schema.names, dtype=object)
        try:
            for step in self._steps:
                names = step.get_feature_names_out(names)
        except Exception:  # scikit-learn's steps raise for other names than theirs, and others have no such method
            return None
        return [str(name) for name in names]


def split(model: Any) -> tuple[list[Any], Any]:
    """Part a model into the steps that transform and the one that predicts, however deep they lie."""
    steps: list[Any] = []
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, BoosterModel):
            return steps, model.inner
        elif getattr(model, "steps", None):
            # What only balances the rows of a training, as imblearn's do, is passed over here, too.
            steps += [step for _, step in model.steps[:-1] if hasattr(step, "transform")]
            model = model.steps[-1][1]
        else:
            return steps, model


def origins(
    matrix: Matrix, records: Sequence[Mapping[str, Any]], schema: Schema, every: Sequence[Mapping[str, Any]] = ()
) -> npt.NDArray[np.int64] | None:
    """Find which feature each column of a matrix is made of, by changing one feature at a time.

    Parameters
    ----------
    matrix : gives the matrix of records; raises for a record that it cannot take.
    records : a few dozen of those to be explained.
    schema : theirs.
    every : all of those; some column may move in a rare one only.

    Returns
    -------
    int64, shape (n_columns,): the place of the feature, -1 for a column that never moved. None when a column is made
    of several features.
    """
    whole = matrix(records)
    first = matrix(records[:1])
    found = np.full(whole.shape[1], -1, dtype=np.int64)
    for place, feature in enumerate(schema.features):
        alone = matrix([{**records[0], feature.name: record.get(feature.name)} for record in records])
        moved = _moves(alone, first)
        for value in _blocks(_other_values(feature, records)):
            moved |= _moved(matrix, [{**records[0], feature.name: one} for one in value], first)
        # With all other features as they are the column has to be what it is with this one alone.
        if (found[moved] >= 0).any() or _differs(alone[:, moved], whole[:, moved]).any():
            return None
        found[moved] = place
    for rare in _blocks(_moving(matrix, every, first, np.flatnonzero(found < 0))):
        more = origins(matrix, [records[0], *rare], schema)
        if more is None or ((more >= 0) & (found >= 0) & (more != found)).any():
            return None
        found = np.maximum(found, more)
    return None if _differs(whole[:, found < 0], first[:, found < 0]).any() else found


def _moved(
    matrix: Matrix, records: Sequence[Mapping[str, Any]], first: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Tell which columns move; records that nobody has seen may be refused, one by one then."""
    try:
        return _moves(matrix(records), first)
    except Exception:  # a step or the user's own code may raise anything for them
        moved = np.zeros(first.shape[1], dtype=bool)
        for record in records if len(records) > 1 else ():
            moved |= _moved(matrix, [record], first)
        return moved


def _moves(many: npt.NDArray[np.float64], first: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.logical_or.reduce(_differs(many, first), axis=0)
    return found


def _differs(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (one != other) & ~(np.isnan(one) & np.isnan(other))
    return found


def _other_values(feature: Feature, records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """List what else is known of a feature than what the records hold."""
    values: list[Any] = [*(feature.categories or ()), *([None] if feature.nullable else [])]
    if feature.type == "bool":
        values += [False, True]
    elif feature.type == "string":
        values.append(_UNKNOWN_WORD)
    elif feature.type in ("int", "float"):
        kind = int if feature.type == "int" else float
        known = [
            value for value in (records[0].get(feature.name), feature.minimum, feature.maximum) if value is not None
        ]
        values += [kind(value) for value in (0, *known, *(value + 1 for value in known))]
    return values


def _moving(
    matrix: Matrix,
    records: Sequence[Mapping[str, Any]],
    first: npt.NDArray[np.float64],
    columns: npt.NDArray[np.int64],
) -> list[Mapping[str, Any]]:
    """Choose for each of some columns a record that moves it, if there is one."""
    found = []
    for block in _blocks(records):
        if not len(columns):
            break
        differs = _differs(matrix(block)[:, columns], first[:, columns])
        moved = differs.any(axis=0)
        found += [block[place] for place in np.unique(differs[:, moved].argmax(axis=0)).tolist()]
        columns = columns[~moved]
    return found


def _blocks(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK)]
