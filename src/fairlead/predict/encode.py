"""Before the engine: rows become the float64 matrix that a compiled model takes.

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
from fairlead.schema import Feature, Schema

if TYPE_CHECKING:
    import pyarrow as pa

UNSEEN = -1.0
# Below this many rows one small list is cheaper than a pass over each column.
_FEW_ROWS = 8


class Codes(dict[Any, float]):
    """What each known category is in the matrix; one that is not known is counted.

    Parameters
    ----------
    feature : a string's code is its place among the categories; a number or bool stands for itself.
    """

    def __init__(self, feature: Feature) -> None:
        self.is_text = feature.type == "string"
        categories = feature.categories or ()
        codes = {value: float(code if self.is_text else value) for code, value in enumerate(categories)}
        super().__init__(codes | {None: math.nan})
        self.unseen = 0

    def __missing__(self, value: Any) -> float:
        self.unseen += 1
        return UNSEEN if self.is_text else float(value)


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
            i: Codes(feature)
            for i, feature in enumerate(schema.features)
            if feature.type == "string" or feature.categories is not None
        }

    @property
    def unseen(self) -> dict[str, int]:
        """How often a value outside the categories came, by feature."""
        # Free text has no known values, and every code list holds null.
        return {self._names[i]: codes.unseen for i, codes in self._codes.items() if codes.unseen and len(codes) > 1}

    def encode(self, rows: Sequence[Row]) -> npt.NDArray[np.float64]:
        """Make the matrix of `rows`: float64, shape (n_rows, n_features)."""
        if len(rows) > _FEW_ROWS:
            return self._encode_columns(rows)
        lists = [list(row) for row in rows]
        for i, codes in self._codes.items():
            for row in lists:
                row[i] = codes[row[i]]
        return np.array(lists, dtype=np.float64).reshape(len(rows), self._width)

    def count_unseen(self, rows: Sequence[Row]) -> None:
        """Count what `rows` hold outside the categories, for an engine that encodes for itself."""
        for i, codes in self._codes.items():
            for row in rows:
                codes[row[i]]

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
            if codes is not None and codes.is_text:
                matrix[:, i] = _text_codes(column, codes)
                continue
            matrix[:, i] = column.cast(pa.float64(), safe=False).to_numpy()
            if codes is not None:
                known = np.fromiter(codes.values(), np.float64)
                codes.unseen += int(np.count_nonzero(~np.isin(matrix[:, i], known) & ~np.isnan(matrix[:, i])))
        return matrix


def _text_codes(column: pa.ChunkedArray, codes: Codes) -> npt.NDArray[np.float64]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    code_of = np.array([codes.get(value, UNSEEN) for value in encoded.dictionary.to_pylist()], dtype=np.float64)
    found = code_of[encoded.indices.to_numpy()] if len(code_of) else np.full(len(column), math.nan)
    codes.unseen += int(np.count_nonzero(found == UNSEEN))
    return found
