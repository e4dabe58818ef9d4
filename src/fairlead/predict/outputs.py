"""Last step of a prediction: what the engine gives becomes the declared outputs.

Layer L1; imports numpy and msgspec only.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from fairlead.errors import ModelFailed, SchemaError
from fairlead.schema import Kind, Output, Scalar

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


@dataclass(slots=True)
class Prediction:
    """What an engine gives for a batch. Not frozen: to make it is a part of every request.

    Parameters
    ----------
    values : a regressor's float64, shape (n_rows,); a classifier's labels or a function's answers, as a list.
    probabilities : float64, shape (n_rows, n_classes); None when the model has none.
    codes : integers, shape (n_rows,): in place of `values`, where each label stands among the classes.
    """

    values: npt.NDArray[np.float64] | list[Any] = ()  # type: ignore[assignment]  # nobody looks where there are codes
    probabilities: npt.NDArray[np.float64] | None = None
    codes: npt.NDArray[np.integer[Any]] | None = None

    def not_finite(self) -> list[int]:
        """Find the rows whose numbers are NaN or infinite, which JSON cannot hold and nobody can use."""
        numbers = self.values if self.probabilities is None else self.probabilities
        # The sum is finite unless one of them is not, or they are huge; one look for the common case.
        if not isinstance(numbers, np.ndarray) or math.isfinite(numbers.sum()):
            return []
        finite = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
        return [int(row) for row in np.flatnonzero(~finite)]


class OutputFormatter:
    """Makes one dict a row of a `Prediction`.

    Parameters
    ----------
    outputs : the declared outputs, in the order of the answer's keys.
    classes : labels in the order of the probabilities; None unless a classifier.

    Raises
    ------
    SchemaError
        When an output asks for a label or a probability that the model does not give.
    """

    def __init__(self, outputs: Sequence[Output], classes: Sequence[Scalar] | None, has_probabilities: bool) -> None:
        self._has_text_labels = any(isinstance(label, str) for label in classes or ())
        self._classes = list(classes or ())
        self._labels = [label_text(label) for label in self._classes]
        self._names = tuple(output.name for output in outputs)
        if len(set(self._names)) != len(self._names):
            raise SchemaError(f"outputs: a name is declared twice among {', '.join(self._names)}")
        for output in outputs:
            self._check(output, has_probabilities)
        self._columns = [self._column_maker(output) for output in outputs]

    def rows(self, prediction: Prediction) -> list[dict[str, Any]]:
        """Make the answers, in the order of the batch."""
        names = self._names
        columns = [make(prediction) for make in self._columns]
        return [dict(zip(names, row)) for row in zip(*columns)]  # noqa: B905 -- `strict` costs as much as the rest

    def _check(self, output: Output, has_probabilities: bool) -> None:
        if output.source == "prediction" and output.comparison is not None and self._has_text_labels:
            raise SchemaError(
                f"output {output.name}: the classes {', '.join(self._labels)} are no numbers to compare: "
                "compare a probability:LABEL"
            )
        if output.source != "prediction" and not has_probabilities:
            raise SchemaError(f"output {output.name}: this model gives no probabilities, only `prediction`")
        if output.label is not None and output.label not in self._labels:
            raise SchemaError(f"output {output.name}: no class {output.label}; known are {', '.join(self._labels)}")

    def _column_maker(self, output: Output) -> Callable[[Prediction], list[Any]]:
        source = self._source(output)
        if output.comparison is None:
            return source if self._gives_list(output) else lambda prediction: _to_list(source(prediction))
        compare, threshold = COMPARE[output.comparison], output.threshold
        return lambda prediction: _to_list(compare(_numbers(source(prediction), output.name), threshold))

    def _label_list(self, prediction: Prediction) -> list[Any]:
        if prediction.codes is None:
            return prediction.values  # type: ignore[return-value]  # of a classifier it is a list
        return [self._classes[code] for code in prediction.codes.tolist()]

    def _gives_list(self, output: Output) -> bool:
        return output.source == "probabilities" or (output.source == "prediction" and bool(self._labels))

    def _source(self, output: Output) -> Callable[[Prediction], Any]:
        if output.source == "prediction":
            return self._label_list if self._labels else (lambda prediction: plain(prediction.values))
        if output.source == "probabilities":
            labels = self._labels
            return lambda prediction: [
                dict(zip(labels, row))  # noqa: B905 -- as above
                for row in _probabilities(prediction).tolist()
            ]
        if output.label is None:
            return lambda prediction: _probabilities(prediction).max(axis=1)
        place = self._labels.index(output.label)
        return lambda prediction: _probabilities(prediction)[:, place]


def default_outputs(kind: Kind, has_probabilities: bool) -> tuple[Output, ...]:
    """What a model answers when nobody declared anything."""
    outputs = [Output(name="prediction", source="prediction")]
    if kind == "classifier" and has_probabilities:
        outputs.append(Output(name="probabilities", source="probabilities"))
    return tuple(outputs)


def label_text(label: Scalar) -> str:
    """Write a class label as a key of JSON and as it is named in an output.

    >>> label_text(True), label_text(1), label_text("yes")
    ('true', '1', 'yes')
    """
    return str(label).lower() if isinstance(label, bool) else str(label)


def _probabilities(prediction: Prediction) -> npt.NDArray[np.float64]:
    assert prediction.probabilities is not None, "checked when the outputs were declared"
    return prediction.probabilities


def _to_list(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def plain(values: Any) -> Any:
    """Make of a function's answers what JSON can hold: they may be numpy's, or hold such."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return msgspec.to_builtins(values, str_keys=True, enc_hook=_plain_numpy)
    except (TypeError, RecursionError) as error:
        raise ModelFailed(f"the model's answer is not JSON: {error}") from error


def _plain_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"it holds a {type(value).__name__}")


def _numbers(values: Any, name: str) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64).reshape(len(values))
    except (TypeError, ValueError) as error:
        raise ModelFailed(f"output {name}: the model's answer is no number to compare") from error
