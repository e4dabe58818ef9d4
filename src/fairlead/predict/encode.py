"""Before the engine: rows become the float64 matrix that a compiled model takes.

A column a feature: numbers and bools as they are, a string as its place in the feature's categories,
null as NaN, an unseen string as -1.

Layer L1; imports numpy only, and pyarrow when handed a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
# A table is encoded in blocks of so many: what a block needs stays in the nearest caches.
BLOCK_ROWS = 8192


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

    def blocks(self, table: pa.Table) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """Make the matrix of an Arrow table whose columns are the schema's, in its order: block by block.

        Yields
        ------
        Where each block begins, and its matrix, which the next one overwrites. At least one block.
        """
        matrix = np.empty((min(table.num_rows, BLOCK_ROWS), self._width))
        for start in range(0, table.num_rows or 1, BLOCK_ROWS):
            block = table.slice(start, BLOCK_ROWS)
            yield start, self._fill(matrix[: block.num_rows], block)

    def _fill(self, matrix: npt.NDArray[np.float64], table: pa.Table) -> npt.NDArray[np.float64]:
        import pyarrow as pa

        for i, column in enumerate(table.columns):
            codes = self._codes.get(i)
            if codes is not None and codes.is_text:
                start = 0
                for chunk in column.chunks:
                    matrix[start : start + len(chunk), i] = _text_codes(chunk, codes)
                    start += len(chunk)
                continue
            matrix[:, i] = column.cast(pa.float64(), safe=False).to_numpy()
            if codes is not None:
                known = np.fromiter(codes.values(), np.float64)
                codes.unseen += int(np.count_nonzero(~np.isin(matrix[:, i], known) & ~np.isnan(matrix[:, i])))
        return matrix


def _text_codes(column: pa.Array, codes: Codes) -> npt.NDArray[np.float64]:
    """Look each word up once, however often it stands in the column."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = column.dictionary.to_pylist()
    # One place more, at the end, for null.
    code_of = np.array([codes.get(word, UNSEEN) for word in words] + [math.nan])
    # An index of one byte may have no room for that place.
    places = column.indices.cast(pa.int32()).fill_null(len(words))
    found: npt.NDArray[np.float64] = code_of[places.to_numpy()]
    codes.unseen += int(np.count_nonzero(found == UNSEEN))
    return found
