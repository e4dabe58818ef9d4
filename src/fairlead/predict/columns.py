"""Last step of a prediction over a table: what the engine gives becomes a column an output.

The counterpart of `outputs` for many rows at once. Layer L1; imports pyarrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from fairlead.bundle.manifest import Manifest
from fairlead.errors import ModelFailed
from fairlead.predict.outputs import COMPARE, Prediction, label_text, plain
from fairlead.schema import Output


class OutputColumns:
    """Makes one Arrow column an output.

    Parameters
    ----------
    manifest : of the bundle, whose outputs were checked when its predictor was made.
    example : an answer of the bundle, as a dict; it tells the types of what a function answers.

    Attributes
    ----------
    schema : names and types of the columns: a label is of the classes' type (text as a dictionary), a probability
        and a number float64, a comparison bool, probabilities a struct with a field a class. What a function answers
        is JSON where Arrow has no type for it.
    """

    def __init__(self, manifest: Manifest, example: dict[str, Any] | None = None) -> None:
        self._outputs = manifest.outputs
        classes = manifest.classes
        self._labels = None if classes is None else pa.array(list(classes))
        self._names = [label_text(label) for label in classes or ()]
        self._example = example or {}
        self._as_json: set[str] = set()
        self.schema = pa.schema([(output.name, self._type(output)) for output in self._outputs])

    def of_prediction(self, prediction: Prediction) -> pa.Table:
        """Make the columns of what an engine gave.

        Raises
        ------
        ModelFailed
            When a function's answers are of another type than the example's.
        """
        columns = [
            self._column(output, field.type, prediction)
            for output, field in zip(self._outputs, self.schema, strict=True)
        ]
        return pa.table(columns, schema=self.schema)

    def of_answers(self, answers: Sequence[dict[str, Any]]) -> pa.Table:
        """Make the columns of answers row by row, as `Predictor.run` gives them."""
        return pa.table(
            [self._array([answer[field.name] for answer in answers], field) for field in self.schema],
            schema=self.schema,
        )

    def _type(self, output: Output) -> pa.DataType:
        if output.comparison is not None:
            return pa.bool_()
        if output.source == "probabilities":
            return pa.struct([(name, pa.float64()) for name in self._names])
        if output.source == "probability":
            return pa.float64()
        if self._labels is not None:
            kind = self._labels.type
            return pa.dictionary(pa.int32(), kind) if pa.types.is_string(kind) else kind
        if output.name in self._example:
            return self._type_of_answer(output.name)
        return pa.float64()

    def _type_of_answer(self, name: str) -> pa.DataType:
        try:
            kind = pa.array([self._example[name]]).type
        except pa.ArrowInvalid:  # a list of several types
            self._as_json.add(name)
            return pa.string()
        return pa.float64() if pa.types.is_integer(kind) else kind

    def _column(self, output: Output, kind: pa.DataType, prediction: Prediction) -> pa.Array:
        if output.source == "prediction" and output.comparison is None:
            return self._values(output.name, kind, prediction)
        if output.source == "probabilities":
            assert prediction.probabilities is not None, "checked when the outputs were declared"
            return pa.StructArray.from_arrays(
                [pa.array(np.ascontiguousarray(column)) for column in prediction.probabilities.T], self._names
            )
        numbers = self._numbers(output, prediction)
        return pa.array(numbers if output.comparison is None else COMPARE[output.comparison](numbers, output.threshold))

    def _values(self, name: str, kind: pa.DataType, prediction: Prediction) -> pa.Array:
        if prediction.codes is None:
            values = plain(prediction.values)
            return pa.array(values) if isinstance(values, np.ndarray) else self._array(values, pa.field(name, kind))
        codes = pa.array(prediction.codes.astype(np.int32))
        labels = pa.DictionaryArray.from_arrays(codes, self._labels)
        return labels if pa.types.is_dictionary(kind) else labels.dictionary_decode()

    def _numbers(self, output: Output, prediction: Prediction) -> Any:
        if output.source == "prediction":
            values = self._values(output.name, pa.float64(), prediction)
            return np.asarray(values.cast(pa.float64()))
        assert prediction.probabilities is not None, "checked when the outputs were declared"
        if output.label is None:
            return prediction.probabilities.max(axis=1)
        return np.ascontiguousarray(prediction.probabilities[:, self._names.index(output.label)])

    def _array(self, values: Sequence[Any], field: pa.Field) -> pa.Array:
        if field.name in self._as_json:
            values = [msgspec.json.encode(value).decode() for value in values]
        try:
            return pa.array(values, field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ModelFailed(f"output {field.name}: expected {field.type}, as before, got something else") from error
