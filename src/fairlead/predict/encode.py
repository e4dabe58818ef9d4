"""Second step of a prediction: rows become the float64 matrix that a compiled model takes.

A column a feature: numbers and bools as they are, a string as its place in the feature's categories,
null as NaN, an unseen string as -1.

Layer L1; imports numpy only, and pyarrow when handed a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.predict.validate import Row
from fairlead.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

UNSEEN = -1.0
# Below this many rows one small list is cheaper than a pass over each column.
_FEW_ROWS = 8


class Codes(dict[Any, float]):
    """A feature's categories by their code; what is not among them is counted and becomes -1."""

    unseen = 0

    def __missing__(self, value: object) -> float:
        self.unseen += 1
        return UNSEEN


class Encoder:
    """Encodes rows of a schema.

    Parameters
    ----------
    schema : the features that reach the model.
    """

    def __init__(self, schema: Schema) -> None:
        self._width = len(schema.features)
        self._names = schema.names
        self._codes = {
            i: Codes({value: float(code) for code, value in enumerate(feature.categories or ())} | {None: math.nan})
            for i, feature in enumerate(schema.features)
            if feature.type == "string"
        }

    @property
    def unseen(self) -> dict[str, int]:
        """How often a value outside the categories came, by feature."""
        return {self._names[i]: codes.unseen for i, codes in self._codes.items() if codes.unseen}

    def encode(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        """Make the matrix of `rows`: float64, shape (n_rows, n_features)."""
        if len(rows) > _FEW_ROWS:
            return self._encode_columns(rows)
        lists = [list(row) for row in rows]
        for i, codes in self._codes.items():
            for row in lists:
                row[i] = codes[row[i]]
        return np.array(lists, dtype=np.float64).reshape(len(rows), self._width)

    def _encode_columns(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        matrix = np.empty((len(rows), self._width))
        for i, column in enumerate(zip(*rows, strict=True)):
            codes = self._codes.get(i)
            matrix[:, i] = column if codes is None else [codes[value] for value in column]
        return matrix

    def encode_table(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """Make the matrix of an Arrow table whose columns are the schema's, in its order."""
        import pyarrow as pa

        matrix = np.empty((table.num_rows, self._width))
        for i, column in enumerate(table.columns):
            codes = self._codes.get(i)
            if codes is None:
                matrix[:, i] = column.cast(pa.float64(), safe=False).to_numpy()
                continue
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
            code_of = np.array([codes.get(value, UNSEEN) for value in encoded.dictionary.to_pylist()], dtype=np.float64)
            matrix[:, i] = code_of[encoded.indices.to_numpy()] if len(code_of) else math.nan
            codes.unseen += int(np.count_nonzero(matrix[:, i] == UNSEEN))
        return matrix
