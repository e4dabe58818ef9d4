"""The engine of tree ensembles: `trees.bin` walked by the C extension, without onnxruntime.

The extension is built where fairlead is installed, if a C compiler is there. Where it is not,
`kernel` gives None and `model.onnx` serves, with the same answers.

Layer L1; imports numpy only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from fairlead.errors import BundleError
from fairlead.predict.encode import Encoder
from fairlead.predict.forest import Answer, Forest, Link
from fairlead.predict.outputs import Prediction
from fairlead.predict.validate import Row
from fairlead.schema import Scalar, Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from fairlead.predict import _trees

NO_KERNEL = "fairlead was installed without its C extension"


def kernel() -> type[_trees.Forest] | None:
    """Give the extension's forest; None where it was not built, or the machine orders bytes the other way."""
    try:
        from fairlead.predict._trees import Forest as Kernel
    except ImportError:
        return None
    return Kernel if sys.byteorder == "little" else None


class TreesEngine:
    """Runs a forest on one thread; many rows without the interpreter's lock.

    Parameters
    ----------
    forest : what to run.
    schema : the features that reach the model.
    classes : a classifier's labels.

    Raises
    ------
    BundleError
        When a number of the forest points outside of it, or there is no extension.
    """

    def __init__(self, forest: Forest, schema: Schema, classes: Sequence[Scalar] | None) -> None:
        made = kernel()
        if made is None:
            raise BundleError(NO_KERNEL)
        finish = forest.finish
        link, answer = get_args(Link).index(finish.link), get_args(Answer).index(finish.answer)
        labels = None if classes is None else tuple(classes)
        n_values = forest.leaves.shape[1]
        try:
            inner = made(forest.arrays(), n_values, finish.divisor, finish.scale, link, answer, finish.single, labels)
        except ValueError as error:
            raise BundleError(f"trees.bin: {error}: build the bundle again") from error
        if len(forest.sizes) != len(schema.features):
            raise BundleError(f"trees.bin: {len(forest.sizes)} features, the schema has {len(schema.features)}")
        self.encoder = Encoder(schema)
        self._run = inner.run
        self._width = 0 if labels is None else len(labels)

    @property
    def unseen(self) -> dict[str, int]:
        return self.encoder.unseen

    def predict(self, rows: Sequence[Row]) -> Prediction:
        return self.predict_matrix(self.encoder.encode(rows))

    def predict_table(self, table: pa.Table) -> Prediction:
        n_rows = table.num_rows
        if not self._width:
            values = np.empty(n_rows)
            for start, matrix in self.encoder.blocks(table):
                self._run(matrix, values[start : start + len(matrix)])
            return Prediction(values)
        probabilities = np.empty((n_rows, self._width))
        codes = np.empty(n_rows, np.uint32)
        for start, matrix in self.encoder.blocks(table):
            stop = start + len(matrix)
            self._run(matrix, probabilities[start:stop], codes[start:stop])
        return Prediction(codes=codes, probabilities=probabilities)

    def predict_matrix(self, matrix: npt.NDArray[np.float64]) -> Prediction:
        """Predict encoded rows: float64, shape (n_rows, n_features), one row after the other in memory."""
        if not self._width:
            values = np.empty(len(matrix))
            self._run(matrix, values)
            return Prediction(values)
        probabilities = np.empty((len(matrix), self._width))
        return Prediction(self._run(matrix, probabilities) or [], probabilities)
